"""Where changes are pushed and files are small, opens send no message: docs/semantics.md."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.coherence.pushed import PUSH, coherence, stress
from tests.coherence.stress import fence
from tests.integration.conftest import kernel_mount, serving
from tests.integration.counts import counts
from tests.support import DEADLINE_S, Daemon, eventually, requires

pytestmark = requires("mounting", "root")

LARGE: Final = 1 << 20

# Opens a file and waits for a line before each of: a read of all, fstat, a second read.
_HOLDER: Final = """
import os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
print("open", flush=True)
for action in (lambda: os.pread(file, 100, 0).decode(), lambda: str(os.fstat(file).st_size)) * 2:
    sys.stdin.readline()
    try:
        print(action(), flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""

# Opens a directory, and lists it after a line.
_LISTER: Final = """
import os, sys
directory = os.open(sys.argv[1], os.O_RDONLY)
print("open", flush=True)
sys.stdin.readline()
print(*sorted(os.listdir(directory)))
"""


def tree(directory: Path, size: int = 3) -> Path:
    """Make a directory with a few files of a size."""
    source = directory / "source"
    (source / "below").mkdir(parents=True)
    for name in ("file", "other", "below/inner"):
        (source / name).write_bytes(b"old".ljust(size))
    return source


def requests(daemon: Daemon, *names: str) -> int:
    return sum(counts(daemon).request(name) for name in names)


def kernel_of(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.status()["datapath"]["init"]
    return found


def fallback(daemon: Daemon, code: str) -> int:
    return int(daemon.status()["datapath"]["fallbacks"].get(code, 0))


def test_a_second_look_at_small_files_sends_no_request(tmp_path: Path) -> None:
    with serving(tmp_path, str(tree(tmp_path)), *PUSH) as daemon:
        # The first pass is the one in which the kernel learns that it needs no messages.
        files = [daemon.path(name) for name in ("file", "other", "below/inner")]
        for _ in range(2):
            daemon.run("cat", *files)
        before = counts(daemon).datapath["requests"]
        assert daemon.run("cat", *files).stdout == b"old" * 3
        assert counts(daemon).datapath["requests"] == before


def test_the_kernel_shows_a_changed_small_file_after_the_fence(tmp_path: Path) -> None:
    source = tree(tmp_path)
    with serving(tmp_path, str(source), *PUSH) as daemon:
        for number in range(10):
            (source / "file").write_text(f"{number:03}")
            os.utime(source / "file", ns=(0, 0))  # neither the size nor a time tells
            fence(daemon.mountpoint)
            assert daemon.run("cat", daemon.path("file")).stdout == b"%03d" % number
        assert requests(daemon, "OPEN") <= 1


@pytest.mark.timeout(120)
def test_opens_without_messages_leave_nothing_stale(tmp_path: Path) -> None:
    source = tree(tmp_path)
    with serving(tmp_path, str(source), *PUSH) as daemon:
        assert stress(daemon, str(source), rounds=20) == ""
        assert kernel_of(daemon)["zero_message_opens"]
        assert requests(daemon, "OPEN", "OPENDIR") <= 4


# A client that has read of a file reads on for a while after the file lost its name, and one that
# has not gets ESTALE.
@pytest.mark.parametrize("reads_before", [0, 1])
def test_an_open_file_that_is_replaced(tmp_path: Path, reads_before: int) -> None:
    source = tree(tmp_path)
    with serving(tmp_path, str(source), *PUSH) as daemon:
        daemon.run("cat", daemon.path("other"))
        argv = [sys.executable, "-c", _HOLDER, daemon.path("file")]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(argv, text=True, **pipes) as client:
            assert client.stdout is not None
            assert client.stdin is not None
            assert client.stdout.readline() == "open\n"
            if reads_before:
                client.stdin.write("\n")
                client.stdin.flush()
                assert client.stdout.readline() == "old\n"
            (source / "new").write_bytes(b"newer")
            os.rename(source / "new", source / "file")
            fence(daemon.mountpoint)
            rest = client.communicate("\n" * (4 - reads_before), DEADLINE_S)[0].split()
        gone = str(errno.ESTALE)
        assert rest == (["3", "old", "3"] if reads_before else [gone, "3", gone, "3"])
        assert daemon.run("cat", daemon.path("file")).stdout == b"newer"


def test_large_files_pass_through_and_the_status_says_why(tmp_path: Path) -> None:
    with serving(tmp_path, str(tree(tmp_path, LARGE)), *PUSH) as daemon:
        daemon.run("cat", daemon.path("file"))
        kernel = kernel_of(daemon)
        assert (kernel["passthrough"], kernel["zero_message_opens"]) == (True, False)
        assert fallback(daemon, "opens_large_files") == requests(daemon, "OPEN", "FLUSH") > 0


def test_a_demanded_passthrough_opens_by_messages(tmp_path: Path) -> None:
    with serving(tmp_path, str(tree(tmp_path)), *PUSH, "--path", "passthrough") as daemon:
        for _ in range(2):
            daemon.run("cat", daemon.path("file"))
        assert requests(daemon, "OPEN") == 2
        assert fallback(daemon, "opens_large_files") == 0


def test_the_kernel_keeps_files_and_listings_of_a_union(tmp_path: Path) -> None:
    layers = [tree(tmp_path / name) for name in ("upper", "lower")]
    options = [text for layer in layers for text in ("--layer", str(layer))]
    with serving(tmp_path, "", *options, *PUSH) as daemon:
        for _ in range(3):
            daemon.run("cat", daemon.path("file"))
            daemon.run("ls", daemon.mountpoint)
            listings = requests(daemon, "READDIR", "READDIRPLUS")
        assert (requests(daemon, "OPEN"), requests(daemon, "OPENDIR")) == (1, 3)
        daemon.run("ls", daemon.mountpoint)
        assert requests(daemon, "READDIR", "READDIRPLUS") == listings


def test_a_directory_opened_before_a_layer_joins_it_is_listed_as_it_is(tmp_path: Path) -> None:
    layers = [tmp_path / name for name in ("upper", "middle", "lower")]
    for layer in layers:
        (layer / "x").mkdir(parents=True)
        (layer / "x" / layer.name).touch()
    os.rename(layers[1] / "x", tmp_path / "apart")
    options = [text for layer in layers for text in ("--layer", str(layer))]
    with serving(tmp_path, "", *options, *PUSH) as daemon:
        argv = [sys.executable, "-c", _LISTER, daemon.path("x")]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(argv, text=True, **pipes) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "open\n"
            os.rename(tmp_path / "apart", layers[1] / "x")
            fence(daemon.mountpoint)
            assert client.communicate("\n", DEADLINE_S)[0] == "lower middle upper\n"
        assert daemon.run("ls", daemon.path("x")).stdout.split() == [b"lower", b"middle", b"upper"]


@requires("cc")
def test_where_changes_are_not_pushed_opens_send_messages(tmp_path: Path, ablation: str) -> None:
    env = {"LD_PRELOAD": ablation, "ZCFUSE_MARK_ERRNO": str(errno.ENOSPC)}
    with serving(tmp_path, str(tree(tmp_path)), *PUSH, env=env) as daemon:
        for _ in range(2):
            daemon.run("cat", daemon.path("file"))
        assert requests(daemon, "OPEN") == 2
        assert kernel_of(daemon)["passthrough"]


def test_what_lies_behind_a_mount_inside_the_source_opens_by_its_node(tmp_path: Path) -> None:
    source = tree(tmp_path)
    with kernel_mount("-t", "tmpfs", "tmpfs", str(source / "below")):
        (source / "below" / "inner").write_bytes(b"behind")
        with serving(tmp_path, str(source), *PUSH) as daemon:
            for _ in range(2):
                daemon.run("cat", daemon.path("file"))
                assert daemon.run("cat", daemon.path("below", "inner")).stdout == b"behind"
                assert daemon.run("ls", daemon.path("below")).stdout == b"inner\n"
            (source / "below" / "new").touch()
            assert eventually(
                lambda: daemon.run("ls", daemon.path("below")).stdout == b"inner\nnew\n"
            )
            assert coherence(daemon, "filesystems") == 1
