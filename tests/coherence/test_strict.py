"""Strict shows each byte and each size of a file as it is, with or without a fence.

docs/semantics.md, "Strict".
"""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.coherence.aio import append_by_aio
from tests.coherence.pushed import PUSH, STRICT, coherence, opened_by_client, sync
from tests.coherence.test_push import FILESYSTEMS, new_filesystem
from tests.integration.conftest import kernel_mount, serving
from tests.integration.counts import counts
from tests.support import DEADLINE_S, Daemon, eventually, requires

pytestmark = requires("mounting", "root")

# `pool` reads for the kernel, and `auto` passes through.
PATHS: Final = ["auto", "pool"]
_SHOWN: Final = "%s %y %z"


@contextlib.contextmanager
def _one_file(
    tmp_path: Path, *options: str, env: Mapping[str, str] | None = None
) -> Iterator[tuple[Path, Daemon]]:
    """A mount with a file that a client has open."""
    source = tmp_path / "source"
    source.mkdir()
    file = source / "file"
    file.write_bytes(b"old" + bytes(mmap.PAGESIZE))
    with (
        serving(tmp_path, str(source), *options, env=env) as daemon,
        opened_by_client(daemon.path("file")),
    ):
        yield file, daemon


def _attributes(daemon: Daemon) -> bytes:
    return daemon.run("stat", "-c", _SHOWN, daemon.path("file")).stdout


def _is_stale(file: Path, daemon: Daemon) -> bool:
    backing = subprocess.check_output(["stat", "-c", _SHOWN, file], timeout=DEADLINE_S)
    shown = daemon.run("cat", daemon.path("file")).stdout
    return (_attributes(daemon), shown) != (backing, file.read_bytes())


def _requests(daemon: Daemon) -> int:
    return sum(counts(daemon).request(name) for name in ("LOOKUP", "GETATTR", "STATX"))


@contextlib.contextmanager
def _storing(file: Path) -> Iterator[None]:
    """A writer that has stored through a shared mapping, and has the file still open."""
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), mmap.PAGESIZE) as mapping:
        mapping[:3] = b"new"
        yield


@contextlib.contextmanager
def _appending(file: Path) -> Iterator[None]:
    """A writer that has appended by Linux AIO, and has the file still open."""
    with open(file, "r+b") as opened:
        append_by_aio(opened.fileno(), b"more")
        yield


# The exceptions of push: they raise no event before the writer closes.
SILENT: Final = [_storing, _appending]
Writer = Callable[[Path], contextlib.AbstractContextManager[None]]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("write", SILENT)
def test_what_raises_no_event_shows_at_once(tmp_path: Path, write: Writer, path: str) -> None:
    with _one_file(tmp_path, *STRICT, "--path", path) as (file, daemon):
        assert not _is_stale(file, daemon)
        with write(file):
            assert not _is_stale(file, daemon)
        assert not _is_stale(file, daemon)
        assert coherence(daemon, "broken_leases") > 0


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_each_filesystem_that_reports_its_changes_grants_leases(
    tmp_path: Path, filesystem: str
) -> None:
    (tmp_path / "mounted").mkdir()
    with (
        kernel_mount(*new_filesystem(tmp_path, filesystem), str(tmp_path / "mounted")),
        _one_file(tmp_path / "mounted", *STRICT) as (file, daemon),
    ):
        assert coherence(daemon, "read_leases") == 1
        for write in SILENT:
            with write(file):
                assert not _is_stale(file, daemon)


@pytest.mark.parametrize("write", SILENT)
def test_with_push_the_same_is_stale_until_the_writer_closes(tmp_path: Path, write: Writer) -> None:
    with _one_file(tmp_path, *PUSH, "--path", "pool") as (file, daemon):
        assert not _is_stale(file, daemon)
        with write(file):
            sync(daemon)
            assert _is_stale(file, daemon)
        sync(daemon)
        assert not _is_stale(file, daemon)


# Sends three bytes of a file for each line that it reads.
_SENDER: Final = """
import os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
for _ in iter(sys.stdin.readline, ""):
    os.sendfile(1, file, 0, 3)
"""


@pytest.mark.parametrize(
    ("path", "shown"),
    [pytest.param("auto", b"new", marks=requires("passthrough")), ("pool", b"old")],
)
def test_without_passthrough_sendfile_sends_a_store_once_the_writer_has_closed(
    tmp_path: Path, path: str, shown: bytes
) -> None:
    with _one_file(tmp_path, *STRICT, "--path", path) as (file, daemon):
        argv = [sys.executable, "-c", _SENDER, daemon.path("file")]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sender:

            def sent() -> bytes:
                assert sender.stdin is not None
                assert sender.stdout is not None
                sender.stdin.write(b"\n")
                sender.stdin.flush()
                return sender.stdout.read(3)

            assert sent() == b"old"
            with _storing(file):
                sync(daemon)
                assert sent() == shown
            sync(daemon)
            assert sent() == b"new"
            assert sender.communicate(timeout=DEADLINE_S)[0] == b""


