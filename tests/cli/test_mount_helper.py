"""`mount -t fuse.zcfuse`, fstab and umount, by mount(8) itself."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.cli.conftest import DEADLINE_S, ended, run_zcfuse
from tests.cli.sbin import Sbin, namespace_with
from tests.support import OrdinaryUser, requires

NEEDS = ("root", "private mounts", "fuse")
KIND = ("mount", "-t", "fuse.zcfuse")
USAGE, FAILED = 1, 32


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with namespace_with(str(tmp_path_factory.mktemp("scratch"))) as sbin:
        yield sbin


@pytest.fixture
def sbin(shared: Sbin, source: str, mountpoint: str):
    with open(os.path.join(source, "greeting"), "w") as file:
        file.write("hello\n")
    yield shared
    shared.unmount(mountpoint)


def status_of(sbin: Sbin, mountpoint: str) -> dict[str, object]:
    status = [sys.executable, "-m", "zcfuse", "status", "--json", mountpoint]
    return json.loads(sbin.run(*status).stdout)


def succeeded(result: subprocess.CompletedProcess[str], errors: str = "") -> None:
    assert (result.returncode, result.stderr) == (0, errors), result


def failed(result: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """Require this status and one line from the helper with `words`."""
    lines = [line for line in result.stderr.splitlines() if "mount.fuse.zcfuse: " in line]
    assert (result.returncode, len(lines)) == (status, 1), result
    for word in words:
        assert word in lines[0]


@requires(*NEEDS)
class TestMount:
    def test_it_mounts_and_umount_ends_it(self, sbin, source, mountpoint):
        succeeded(sbin.run(*KIND, source, mountpoint, "-o", "ro,path=pool,allow_other,noexec"))
        mount = sbin.mounted(mountpoint)
        assert mount.source == source
        assert {"ro", "nosuid", "nodev", "noexec", "allow_other"} <= mount.options
        status = status_of(sbin, mountpoint)
        assert status["options"]["path"] == "pool"
        assert sbin.run("cat", f"{mountpoint}/greeting").stdout == "hello\n"
        succeeded(sbin.run("umount", mountpoint))
        assert sbin.mounted(mountpoint) is None
        assert ended(status["pid"])

    def test_without_ro_a_line_says_that_it_is_read_only(self, sbin, source, mountpoint):
        result = sbin.run(*KIND, source, mountpoint)
        failed(result, 0, mountpoint, "read-only", "'ro'")
        assert "ro" in sbin.mounted(mountpoint).options

    def test_writable_lets_clients_change_the_directory(self, sbin, source, mountpoint):
        succeeded(sbin.run(*KIND, source, mountpoint, "-o", "writable"))
        assert "rw" in sbin.mounted(mountpoint).options

    def test_options_of_any_mount_are_mount_s_own_business(self, sbin, source, mountpoint):
        generic = "defaults,ro,suid,dev,noatime,relatime,sync,_netdev,nofail,noauto,user"
        private = "x-systemd.automount,x-systemd.requires=a,X-b,comment=c"
        succeeded(sbin.run(*KIND, source, mountpoint, "-o", f"{generic},{private}"))
        assert {"ro", "nosuid", "nodev", "noexec"} <= sbin.mounted(mountpoint).options

    def test_layers_and_a_name_in_the_place_of_the_source(self, sbin, source, mountpoint, tmp_path):
        other = tmp_path / "with, comma"
        other.mkdir()
        (other / "second").write_text("2")
        layers = f'ro,layer={source},layer="{other}"'
        succeeded(sbin.run(*KIND, "both", mountpoint, "-o", layers))
        assert sbin.mounted(mountpoint).source == "both"
        assert sbin.run("ls", mountpoint).stdout == "greeting\nsecond\n"

    def test_a_manifest_and_an_archive(self, sbin, source, mountpoint, tmp_path):
        shutil.make_archive(str(tmp_path / "data"), "tar", source)
        (tmp_path / "tree.toml").write_text(f'[[node]]\npath = "a"\nfile = "{source}/greeting"\n')
        kept = "ro,keep_index=no"
        for given in [
            ("none", f"{kept},archive={tmp_path}/data.tar"),
            (f"{tmp_path}/data.tar", kept),
        ]:
            succeeded(sbin.run(*KIND, given[0], mountpoint, "-o", given[1]))
            assert "greeting" in sbin.run("find", mountpoint).stdout
            sbin.unmount(mountpoint)
        succeeded(sbin.run(*KIND, "none", mountpoint, "-o", f"ro,tree={tmp_path}/tree.toml"))
        assert sbin.run("cat", f"{mountpoint}/a").stdout == "hello\n"

    def test_another_namespace(self, sbin, source, mountpoint):
        arguments = ("-N", str(sbin.holder), *KIND[1:], source, mountpoint, "-o", "ro")
        # mount(8) outside the namespace finds no helper in /sbin and would not look inside.
        succeeded(sbin.run("unshare", "--mount", "mount", *arguments))
        assert sbin.run("cat", f"{mountpoint}/greeting").stdout == "hello\n"

    def test_fake_checks_all_and_mounts_nothing(self, sbin, source, mountpoint):
        succeeded(sbin.run("mount", "-f", *KIND[1:], source, mountpoint, "-o", "ro"))
        failed(sbin.run("mount", "-f", *KIND[1:], f"{source}/x", mountpoint), FAILED, "not exist")
        assert sbin.mounted(mountpoint) is None

    def test_sloppy_leaves_out_what_is_unknown_and_no_more(self, sbin, source, mountpoint):
        sloppy = ("mount", "-s", *KIND[1:], source, mountpoint, "-o")
        failed(sbin.run(*sloppy, "ro,bogus,threads=many"), USAGE, "threads=many")
        # Over io_uring the number of threads is fixed, and a warning says so.
        succeeded(sbin.run(*sloppy, "ro,bogus,transport=dev,threads=1"))
        assert status_of(sbin, mountpoint)["options"]["threads"] == 1

    @pytest.mark.parametrize(
        ("status", "options", "words"),
        [
            (USAGE, "bogus", ("bogus", "unknown option", "tree=")),
            (USAGE, "pth=pool", ("pth=pool", "did you mean path?")),
            (USAGE, "path=fast", ("path=fast", "choose one of")),
            (USAGE, "layer=", ("layer=", "needs a value")),
            (USAGE, "keep_index=up", ("keep_index=up", "choose one of")),
            (USAGE, "unpack_budget=much", ("unpack_budget=much", "not a size")),
            (USAGE, "layer=/usr", ("none",)),
            (FAILED, "remount", ("remount", "unmount")),
            (FAILED, "log_file=/nowhere/log", ("/nowhere/log", "No such file")),
        ],
    )
    def test_a_bad_option_is_one_line(self, sbin, source, mountpoint, status, options, words):
        result = sbin.run(*KIND, source, mountpoint, "-o", f"ro,{options}")
        failed(result, status, *words)
        assert sbin.mounted(mountpoint) is None

    def test_a_missing_source_is_a_mount_that_failed(self, sbin, source, mountpoint):
        result = sbin.run(*KIND, f"{source}/missing", mountpoint, "-o", "ro")
        failed(result, FAILED, "missing", "does not exist")

    def test_a_wrong_type_is_refused(self, source, mountpoint, commands):
        helper = [f"{commands}/mount.fuse.zcfuse", source, mountpoint, "-t", "ext4"]
        result = subprocess.run(helper, capture_output=True, text=True, timeout=DEADLINE_S)
        failed(result, USAGE, "ext4", "fuse.zcfuse")


@requires(*NEEDS)
class TestFstab:
    def test_mount_all_mounts_once_and_umount_all_ends_it(self, sbin, source, mountpoint):
        fstab = sbin.fstab(f"{source} {mountpoint} fuse.zcfuse ro,_netdev,nofail,allow_other 0 0")
        succeeded(sbin.run("mount", "-a", "-T", fstab))
        first = sbin.mounted(mountpoint)
        succeeded(sbin.run("mount", "-a", "-T", fstab))
        assert sbin.mounted(mountpoint) == first
        succeeded(sbin.run("umount", "-a", "-t", "fuse.zcfuse"))
        assert sbin.mounted(mountpoint) is None

    def test_names_with_spaces_and_several_layers(self, sbin, source, tmp_path):
        (tmp_path / "m p").mkdir()
        (tmp_path / "a b").mkdir()
        where = f"{tmp_path}/m\\040p"
        layers = f"ro,layer={tmp_path}/a\\040b,layer={source}"
        sbin.fstab(f"none {where} fuse.zcfuse {layers},noauto,x-systemd.automount 0 0")
        succeeded(sbin.run("mount", f"{tmp_path}/m p"))
        try:
            assert sbin.run("cat", f"{tmp_path}/m p/greeting").stdout == "hello\n"
            result = sbin.run("mount", "-a")
            succeeded(result)
        finally:
            sbin.unmount(f"{tmp_path}/m p")

    @requires("systemd-analyze")
    def test_systemd_makes_a_unit_of_the_line(self, sbin, source, mountpoint, tmp_path):
        generator = "/usr/lib/systemd/system-generators/systemd-fstab-generator"
        line = "ro,_netdev,x-systemd.automount,x-systemd.requires=data.service"
        fstab = sbin.fstab(f"{source} {mountpoint} fuse.zcfuse {line} 0 0")
        units = [tmp_path / name for name in ("normal", "early", "late")]
        for unit in units:
            unit.mkdir()
        result = sbin.run(generator, *map(str, units), SYSTEMD_FSTAB=fstab)
        assert result.returncode == 0, result.stderr
        made = {unit.suffix: unit.read_text() for unit in units[0].glob("*.*mount")}
        assert f"Where={mountpoint}" in made[".automount"]
        assert "Type=fuse.zcfuse" in made[".mount"]
        assert "After=data.service" in made[".mount"]


@requires(*NEEDS)
def test_mount_fuse3_runs_zcfuse_where_there_is_no_helper(tmp_path, source, mountpoint):
    if shutil.which("mount.fuse") is None:
        pytest.skip("requires fusermount3: no mount.fuse of libfuse's")
    (tmp_path / "scratch").mkdir()
    with namespace_with(str(tmp_path / "scratch"), "zcfuse") as sbin:
        try:
            options = "ro,_netdev,transport=dev,threads=1"
            succeeded(sbin.run(*KIND, source, mountpoint, "-o", options))
            assert status_of(sbin, mountpoint)["options"]["threads"] == 1
            failed(sbin.run(*KIND, source, mountpoint, "-o", "ro"), FAILED, "busy")
        finally:
            sbin.unmount(mountpoint)


@pytest.fixture
def theirs(ordinary_user: OrdinaryUser, tmp_path):
    """An ordinary user's namespace with helper, fstab, source and mount point."""
    if os.geteuid() != 0:
        pytest.skip("requires root: fstab cannot be another one")
    source, mountpoint = ordinary_user.directory("source"), ordinary_user.directory("mnt")
    ordinary_user.run("sh", "-c", 'echo hello > "$0/greeting"', source)
    (tmp_path / "scratch").mkdir()
    sbin = Sbin(ordinary_user.mountinfo_pid, str(tmp_path / "scratch"))
    ordinary_user.ends.callback(sbin.unmount, mountpoint)
    return sbin, source, mountpoint


@requires("ordinary user", "fusermount3")
def test_an_ordinary_user_mounts_what_fstab_gives_to_users(theirs, ordinary_user: OrdinaryUser):
    sbin, source, mountpoint = theirs
    sbin.fstab(f"{source} {mountpoint} fuse.zcfuse ro,user,noauto 0 0")
    succeeded(ordinary_user.run("mount", mountpoint))
    mount = sbin.mounted(mountpoint)
    assert {"ro", "nosuid", "nodev", "noexec", f"user_id={ordinary_user.uid}"} <= mount.options
    assert ordinary_user.run("cat", f"{mountpoint}/greeting").stdout == "hello\n"
    succeeded(ordinary_user.run("umount", mountpoint))
    assert sbin.mounted(mountpoint) is None


def test_zcfuse_mount_takes_the_same_options(source, mountpoint):
    result = run_zcfuse("mount", "-o", "layer=/nowhere", mountpoint)
    assert (result.returncode, "/nowhere" in result.stderr) == (2, True)
    result = run_zcfuse("mount", "-o", f"layer={source}", "--", "none", "/nowhere")
    assert (result.returncode, "mount point /nowhere" in result.stderr) == (2, True)
