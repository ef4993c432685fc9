"""SQLite reads a database in the mount, without locks or a journal."""

from __future__ import annotations

import contextlib
import random
import sqlite3

import pytest

from tests.programs.conftest import ServedToUser
from tests.programs.records import Record, version
from tests.programs.served import FAST, Served, served_mount
from tests.support import requires

pytestmark = requires("mounting", "sqlite3")

ROWS = 4000
# Without immutable=1 SQLite cannot open a database in write-ahead mode on a read-only mount.
DATABASE = "file:{}/database?immutable=1"
QUERIES = """
PRAGMA integrity_check;
SELECT count(*), sum(length(body)), sum(key) FROM things;
SELECT hex(body) FROM things WHERE name = 'name 1234';
SELECT group_concat(name) FROM (SELECT name FROM things WHERE key BETWEEN 100 AND 200 ORDER BY key);
"""


def fill(source: str) -> None:
    rng = random.Random("database")
    with contextlib.closing(sqlite3.connect(f"{source}/database")) as database:
        database.execute("PRAGMA journal_mode = wal")
        database.execute("CREATE TABLE things (key INTEGER PRIMARY KEY, name TEXT, body BLOB)")
        rows = ((key, f"name {key}", rng.randbytes(1000)) for key in range(ROWS))
        database.executemany("INSERT INTO things VALUES (?, ?, ?)", rows)
        database.execute("CREATE INDEX by_name ON things (name)")
        database.commit()


served = served_mount(fill, FAST)


@pytest.mark.parametrize("mapped", [0, 1 << 30], ids=["read", "mapped"])
def test_sqlite_gives_the_same_rows_from_an_immutable_database(
    served: Served, record: Record, mapped: int
) -> None:
    queries = f"PRAGMA mmap_size = {mapped};{QUERIES}".encode()
    with served.proof(delivered=served.size("database")) as proof:
        found = served.same("sqlite3", "-batch", DATABASE, stdin=queries)
    assert f"\nok\n{ROWS}|{ROWS * 1000}|" in found.decode()
    how = "SQLite, immutable=1" + (", mmap_size" if mapped else "")
    record(how, version("sqlite3", "--version"), "integrity_check and rows", proof)


@requires("ordinary user")
def test_an_ordinary_user_s_sqlite_gives_the_same_rows(
    served_to_user: ServedToUser, record: Record
) -> None:
    served = served_to_user(fill)
    with served.proof(delivered=served.size("database")) as proof:
        served.same("sqlite3", "-batch", DATABASE, stdin=QUERIES.encode())
    record(
        "SQLite, immutable=1",
        version("sqlite3", "--version"),
        "integrity_check and rows",
        proof,
    )
