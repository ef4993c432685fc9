"""The cache directory by itself: records, limits, and who may remove what."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support._user import CHECKOUT
from zcfuse.remote._cache import PIECE_BYTES, Cache, CacheError, Entry, check_limit, key_of

SIZE = 3 * PIECE_BYTES + 100


def _write(entry: Entry, offset: int, data: bytes) -> None:
    writing = entry.writing(offset)
    for at in range(0, len(data), 100_000):
        writing.add(data[at : at + 100_000])
    writing.finish()


def _filled(cache: Cache, name: str, data: bytes) -> str:
    key = key_of("server", name, "1")
    entry = cache.open(key, len(data), f"test://{name}", "1")
    _write(entry, 0, data)
    entry.close()
    return key


def test_a_range_is_present_only_with_a_record_of_its_bytes(tmp_path: Path):
    cache = Cache(str(tmp_path), "1000000000", "0")
    data = os.urandom(SIZE)
    entry = cache.open(key_of("s", "a", "1"), SIZE, "test://a", "1")
    assert entry.records() == {}
    _write(entry, PIECE_BYTES, data[PIECE_BYTES : 2 * PIECE_BYTES])
    _write(entry, 3 * PIECE_BYTES, data[3 * PIECE_BYTES :])
    assert sorted(entry.records()) == [1, 3]
    assert all(map(entry.is_intact, entry.records().values()))
    os.pwrite(entry.data, b"?", SIZE - 1)
    assert [entry.is_intact(entry.records()[piece]) for piece in (1, 3)] == [True, False]
    entry.drop(entry.records()[3])
    assert sorted(entry.records()) == [1]
    entry.close()


def test_a_record_that_a_crash_cut_is_replaced_by_the_next(tmp_path: Path):
    cache = Cache(str(tmp_path), "1000000000", "0")
    key = _filled(cache, "a", os.urandom(SIZE))
    record = next(tmp_path.rglob("*.record"))
    with open(record, "ab") as file:
        file.write(b"half a record")
    entry = cache.open(key, SIZE, "test://a", "1")
    assert len(entry.records()) == 4
    _write(entry, 0, bytes(PIECE_BYTES))
    assert entry.is_intact(entry.records()[0])
    assert entry.records()[0].length == PIECE_BYTES
    entry.close()


def test_another_process_waits_for_a_range_that_is_being_fetched(tmp_path: Path):
    cache = Cache(str(tmp_path), "1000000000", "0")
    key = _filled(cache, "a", bytes(SIZE))
    code = (
        "import sys, time; from zcfuse.remote._cache import Cache\n"
        "entry = Cache(sys.argv[1], '9', '0').open(sys.argv[2], int(sys.argv[3]), 'u', '1')\n"
        "try:\n"
        "    with entry.fetching(int(sys.argv[4]), 1, time.monotonic()): print('free')\n"
        "except TimeoutError: print('held')"
    )

    def other(offset: int) -> str:
        arguments = [str(tmp_path), key, str(SIZE), str(offset)]
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
            timeout=30,
            check=True,
        ).stdout.strip()

    entry = cache.open(key, SIZE, "test://a", "1")
    with entry.fetching(PIECE_BYTES, PIECE_BYTES, 0):
        assert [other(at) for at in (0, PIECE_BYTES, 2 * PIECE_BYTES)] == ["free", "held", "free"]
    assert other(PIECE_BYTES) == "free"
    entry.close()


def test_an_eviction_removes_what_was_used_least_recently_and_nothing_open(tmp_path: Path):
    cache = Cache(str(tmp_path), str(2 << 20), "0")
    keys = [_filled(cache, str(n), os.urandom(1 << 20)) for n in range(5)]
    for age, key in enumerate(reversed(keys)):
        os.utime(next(tmp_path.rglob(f"{key}.record")), (1000 - age, 1000 - age))
    held = cache.open(keys[0], 1 << 20, "test://0", "1")
    assert cache.evict() >= 3 << 20
    assert {kept.key for kept in cache.entries()} == {keys[0]}
    with pytest.raises(OSError, match="busy") as refusal:
        cache.remove(keys[0])
    assert refusal.value.errno == errno.EBUSY
    held.close()
    assert cache.remove(keys[0]) >= 1 << 20
    assert not list(tmp_path.rglob("*.*"))


def test_the_cache_of_another_user_is_refused(tmp_path: Path):
    if os.geteuid() == 0:
        os.chown(tmp_path, 12345, 12345)
        with pytest.raises(CacheError, match="another user"):
            Cache(str(tmp_path))
    else:
        with pytest.raises(CacheError, match="another user"):
            Cache("/")


@pytest.mark.parametrize("text", ["", "much", "120%", "-1", "5%%"])
def test_a_limit_that_is_none_is_refused(text: str):
    with pytest.raises(ValueError, match=r"size|more than"):
        check_limit(text)
