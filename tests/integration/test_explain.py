"""`zcfuse explain`: causes each fallback and checks the command's explanation."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cli.conftest import refused, run_zcfuse
from tests.integration.conftest import PASSTHROUGH, kernel_mount, write
from tests.integration.counts import counts
from tests.support import Daemon, OrdinaryUser, let_pass, requires, skip_unless

pytestmark = requires("mounting")

SIZE: Final = 200_000
GOOD: Final = "as good as it gets"

TREE: Final = """
class Keeper(Mirror):
    def keeps(self):
        return [b"kept"]

class Policy(Dir):
    async def lookup(self, name, who):
        return File(backing) if name == "mine" else None

    async def list(self, who):
        return ["mine"]

async def read(offset, size):
    return bytes(size)

from zcfuse.tree.archive import Archive, Keep
tree = Dir({
    "whole": File(backing),
    "slice": Slice(backing, 4096, 100_000),
    "joined": Concat([Slice(backing, 0, 10), Zeros(5000), File(backing)]),
    "computed": Computed(5000, read),
    "bytes": Bytes(b"hello"),
    "slow": File(backing, path="upcall"),
    "copied": File(backing, path="pool"),
    "gone": File(backing + ".gone"),
    "zip": Archive(archive, keep=Keep.NOT),
    "mirror": Keeper(directory),
    "policy": Policy(),
})
"""


def make(source: str, name: str) -> str:
    return write(source, name, random.Random(name).randbytes(SIZE))


def explained(path: str, **more: Any) -> Any:
    result = run_zcfuse("explain", "--json", path, **more)
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


def served(told: Any) -> tuple[str, list[str]]:
    """The mode and the paths in use."""
    found = told["daemon"]["served"]
    return found["mode"], [step["path"] for step in found["steps"] if step["used"]]


@pytest.mark.parametrize(
    ("path", "mode", "advised"),
    [
        ("naive", "naive", "--path auto"),
        ("upcall", "upcall", "--path auto"),
        ("pool", "cached", "--path auto"),
        ("mmap", "cached", "--path auto"),
        ("splice", "cached", "--path auto"),
        pytest.param("passthrough", "passthrough", GOOD, marks=requires("passthrough")),
    ],
)
def test_a_path_that_is_demanded_is_the_reason_against_all_better_ones(
    mounted, source, path: str, mode: str, advised: str
) -> None:
    backing = make(source, "file")
    daemon = mounted("--path", path)
    told = explained(daemon.path("file"))
    assert served(told) == (mode, [path])
    unused = [step for step in told["daemon"]["served"]["steps"] if not step["used"]]
    assert all(step["reason"] == f"path_demanded: {path}" for step in unused)
    assert advised in told["advice"]
    assert told["daemon"]["node"] == f"mirror of {backing}"
    if mode != "upcall":
        assert told["daemon"]["parts"][0]["path"] == backing


@requires("passthrough")
def test_what_is_told_of_a_passed_through_file_is_so_and_asking_is_not_counted(
    mounted, source
) -> None:
    make(source, "file")
    daemon = mounted()
    before = counts(daemon)
    told = explained(daemon.path("file"))
    after = counts(daemon)
    assert served(told) == ("passthrough", ["passthrough"])
    assert told["daemon"]["served"]["open_as"] == "passthrough"
    assert told["daemon"]["names"]["leased"] is True
    assert told["advice"] == GOOD
    # Only the command's open.
    assert sum(after.opens.values()) == sum(before.opens.values()) + 1
    assert after.reads == before.reads


@requires("kernel 6.5")  # cachestat(2)
@pytest.mark.parametrize("path", ["pool", PASSTHROUGH])
def test_what_is_in_memory_is_told_of_both_caches(mounted, source, path: str) -> None:
    make(source, "file")
    daemon = mounted("--path", path)
    # Keep it open, so that the mount's pages stay.
    code = (
        "import subprocess, sys\nfile = open(sys.argv[1], 'rb')\nfile.read()\n"
        "run = [sys.executable, '-m', 'zcfuse', 'explain', '--json', sys.argv[1]]\n"
        "sys.stdout.buffer.write(subprocess.run(run, capture_output=True).stdout)"
    )
    told = json.loads(daemon.python(code, daemon.path("file")).stdout)
    whole = -(-SIZE // 4096) * 4096
    assert told["daemon"]["parts"][0]["cached_bytes"] == whole
    assert told["file"]["cached_bytes"] == (0 if path == "passthrough" else whole)
    assert told["daemon"]["served"]["open_as"] == (
        "passthrough" if path == "passthrough" else "cached"
    )


def _file_of(user: OrdinaryUser, mounted) -> str:
    """Mount a tree as a user; return the path of a file in the mount."""
    source, mountpoint = (user.directory(name) for name in ("source", "mnt"))
    make(source, "file")
    mounted(source=source, mountpoint=mountpoint, user=user)
    return f"{mountpoint}/file"


@requires("ordinary user", "fusermount3", "kernel 6.9")
def test_an_ordinary_user_is_told_that_passthrough_needs_a_privilege(
    ordinary_user: OrdinaryUser, mounted
) -> None:
    path = _file_of(ordinary_user, mounted)
    told = explained(path, user=ordinary_user)
    assert served(told) == ("cached", ["splice", "pool"])
    assert told["daemon"]["served"]["reason"] == "passthrough_not_permitted"
    assert "as root" in told["advice"]
    shown = run_zcfuse("explain", path, user=ordinary_user)
    assert shown.stdout.splitlines()[-1] == f"advice: {told['advice']}"


@requires("root", "ordinary user", "fusermount3")
def test_the_kernel_reports_no_cached_pages_of_somebody_elses_file(
    ordinary_user: OrdinaryUser, mounted
) -> None:
    path = _file_of(ordinary_user, mounted)
    assert explained(path, user=ordinary_user)["daemon"]["parts"][0]["cached_bytes"] is None
    assert "hidden from this user" in run_zcfuse("explain", path, user=ordinary_user).stdout


@requires("root", "overlay", "passthrough")
@pytest.mark.parametrize(("depth", "mode"), [("1", "cached"), ("2", "passthrough")])
def test_a_stacked_filesystem_is_named_with_the_option_that_helps(
    mounted, source, tmp_path: Path, depth: str, mode: str
) -> None:
    layers = tmp_path / "layers"
    layers.mkdir()
    with kernel_mount("-t", "tmpfs", "zcfuse-tests", str(layers)):
        for name in ("lower", "upper", "work"):
            (layers / name).mkdir()
        directories = "lowerdir=lower,upperdir=upper,workdir=work"
        overlay = ("-t", "overlay", "-o", directories, "zcfuse-tests", source)
        with kernel_mount(*overlay, cwd=layers):
            make(source, "file")
            told = explained(mounted("--stack-depth", depth).path("file"))
    part = told["daemon"]["parts"][0]
    assert (part["filesystem"], part["stacked"]) == ("overlay", True)
    assert served(told)[0] == mode
    assert (
        ("--stack-depth 2" in told["advice"]),
        told["daemon"]["served"]["reason"] == "passthrough_stacked",
    ) == (
        depth == "1",
        depth == "1",
    )


@requires("root", "passthrough")
def test_a_backing_file_on_tmpfs_is_passed_through(mounted, tmpfs) -> None:
    make(tmpfs, "file")
    told = explained(mounted().path("file"))
    assert told["daemon"]["parts"][0]["filesystem"] == "tmpfs"
    assert (served(told)[0], told["advice"]) == ("passthrough", GOOD)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A tree with a node of every kind, and the backing files."""
    from tests.integration.program import Program

    skip_unless("mounting")
    base = tmp_path_factory.mktemp("explained")
    backing = make(str(base), "backing")
    archive = str(base / "archive.zip")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("packed", b"x" * 50_000, zipfile.ZIP_DEFLATED)
        file.writestr("stored", b"y" * 50_000, zipfile.ZIP_STORED)
    directory = base / "directory"
    (directory / "kept").mkdir(parents=True)
    make(str(directory), "kept/file")
    make(str(directory), "free")
    mountpoint = base / "mnt"
    mountpoint.mkdir()
    values = {"backing": backing, "archive": archive, "directory": str(directory)}
    given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    shown = Program(given + TREE, str(mountpoint), str(base / "program.log"))
    try:
        yield shown
    finally:
        shown.end()


