"""Any sequence of changes gives the results, the errnos and the tree that it gives natively.

The reference is a second directory that the same operations change directly (docs/semantics.md,
"Writing").
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.change_sequences import (
    CLOSE_FILES,
    HELPERS,
    NO_FILES,
    OFFSETS,
    SIZES,
    SLOTS,
    changes,
    open_flags,
)
from tests.integration.client import Pair
from tests.integration.conftest import PASSTHROUGH, pair_of, serving
from tests.support import requires, skip_unless

pytestmark = requires("mounting", "root")

NAMES = st.sampled_from(["a", "b", "d", "d/a", "d/e", "d/e/a", "missing/a", "a/x", "link"])
FLAGS = open_flags(
    ["os.O_RDONLY", "os.O_WRONLY", "os.O_RDWR"],
    [
        *("0", "os.O_CREAT", "os.O_CREAT | os.O_EXCL", "os.O_TRUNC", "os.O_APPEND"),
        *("os.O_CREAT | os.O_TRUNC", "os.O_CREAT | os.O_APPEND", "os.O_SYNC", "os.O_NOFOLLOW"),
    ],
)
OPERATIONS = st.one_of(
    changes(NAMES, FLAGS, [1, 2, 3]),
    st.builds("os.lseek(fds[{}], {}, os.SEEK_END)".format, SLOTS, OFFSETS),
    st.builds("os.fsync(fds[{}])".format, SLOTS),
    st.builds("os.posix_fallocate(fds[{}], {}, {})".format, SLOTS, OFFSETS, SIZES),
    st.builds(
        "os.copy_file_range(fds[{}], fds[{}], {}, 0, {})".format, SLOTS, SLOTS, SIZES, OFFSETS
    ),
)
BEGIN = f"{NO_FILES}; os.mkdir(p('case'))"
END = f"{CLOSE_FILES}; shutil.rmtree(p('case'))"


@pytest.fixture(scope="module", params=["pool", PASSTHROUGH])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    skip_unless("mounting", "root")
    base = tmp_path_factory.mktemp("writable-sequences")
    source, twin = str(base / "source"), str(base / "twin")
    os.mkdir(source)
    os.mkdir(twin)
    with (
        serving(base, source, "--rw", "--path", request.param) as daemon,
        pair_of(daemon, reference=twin) as pair,
    ):
        pair.same(HELPERS)
        yield pair


@settings(deadline=None, max_examples=60)
@given(operations=st.lists(OPERATIONS, min_size=3, max_size=20))
def test_a_sequence_of_changes_gives_what_it_gives_natively(
    pair: Pair, operations: list[str]
) -> None:
    pair.same(BEGIN)
    try:
        for operation in operations:
            pair.same(operation)
        pair.same("tree()")
    finally:
        pair.mount.outcome(END)
        pair.native.outcome(END)
