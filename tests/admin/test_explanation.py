"""Texts and advice for a daemon's reasons, without a mount."""

import re
from pathlib import Path

import pytest

from zcfuse.admin.explain._document import (
    GOOD,
    Explanation,
    Names,
    Served,
    advice,
    meaning,
)
from zcfuse.admin.explain._inquiry import _steps

SERVE = Path(__file__).parents[2] / "zcfuse" / "datapath" / "native" / "serve"
_REASON = re.compile(r'"((?:passthrough|splice|mmap|pool|no lease|zero-message opens): [^"]+)"')


def recorded_reasons():
    """Every reason that the data path's sources can record."""
    return sorted(
        {
            reason
            for name in ("ledger.cpp", "backings.cpp", "datapath.cpp")
            for reason in _REASON.findall((SERVE / name).read_text())
        }
    )


def found(mode="cached", reason="", *, forced="", options=None, leased=True):
    return Explanation(
        pid=1,
        source="/source",
        mountpoint="/mnt",
        options={"path": "auto", "stack_depth": 1, "directory_lease": True, **(options or {})},
        node="",
        volatile=False,
        names=Names(leased, "", 1.0),
        parts=[],
        parts_in_all=0,
        kernel={},
        transport="dev",
        transport_reason="",
        served=Served(mode, reason, "", forced, [], 0),
        fallbacks={},
    )


def test_there_are_as_many_reasons_as_the_sources_are_thought_to_have():
    assert len(recorded_reasons()) >= 20


@pytest.mark.parametrize("reason", recorded_reasons())
def test_every_recorded_reason_is_told_in_other_words(reason):
    assert meaning(reason)


def test_an_errno_that_nobody_expected_is_understood_all_the_same():
    assert meaning("passthrough: EXDEV")
    assert "EXDEV" in advice(found(reason="passthrough: EXDEV"))


def test_an_unknown_reason_has_no_words():
    assert meaning("something else") == ""


@pytest.mark.parametrize(
    ("explanation", "words"),
    [
        (found("passthrough"), GOOD),
        (
            found("passthrough", leased=False, options={"directory_lease": False}),
            "without --no-directory-lease",
        ),
        (found(reason="passthrough: EPERM (needs CAP_SYS_ADMIN)"), "as root"),
        (found(reason="passthrough: ELOOP (...)"), "--stack-depth 2"),
        (found(reason="passthrough: ELOOP (...)", options={"stack_depth": 2}), "fewer others"),
        (found(reason="passthrough: ENOSYS (...)"), "Linux 6.9"),
        (found(reason="passthrough: the file is made of extents"), GOOD),
        (found(reason="passthrough: not on an immutable mount (...)"), "without --immutable"),
        (found(forced="pool", options={"path": "pool"}), "--path auto"),
        (found(forced="pool"), "leave path='pool' out"),
        (found("naive", options={"path": "naive"}), "without --path naive"),
        (found("upcall", options={"path": "upcall"}), "without --path upcall"),
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
        ("cached", "passthrough: EPERM", "", False, ["splice", "pool"]),
        ("cached", "passthrough: EPERM", "", True, ["pool"]),
        ("cached", "", "mmap", False, ["mmap"]),
        ("cached", "", "splice", False, ["splice"]),
        ("cached", "", "pool", True, ["pool"]),
        ("upcall", "", "", False, ["upcall"]),
        ("naive", "", "naive", False, ["naive"]),
        ("", "", "", False, []),
    ],
)
def test_every_path_that_is_not_used_has_its_reason(mode, reason, forced, ring, used):
    steps = _steps(mode, reason, forced, ring)
    assert [step.path for step in steps if step.used] == used
    assert all(step.reason for step in steps if not step.used)
