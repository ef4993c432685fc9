"""No read lease outlives the daemon that could give it back.

docs/semantics.md, "Strict". Each end of a daemon happens while a client has the leased file open.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from tests.coherence.pushed import STRICT, coherence, opened_by_client
from tests.integration.conftest import serving
from tests.support import DEADLINE_S, Daemon, requires
from tests.survive.load import mounted, successor, zcfuse
from zcfuse.admin.status import StatusDocument, read_status_of
from zcfuse.linux import MountEntry

pytestmark = requires("mounting", "root")

# `pool` reads for the kernel, and `auto` passes through.
PATHS: Final = ["auto", "pool"]


def _make_file(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    file = tmp_path / "source" / "file"
    file.write_bytes(b"bytes")
    return file


@contextlib.contextmanager
def _leased(tmp_path: Path, path: str) -> Iterator[tuple[Path, MountEntry]]:
    """A surviving mount, with a backing file that a client has open."""
    file = _make_file(tmp_path)
    where = tmp_path / "mnt"
    where.mkdir()
    arguments = [str(file.parent), *STRICT, "--path", path]
    with (
        mounted(str(where), arguments, str(tmp_path / "log")) as entry,
        opened_by_client(str(where / "file")),
    ):
        yield file, entry


def _open_for_writing(file: Path) -> None:
    """Open a file as a program would, which waits 45 s for a lease that nobody gives back."""
    subprocess.run(["sh", "-c", ': <>"$0"', file], check=True, timeout=DEADLINE_S)


def _datapath(document: StatusDocument) -> dict[str, Any]:
    return msgspec.to_builtins(document.datapath)  # type: ignore[no-any-return]


def _killed(entry: MountEntry) -> StatusDocument:
    """Kill the daemon; return the status of its successor."""
    before = read_status_of(entry)
    assert before.survival is not None
    os.kill(before.processes["datapath"], signal.SIGKILL)
    return successor(entry, before.survival.generation)


def _upgraded(entry: MountEntry) -> StatusDocument:
    zcfuse("upgrade", entry.mountpoint)
    return read_status_of(entry)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("replaced", [_killed, _upgraded])
def test_a_writer_waits_for_no_lease_of_a_daemon_that_has_a_successor(
    tmp_path: Path, replaced: Callable[[MountEntry], StatusDocument], path: str
) -> None:
    with _leased(tmp_path, path) as (file, entry):
        assert _datapath(read_status_of(entry))["coherence"]["read_leases"] == 1
        replaced(entry)
        _open_for_writing(file)


@pytest.mark.parametrize("path", PATHS)
def test_a_successor_leases_a_file_that_a_client_has_open_at_its_next_open(
    tmp_path: Path, path: str
) -> None:
    with _leased(tmp_path, path) as (file, entry):
        _killed(entry)
        with opened_by_client(f"{entry.mountpoint}/file"):
            found = _datapath(read_status_of(entry))
            assert found["coherence"]["read_leases"] == 1
            assert "strict_written" not in found["fallbacks"]
        _open_for_writing(file)
        assert _datapath(read_status_of(entry))["coherence"]["broken_leases"] == 1


def _abort(daemon: Daemon) -> None:
    zcfuse("umount", "--force", daemon.mountpoint)
    assert daemon.fails() == 0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("end", [Daemon.kill, _abort])
def test_a_writer_waits_for_no_lease_of_a_daemon_that_has_ended(
    tmp_path: Path, end: Callable[[Daemon], object], path: str
) -> None:
    file = _make_file(tmp_path)
    with (
        serving(tmp_path, str(file.parent), *STRICT, "--path", path) as daemon,
        opened_by_client(daemon.path("file")),
    ):
        assert coherence(daemon, "read_leases") == 1
        end(daemon)
        _open_for_writing(file)
