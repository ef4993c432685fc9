"""Each rule of a push is needed: with it nothing is stale after the fence, without it something is.

A preloaded library (ablation.c) leaves a rule out, and holds one reply back until the test lets it
go, so that a change comes while it is on its way.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.coherence.pushed import CACHED, PUSH, ROUNDS, stress, sync
from tests.integration.conftest import serving
from tests.support import DEADLINE_S, Daemon, eventually, requires

pytestmark = requires("mounting", "root", "cc")

LATE_US: Final = 500
# Each reply is late, so a round takes long. `make coherence` runs as many as of the others.
LATE_ROUNDS: Final = ROUNDS if "ZCFUSE_COHERENCE_ROUNDS" in os.environ else 10
CHANGES: Final = 20
LOOKUP, GETATTR, READ, READDIRPLUS = 1, 3, 15, 44

# Prints the first bytes of a mapping, and again after each line that it is sent.
_MAPPED: Final = """
import mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 3, prot=mmap.PROT_READ) as shown:
    print(shown[:].decode(), flush=True)
    for _ in sys.stdin:
        print(shown[:].decode(), flush=True)
"""


@dataclass(frozen=True)
class Late:
    """How to hold back the reply to a request of one kind; `env` is the daemon's."""

    directory: Path
    opcode: int
    name: str = ""

    @property
    def env(self) -> dict[str, str]:
        variables = {
            "ZCFUSE_LATE_OPCODE": str(self.opcode),
            "ZCFUSE_LATE_SIGN": str(self.directory / "sign"),
            "ZCFUSE_LATE_GATE": str(self.directory / "gate"),
        }
        return {**variables, **({"ZCFUSE_LATE_NAME": self.name} if self.name else {})}

    def is_held(self) -> bool:
        return (self.directory / "sign").exists()

    def let_go(self) -> None:
        (self.directory / "gate").touch()


@contextlib.contextmanager
def _mounted(tmp_path: Path, env: Mapping[str, str], late: Late | None = None) -> Iterator[Daemon]:
    """A mount with a file in it; at the end no reply is held back."""
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    (source / "file").write_bytes(b"old")
    variables = {**env, **(late.env if late else {})}
    with serving(tmp_path, str(source), *PUSH, *CACHED, env=variables) as daemon:
        try:
            yield daemon
        finally:
            if late:
                late.let_go()


def _left_out(ablation: str, rule: str) -> dict[str, str]:
    return {"LD_PRELOAD": ablation, "ZCFUSE_WITHOUT": rule}


# Each of these brings about what a rule is for, and returns whether the mount is stale then.


def _again(tmp_path: Path, env: Mapping[str, str]) -> bool:
    late = Late(tmp_path, LOOKUP, "file")
    with _mounted(tmp_path, env, late) as daemon:
        argv = ["test", "-e", daemon.path("file")]  # stat(1) also asks for the time of birth
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as client:
            assert eventually(late.is_held)
            os.chmod(tmp_path / "source" / "file", 0o600)
            # With the rule the push waits for the reply.
            if env["ZCFUSE_WITHOUT"] == "again":
                sync(daemon)
            late.let_go()
            assert client.wait(DEADLINE_S) == 0
        sync(daemon)
        return daemon.run("stat", "-c", "%a", daemon.path("file")).stdout != b"600\n"


def _listing(tmp_path: Path, env: Mapping[str, str]) -> bool:
    with _mounted(tmp_path, env) as daemon:
        assert daemon.run("ls", daemon.mountpoint).stdout == b"file\n"
        (tmp_path / "source" / "new").touch()
        sync(daemon)
        return daemon.run("ls", daemon.mountpoint).stdout != b"file\nnew\n"


def _merged(tmp_path: Path, env: Mapping[str, str]) -> bool:
    """The lower part of a directory is exchanged, which its upper part does not show."""
    for place in ("upper/x", "lower/x", "lower/y"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / place[-1]).touch()
    layers = ["--layer", str(tmp_path / "upper"), "--layer", str(tmp_path / "lower")]
    late = Late(tmp_path, READDIRPLUS)
    with serving(tmp_path, "", *layers, *PUSH, *CACHED, env={**env, **late.env}) as daemon:
        # The push would wait for a node as well that the kernel has not got, so one is kept open.
        argv = ["sh", "-c", 'exec ls "$0" <"$0/x"', daemon.path("x")]
        try:
            with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as client:
                assert eventually(late.is_held)
                (tmp_path / "lower" / "x").rename(tmp_path / "away")
                (tmp_path / "lower" / "y").rename(tmp_path / "lower" / "x")
                # With the rule the push waits for the reply.
                if env["ZCFUSE_WITHOUT"] == "merged":
                    sync(daemon)
                late.let_go()
                assert client.wait(DEADLINE_S) == 0
        finally:
            late.let_go()
        sync(daemon)
        return daemon.run("ls", daemon.path("x")).stdout != b"x\ny\n"


