"""Finds the line of a value in a TOML file.

tomllib has already parsed the text, so it is valid TOML; this scanner follows only opening and
closing marks.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

Way = tuple[str | int, ...]
"""The path from the top to a value: keys of tables and indexes of lists."""

_TOKEN: Final = re.compile(
    r'''(?P<string>"""(?:\\[\s\S]|(?!""")[\s\S])*"""(?:"{0,2})'''
    r"""|'''(?:(?!''')[\s\S])*'''(?:'{0,2})"""
    r"""|"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
    r"""|(?P<comment>\#[^\n]*)|(?P<newline>\n)|(?P<mark>[\[\]{}=,.])"""
    r"""|(?P<bare>[^\s\[\]{}=,.\#"']+)"""
)
_END: Final = ("end", "", 0)


def line_of(text: str, way: Way) -> int:
    """Return the first line of the value at `way`, or of its container; 0 if neither exists."""
    try:
        lines = _Scanner(text).lines
    except RecursionError:  # almost too deep for tomllib: a message without a line
        return 0
    while way and way not in lines:
        way = way[:-1]
    return lines.get(way, 0)


class _Scanner:
    """Records the line of each table, key and element."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Way, int] = {}
        self._tokens = _tokens(text)
        self._next = 0
        self._tables: Counter[Way] = Counter()
        self._document()

    def _document(self) -> None:
        table: Way = ()
        while self._peek() != "end":
            if self._peek() == "newline":
                self._take()
            elif self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Way:
        line = self._take()[2]
        is_list = self._peek() == "["
        way: Way = ()
        keys = self._keys("]")
        for place, key in enumerate(keys):
            way = (*way, key)
            if is_list and place == len(keys) - 1:
                self.lines.setdefault(way, line)
                self._tables[way] += 1
            if way in self._tables:
                way = (*way, self._tables[way] - 1)
            self.lines.setdefault(way, line)
        while self._peek() == "]":
            self._take()
        return way

    def _pair(self, table: Way) -> None:
        line = self._tokens[self._next][2]
        way = table
        for key in self._keys("="):
            way = (*way, key)
            self.lines.setdefault(way, line)
        self._take()
        self._value(way)

    def _value(self, way: Way) -> None:
        self.lines.setdefault(way, self._tokens[self._next][2])
        if self._peek() == "[":
            self._list(way)
        elif self._peek() == "{":
            self._inline_table(way)
        else:
            while self._peek() in ("string", "bare", "."):
                self._take()

    def _list(self, way: Way) -> None:
        self._take()
        index = 0
        while self._peek() not in ("]", "end"):
            if self._peek() in ("newline", ","):
                self._take()
            else:
                self._value((*way, index))
                index += 1
        self._take()

    def _inline_table(self, way: Way) -> None:
        self._take()
        while self._peek() not in ("}", "end"):
            if self._peek() in ("newline", ","):
                self._take()
            else:
                self._pair(way)
        self._take()

    def _keys(self, end: str) -> list[str]:
        keys = []
        while self._peek() not in (end, "end"):
            kind, text, _ = self._take()
            if kind in ("string", "bare"):
                keys.append(text[1:-1] if kind == "string" else text)
        return keys

    def _peek(self) -> str:
        """Return the kind of the next token; a mark is its kind."""
        if self._next >= len(self._tokens):
            return "end"
        kind, text, _ = self._tokens[self._next]
        return text if kind == "mark" else kind

    def _take(self) -> tuple[str, str, int]:
        self._next += 1
        return self._tokens[self._next - 1] if self._next <= len(self._tokens) else _END


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """Yield (kind, text, line) of tokens except comments."""
    found = []
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind != "comment":
            found.append((kind, match[0], line))
        line += match[0].count("\n")
    return found
