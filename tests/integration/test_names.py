"""Names of any bytes, and paths longer than PATH_MAX.

docs/semantics.md, "Names".
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.integration.client import Pair
from tests.integration.conftest import pair_of, serving
from tests.support import requires

pytestmark = requires("mounting")

NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
DEPTH = 40
LONG = "n" * 200


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    base = tmp_path_factory.mktemp("names")
    source = base / "source"
    source.mkdir()
    with (
        serving(base, str(source), "--cache-timeout", "0") as daemon,
        pair_of(daemon) as pair,
    ):
        yield pair


@settings(deadline=None, max_examples=60)
@given(name=NAMES)
@example(b"\xff" * 255)
@example(b"\n")
@example(b" \t\\040")
@example("\N{SNOWMAN}".encode())
def test_a_file_of_any_name_is_found_listed_and_read(pair: Pair, name: bytes) -> None:
    pair.native.value(f"os.close(os.open(p({name!r}), os.O_CREAT | os.O_WRONLY))")
    pair.native.value(f"open(p({name!r}), 'wb').write({name!r})")
    assert pair.same(f"content({name!r})") == name
    pair.same(f"attributes({name!r})")
    assert name in [entry[0] for entry in pair.same("entries()")]
    pair.native.value(f"os.unlink(p({name!r}))")
    assert pair.same(f"content({name!r})") == "ENOENT"


@pytest.mark.parametrize("length", [255, 256, 4000, 5000])
def test_a_name_or_path_that_is_too_long_is_refused_as_natively(pair: Pair, length: int) -> None:
    pair.same(f"os.lstat(p(b'n' * {length}))")


@pytest.mark.parametrize("name", [".", "..", "a/..", "./.", "//", "missing/..", "missing/"])
def test_dots_and_slashes_mean_what_they_mean_natively(pair: Pair, name: str) -> None:
    pair.same(f"stat.S_IFMT(os.lstat(p('{name}')).st_mode)")


def test_a_file_below_a_path_beyond_path_max_is_read(pair: Pair) -> None:
    deeper = f"following = os.open('{LONG}', os.O_RDONLY, dir_fd=at); os.close(at); at = following"
    make = f"os.mkdir('{LONG}', dir_fd=at); {deeper}"
    pair.native.value("at = os.open(root, os.O_RDONLY)")
    for _ in range(DEPTH):
        pair.native.value(make)
    pair.native.value("os.close(os.open('leaf', os.O_CREAT | os.O_WRONLY, dir_fd=at))")
    pair.native.value("os.write(os.open('leaf', os.O_WRONLY, dir_fd=at), b'far below')")
    pair.mount.value("at = os.open(root, os.O_RDONLY)")
    for _ in range(DEPTH):
        pair.mount.value(deeper)
    assert pair.same("os.read(os.open('leaf', os.O_RDONLY, dir_fd=at), 100)") == b"far below"
    pair.same("fields_of(os.stat('leaf', dir_fd=at))")
    pair.same("sorted(os.listdir(at))")
    pair.same("fields_of(os.fstat(at))")