@pytest.mark.parametrize(
    ("name", "node", "mode", "advised"),
    [
        ("slice", "Slice: 100,000 bytes from byte 4,096 of File /", "cached", GOOD),
        ("joined", "Concat of 3 parts", "cached", GOOD),
        ("computed", "Computed: 5,000 bytes that the function read makes", "upcall", GOOD),
        ("slow", "File /", "upcall", "leave path='upcall' out"),
        ("copied", "File /", "cached", "leave path='pool' out"),
        ("zip/stored", "member, stored as it is, of the zip archive", "cached", GOOD),
        ("mirror/kept/file", "mirror (Keeper) of /", None, ""),
        ("policy/mine", "File /", None, ""),
        ("policy", "dynamic directory of Policy", "", GOOD),
        ("mirror", "mirror (Keeper) of /", "", GOOD),
    ],
)
def test_a_node_of_each_kind_is_told_by_what_it_is(program, name, node, mode, advised) -> None:
    told = explained(program.path(name))
    assert told["daemon"]["node"].startswith(node)
    if mode is not None:
        assert told["daemon"]["served"]["mode"] == mode
    assert advised in told["advice"]
    unused = [step for step in told["daemon"]["served"]["steps"] if not step["used"]]
    assert all(step["reason"] for step in unused)


