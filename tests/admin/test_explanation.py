"""Advice of an explanation, and the table of reasons that it takes it from."""

import pytest

from zcfuse.admin.explain import Explanation, advice
from zcfuse.admin.explain._document import Names, Served
from zcfuse.admin.explain._inquiry import _steps
from zcfuse.datapath import REASONS as RECORDED
from zcfuse.reasons import GOOD, REASONS, coded, reason_advice, reason_line, reason_text


def found(mode="cached", reason="", *, forced="", by_option=False, names=""):
    steps = _steps(mode, reason, forced, by_option, ring=False)
    return Explanation(
        pid=1,
        source="/source",
        mountpoint="/mnt",
        options={},
        node="",
        volatile=False,
        names=Names(not names, names, 1.0),
        parts=[],
        parts_in_all=0,
        kernel={},
        transport="dev",
        transport_reason="",
        served=Served(mode, reason, "", forced, steps, 0),
        fallbacks={},
    )


def test_every_code_that_the_data_path_records_has_words():
    assert len(set(RECORDED)) == len(RECORDED) >= 30
    assert [code for code in RECORDED if code not in REASONS] == []


@pytest.mark.parametrize("code", REASONS)
def test_words_fit_one_line_and_contain_the_detail(code):
    reason = coded(code, "EXDEV")
    shown_words = (reason_text(reason), reason_advice(reason))
    for words, shown in zip(REASONS[code], shown_words, strict=True):
        assert ("EXDEV" in shown) == ("{}" in words)
        assert "\n" not in shown
        assert "{}" not in shown


def test_a_code_without_words_is_shown_as_it_is():
    assert reason_text("of another version: x") == "of another version: x"
    assert reason_advice("of another version") == ""
    assert reason_line("ring_no_device") == reason_text("ring_no_device")
    with pytest.raises(KeyError):
        coded("of_another_version", "x")


@pytest.mark.parametrize(
    ("explanation", "words"),
    [
        (found("passthrough"), GOOD),
        (found("passthrough", names="names_lease_off"), "without --no-directory-lease"),
        (found("passthrough", names="names_by_tree"), GOOD),
        (found(reason="passthrough_not_permitted"), "as root"),
        (found(reason="passthrough_stacked"), "--stack-depth 2"),
        (found(reason="passthrough_stacked_twice"), "fewer others"),
        (found(reason="passthrough_not_offered"), "Linux 6.9"),
        (found(reason="passthrough_refused: EXDEV"), "EXDEV"),
        (found(reason="passthrough_extents"), GOOD),
        (found(reason="passthrough_silent"), "without --immutable"),
        (found(forced="pool", by_option=True), "--path auto"),
        (found(forced="pool"), "leave path='pool' out"),
        (found("naive", forced="naive", by_option=True), "--path auto"),
        (found("upcall", forced="upcall", by_option=True), "--path auto"),
        (found("upcall", forced="upcall"), "leave path='upcall' out"),
        (found("upcall"), "Bytes"),
        (found("", "Input/output error"), "cannot be opened: Input/output error"),
        (found(""), GOOD),
    ],
)
def test_the_advice_names_what_would_help(explanation, words):
    assert words in advice(explanation)
    assert "\n" not in advice(explanation)


@pytest.mark.parametrize(
    ("mode", "reason", "forced", "ring", "used"),
    [
        ("passthrough", "", "", False, ["passthrough"]),
        ("cached", "passthrough_not_permitted", "", False, ["splice", "pool"]),
        ("cached", "passthrough_not_permitted", "", True, ["pool"]),
        ("cached", "", "mmap", False, ["mmap"]),
        ("cached", "", "splice", False, ["splice"]),
        ("cached", "", "pool", True, ["pool"]),
        ("upcall", "", "", False, ["upcall"]),
        ("naive", "", "naive", False, ["naive"]),
        ("", "", "", False, []),
    ],
)
def test_every_path_that_is_not_used_has_its_reason(mode, reason, forced, ring, used):
    steps = _steps(mode, reason, forced, True, ring)
    assert [step.path for step in steps if step.used] == used
    assert all(reason_text(step.reason) != step.reason for step in steps if not step.used)
