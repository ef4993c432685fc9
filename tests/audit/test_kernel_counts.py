"""cachestat(2) and tracepoints, on this machine's kernel."""

import errno
import os
import subprocess
import sys

import pytest

from tests.support._capabilities import requires
from zcfuse.audit import (
    CountUnavailableError,
    RequestCounter,
    cached_twice,
    cachestat,
    count_system_calls,
    kernel_device,
    tracepoint_id,
)
from zcfuse.audit import _tracepoints as tracepoints


@requires("kernel 6.5")
def test_a_file_that_was_just_written_is_cached(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(1 << 20))
    with open(path, "rb") as file:
        assert cachestat(file.fileno()).cached_bytes == 1 << 20
        assert cachestat(file.fileno(), 0, 4096).cached_bytes == 4096


@requires("kernel 6.5")
def test_a_closed_descriptor_is_an_error():
    with open(os.devnull) as file:
        fd = file.fileno()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        cachestat(fd)


def test_no_more_is_cached_twice_than_the_smaller_of_two_caches():
    assert cached_twice(8192, 4096) == 4096
    assert cached_twice(8192, 0) == 0


def test_a_list_of_cpus_may_have_ranges():
    assert tracepoints.online_cpus("0-3,6") == [0, 1, 2, 3, 6]
    assert tracepoints.online_cpus("0") == [0]


def test_a_device_number_is_as_the_kernel_has_it():
    assert kernel_device(0, 44) == 44
    assert kernel_device(8, 1) == 0x800001


@requires("tracepoints")
def test_the_tracepoint_is_found_also_where_tracefs_is_not_mounted(monkeypatch):
    usual = tracepoint_id("fuse:fuse_request_send")
    monkeypatch.setattr(tracepoints, "_TRACEFS_PLACES", ())
    assert tracepoint_id("fuse:fuse_request_send") == usual


@requires("tracepoints")
def test_an_unknown_tracepoint_says_so():
    with pytest.raises(CountUnavailableError, match="no tracepoint fuse:nothing"):
        tracepoint_id("fuse:nothing")


@requires("tracepoints")
def test_nothing_is_left_mounted_by_looking_a_tracepoint_up(monkeypatch):
    monkeypatch.setattr(tracepoints, "_TRACEFS_PLACES", ())
    with open("/proc/self/mountinfo") as file:
        before = file.read()
    tracepoint_id("fuse:fuse_request_send")
    with open("/proc/self/mountinfo") as file:
        assert file.read() == before


@requires("tracepoints")
def test_the_system_calls_of_a_process_are_counted():
    script = (
        "import os, sys; print(0); sys.stdin.readline(); [os.getppid() for _ in range(500)]; "
        "print(1); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-u", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        with count_system_calls(child.pid) as counter:
            child.stdin.write("go\n")
            child.stdin.flush()
            child.stdout.readline()
            assert 500 <= counter.count() < 600


@requires("tracepoints")
def test_a_counter_of_requests_counts_its_own_mount_only():
    with RequestCounter(kernel_device(0, 2**20 - 1)) as counter:
        assert set(counter.count().values()) == {0}
        assert "READ" in counter.count()


def test_where_counting_is_not_permitted_the_reason_is_given(monkeypatch):
    def refuse(*_arguments: object) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(tracepoints, "_TRACEFS_PLACES", ())
    monkeypatch.setattr(tracepoints, "detached_mount", refuse)
    with pytest.raises(CountUnavailableError, match="CAP_SYS_ADMIN"):
        tracepoint_id("fuse:fuse_request_send")


def test_a_refused_counter_leaves_no_descriptor(monkeypatch):
    def refuse(*_arguments: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tracepoints, "perf_event_open", refuse)
    monkeypatch.setattr(tracepoints, "tracepoint_id", lambda _name: 1)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(CountUnavailableError, match="perf_event_open"):
        RequestCounter(1)
    assert os.listdir("/proc/self/fd") == before
