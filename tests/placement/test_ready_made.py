"""The ready-made placements: where each puts a file. No mount is needed."""

import os
from pathlib import Path

import pytest

from zcfuse import Hint, Placement, Who, placement

WHO = Who(0, 0, 0)
HINT = Hint(0o100644, 0, "")


@pytest.fixture
def branches(tmp_path: Path) -> list[str]:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    return [str(tmp_path / name) for name in ("a", "b", "c")]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Bytes free by the last letter of a branch."""
    amounts = {"a": 10, "b": 30, "c": 20}

    def statvfs(path: str) -> os.statvfs_result:
        return os.statvfs_result((1, 1, 0, 0, amounts[path[-1]], 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", statvfs)
    return amounts


def test_most_free_takes_the_branch_with_most_space(branches: list[str], free: dict[str, int]):
    place = placement.most_free(branches)
    assert place("f", WHO, HINT) == Placement(branches[1], leased=True, valid_for=1.0)
    free["c"] = 40
    assert place("f", WHO, HINT).branch == branches[2]  # type: ignore[union-attr]


@pytest.mark.parametrize(("room", "index"), [(5, 0), (15, 1), (100, 2)])
def test_first_with_room_ends_at_the_last(
    branches: list[str], free: dict[str, int], room: int, index: int
):
    place = placement.first_with_room(branches, room)
    assert place("f", WHO, HINT).branch == branches[index]  # type: ignore[union-attr]


def test_round_robin_takes_each_branch_in_turn_without_a_lease(branches: list[str]):
    place = placement.round_robin(branches)
    assert [place("f", WHO, HINT) for _ in range(4)] == [
        Placement(branch) for branch in [*branches, branches[0]]
    ]


def test_existing_path_takes_the_first_branch_with_the_directory(branches: list[str]):
    os.mkdir(os.path.join(branches[1], "d"))
    otherwise = placement.by_suffix({}, branches[2])
    place = placement.existing_path(branches, otherwise)
    assert place("d/f", WHO, HINT) == Placement(branches[1], leased=True)
    assert place("e/f", WHO, HINT) == place("f", WHO, HINT) == Placement(branches[2])


def test_a_suffix_chooses_the_branch(branches: list[str]):
    place = placement.by_suffix({".log": branches[0]}, branches[1])
    assert place("d/a.log", WHO, HINT) == Placement(branches[0])
    assert place("d/a.txt", WHO, HINT) == Placement(branches[1])


@pytest.mark.parametrize(("text", "index"), [("", 0), ("99", 0), ("100", 1), ("much", 0)])
def test_a_size_hint_chooses_the_branch(branches: list[str], text: str, index: int):
    place = placement.by_size_hint(100, branches[0], branches[1])
    found = place("f", WHO, Hint(0o100644, 0, text))
    assert found == Placement(branches[index], leased=True, valid_for=1.0)
