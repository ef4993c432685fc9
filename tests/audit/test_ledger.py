"""Views of status documents, and the comparison of the two counts."""

from typing import Any

import pytest

from zcfuse.audit import CLASSIC, IoCounts, Ledger, compare, ledger_of, model_of

MIB = 1 << 20


def _counts(size: int, copied_in: int, copied_out: int, requests: int = 1) -> dict[str, int]:
    return {
        "requests": requests,
        "bytes": size,
        "copied_in": copied_in,
        "copied_out": copied_out,
        "calls": 2 * requests,
        "short": 0,
        "errors": 0,
        "refused": 0,
    }


def _document(
    paths: dict[str, Any] | None, *, read: int = 0, replied: int = 0, reads: int = 0
) -> dict[str, Any]:
    control = {
        "upcalls": {"lookup": 2, "read": reads},
        "read_requests": reads,
        "read_bytes": read,
        "replied_bytes": replied,
    }
    datapath = None
    if paths is not None:
        total = sum(counts["requests"] for counts in paths.values())
        datapath = {
            "paths": paths,
            "requests": {"READ": total, "LOOKUP": 2},
            "upcalls": {"LOOKUP": 2},
            "fallbacks": {"too small": 1},
            "opens": {"cached": 1},
        }
    return {"control": control, "datapath": datapath}


def test_without_a_data_path_everything_is_naive():
    ledger = ledger_of(_document(None, read=MIB, replied=MIB, reads=8))
    assert ledger.paths["naive"].copies_per_byte == 2
    assert (ledger.reads, ledger.bytes) == (8, MIB)


def test_a_spliced_byte_costs_no_copy():
    ledger = ledger_of(_document({"splice": _counts(MIB, 0, 0)}))
    assert ledger.paths["splice"].copies_per_byte == 0


def test_an_upcall_is_copied_twice_by_control_and_twice_by_the_data_path():
    ledger = ledger_of(
        _document({"upcall": _counts(MIB, MIB, MIB)}, read=MIB, replied=MIB, reads=1)
    )
    assert ledger.paths["upcall"].copies_per_byte == 4
    assert ledger.bytes == MIB
    assert ledger.received == MIB


def test_a_difference_is_by_path_and_by_operation():
    earlier = ledger_of(_document({"pool": _counts(MIB, MIB, MIB)}))
    later = ledger_of(
        _document({"pool": _counts(3 * MIB, 3 * MIB, 3 * MIB, 3), "splice": _counts(MIB, 0, 0)})
    )
    passed = later.since(earlier)
    assert passed.paths["pool"].bytes == 2 * MIB
    assert passed.paths["splice"].bytes == MIB
    assert passed.reads == 3
    assert passed.fallbacks == {"too small": 0}


def _io(rchar: int, wchar: int) -> IoCounts:
    return IoCounts(rchar, wchar, 0, 0, 0, 0)


def _pool(size: int, requests: int) -> Ledger:
    return ledger_of(_document({"pool": _counts(size, size, size, requests)}))


def test_headers_are_within_the_tolerance():
    ledger = _pool(64 * MIB, 64)
    comparison = compare(ledger, _io(64 * MIB + 80 * 64, 64 * MIB + 16 * 64), {"READ": 64})
    assert comparison.agrees
    assert comparison.differences() == []


def test_a_copy_that_the_ledger_does_not_know_is_a_difference():
    comparison = compare(_pool(64 * MIB, 64), _io(128 * MIB, 64 * MIB))
    assert not comparison.agrees
    assert [line.split(":")[0] for line in comparison.differences()] == ["bytes copied in"]


def test_a_copy_that_only_the_ledger_knows_is_a_difference():
    assert not compare(_pool(64 * MIB, 64), _io(64 * MIB, 0)).agrees


def test_one_read_more_is_a_difference():
    comparison = compare(_pool(64 * MIB, 64), _io(64 * MIB, 64 * MIB), {"READ": 65, "": 70})
    assert [count.name for count in comparison.counts if not count.agrees] == ["READ requests"]


def test_what_recv_brings_is_not_expected_of_the_kernels_count():
    document = _document(
        {"upcall": _counts(64 * MIB, 64 * MIB, 64 * MIB)}, read=64 * MIB, replied=64 * MIB
    )
    assert compare(ledger_of(document), _io(64 * MIB, 128 * MIB)).agrees


@pytest.mark.parametrize(
    ("path", "copied_in", "copied_out", "served", "reads", "maps"),
    [
        ("naive", 1, 1, 1, 3, 2),
        ("upcall", 2, 2, 1, 5, 4),
        ("pool", 1, 1, 1, 3, 2),
        ("mmap by writev", 0, 1, 1, 2, 1),
        ("mmap by vmsplice", 0, 0, 1, 2, 1),
        ("splice", 0, 0, 1, 2, 1),
        ("passthrough", 0, 0, 0, 1, 0),
    ],
)
def test_the_model_adds_the_kernels_copy_and_the_clients_own(
    path: str, copied_in: float, copied_out: float, served: float, reads: float, maps: float
):
    model = model_of(path, copied_in, copied_out, served)
    assert (model.client_reads, model.client_maps) == (reads, maps)


def test_four_copies_become_none():
    assert CLASSIC.client_reads == 4
    assert model_of("passthrough", 0, 0, 0).client_maps == 0
