"""fdatasync(2) shared by threads: each waits for one that began after its write."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from zcfuse.remote import _durable


@pytest.fixture
def fd(tmp_path: Path):
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def test_threads_that_wait_for_one_file_share_an_fdatasync(
    fd: int, monkeypatch: pytest.MonkeyPatch
):
    first, go = threading.Event(), threading.Event()
    calls: list[int] = []

    def sync(_: int) -> None:
        calls.append(1)
        first.set()
        assert go.wait(30)

    monkeypatch.setattr(_durable.os, "fdatasync", sync)
    with ThreadPoolExecutor(9) as pool:
        waiting = [pool.submit(_durable.make_durable, fd)]
        assert first.wait(30)
        waiting += [pool.submit(_durable.make_durable, fd) for _ in range(8)]
        while next(iter(_durable._files.values())).waiting < 9:
            threading.Event().wait(0.001)
        go.set()
        for one in waiting:
            one.result(30)
    # Data written during the first one need another.
    assert len(calls) == 2
    assert _durable._files == {}


def test_a_failure_reaches_the_thread_that_waits(fd: int, monkeypatch: pytest.MonkeyPatch):
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(_durable.os, "fdatasync", fail)
    with pytest.raises(OSError, match="No space") as failure:
        _durable.make_durable(fd)
    assert failure.value.errno == errno.ENOSPC
    assert _durable._files == {}
