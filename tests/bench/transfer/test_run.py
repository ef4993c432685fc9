"""Every method delivers the file's bytes and counts what it does."""

from __future__ import annotations

import json
import os

import msgspec
import pytest

from tests.bench.transfer.conftest import COLUMNS, SIZE, plan_of, quiet
from tests.support import fuse_mounts, requires
from zcfuse.bench import SourceFile
from zcfuse.bench.transfer import (
    METHODS,
    QUANTITIES,
    Figure,
    TransferCell,
    TransferReport,
    run_transfer,
)
from zcfuse.bench.transfer._latency import latency_pages
from zcfuse.bench.transfer._transfer_native import METHODS as NATIVE

SOCKETS = ("tcp", "unix")
# Copies by the client's calls to a socket, for each byte: in, out.
COPIES = {
    "read+write": (1, 1),
    "mmap+write": (0, 1),
    "sendfile": (0, 0),
    "splice": (0, 0),
    "splice-move": (0, 0),
    "uring-splice": (0, 0),
    "zerocopy-send": (0, 0),
    "vmsplice": (0, 0),
    "direct+write": (0, 1),
}
# The kernel counts sendfile and copy_file_range once on each side although they copy nothing out of
# user space. It does not count io_uring and splice (proc(5), fs/splice.c, io_uring/rw.c).
COUNTED_BY_THE_KERNEL = {
    "read+write": (1, 1),
    "mmap+write": (0, 1),
    "sendfile": (1, 1),
    "splice": (0, 0),
    "uring-splice": (0, 0),
    "uring-fixed": (0, 0),
    "vmsplice": (0, 0),
}
# The client's reads of /proc, and the headers of a daemon's requests.
ALLOWANCE = 64 << 10
# A file counts as dropped from the page cache if less than this share of it stayed.
STILL_CACHED = 1 / 20


def _cells(report: TransferReport, **wanted: str) -> list[TransferCell]:
    found = [
        cell
        for cell in report.cells
        if all(getattr(cell, name) == value for name, value in wanted.items())
    ]
    assert found
    return found


def _measured(report: TransferReport, **wanted: str) -> list[TransferCell]:
    """The methods that this machine has; some lack O_DIRECT or io_uring."""
    return [cell for cell in _cells(report, **wanted) if cell.samples]


def test_the_native_module_has_a_method_for_every_row():
    assert tuple(method.name for method in METHODS) == NATIVE


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("method", sorted({*COPIES, "uring-fixed"}))
def test_the_receiver_gets_exactly_the_bytes_of_the_file(
    report: TransferReport, method: str, column: str
):
    for sink in SOCKETS:
        for cell in _cells(report, method=method, column=column, sink=sink):
            assert cell.identical is (None if cell.reason else True), cell.reason
            assert bool(cell.samples) != bool(cell.reason)
            assert all(sample.delivered == SIZE for sample in cell.samples)


def test_a_file_gets_exactly_the_bytes_of_the_file(report: TransferReport):
    for cell in _cells(report, method="copy-file-range", column="backing"):
        assert (cell.identical, cell.reason) == (True, "")
        assert cell.samples[0].client.copied_inside == SIZE


def test_everything_that_needs_no_special_kernel_was_to_be_had(report: TransferReport):
    for method in ("read+write", "mmap+write", "sendfile", "splice", "splice-move", "vmsplice"):
        assert [cell.reason for cell in report.cells if cell.method == method and cell.reason] == []
    assert report.unavailable == {}
    assert report.differences == []


@pytest.mark.parametrize("method", COPIES)
@pytest.mark.parametrize("sink", SOCKETS)
def test_the_client_copies_what_its_method_copies(report: TransferReport, method: str, sink: str):
    expected = tuple(copies * SIZE for copies in COPIES[method])
    for cell in _measured(report, method=method, sink=sink):
        for sample in cell.samples:
            assert (sample.client.copied_in, sample.client.copied_out) == expected


@pytest.mark.parametrize("method", COUNTED_BY_THE_KERNEL)
def test_the_kernel_counts_the_calls_as_it_says(report: TransferReport, method: str):
    read, written = (copies * SIZE for copies in COUNTED_BY_THE_KERNEL[method])
    for cell in _measured(report, method=method, sink="tcp"):
        for sample in cell.samples:
            assert sample.client.rchar == pytest.approx(read, abs=ALLOWANCE)
            assert sample.client.wchar == pytest.approx(written, abs=ALLOWANCE)


def test_nothing_is_copied_into_dev_null(report: TransferReport):
    for cell in _measured(report, sink="null"):
        assert all(sample.client.copied_out == 0 for sample in cell.samples)


def test_what_was_sent_by_reference_is_counted_once_where_the_kernel_copied_it(
    report: TransferReport,
):
    for method in ("zerocopy-send", "uring-fixed"):
        for cell in _measured(report, method=method, sink="tcp"):
            for sample in cell.samples:
                late = sample.client.copied_late
                assert late in (0, SIZE) or sample.client.copied_out == SIZE


def test_registered_buffers_are_written_where_they_cannot_be_sent(report: TransferReport):
    for sink, name in (("unix", "EOPNOTSUPP"), ("null", "ENOTSOCK")):
        for cell in _measured(report, method="uring-fixed", sink=sink):
            assert any(name in note and "WRITE_FIXED" in note for note in cell.notes)


@pytest.mark.parametrize(("sink", "name"), [("unix", "EOPNOTSUPP"), ("null", "ENOTSOCK")])
def test_a_method_that_a_sink_refuses_is_a_cell_with_the_errno(
    report: TransferReport, sink: str, name: str
):
    for cell in _cells(report, method="zerocopy-send", sink=sink):
        assert (cell.samples, cell.short_reason) == ((), name)
        assert cell.reason.startswith(f"{name}: ")


