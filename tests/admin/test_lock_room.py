"""How much may be locked: what counts, the limits, and the release."""

import pytest

from zcfuse.admin.locks import _room as module
from zcfuse.admin.locks._room import LockRoom, OwnBudget, spare_memory

MIB = 1 << 20


def test_without_a_budget_the_limit_of_the_process_and_the_memory_bound_what_is_locked():
    room = LockRoom(None, OwnBudget(0), lockable=lambda: 10 * MIB, spare=lambda: 5 * MIB)
    assert room.take(5 * MIB) == ""
    assert "memory is short: 5.0 MiB" in room.take(6 * MIB)
    assert "10.0 MiB left" in room.take(11 * MIB)


def test_a_budget_is_shared_and_gets_back_what_is_unlocked():
    budget = OwnBudget(10 * MIB)
    assert budget.take_lock_budget(8 * MIB)  # buffers, for instance
    room = LockRoom(10 * MIB, budget, lockable=lambda: None, spare=lambda: 1 << 40)
    assert "lock budget of 10.0 MiB" in room.take(3 * MIB)
    assert room.take(2 * MIB) == ""
    room.give(2 * MIB)
    assert room.take(2 * MIB) == ""


def test_what_is_refused_takes_nothing():
    budget = OwnBudget(MIB)
    refusing = LockRoom(MIB, budget, lockable=lambda: None, spare=lambda: 0)
    assert refusing.take(MIB) != ""
    assert budget.take_lock_budget(MIB)


def test_some_of_the_machine_s_memory_is_kept_free(monkeypatch):
    facts = {"MemTotal": 1600 * MIB, "MemAvailable": 1000 * MIB}
    monkeypatch.setattr(module, "_meminfo", lambda: facts)
    monkeypatch.setattr(module, "_cgroup_spares", lambda: [])
    assert spare_memory() == 900 * MIB
    facts["MemAvailable"] = 50 * MIB
    assert spare_memory() == 0


@pytest.mark.parametrize(("limit", "spare"), [("max", None), (str(160 * MIB), 70 * MIB)])
def test_a_control_group_s_limit_counts_as_well(monkeypatch, tmp_path, limit, spare):
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(str(100 * MIB))
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {20 * MIB}\nactive_file 0\n")
    # 60 MiB are unused, 20 MiB are reclaimable, a sixteenth of the limit stays free.
    assert module._cgroup_spare(str(tmp_path)) == spare


def test_a_machine_without_control_groups_has_no_such_limit(tmp_path):
    assert module._cgroup_spare(str(tmp_path)) is None
    assert spare_memory() > 0