@requires("cc")
@pytest.mark.parametrize(("rule", "stale"), [("attributes", True), ("", False)])
def test_without_the_push_before_a_lease_is_given_back_the_times_are_stale(
    tmp_path: Path, ablation: str, rule: str, stale: bool
) -> None:
    env = {"LD_PRELOAD": ablation, "ZCFUSE_WITHOUT": rule}
    with _one_file(tmp_path, *STRICT, "--transport", "dev", env=env) as (file, daemon):
        assert not _is_stale(file, daemon)
        with _storing(file):
            assert _is_stale(file, daemon) == stale


def test_the_kernel_keeps_the_size_of_an_open_file_without_a_writer(
    tmp_path: Path,
) -> None:
    with _one_file(tmp_path, *STRICT) as (_, daemon):
        _attributes(daemon)
        before = _requests(daemon)
        _attributes(daemon)
        assert _requests(daemon) == before
        assert coherence(daemon, "read_leases") == 1


def test_a_file_that_a_program_has_open_for_writing_gets_no_lease(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with open(source / "file", "wb", buffering=0) as writer, contextlib.ExitStack() as later:
        daemon = later.enter_context(serving(tmp_path, str(source), *STRICT))
        for size in range(3):
            assert daemon.run("stat", "-c", "%s", daemon.path("file")).stdout == b"%d\n" % size
            assert daemon.run("cat", daemon.path("file")).stdout == b"x" * size
            writer.write(b"x")
        assert daemon.status()["datapath"]["fallbacks"]["strict_written"] > 0
        assert coherence(daemon, "read_leases") == 0


def test_a_file_is_leased_again_by_the_open_after_its_writer(tmp_path: Path) -> None:
    with _one_file(tmp_path, *STRICT) as (file, daemon):
        with open(file, "r+b"):
            assert coherence(daemon, "read_leases") == 0
        daemon.run("cat", daemon.path("file"))
        assert coherence(daemon, "read_leases") == 1


def test_truncating_a_file_by_its_path_shows_at_once(tmp_path: Path) -> None:
    with _one_file(tmp_path, *STRICT) as (file, daemon):
        for size in (1, 5000, 0):
            daemon.run("cat", daemon.path("file"))  # leases it again
            assert not _is_stale(file, daemon)
            os.truncate(file, size)
            assert not _is_stale(file, daemon)


def test_a_lease_ends_soon_after_the_last_client_has_closed_the_file(tmp_path: Path) -> None:
    with _one_file(tmp_path, *STRICT) as (_, daemon):
        assert coherence(daemon, "read_leases") == 1
        (tmp_path / "source" / "other").write_bytes(b"other")
        with opened_by_client(daemon.path("other")):
            assert coherence(daemon, "read_leases") == 2
        assert eventually(lambda: coherence(daemon, "read_leases") == 1)


@pytest.mark.parametrize("path", PATHS)
def test_the_daemon_lets_go_of_a_leased_file_that_is_removed(tmp_path: Path, path: str) -> None:
    with _one_file(tmp_path, *STRICT, "--path", path) as (_, daemon):
        other = tmp_path / "source" / "other"
        other.write_bytes(b"other")
        assert daemon.run("cat", daemon.path("other")).stdout == b"other"
        other.unlink()
        assert eventually(lambda: coherence(daemon, "read_leases") == 1)


def test_the_data_path_may_not_lease_the_files_of_others_without_the_right_to(
    tmp_path: Path,
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    file = source / "file"
    file.write_bytes(b"bytes")
    os.chown(file, 1, 1)
    under = ["setpriv", "--bounding-set", "-lease", "--inh-caps", "-lease"]
    with serving(tmp_path, str(source), *STRICT, under=under) as daemon:
        assert daemon.run("cat", daemon.path("file")).stdout == b"bytes"
        assert daemon.status()["datapath"]["fallbacks"]["strict_refused"] == 1
        before = _requests(daemon)
        daemon.run("stat", daemon.path("file"))
        assert _requests(daemon) > before


def test_a_member_of_an_archive_in_a_strict_union_gets_no_lease(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "member").write_bytes(b"bytes")
    archive = tmp_path / "archive.tar"
    subprocess.run(
        ["tar", "-C", tmp_path, "-cf", archive, "member"], check=True, timeout=DEADLINE_S
    )
    layers = ["--layer", str(tmp_path / "upper"), "--layer", str(archive)]
    with serving(tmp_path, "", *layers, *STRICT) as daemon:
        assert daemon.run("cat", daemon.path("member")).stdout == b"bytes"
        fallbacks = daemon.status()["datapath"]["fallbacks"]
        assert fallbacks["strict_parts"] == 1
        assert "strict_written" not in fallbacks


def test_explain_and_status_say_what_strict_keeps(tmp_path: Path) -> None:
    with _one_file(tmp_path, *STRICT) as (_, daemon):
        module = [sys.executable, "-m", "zcfuse"]
        explained = daemon.run(*module, "explain", daemon.path("file")).stdout.decode()
        assert "only while it has no writer" in explained
        status = daemon.run(*module, "status", "-v", daemon.mountpoint).stdout.decode()
        assert "read_leases" in status
