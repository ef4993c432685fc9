"""The table of the paths that served each program.

``python -m tests.programs.table RECORDS TESTS [--docs PAGE [--selection]]``: RECORDS is the file of
`records`, TESTS is pytest's report (``--junitxml``) with skipped and failed tests. It prints the
table, and with ``--docs`` writes it into PAGE between two marks. With ``--selection`` the page
keeps what the results do not replace.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal
from xml.etree import ElementTree

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

BEGIN: Final = "<!-- made by scripts/proof --docs -->"
END: Final = "<!-- end -->"
# The width in columns for files and pipes.
_WIDTH: Final = 160
_DEADLINE_S: Final = 10
HEADINGS: Final = (
    "program",
    "version",
    "what it did, and what was compared",
    "equal",
    "served by",
    "bytes it got",
    "requests",
    "READs",
    "bytes through the daemon",
)

Row = tuple[str, ...]


def rows_of(records: str) -> list[Row]:
    """One row per line of the file `records`; empty without the file."""
    if not os.path.exists(records):
        return []
    with open(records, encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    return _in_order(map(_row, found))


def _in_order(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row[0].lower(), *row[1:]))


def _row(record: dict[str, Any]) -> Row:
    version = record["version"]
    return (
        record["program"],
        _kernel() if version == platform.release() else version,
        record["compared"],
        "yes",  # an unequal result fails its test and leaves no record
        _path(record),
        f"{record['delivered']:,}",
        f"{record['requests']:,}",
        f"{record['reads']:,}",
        f"{record['daemon_read_and_wrote']:,}",
    )


def _path(record: dict[str, Any]) -> str:
    words = [record["path"]]
    words += ["over io_uring"] if record["transport"] == "uring" else []
    words += ["for an ordinary user"] if record["user"] != "root" else []
    return " ".join(words)


def without_result(tests: str) -> list[str]:
    """One line per skipped or failed test in pytest's report."""
    lines = []
    for case in ElementTree.parse(tests).iter("testcase"):
        name = _name(case)
        for outcome in case:
            said = (outcome.get("message") or "").partition("\n")[0]
            if outcome.tag == "skipped":
                lines.append(f"not run: {name}: {said}")
            elif outcome.tag in ("failure", "error"):
                lines.append(f"NOT EQUAL, or not by that path: {name}: {said}")
    return lines


def with_result(tests: str) -> set[str]:
    """The names of the other tests in the report, as the lines of `without_result` have them."""
    return {_name(case) for case in ElementTree.parse(tests).iter("testcase") if not len(case)}


def _name(case: ElementTree.Element) -> str:
    return f"{case.get('classname', '').rpartition('.')[2]}: {case.get('name')}"


def machine() -> str:
    """A description of the machine: kernel, processors, and the filesystem of the files."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        model = re.search(r"^model name\s*:\s*(.+)$", file.read(), re.MULTILINE)
    processors = f"{os.cpu_count()} processors"
    processors += f" ({' '.join(model[1].split())})" if model else ""
    command = ["findmnt", "--noheadings", "--output=FSTYPE", "--target", tempfile.gettempdir()]
    said = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    filesystem = said.stdout.strip().splitlines()[-1:] or ["an unknown filesystem"]
    return f"Linux {_kernel()}, {platform.machine()}, {processors}, files on {filesystem[0]}"


def _kernel() -> str:
    """The kernel's version without a distribution's suffix."""
    found = re.match(r"[\d.]+", platform.release())
    return found[0].rstrip(".") if found else platform.release()


def markdown(rows: Sequence[Row], lines: Sequence[str]) -> str:
    """The table for a page."""
    text = [machine() + ".", "", _cells(HEADINGS), "|" + "---|" * len(HEADINGS)]
    text += [_cells(row) for row in rows]
    text += ["", *(f"- {line}" for line in lines)] if lines else []
    return "\n".join(text)


def kept(page: str, rows: Sequence[Row], tests: set[str]) -> tuple[list[Row], list[str]]:
    """The rows and lines of `page` that the results `rows` of `tests` do not replace.

    Raises ValueError if another machine made them: one table is of one machine.
    """
    made = _parts(page)[1].strip().splitlines()
    if made[:1] != [f"{machine()}."]:
        raise ValueError(f"the table in {page} is of another machine: run all programs")
    new = {_subject(row) for row in rows}
    found = [tuple(line[2:-2].split(" | ")) for line in made if line.startswith("| ")][1:]
    old_rows = [tuple(cell.replace("\\|", "|") for cell in row) for row in found]
    old_lines = [line.removeprefix("- ") for line in made if line.startswith("- ")]
    return (
        [row for row in old_rows if _subject(row) not in new],
        [line for line in old_lines if not any(f": {name}: " in line for name in tests)],
    )


def _subject(row: Row) -> Row:
    """What a row is about: program, what it did, path."""
    return row[0], row[2], row[4]


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def put_into(page: str, text: str) -> None:
    """Replace the text between the marks of `page`.

    Raises ValueError if the page lacks them.
    """
    before, _, after = _parts(page)
    with open(page, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n{text}\n{END}{after}")


def _parts(page: str) -> tuple[str, str, str]:
    """The text before, between and after the marks of `page`."""
    with open(page, encoding="utf-8") as file:
        before, begin, rest = file.read().partition(BEGIN)
    between, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no line {BEGIN} with {END} after it")
    return before, between, after


def show(rows: Sequence[Row], lines: Sequence[str]) -> None:
    """Print the table for a terminal."""
    table = Table(box=SIMPLE, title=machine(), title_justify="left")
    for number, heading in enumerate(HEADINGS):
        figures = number > 4
        heading = heading.replace("through ", "through\n")
        side: Literal["left", "right"] = "right" if figures else "left"
        table.add_column(heading, justify=side, no_wrap=figures, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(table)
    for line in lines:
        console.print(line, markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records")
    parser.add_argument("tests")
    parser.add_argument("--docs", metavar="PAGE")
    parser.add_argument("--selection", action="store_true")
    given = parser.parse_args()
    rows, lines = rows_of(given.records), without_result(given.tests)
    show(rows, lines)
    if given.docs:
        try:
            if given.selection:
                old_rows, lines = kept(given.docs, rows, with_result(given.tests))
                rows = _in_order(rows + old_rows)
            put_into(given.docs, markdown(rows, lines))
        except ValueError as error:
            sys.exit(str(error))
        print(f"the table is in {given.docs}")


if __name__ == "__main__":
    main()
