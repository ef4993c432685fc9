"""Permissions: modes and ACLs of the backing tree, for users other than the daemon's.

docs/semantics.md, "Permissions and ACLs". The reference is the same user in the backing directory.
"""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.integration.client import Pair
from tests.integration.conftest import command, write
from tests.support import Daemon, requires

pytestmark = requires("mounting", "root")

NOBODY = 65534
OTHER = 12345  # neither the owner nor the user in the ACL

MODES = [0o000, 0o400, 0o040, 0o004, 0o444, 0o444, 0o111, 0o600, 0o755, 0o705, 0o050]
MAY = [
    "os.close(os.open(p('{0}'), os.O_RDONLY))",
    "[os.access(p('{0}'), how) for how in (os.R_OK, os.X_OK, os.F_OK)]",
    "len(xattrs('{0}'))",
    "stat.S_IMODE(os.lstat(p('{0}')).st_mode)",
]


@pytest.fixture
def readers(public, mounted, pairs):
    """Mounts a public directory for all users, and makes pairs of clients of a user."""
    daemons: list[Daemon] = []

    def readers_of(uid: int) -> Pair:
        if not daemons:
            where = {"source": f"{public}/source", "mountpoint": f"{public}/mnt"}
            daemons.append(mounted("--allow-other", "--cache-timeout", "0", **where))
        pair: Pair = pairs(daemons[0], uid=uid)
        return pair

    return readers_of


@pytest.mark.parametrize("uid", [0, NOBODY, OTHER])
def test_the_modes_of_files_hold_for_every_user(public, readers, uid: int) -> None:
    for n, mode in enumerate(MODES):
        path = write(f"{public}/source", str(n), b"bytes")
        os.chown(path, NOBODY if n % 2 else 0, NOBODY if n % 3 else 0)
        os.chmod(path, mode)
    pair = readers(uid)
    for n in range(len(MODES)):
        for question in MAY:
            pair.same(question.format(n))


@pytest.mark.parametrize("uid", [0, NOBODY, OTHER])
def test_the_modes_of_directories_hold_for_every_user(public, readers, uid: int) -> None:
    for n, mode in enumerate(MODES):
        path = f"{public}/source/{n}"
        os.mkdir(path)
        write(path, "file", b"bytes")
        os.chown(path, NOBODY if n % 2 else 0, NOBODY if n % 3 else 0)
        os.chmod(path, mode)
    pair = readers(uid)
    for n in range(len(MODES)):
        pair.same(f"sorted(os.listdir(p('{n}')))")
        pair.same(f"content('{n}/file')")
        pair.same(f"content('{n}/missing')")
        pair.same(f"os.chdir(p('{n}')) or os.chdir('/')")


ACLS = {
    "a named user may": "u::rw,u:65534:r,g::-,m::r,o::-",
    "a named user may not": "u::rw,u:65534:-,g::r,m::r,o::r",
    "the mask takes it away": "u::rw,u:65534:rw,g::rw,m::-,o::-",
    "the mask leaves reading": "u::rw,u:65534:rwx,g::rwx,m::r,o::-",
    "a named group may": "u::rw,g::-,g:65534:r,m::r,o::-",
    "a named group may not": "u::rw,g::r,g:65534:-,m::r,o::r",
    "only others may": "u::-,g::-,m::-,o::r",
    "the owning group may not": "u::rw,u:12345:r,g::-,m::rwx,o::r",
}


@requires("acl")
@pytest.mark.parametrize("uid", [NOBODY, OTHER])
@pytest.mark.parametrize("acl", ACLS.values(), ids=ACLS.keys())
def test_an_acl_is_enforced_as_it_is_in_the_backing_tree(public, readers, acl, uid) -> None:
    path = write(f"{public}/source", "file", b"bytes")
    os.mkdir(f"{public}/source/dir")
    write(f"{public}/source/dir", "file", b"bytes")
    command("setfacl", "--set", acl, path)
    command("setfacl", "--set", re.sub("r(w?)x?", r"r\1x", acl), f"{public}/source/dir")
    pair = readers(uid)
    pair.same("content('file')")
    pair.same("[os.access(p('file'), how) for how in (os.R_OK, os.X_OK)]")
    pair.same("os.listdir(p('dir'))")
    pair.same("content('dir/file')")


@requires("acl")
def test_an_acl_decides_and_not_the_mode_that_shows_its_mask(public, readers) -> None:
    path = write(f"{public}/source", "file", b"bytes")
    os.chown(path, 0, OTHER)
    command("setfacl", "--set", "u::rw,u:65534:r,g::-,m::r,o::-", path)
    assert os.stat(path).st_mode & 0o040
    assert readers(OTHER).same("content('file')") == "EACCES"
    assert readers(NOBODY).same("content('file')") == b"bytes"


@requires("acl")
def test_getfacl_shows_what_setfacl_set(public, readers) -> None:
    directory = f"{public}/source/dir"
    os.mkdir(directory)
    command("setfacl", "-m", "u:65534:rwx,d:u:65534:r,d:g:12345:x", directory)
    readers(0).same("xattrs('dir')")
    shown = subprocess.run(
        ["getfacl", "-n", "--omit-header", "-p", f"{public}/mnt/dir", directory],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    mounted, native = shown.stdout.strip().split("\n\n")
    assert mounted == native
    assert "default:user:65534:r--" in mounted


@requires("acl")
def test_a_change_of_mode_or_acl_is_enforced(public, readers) -> None:
    path = write(f"{public}/source", "file", b"bytes")
    pair = readers(NOBODY)
    assert pair.same("content('file')") == b"bytes"
    command("setfacl", "-m", "u:65534:-", path)
    assert pair.same("content('file')") == "EACCES"
    command("setfacl", "-b", path)
    assert pair.same("content('file')") == b"bytes"
    os.chmod(path, 0o640)
    assert pair.same("content('file')") == "EACCES"


def test_without_allow_other_the_others_are_kept_out(public, mounted, clients) -> None:
    write(f"{public}/source", "file", b"bytes")
    daemon = mounted(source=f"{public}/source", mountpoint=f"{public}/mnt")
    other = clients(daemon, uid=NOBODY)
    for question in ("os.stat(root)", "os.listdir(root)", "content('file')"):
        assert other.outcome(question) == "EACCES"
    assert clients(daemon).value("content('file')") == b"bytes"


def test_setuid_has_no_effect_on_the_mount(public, mounted) -> None:
    program = f"{public}/source/id"
    with open("/usr/bin/id", "rb") as original:
        write(f"{public}/source", "id", original.read())
    os.chmod(program, 0o4755)
    mounted("--allow-other", source=f"{public}/source", mountpoint=f"{public}/mnt")
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    effective = [
        subprocess.run([*become, path, "-u"], capture_output=True, timeout=20, check=True).stdout
        for path in (f"{public}/mnt/id", program)
    ]
    assert effective == [b"65534\n", b"0\n"]