def test_copying_from_a_mount_to_another_filesystem_is_a_cell_with_the_errno(
    report: TransferReport,
):
    for column in COLUMNS[1:]:
        for cell in _cells(report, method="copy-file-range", column=column):
            assert cell.short_reason == "EXDEV"


def test_the_daemon_serves_each_byte_by_its_path_where_only_the_backing_file_is_in_memory(
    report: TransferReport,
):
    for cell in _measured(report, column="splice", cache="served"):
        for sample in cell.samples:
            assert sample.daemon is not None
            assert sample.served == {"splice": pytest.approx(SIZE, rel=STILL_CACHED)}
            assert sample.daemon.copied < ALLOWANCE


@requires("mounting")
@pytest.mark.parametrize("column", ["naive", "pool"])
def test_a_daemon_that_copies_is_counted_twice_for_each_byte(source_file: SourceFile, column: str):
    plan = plan_of(
        methods=("sendfile",), sinks=("tcp",), columns=(column,), caches=("served",), latency=False
    )
    (cell,) = run_transfer(source_file, plan, quiet).cells
    assert (cell.reason, cell.identical) == ("", True)
    (sample,) = cell.samples
    assert sample.served == {column: pytest.approx(SIZE, rel=STILL_CACHED)}
    assert sample.daemon is not None
    assert sample.daemon.copied == pytest.approx(2 * sample.served[column], abs=ALLOWANCE)


def test_a_warm_mount_asks_its_daemon_for_nothing(report: TransferReport):
    for cell in _measured(report, column="splice", cache="warm", method="sendfile"):
        assert all(sample.served == {} for sample in cell.samples)


def test_the_backing_file_has_no_daemon_and_two_cache_states(report: TransferReport):
    cells = _cells(report, column="backing")
    assert {cell.cache for cell in cells} == {"cold", "warm"}
    assert all(sample.daemon is None for cell in cells for sample in cell.samples)


def test_mapped_pages_are_faulted_in_and_read_ones_are_not(report: TransferReport):
    for method, faults in (("mmap+write", True), ("read+write", False)):
        for cell in _measured(report, method=method, sink="tcp", cache="warm"):
            for sample in cell.samples:
                assert (sample.client.minor_faults > 10) is faults


def test_prefaulted_memory_takes_no_faults_and_untouched_memory_one_a_page(
    report: TransferReport,
):
    for cell in report.latency:
        if cell.reason:
            continue
        for sample in cell.samples:
            assert sample.reads == latency_pages(SIZE)
            assert 0 < sample.p50_ns <= sample.p99_ns <= sample.p999_ns <= sample.max_ns
            if cell.prefaulted:
                assert sample.minor_faults + sample.major_faults < 5
            elif cell.access == "read":
                assert sample.minor_faults >= sample.reads
    assert {(c.column, c.access, c.prefaulted) for c in report.latency} == {
        (column, access, prefaulted)
        for column in COLUMNS
        for access in ("read", "mapped")
        for prefaulted in (False, True)
    }


def test_figures_are_medians_with_the_spread(report: TransferReport):
    cell = _cells(report, method="sendfile", column="splice", sink="tcp", cache="warm")[0]
    (sample,) = cell.samples
    samples = tuple(msgspec.structs.replace(sample, ns=ns) for ns in (SIZE, 4 * SIZE, 2 * SIZE))
    figures = msgspec.structs.replace(cell, samples=samples).figures
    assert set(figures) == set(QUANTITIES)
    assert figures["gb_per_s"] == Figure(median=0.5, least=0.25, most=1.0)


def test_the_document_is_json_that_reads_back_as_the_report(report: TransferReport):
    document = json.loads(msgspec.json.encode(report.document()))
    assert document["format"] == 1
    assert msgspec.convert(document, TransferReport) == report
    assert document["cells"][0]["figures"]["gb_per_s"]["median"] > 0
    assert set(document["machine"]) >= {"kernel", "cpu", "cpus", "filesystem", "versions"}


def test_nothing_stays_mounted_and_the_tree_is_as_it_was(
    report: TransferReport, source_file: SourceFile
):
    assert not any(mount.mountpoint.startswith(source_file.mountpoint) for mount in fuse_mounts())
    assert os.listdir(source_file.root) == [source_file.name]


@requires("passthrough")
def test_passthrough_sends_its_daemon_no_read(source_file: SourceFile):
    plan = plan_of(
        methods=("read+write", "sendfile"), sinks=("tcp",), columns=("passthrough",), latency=False
    )
    for cell in run_transfer(source_file, plan, quiet).cells:
        assert (cell.reason, cell.identical) == ("", True)
        for sample in cell.samples:
            assert sample.served == {}
            assert sample.daemon is not None
            assert sample.daemon.copied < ALLOWANCE


@requires("mounting")
def test_a_column_that_cannot_be_mounted_is_a_column_with_its_reason(source_file: SourceFile):
    plan = plan_of(columns=("backing", "absent"), methods=("sendfile",), sinks=("null",))
    found = run_transfer(source_file, plan, quiet)
    assert "absent" in found.unavailable["absent"]
    assert {cell.column for cell in found.cells} == {"backing"}
    assert all(cell.samples for cell in found.cells)


def test_a_client_that_hangs_is_killed_and_its_column_given_up(
    source_file: SourceFile, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("zcfuse.bench.transfer._column._DEADLINE_S", -1e9)
    plan = plan_of(columns=("backing",), methods=("sendfile",), sinks=("null",))
    found = run_transfer(source_file, plan, quiet)
    assert all("was not back after" in cell.reason for cell in found.cells)
    assert all("was not back after" in cell.reason for cell in found.latency)
