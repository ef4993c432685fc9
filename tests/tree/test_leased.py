"""Leased answers of policies, as the tree keeps them."""

from __future__ import annotations

import pytest

from zcfuse import Bytes, Leased, LeasedNames
from zcfuse.tree.virtual import _answers
from zcfuse.tree.virtual._answers import EVERYONE, Answers

DIRECTORY = b"directory"


def keep(answers: Answers, name: bytes, leased: Leased, uid: int = 5, ino: int = 9) -> object:
    return answers.keep(DIRECTORY, name, uid, leased, leased.entry, ino)


def test_the_oldest_answer_that_a_name_is_missing_ends_where_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_answers, "MOST_MISSING", 3)
    answers = Answers()
    for number in range(3):
        assert keep(answers, b"%d" % number, Leased(None, for_everyone=number == 0)) is None
    assert keep(answers, b"there", Leased(Bytes(b"x"))) is None
    assert keep(answers, b"0", Leased(None, for_everyone=True)) is None  # the newest again
    assert keep(answers, b"3", Leased(None)) == (DIRECTORY, b"1", 5)
    assert keep(answers, b"4", Leased(None)) == (DIRECTORY, b"2", 5)
    assert keep(answers, b"5", Leased(None)) == (DIRECTORY, b"0", EVERYONE)
    assert answers.get(DIRECTORY, b"0", 5) is None
    found = answers.get(DIRECTORY, b"5", 5)
    assert found is not None
    assert found.content is None
    assert answers.get(DIRECTORY, b"there", 5) is not None


def test_a_name_that_is_there_again_is_no_longer_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_answers, "MOST_MISSING", 1)
    answers = Answers()
    keep(answers, b"a", Leased(None))
    keep(answers, b"a", Leased(Bytes(b"x")))
    keep(answers, b"b", Leased(None))
    answers.drop(DIRECTORY, b"b")
    assert keep(answers, b"c", Leased(None)) is None


def test_an_adopted_node_is_the_answer_that_has_its_inode_number() -> None:
    answers = Answers()
    first, second, everyones = Bytes(b"1"), Bytes(b"2"), Bytes(b"3")
    keep(answers, b"a", Leased(first), uid=1, ino=11)
    keep(answers, b"a", Leased(second), uid=2, ino=12)
    assert answers.shown_as(DIRECTORY, b"a", 11) is first
    assert answers.shown_as(DIRECTORY, b"a", 12) is second
    assert answers.shown_as(DIRECTORY, b"a", 13) is None
    keep(answers, b"a", Leased(everyones, for_everyone=True), ino=14)
    assert answers.shown_as(DIRECTORY, b"a", 13) is everyones


@pytest.mark.parametrize("names", ["abc", b"abc"])
def test_names_are_not_one_text(names: object) -> None:
    with pytest.raises(TypeError, match="names"):
        LeasedNames(names)  # type: ignore[arg-type]
