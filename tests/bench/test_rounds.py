"""Figures from samples, and small real runs. These tests assert no time."""

import pytest

from tests.support._capabilities import requires
from tests.support._kernel import fuse_mounts
from zcfuse.bench import (
    BACKING,
    WORKLOADS,
    BenchRow,
    Cell,
    Cold,
    SourceTree,
    Target,
    mountpoint_outside,
    peer_targets,
    run_bench,
    run_sweep,
    tar_targets,
    temporary_tree,
    zcfuse_target,
)

BARE = SourceTree("/", "", 0, (), 0)


def _quiet(_step: str) -> None:
    pass


def test_a_ratio_is_of_medians_of_time():
    row = BenchRow("w", "warm", {BACKING: Cell((1.0, 2.0, 30.0)), "zcfuse": Cell((8.0, 1.0, 4.0))})
    assert row.ratio("zcfuse") == 2.0


def test_what_was_not_measured_has_no_ratio():
    row = BenchRow("w", "warm", {BACKING: Cell((1.0,)), "zcfuse": Cell(reason="not installed")})
    assert row.ratio("zcfuse") is None


def test_throughput_is_bytes_by_median_time():
    assert Cell((1000.0,), bytes_per_operation=1_000_000).gb_per_s == 1.0


def test_a_workload_says_what_the_tree_lacks():
    reasons = {w.name: w.missing(BARE) for w in WORKLOADS if w.needs_large or w.needs_small}
    assert reasons["sequential 1 MiB"] == "no file of 4 MiB or more"
    assert reasons["the same, warm"] == "no file of 64 KiB or less"


def test_cold_dentries_need_root(monkeypatch):
    monkeypatch.setattr("os.access", lambda *_arguments: False)
    cold = [w for w in WORKLOADS if w.cold is Cold.DENTRIES and not w.needs_small]
    assert all("root" in w.missing(BARE) for w in cold)


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("auto", []),
        ("pool+python", ["--no-directory-lease"]),
        ("auto+immutable", ["--immutable"]),
        ("auto+immutable+dev", ["--immutable", "--transport=dev"]),
    ],
)
def test_what_stands_behind_a_path_is_an_option(path, options):
    argv = zcfuse_target(path, "/a", "/b", ["--threads", "2"]).argv
    at = argv.index("--path")
    assert list(argv[at + 1 : at + 2 + len(options)]) == [path.partition("+")[0], *options]
    assert "--threads" in argv


def test_a_peer_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _name: None)
    assert [target.missing for target in peer_targets("/a", "/b")] == [
        "not installed ('apt-get install mergerfs')",
        "not installed ('apt-get install bindfs')",
    ]


@requires("mounting")
def test_every_workload_runs_on_every_target():
    with temporary_tree(20) as tree, mountpoint_outside(tree.root) as base:
        targets = [
            Target(BACKING),
            zcfuse_target("naive", tree.root, f"{base}/naive"),
            Target("absent", missing="not installed"),
        ]
        report = run_bench(tree, targets, 1, _quiet)
    assert report.targets == (BACKING, "zcfuse naive")
    assert report.unavailable == {"absent": "not installed"}
    for row in report.rows:
        for cell in row.cells.values():
            assert len(cell.samples_us) == 1 or "root" in cell.reason
    assert not [mount for mount in fuse_mounts() if mount.mountpoint.startswith(base)]


@requires("mounting")
@pytest.mark.parametrize(
    "peer",
    [pytest.param(name, marks=requires(name)) for name in ("mergerfs", "bindfs")],
)
def test_a_peer_is_mounted_read_only_and_unmounted(peer: str):
    with temporary_tree(5) as tree, mountpoint_outside(tree.root) as base:
        targets = [t for t in peer_targets(tree.root, base) if t.name == peer]
        report = run_bench(tree, [Target(BACKING), *targets], 1, _quiet)
        with open("/proc/self/mountinfo") as file:
            assert base not in file.read()
    assert report.targets == (BACKING, peer)
    assert "ro" in report.commands[peer].split("-o ")[1].split(",")


@requires("mounting")
def test_a_sweep_has_every_size_by_every_path():
    with temporary_tree(1) as tree, mountpoint_outside(tree.root) as base:
        report = run_sweep(tree, base, 1, _quiet, paths=("naive", "splice"))
    assert [row.size for row in report.rows][:2] == [4096, 8192]
    assert all(set(row.cells) == {"naive", "splice"} for row in report.rows)
    assert report.rows[0].best("us_per_request") in ("naive", "splice")


@pytest.fixture
def archive(tmp_path):
    """An archive with its copy in gzip; to choose targets, both may be empty."""
    for name in ("a.tar", "a.tar.gz"):
        (tmp_path / name).touch()
    return str(tmp_path / "a.tar")


def test_a_peer_for_archives_that_is_not_installed_says_so(monkeypatch, archive):
    monkeypatch.setenv("PATH", "/nonexistent")
    ours, theirs, packed, packed_theirs = tar_targets(archive, "/base")
    assert ours.argv[-5:] == (archive, "/base/tar", "--foreground", "--keep-index", "no")
    assert packed.argv[-5:-3] == (f"{archive}.gz", "/base/tar.gz")
    assert "pip install ratarmount" in theirs.missing
    assert "pip install ratarmount" in packed_theirs.missing


def test_a_peer_for_archives_is_mounted_where_it_is_installed(monkeypatch, archive, tmp_path):
    program = tmp_path / "ratarmount"
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    _, theirs, _, packed = tar_targets(archive, "/base")
    assert theirs.argv[0] == packed.argv[0] == str(program)
    assert theirs.argv[-3:] == (f"{archive}.index", archive, "/base/ratarmount")
    assert packed.argv[-3:] == (f"{archive}.gz.index", f"{archive}.gz", "/base/ratarmount.gz")
