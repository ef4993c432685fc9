"""Redis loads a dump from the mount."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.programs.conftest import ServedToUser
from tests.programs.records import Record, version
from tests.programs.served import FAST, Served, served_mount
from tests.programs.servers import END_DEADLINE_S, running
from tests.support import OrdinaryUser, requires

pytestmark = requires("mounting", "redis-server")

KEYS: Final = 4000
VALUE_BYTES: Final = 2000

Command = Callable[..., bytes]


@contextlib.contextmanager
def redis(
    data: str, base: Path, wrap: Callable[[list[str]], list[str]] = list
) -> Iterator[Command]:
    """A server with the directory `data` that writes nothing by itself; returns a query
    function."""
    base.mkdir(exist_ok=True)
    path = str(base / "redis.sock")
    options = {
        "port": "0",
        "unixsocket": path,
        "dir": data,
        "dbfilename": "dump.rdb",
        "appendonly": "no",
        "save": "",
        "enable-debug-command": "local",
        # Otherwise Redis compresses the dump and skips a failing checksum.
        "rdbcompression": "no",
        "rdbchecksum": "yes",
        "daemonize": "no",
    }
    argv = ["redis-server", *(word for name in options for word in (f"--{name}", options[name]))]

    def ask(*words: str) -> bytes:
        return _ask(path, *words)

    def loaded() -> bool:
        with contextlib.suppress(OSError):
            return ask("PING") == b"+PONG"
        return False

    with running(wrap(argv), log=str(base / "redis.log"), ready=loaded):
        yield ask


def _ask(path: str, *words: str) -> bytes:
    """Send one command; return the first line of its answer, for a bulk reply the second."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(END_DEADLINE_S)
        client.connect(path)
        parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
        client.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
        with client.makefile("rb") as answer:
            line = answer.readline().rstrip(b"\r\n")
            return answer.readline().rstrip(b"\r\n") if line.startswith(b"$") else line


def fill(source: str) -> None:
    """Let Redis write the dump."""
    with tempfile.TemporaryDirectory() as base, redis(source, Path(base)) as ask:
        ask("DEBUG", "POPULATE", str(KEYS), "key", str(VALUE_BYTES))
        assert ask("SAVE") == b"+OK"


served = served_mount(fill, FAST)


def loaded(data: str, base: Path, wrap: Callable[[list[str]], list[str]] = list) -> list[bytes]:
    """The number of keys, and the digest of their values."""
    with redis(data, base, wrap) as ask:
        return [ask("DBSIZE"), ask("DEBUG", "DIGEST")]


def test_redis_loads_the_same_data_from_a_dump_in_the_mount(
    served: Served, record: Record, tmp_path: Path
) -> None:
    with served.proof(delivered=served.size("dump.rdb")) as proof:
        found = loaded(served.mountpoint, tmp_path / "mount")
    assert found == loaded(served.source, tmp_path / "native")
    assert found[0] == b":%d" % KEYS
    record("Redis", version("redis-server", "--version"), "digest of the data set", proof)


@requires("ordinary user")
def test_an_ordinary_user_s_redis_loads_the_same(
    served_to_user: ServedToUser, ordinary_user: OrdinaryUser, record: Record
) -> None:
    served = served_to_user(fill)
    bases = [Path(ordinary_user.directory(name)) for name in ("on-mount", "on-source")]
    with served.proof(delivered=served.size("dump.rdb")) as proof:
        found = loaded(served.mountpoint, bases[0], ordinary_user.command)
    assert found == loaded(served.source, bases[1], ordinary_user.command)
    record("Redis", version("redis-server", "--version"), "digest of the data set", proof)
