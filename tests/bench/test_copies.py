"""The promise of each serving path, counted by the daemon and by the kernel, over 256 MiB each."""

import os
from collections.abc import Iterator

import pytest

from tests.support._capabilities import requires, skip_unless
from zcfuse.bench import CASES, Case, Report, Row, run_copies
from zcfuse.bench import temporary_file as make_file

# By each of seven paths, read three times: seconds here, and a minute on slow machines.
pytestmark = pytest.mark.timeout(600)

LARGE = 256 << 20
SMALL = 64 << 20
NEARLY = pytest.approx


def _quiet(_step: str) -> None:
    pass


@pytest.fixture(scope="module")
def report() -> Iterator[Report]:
    skip_unless("mounting")
    with make_file(LARGE) as source:
        yield run_copies(source, 1, _quiet)


def _row(report: Report, name: str) -> Row:
    return next(row for row in report.rows if row.name == name)


def _counted(report: Report, name: str):
    row = _row(report, name)
    assert row.reason == ""
    assert row.counted is not None
    return row.counted


DAEMON_SERVES = ["naive", "upcall", "pool", "pool, no prefault", "mmap", "splice"]
ALL = [*DAEMON_SERVES, pytest.param("passthrough", marks=requires("passthrough"))]


@pytest.mark.parametrize("name", ALL)
def test_the_bytes_are_those_of_the_backing_file(report: Report, name: str):
    assert _row(report, name).identical is True


@pytest.mark.parametrize("name", ALL)
def test_the_ledger_and_the_kernel_agree(report: Report, name: str):
    assert _row(report, name).differences == ()


@pytest.mark.parametrize("name", DAEMON_SERVES)
def test_the_daemon_served_every_byte(report: Report, name: str):
    assert _counted(report, name).served == NEARLY(1, abs=0.001)


@pytest.mark.parametrize(
    ("name", "ledger", "audit"),
    [
        ("naive", 2, 2),
        ("upcall", 4, 3),  # recv is not in /proc/PID/io
        ("pool", 2, 2),
        ("pool, no prefault", 2, 2),
        ("splice", 0, 0),
        pytest.param("passthrough", 0, 0, marks=requires("passthrough")),
    ],
)
def test_a_path_costs_its_copies_and_no_more(report: Report, name: str, ledger: int, audit: int):
    counted = _counted(report, name)
    assert counted.ledger_copies == NEARLY(ledger, abs=0.01)
    assert counted.audit_copies == NEARLY(audit, abs=0.01)


def test_mmap_costs_at_most_one_copy(report: Report):
    counted = _counted(report, "mmap")
    assert counted.ledger_copies <= 1.01
    assert counted.audit_copies <= 1.01


def test_a_warm_pool_takes_no_page_faults(report: Report):
    assert _counted(report, "pool").faults == 0


def test_a_pool_without_prefault_and_locking_takes_many(report: Report):
    counted = _counted(report, "pool, no prefault")
    assert counted.faults + counted.first_faults >= 256


@requires("passthrough")
def test_passthrough_sends_no_read_and_keeps_no_second_copy(report: Report):
    counted = _counted(report, "passthrough")
    assert counted.ledger_reads == 0
    assert counted.kernel_reads in (0, None)
    assert counted.cached_twice == 0


@pytest.mark.parametrize("name", ["naive", "splice"])
def test_other_paths_keep_a_second_copy_in_the_page_cache(report: Report, name: str):
    counted = _counted(report, name)
    assert counted.cached_twice is not None
    assert counted.cached_twice > LARGE // 2


@requires("tracepoints")
@pytest.mark.parametrize("name", DAEMON_SERVES)
def test_the_tracepoint_sees_the_reads_that_the_ledger_sees(report: Report, name: str):
    counted = _counted(report, name)
    assert counted.kernel_reads == counted.ledger_reads > 0


FAULTS = {
    "pool reads short": ("pool", "preadv:short"),
    "splice in short": ("splice", "splice_in:short"),
    "splice fails in the middle of a file": ("splice", "splice_in:EINVAL"),
    "vmsplice fails in the middle of a file": ("mmap", "vmsplice:EINVAL"),
}


@pytest.fixture(scope="module")
def requests_a_reading() -> int:
    """For a file of SMALL bytes: an ordinary user's mount has the kernel's read-ahead, 128 KiB."""
    skip_unless("mounting")
    with make_file(SMALL) as source:
        row = run_copies(source, 1, _quiet, [Case("pool", "pool")]).rows[1]
    return row.paths["pool"].requests


@requires("mounting")
@pytest.mark.parametrize("fault", FAULTS)
def test_the_counts_agree_also_under_injected_faults(fault: str, requests_a_reading: int):
    path, text = FAULTS[fault]
    # The first pass is not counted and may take more requests than the others.
    text += f":after={2 * requests_a_reading}:count=10"
    case = Case(fault, path, environment={"ZCFUSE_FAULTS": text})
    with make_file(SMALL) as source:
        row = run_copies(source, 2, _quiet, [case]).rows[1]
    assert (row.reason, row.identical, row.differences) == ("", True, ())
    others = sum(counts.bytes for name, counts in row.paths.items() if name != path)
    assert row.paths[path].short > 0 or others > 0


@requires("passthrough")
def test_a_path_that_was_not_taken_is_a_row_with_the_recorded_reason():
    case = Case("passthrough", "passthrough", environment={"ZCFUSE_FAULTS": "backing_open:EPERM"})
    with make_file(1 << 20) as source:
        row = run_copies(source, 1, _quiet, [case]).rows[1]
    assert "EPERM" in row.reason
    assert row.counted is None
    assert row.identical is True


@requires("mounting")
def test_a_path_that_is_not_to_be_had_is_a_row_with_its_reason():
    with make_file(1 << 20) as source:
        report = run_copies(source, 1, _quiet, [Case("absent", "absent")])
    assert "absent" in report.rows[1].reason
    assert report.rows[1].counted is None
    assert not report.failed
    assert not os.path.exists(source.root)


def test_every_serving_path_has_a_row():
    assert {case.path for case in CASES} == {
        "naive",
        "upcall",
        "pool",
        "mmap",
        "splice",
        "passthrough",
    }
