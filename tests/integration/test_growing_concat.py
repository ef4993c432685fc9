"""The last part of a `Concat` may grow, as `tail -f` needs it. Other parts keep their places."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Shows, write
from tests.support import requires

pytestmark = requires("mounting")


@pytest.mark.parametrize("path", ["naive", "pool", "splice", "auto"])
@pytest.mark.parametrize("last", [b"", b"last"])
@pytest.mark.parametrize("leased", [True, False])
def test_the_last_part_grows_while_it_is_open(
    source: str, shows: Shows, path: str, last: bytes, leased: bool
) -> None:
    first, second = write(source, "first", b"first"), write(source, "second", last)
    _, client = shows(
        "tree = Dir({'all': Concat([first, second])})\n"
        "options = MountOptions(path=path, directory_lease=leased, cache_timeout=0)",
        first=first,
        second=second,
        path=path,
        leased=leased,
    )
    client.value("kept = os.open(p('all'), os.O_RDONLY)")
    assert client.value("os.read(kept, 1 << 20)") == b"first" + last
    assert client.value("os.read(kept, 1 << 20)") == b""
    for name in (first, second):
        with open(name, "ab") as file:
            file.write(b" and more")
    assert client.value("os.read(kept, 1 << 20)") == b" and more"
    assert client.value("os.fstat(kept).st_size") == len(b"first" + last + b" and more")