def _pages(tmp_path: Path, env: Mapping[str, str]) -> bool:
    with _mounted(tmp_path, env) as daemon:
        argv = [sys.executable, "-c", _MAPPED, daemon.path("file")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(argv, text=True, **pipes) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "old\n"
            with open(tmp_path / "source" / "file", "r+b") as file:
                file.write(b"new")
            sync(daemon)
            return client.communicate("\n", DEADLINE_S)[0] != "new\n"


Scene = Callable[[Path, Mapping[str, str]], bool]
SCENES: Final[Mapping[str, Scene]] = {
    "again": _again,
    "listing": _listing,
    "merged": _merged,
    "pages": _pages,
}


@pytest.mark.parametrize("rule", SCENES)
def test_without_any_one_of_its_rules_a_push_leaves_something_stale(
    tmp_path: Path, ablation: str, rule: str
) -> None:
    assert SCENES[rule](tmp_path, _left_out(ablation, rule))


@pytest.mark.parametrize("rule", SCENES)
def test_with_all_rules_the_same_leaves_nothing_stale(
    tmp_path: Path, ablation: str, rule: str
) -> None:
    assert not SCENES[rule](tmp_path, _left_out(ablation, ""))


@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_with_all_rules_late_replies_leave_nothing_stale(tmp_path: Path, ablation: str) -> None:
    env = {"LD_PRELOAD": ablation, "ZCFUSE_LATE_US": str(LATE_US)}
    with _mounted(tmp_path, env) as daemon:
        assert stress(daemon, str(tmp_path / "source"), rounds=LATE_ROUNDS) == ""


@pytest.mark.parametrize(
    ("opcode", "look"),
    [
        (LOOKUP, ["test", "-e", "{}/file"]),
        (GETATTR, ["test", "-e", "{}/file"]),
        (READ, ["cat", "{}/file"]),
        (READDIRPLUS, ["ls", "-l", "{}"]),
    ],
)
def test_changes_while_a_slow_reply_is_on_its_way_show_after_the_fence(
    tmp_path: Path, ablation: str, opcode: int, look: list[str]
) -> None:
    late = Late(tmp_path, opcode)
    file = tmp_path / "source" / "file"
    with _mounted(tmp_path, {"LD_PRELOAD": ablation}, late) as daemon:
        if opcode == GETATTR:  # of a name that the kernel has, after a push
            daemon.run("stat", daemon.path("file"))
            file.chmod(0o700)
            sync(daemon)
        argv = [text.format(daemon.mountpoint) for text in look]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as client:
            assert eventually(late.is_held)
            for number in range(CHANGES):
                file.write_bytes(b"%d" % number)
                file.chmod(0o600 + number)
            late.let_go()
            assert client.wait(DEADLINE_S) == 0
        sync(daemon)
        for shown in (["stat", "-c", "%s %a %Y %Z"], ["cat"]):
            backing = subprocess.check_output([*shown, file], timeout=DEADLINE_S)
            assert daemon.run(*shown, daemon.path("file")).stdout == backing


def test_a_slow_directory_delays_no_push_of_most_others(tmp_path: Path, ablation: str) -> None:
    source = tmp_path / "source"
    fast = [f"fast{number}" for number in range(16)]
    for name in ("first", *fast):
        (source / name).mkdir(parents=True)
    late = Late(tmp_path, LOOKUP, "slow")
    with _mounted(tmp_path, {"LD_PRELOAD": ablation}, late) as daemon:
        news = [daemon.path(name, "new") for name in fast]
        assert _seen(daemon, daemon.path("first", "new"), *news) == 0
        argv = ["stat", daemon.path("first", "slow")]
        with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as slow:
            assert eventually(late.is_held)
            for name in ("first", *fast):
                (source / name / "new").touch()
            # The pushers share the directories, and the slow one holds up its pusher's.
            assert eventually(lambda: _seen(daemon, *news) >= len(fast) / 2)
            assert slow.poll() is None
            late.let_go()
        sync(daemon)
        assert _seen(daemon, daemon.path("first", "new"), *news) == len(fast) + 1


def _seen(daemon: Daemon, *paths: str) -> int:
    """Return how many of these paths exist to a client."""
    listed = daemon.run("ls", "-d", *paths, check=False)
    return len(listed.stdout.splitlines())
