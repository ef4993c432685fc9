"""A mount in the kernel's mount table: source, type and options."""

from __future__ import annotations

import subprocess

import pytest

from tests.support import Daemon, requires

pytestmark = requires("mounting")

ALWAYS = {"ro", "nosuid", "nodev", "default_permissions"}


def findmnt(daemon: Daemon) -> tuple[str, str, set[str]]:
    """Source, type and options, by findmnt(8)."""
    columns = ["findmnt", "--noheadings", "--raw", "--output", "SOURCE,FSTYPE,OPTIONS"]
    shown = subprocess.run(
        [*columns, daemon.mountpoint], capture_output=True, text=True, timeout=20, check=True
    )
    source, kind, options = shown.stdout.split()
    return source, kind, set(options.split(","))


@pytest.mark.parametrize("path", ["naive", "auto"])
def test_a_mount_has_the_options_that_are_always_on(mounted, source, path) -> None:
    shown, kind, options = findmnt(mounted("--path", path))
    assert (shown, kind) == (source, "fuse.zcfuse")
    assert options >= ALWAYS
    assert "allow_other" not in options


@requires("root")
def test_allow_other_is_there_on_request(mounted) -> None:
    assert findmnt(mounted("--allow-other"))[2] >= {*ALWAYS, "allow_other"}


def test_options_in_the_manner_of_mount_are_taken(mounted) -> None:
    assert findmnt(mounted("-o", "ro,path=splice,cache_timeout=2"))[2] >= ALWAYS


@requires("ordinary user", "fusermount3")
def test_an_ordinary_user_s_mount_has_the_same_options(mounted, ordinary_user) -> None:
    directories = {name: ordinary_user.directory(name) for name in ("source", "mountpoint")}
    daemon = mounted(user=ordinary_user, **directories)
    assert daemon.mount is not None
    assert daemon.mount.source == directories["source"]
    assert daemon.mount.options >= ALWAYS
    assert f"user_id={ordinary_user.uid}" in daemon.mount.options
