"""``zcfuse cache``: what it shows, removes and leaves."""

import json
import os
from pathlib import Path

import pytest

from tests.cli.conftest import refused, run_zcfuse
from zcfuse.remote._cache import Cache, Entry, key_of

SIZE = 300_000


def _open(directory: Path, name: str) -> tuple[str, Entry]:
    key = key_of("server", name, "1")
    cache = Cache(str(directory), "1000000000", "0")
    return key, cache.open(key, SIZE, f"s3://bucket/{name}", "1")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Two complete entries, "a/x" and "ab"."""
    for name in ("a/x", "ab"):
        _, entry = _open(tmp_path, name)
        writing = entry.writing(0)
        writing.add(os.urandom(SIZE))
        writing.finish()
        entry.close()
    return tmp_path


def _listed(directory: Path) -> list[dict[str, object]]:
    result = run_zcfuse("cache", "list", "--json", "--cache-dir", str(directory))
    assert result.returncode == 0, result.stderr
    rows: list[dict[str, object]] = json.loads(result.stdout)
    return rows


def test_list_shows_each_entry_with_what_is_there(kept: Path):
    rows = _listed(kept)
    assert [row["url"] for row in rows] == ["s3://bucket/a/x", "s3://bucket/ab"]
    assert all(row["size"] == row["present"] == SIZE for row in rows)
    shown = run_zcfuse("cache", "list", "--cache-dir", str(kept))
    assert shown.stdout.count("s3://bucket/") == 2


def test_verify_finds_a_damaged_range_once(kept: Path):
    damaged = kept / f"{key_of('server', 'ab', '1')[:2]}" / f"{key_of('server', 'ab', '1')}.data"
    assert run_zcfuse("cache", "verify", "--cache-dir", str(kept)).returncode == 0
    with open(damaged, "r+b") as file:
        file.write(bytes(100))
    result = run_zcfuse("cache", "verify", "--cache-dir", str(kept))
    assert result.returncode == 1
    assert "s3://bucket/ab" in result.stderr
    assert run_zcfuse("cache", "verify", "--cache-dir", str(kept)).returncode == 0
    assert [row["present"] for row in _listed(kept)] == [SIZE, 0]


def test_remove_takes_a_url_with_everything_below_it_or_a_beginning(kept: Path):
    assert run_zcfuse("cache", "remove", "s3://bucket/a", "--cache-dir", str(kept)).returncode == 0
    [row] = _listed(kept)
    assert row["url"] == "s3://bucket/ab"
    key = str(row["key"])
    assert run_zcfuse("cache", "remove", key[:8], "--cache-dir", str(kept)).returncode == 0
    assert _listed(kept) == []


def test_an_entry_in_use_stays(kept: Path):
    _, entry = _open(kept, "ab")
    result = run_zcfuse("cache", "remove", "s3://bucket", "--cache-dir", str(kept))
    assert result.returncode == 1
    assert "s3://bucket/ab" in result.stderr
    pruned = run_zcfuse("cache", "prune", "--cache-size", "0", "--cache-dir", str(kept))
    assert pruned.returncode == 0
    assert [row["url"] for row in _listed(kept)] == ["s3://bucket/ab"]
    entry.close()
    run_zcfuse("cache", "prune", "--cache-size", "0", "--cache-dir", str(kept))
    assert _listed(kept) == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("remove",), "ENTRY"),
        (("prune", "x"), "ENTRY"),
        (("list", "--cache-size", "1G"), "prune"),
        (("prune", "--cache-size", "much"), "size"),
        (("list", "s3://nowhere"), "no such entry"),
    ],
)
def test_wrong_use_is_one_line(tmp_path: Path, arguments: tuple[str, ...], word: str):
    refused(run_zcfuse("cache", *arguments, "--cache-dir", str(tmp_path)), 2, word)


def test_a_missing_directory_is_named(tmp_path: Path):
    missing = str(tmp_path / "missing")
    refused(run_zcfuse("cache", "list", "--cache-dir", missing), 2, missing)