def test_a_part_of_a_file_is_told_with_its_place(program) -> None:
    told = explained(program.path("slice"))
    part = told["daemon"]["parts"][0]
    assert (part["offset"], part["length"]) == (4096, 100_000)
    assert part["path"].endswith("/backing")
    assert told["daemon"]["served"]["reason"] == "passthrough_extents"
    parts = explained(program.path("joined"))["daemon"]["parts"]
    assert [part["filesystem"] == "hole" for part in parts] == [False, True, False]


def test_a_compressed_member_is_told_to_be_in_memory(program) -> None:
    told = explained(program.path("zip/packed"))
    assert told["daemon"]["node"].startswith("deflated member, decompressed into memory")
    assert told["daemon"]["parts"][0]["filesystem"] == "memory"


@pytest.mark.parametrize(
    ("name", "leased", "reason"),
    [
        ("mirror/free", True, ""),
        ("mirror", True, ""),
        ("zip", True, ""),
        ("mirror/kept/file", False, "names_of_policy: kept"),
        ("whole", True, ""),
        ("policy/mine", False, "names_by_tree"),
    ],
)
def test_who_answers_for_a_name_is_told_with_the_reason(program, name, leased, reason) -> None:
    names = explained(program.path(name))["daemon"]["names"]
    assert names["leased"] is leased
    assert names["reason"] == reason


def test_what_an_archive_says_is_told_to_be_believed_without_limit(program) -> None:
    assert explained(program.path("mirror/free"))["daemon"]["names"]["timeout_s"] == 1
    assert explained(program.path("zip/stored"))["daemon"]["names"]["timeout_s"] is None
    printed = run_zcfuse("explain", program.path("zip/stored")).stdout.splitlines()
    line = next(line for line in printed if line.startswith("may be cached"))
    assert line.split()[3:] == ["for", "good"]


def test_what_depends_on_who_asks_is_told_not_to_be_cached(program) -> None:
    told = explained(program.path("policy"))
    assert told["daemon"]["volatile"] is True
    assert told["daemon"]["names"]["timeout_s"] == 0
    assert "depends on the client" in run_zcfuse("explain", program.path("policy")).stdout


def test_a_file_that_is_not_there_is_one_line(program) -> None:
    for name in ("gone", "nothing"):
        path = program.path(name)
        refused(run_zcfuse("explain", path), 1, f"{path}: No such file or directory")


def test_every_line_of_the_table_is_printed_for_every_node(program) -> None:
    for name in ("whole", "joined", "computed", "zip/packed"):
        result = run_zcfuse("explain", program.path(name))
        assert (result.returncode, result.stderr) == (0, "")
        lines = result.stdout.splitlines()
        assert lines[-1].startswith("advice: ")
        for word in ("mount", "options", "in the tree", "transport", "serving paths"):
            assert any(line.startswith(word) for line in lines), word


def test_a_union_s_file_is_told_with_its_layer(source, tmp_path: Path, mountpoint: str) -> None:
    below = tmp_path / "below"
    below.mkdir()
    make(source, "top")
    backing = make(str(below), "low")
    log = str(tmp_path / "union.log")
    daemon = Daemon("", mountpoint, "--layer", source, "--layer", str(below), log=log)
    try:
        told = explained(daemon.path("low"))
        assert told["daemon"]["node"] == f"union, file of layer 2 of 2: {backing}"
        assert told["daemon"]["names"]["leased"] is True
        root = explained(daemon.mountpoint)["daemon"]
        assert "on top that of layer 1 of 2" in root["node"]
        assert root["names"]["leased"] is True
    finally:
        daemon.unmount()


def test_a_manifest_s_file_is_told_to_be_of_one(source, tmp_path: Path, mountpoint: str) -> None:
    backing = make(source, "backing")
    manifest = tmp_path / "tree.jsonl"
    manifest.write_text(json.dumps({"path": "a", "file": backing, "offset": 5}) + "\n")
    log = str(tmp_path / "manifest.log")
    daemon = Daemon("", mountpoint, "--tree", str(manifest), log=log)
    try:
        node = explained(daemon.path("a"))["daemon"]["node"]
        assert node == f"Slice: all from byte 5 of File {backing} (of a manifest)"
    finally:
        daemon.unmount()


