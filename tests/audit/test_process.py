"""Parsing the kernel's counts for a process, and counting this process."""

import os
import threading

import pytest

from zcfuse.audit import IoCounts, ProcessUsage, ThreadUsage, process_cpu_ns, read_usage, roles_of
from zcfuse.audit._process import parse_io, parse_thread

IO = """rchar: 100
wchar: 20
syscr: 3
syscw: 2
read_bytes: 4096
write_bytes: 0
cancelled_write_bytes: 0
"""
STATUS = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t34\n"


def _stat(name: str) -> str:
    fields = ["S", *map(str, range(4, 53))]
    return f"17 ({name}) " + " ".join(fields)


def test_the_io_file_is_parsed_by_name():
    assert parse_io(IO) == IoCounts(100, 20, 3, 2, 4096, 0)


@pytest.mark.parametrize("name", ["serve-0", "a b", "evil) S 1 2 (", ""])
def test_a_thread_is_parsed_whatever_its_name_is(name: str):
    thread = parse_thread(17, _stat(name), STATUS)
    assert (thread.name, thread.minor_faults, thread.major_faults) == (name, 10, 12)
    assert (thread.voluntary_switches, thread.involuntary_switches) == (12, 34)
    assert thread.cpu_ns == (14 + 15) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _usage(pid: int, rchar: int, *threads: ThreadUsage) -> ProcessUsage:
    return ProcessUsage(pid, rchar, rchar, rchar, 0, IoCounts(rchar, 0, 0, 0, 0, 0), threads)


def _thread(tid: int, faults: int) -> ThreadUsage:
    return ThreadUsage(tid, "t", faults, 0, faults, 1, 0)


def test_a_difference_counts_new_threads_from_their_beginning_and_leaves_out_ended_ones():
    earlier = _usage(1, 10, _thread(1, 5), _thread(2, 5))
    later = _usage(1, 30, _thread(1, 7), _thread(3, 9))
    passed = later.since(earlier)
    assert passed.io.rchar == 20
    assert {thread.tid: thread.faults for thread in passed.threads} == {1: 2, 3: 9}
    assert passed.faults_of({1}) == 2


def test_snapshots_of_two_processes_have_no_difference():
    with pytest.raises(ValueError, match="two processes"):
        _usage(1, 0).since(_usage(2, 0))


def test_the_bytes_that_this_process_reads_are_counted(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(1 << 20))
    before = read_usage(os.getpid())
    path.read_bytes()
    passed = read_usage(os.getpid()).since(before)
    assert 1 << 20 <= passed.io.rchar < 2 << 20
    assert passed.io.syscr >= 1


def test_a_thread_that_is_alive_has_its_own_line():
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, args=(10,))
    thread.start()
    try:
        assert thread.native_id in {item.tid for item in read_usage(os.getpid()).threads}
    finally:
        go_on.set()
        thread.join(10)


def test_the_cpu_clock_of_a_process_never_goes_back():
    first = process_cpu_ns(os.getpid())
    sum(range(100_000))
    assert process_cpu_ns(os.getpid()) > first


def test_a_process_that_does_not_exist_is_an_error():
    with pytest.raises((ProcessLookupError, FileNotFoundError)):
        read_usage(2**22 + 1)


def test_roles_come_from_a_status_document():
    assert roles_of([{"role": "serve", "tid": 3}, {"role": "relay", "tid": 4}]) == {
        3: "serve",
        4: "relay",
    }
    assert roles_of(None) == {}
