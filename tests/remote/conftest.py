"""A web server with files, and mounts of it that share a cache directory."""

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.remote.server import WebServer
from tests.support import Daemon, Mounter, skip_unless
from zcfuse.remote._fetchers import Fetchers, waited
from zcfuse.remote._messages import Reply, Request, Setup

MIB = 1 << 20
LARGE = random.Random(18).randbytes(9 * MIB + 4321)
SMALL = b"a few bytes\n"

Shown = Callable[..., Daemon]
Ask = Callable[[Request], Reply]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drivers respect proxies of the environment, which reach no server of a test."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def web() -> Iterator[WebServer]:
    """Serves "large" and "small"."""
    skip_unless("fsspec", "aiohttp")
    server = WebServer({"large": LARGE, "small": SMALL})
    yield server
    server.close()


@pytest.fixture
def workers() -> Iterator[Callable[[Setup], Ask]]:
    """Starts worker processes: ``workers(setup)`` returns a function that asks them."""
    with contextlib.ExitStack() as stack:

        def start(setup: Setup) -> Ask:
            fetchers = Fetchers(setup)
            stack.callback(fetchers.close)
            return lambda request: waited(
                fetchers.ask(lambda number: msgspec.structs.replace(request, number=number)), 60
            )

        yield start


@pytest.fixture
def cache(tmp_path: Path) -> str:
    """A cache directory, which the mounts make."""
    return str(tmp_path / "cache")


@pytest.fixture
def shown(web: WebServer, cache: str, mounted: Mounter, tmp_path: Path) -> Shown:
    """Mounts the server: ``shown(*options)``; each mount has its own directory."""
    made = 0

    def show(*options: str, **keywords: object) -> Daemon:
        nonlocal made
        made += 1
        where = tmp_path / f"mnt-{made}"
        where.mkdir()
        limits = ("--cache-dir", cache, "--cache-floor", "0")
        keywords.setdefault("source", web.url)
        return mounted(*limits, *options, mountpoint=str(where), **keywords)

    return show
