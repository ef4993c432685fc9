"""The table of the proof: recorded results, and tests that did not run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.programs import table
from tests.support._user import CHECKOUT

RECORD: dict[str, Any] = {
    "test": "tests/programs/test_wc.py::test_wc[passthrough]",
    "program": "wc",
    "version": "9.1",
    "compared": "the count of bytes",
    "user": "root",
    "path": "passthrough",
    "transport": "dev",
    "delivered": 1_000_000,
    "requests": 4,
    "reads": 0,
    "daemon_read_and_wrote": 532,
}
REPORT = """<testsuites><testsuite name="pytest" tests="3">
<testcase classname="tests.programs.test_wc" name="test_wc[passthrough]" />
<testcase classname="tests.programs.test_cat" name="test_cat">
<skipped type="pytest.skip" message="requires cat: cat is not installed">where</skipped></testcase>
<testcase classname="tests.programs.test_cp" name="test_cp">
<failure message="AssertionError: other bytes&#10;assert 1 == 2">where</failure></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def records(tmp_path: Path) -> str:
    ring = {**RECORD, "program": "cat", "transport": "uring", "user": "ordinary"}
    path = tmp_path / "records"
    path.write_text("".join(json.dumps(line) + "\n" for line in (RECORD, ring)))
    return str(path)


def test_each_record_is_a_row_in_the_order_of_the_programs(records: str) -> None:
    cat, wc = table.rows_of(records)
    assert (cat[0], cat[4]) == ("cat", "passthrough over io_uring for an ordinary user")
    assert wc == (
        *("wc", "9.1", "the count of bytes", "yes", "passthrough"),
        *("1,000,000", "4", "0", "532"),
    )


def test_no_records_are_no_rows(tmp_path: Path) -> None:
    assert table.rows_of(str(tmp_path / "none")) == []


def test_the_figures_are_printed_whole_where_there_is_no_terminal(
    records: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table.show(table.rows_of(records), ["not run: x: y"])
    printed = capsys.readouterr().out.splitlines()
    wc = next(line for line in printed if line.lstrip().startswith("wc "))
    assert wc.split()[-4:] == ["1,000,000", "4", "0", "532"]
    assert printed[-1] == "not run: x: y"


def test_what_was_not_run_or_failed_has_a_line_with_its_reason(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(REPORT)
    assert table.without_result(str(report)) == [
        "not run: test_cat: test_cat: requires cat: cat is not installed",
        "NOT EQUAL, or not by that path: test_cp: test_cp: AssertionError: other bytes",
    ]


def test_the_table_replaces_what_stands_between_the_marks(tmp_path: Path, records: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    text = table.markdown(table.rows_of(records), ["not run: x: y"])
    table.put_into(str(page), text)
    assert page.read_text() == f"before\n{table.BEGIN}\n{text}\n{table.END}\nafter\n"
    assert text.endswith("\n\n- not run: x: y")


def test_a_selection_replaces_its_rows_and_lines_and_keeps_the_others(tmp_path: Path) -> None:
    page, report = tmp_path / "page.md", tmp_path / "tests.xml"
    report.write_text(REPORT)
    old = ("wc", "9.0", "the count of bytes", "yes", "passthrough", "1", "2", "3", "4")
    other = ("ab|c", *old[1:])
    lines = ["not run: test_wc: test_wc[passthrough]: no wc", "not run: test_cat: test_cat: no cat"]
    page.write_text(f"{table.BEGIN}\n{table.markdown([other, old], lines)}\n{table.END}\n")
    new = ("wc", "9.1", *old[2:])
    kept = table.kept(str(page), [new], table.with_result(str(report)))
    assert kept == ([other], lines[1:])


def test_a_table_of_another_machine_is_not_mixed_with_a_selection(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{table.BEGIN}\nLinux 1.0.\n\n{table.END}\n")
    with pytest.raises(ValueError, match="is of another machine"):
        table.kept(str(page), [], set())


def test_a_page_without_the_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n")
    with pytest.raises(ValueError, match="has no line"):
        table.put_into(str(page), "text")
    assert page.read_text() == "before\n"


def test_the_page_of_the_proof_has_a_table_of_these_columns() -> None:
    with open(os.path.join(CHECKOUT, "docs", "proof.md"), encoding="utf-8") as file:
        _, _, rest = file.read().partition(table.BEGIN)
    made, end, _ = rest.partition(table.END)
    assert end
    assert "| " + " | ".join(table.HEADINGS) + " |" in made.splitlines()
