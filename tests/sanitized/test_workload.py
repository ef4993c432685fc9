"""The real daemon with clients, by every serving path, transport and kind of tree.

`make sanitize` has it load a data path that was built with sanitizers. A report is a failure.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.support import Daemon, requires, skip_unless
from tests.support._rings import rings_on

pytestmark = requires("root", "fuse")

SECONDS: Final = float(os.environ.get("ZCFUSE_WORKLOAD_SECONDS", "1"))
SANITIZED: Final = os.environ.get("ZCFUSE_SANITIZED", "")
CLIENTS: Final = Path(__file__).with_name("clients.py")
SITE: Final = Path(__file__).with_name("site")
CHECKOUT: Final = str(Path(__file__).parents[2])
SLACK_S: Final = 240
# gcc's names of the runtimes, which must be there before the interpreter starts.
RUNTIMES: Final = {"asan": ("libasan.so", "libubsan.so"), "tsan": ("libtsan.so",)}
REPORT: Final = re.compile(
    r"(ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:|LeakSanitizer|Traceback).*"
)


def sanitizer() -> tuple[Mapping[str, str], tuple[str, ...]]:
    """The environment and the wrapper of a daemon with sanitizers; nothing without them."""
    if not SANITIZED:
        return {}, ()
    name = SANITIZED.rpartition("-")[2]
    found = [
        subprocess.run(
            ["g++", f"-print-file-name={library}"],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        ).stdout.strip()
        for library in RUNTIMES[name]
    ]
    (native,) = Path(SANITIZED).glob("_native*.so")
    environment = {
        "LD_PRELOAD": " ".join(found),
        "PYTHONPATH": f"{SITE}:{CHECKOUT}",
        "ZCFUSE_NATIVE": str(native),
        "ASAN_OPTIONS": "detect_leaks=0:handle_segv=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "second_deadlock_stack=1",
    }
    # ThreadSanitizer's shadow memory needs the addresses that it knows.
    under = ("setarch", os.uname().machine, "--addr-no-randomize") if name == "tsan" else ()
    return environment, under


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    for directory in range(4):
        (path / f"d{directory}").mkdir(parents=True)
        for size in (1, 5000, 200_000):
            (path / f"d{directory}" / f"steady{size}").write_bytes(os.urandom(size))
    (path / "link").symlink_to("d0/steady1")
    with open(path / "steady-holes", "wb") as file:
        file.truncate(1 << 20)
        file.seek(300_000)
        file.write(b"data")
    return path


@contextlib.contextmanager
def working(tmp_path: Path, source: str, changing: str, *options: str) -> Iterator[Daemon]:
    """A mount whose clients work; at its end the daemon's log is without reports."""
    environment, under = sanitizer()
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    log = str(tmp_path / "log")
    daemon = Daemon(source, str(mountpoint), *options, log=log, env=environment, under=under)
    try:
        if SANITIZED:
            # A data path without sanitizers would find nothing either.
            assert environment["ZCFUSE_NATIVE"] in Path(f"/proc/{daemon.pid}/maps").read_text()
        argv = (str(CLIENTS), daemon.mountpoint, changing, str(SECONDS))
        done = daemon.run(sys.executable, *argv, timeout=SECONDS + SLACK_S)
        assert int(done.stdout) > 0
        daemon.status()
        yield daemon
    finally:
        daemon.unmount()
        reports = [match[0] for match in REPORT.finditer(daemon.log())]
        assert not reports, daemon.log()


@pytest.mark.parametrize("path", ["auto", "splice", "mmap", "pool", "upcall", "passthrough"])
def test_a_mirror_by_each_serving_path(tmp_path: Path, source: Path, path: str) -> None:
    if path == "passthrough":
        skip_unless("passthrough")
    with working(tmp_path, str(source), str(source), "--path", path):
        pass


@pytest.mark.ring
@pytest.mark.parametrize("path", ["pool", "passthrough"])
def test_a_mirror_over_io_uring(tmp_path: Path, source: Path, path: str) -> None:
    skip_unless("io_uring")
    options = ("--path", path, "--transport", "uring")
    with rings_on(), working(tmp_path, str(source), str(source), *options):
        pass


@pytest.mark.parametrize("option", ["--rw", "--immutable", "--no-directory-lease"])
def test_a_mirror_with_an_option(tmp_path: Path, source: Path, option: str) -> None:
    changing = "" if option == "--immutable" else str(source)
    with working(tmp_path, str(source), changing, option):
        pass


def test_a_mirror_whose_changes_are_pushed(tmp_path: Path, source: Path) -> None:
    with working(tmp_path, str(source), str(source), "--coherence", "push"):
        pass


def test_merged_layers(tmp_path: Path, source: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "d1").mkdir(parents=True)
    (upper / "d1/steady-upper").write_bytes(b"upper" * 2000)
    (upper / "d1/.wh.steady1").touch()
    with working(tmp_path, "", str(upper), "--layer", str(upper), "--layer", str(source)):
        pass


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive(tmp_path: Path, source: Path, kind: str) -> None:
    archive = tmp_path / f"a.{kind}"
    if kind == "tar":
        with tarfile.open(archive, "w") as tar:
            tar.add(source, ".")
    else:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in sorted(source.rglob("steady*")):
                packed.write(file, file.relative_to(source))
    with working(tmp_path, str(archive), ""):
        pass


def test_a_described_tree(tmp_path: Path, source: Path) -> None:
    manifest = tmp_path / "tree.toml"
    manifest.write_text(
        f"""
[[node]]
path = "a/steady-whole"
file = "{source}/d0/steady200000"

[[node]]
path = "a/steady-part"
parts = [{{ file = "{source}/d0/steady5000", offset = 10, length = 4000 }}, {{ zeros = 5000 }}]
"""
    )
    with working(tmp_path, "", "", "--tree", str(manifest)):
        pass