def test_names_without_a_lease_and_a_mount_that_does_not_change_are_told(mounted, source) -> None:
    make(source, "file")
    daemon = mounted("--no-directory-lease", "--cache-timeout", "7")
    names = explained(daemon.path("file"))["daemon"]["names"]
    assert (names["leased"], names["timeout_s"]) == (False, 7)
    assert names["reason"] == "names_lease_off"
    daemon.unmount()
    daemon = mounted("--immutable")
    told = explained(daemon.path("file"))
    assert (told["daemon"]["names"]["leased"], told["daemon"]["names"]["timeout_s"]) == (True, None)
    assert told["daemon"]["served"]["reason"] == "passthrough_silent"
    assert "for good" in run_zcfuse("explain", daemon.path("file")).stdout


def test_fallbacks_that_were_counted_are_told_in_other_words(mounted, source) -> None:
    make(source, "file")
    daemon = mounted("--path", "pool", "--lock-budget", "0")
    daemon.run("cat", daemon.path("file"))
    shown = run_zcfuse("explain", daemon.path("file")).stdout
    assert "pool: served from an unlocked buffer" in shown
    assert "a larger --lock-budget" in shown


@requires("ordinary user", "root", "fusermount3")
def test_root_is_told_as_whom_to_ask_of_a_mount_that_lets_nobody_else_in(
    ordinary_user: OrdinaryUser, mounted
) -> None:
    source, mountpoint = (ordinary_user.directory(name) for name in ("source", "mnt"))
    mounted(source=source, mountpoint=mountpoint, user=ordinary_user)
    enter = ("nsenter", f"--mount=/proc/{ordinary_user.mountinfo_pid}/ns/mnt")
    result = run_zcfuse("explain", f"{mountpoint}/file", wrap=enter)
    refused(result, 1, f"only user {ordinary_user.uid} is let in")


def test_a_path_in_no_mount_is_one_line(tmp_path: Path) -> None:
    refused(run_zcfuse("explain", str(tmp_path)), 1, str(tmp_path), "in no zcfuse mount")
    missing = str(tmp_path / "missing")
    refused(run_zcfuse("explain", missing), 1, missing, "No such file")


def test_a_daemon_that_hangs_is_waited_for_no_longer_than_its_bound(mounted) -> None:
    daemon = mounted()
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        refused(run_zcfuse("explain", daemon.path("file")), 1, "did not answer within 3 s")
    finally:
        daemon.process.send_signal(signal.SIGCONT)


@requires("root")
def test_a_daemon_that_hangs_holds_up_nobody_where_the_kernel_serves_another_mount(
    mounted, tmp_path
) -> None:
    daemon = mounted()
    by_kernel = tmp_path / "by-kernel"
    by_kernel.mkdir()
    engine = run_zcfuse("mount", "--engine", "kernel", daemon.source, str(by_kernel))
    assert engine.returncode == 0, engine.stderr
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        # What the kernel keeps for a second has ended: a look at the file asks the daemon.
        let_pass(1.1)
        refused(run_zcfuse("explain", daemon.path("file")), 1, "did not answer within 3 s")
    finally:
        daemon.process.send_signal(signal.SIGCONT)
        assert run_zcfuse("umount", str(by_kernel)).returncode == 0


@requires("root")
def test_a_mount_that_is_dead_says_how_to_clean_up(mounted) -> None:
    daemon = mounted()
    daemon.kill()
    refused(run_zcfuse("explain", daemon.path("file")), 1, "zcfuse umount")
    subprocess.run(["umount", "-l", daemon.mountpoint], check=True, timeout=20)


def test_what_the_kernel_would_save_is_measured_where_it_could_serve_the_tree(
    source: str, mounted: Any
) -> None:
    make(source, "f")
    daemon = mounted()
    told = explained(daemon.path("f"))
    assert told["daemon"]["directories"] == [source]
    assert told["gain"]["how"] == "a bind mount"
    for cost in (told["gain"]["lookup"], told["gain"]["opening"]):
        assert 0 < cost["beneath_us"] < cost["fuse_us"]
    assert "by --engine kernel" in run_zcfuse("explain", daemon.path("f")).stdout
    daemon.unmount()
    filtered = mounted("--hide", "*.tmp")
    assert explained(filtered.path("f"))["gain"] is None
