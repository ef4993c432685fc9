"""``zcfuse doctor``: every probe with each of its results, and the command as users run it."""

import json
import os

import pytest

from tests.cli.conftest import refused, run_zcfuse, without_progress
from tests.support._capabilities import requires
from tests.support._kernel import fuse_mounts
from tests.support._user import CHECKOUT
from zcfuse.cli.doctor import _checks as probe
from zcfuse.cli.doctor._checks import Capability, Machine, State

NOBODY = Machine("6.18.0", (6, 18), 1000, 0, "CONFIG_FUSE_FS=y\nCONFIG_FUSE_PASSTHROUGH=y\n")
ROOT = Machine("6.18.0", (6, 18), 0, -1 & (1 << 41) - 1, NOBODY.config)
OLD = Machine("6.1.0-18-amd64", (6, 1), 0, ROOT.capabilities, "")


def _file(tmp_path, text: str) -> str:
    path = tmp_path / "file"
    path.write_text(text)
    return str(path)


def test_a_kernel_before_passthrough_is_told_how_to_get_a_later_one():
    assert probe.check_kernel(ROOT).state is State.OK
    check = probe.check_kernel(OLD)
    assert (check.state, "backports" in check.remedy) == (State.LIMITED, True)


def test_a_device_that_is_missing_or_closed_has_a_remedy(tmp_path):
    absent = probe.check_device(str(tmp_path / "absent"))
    assert (absent.state, "modprobe" in absent.remedy) == (State.MISSING, True)
    assert probe.check_device(_file(tmp_path, "")).state is State.OK


def test_fusermount3_is_needed_by_an_ordinary_user_only(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _name: None)
    assert probe.check_fusermount(ROOT).state is State.OK
    assert "apt-get install fuse3" in probe.check_fusermount(NOBODY).remedy


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("user_allow_other\n", State.OK),
        ("#user_allow_other\n", State.LIMITED),
        ("", State.LIMITED),
    ],
)
def test_allow_other_is_read_from_fuse_conf(tmp_path, text: str, state: State):
    assert probe.check_allow_other(NOBODY, _file(tmp_path, text)).state is state
    assert probe.check_allow_other(ROOT, _file(tmp_path, text)).state is State.OK


def test_the_mount_helper_is_put_in_place_by_setup(tmp_path):
    link = tmp_path / "mount.fuse.zcfuse"
    absent = probe.check_mount_helper(str(link))
    assert (absent.state, "zcfuse setup" in absent.remedy) == (State.LIMITED, True)
    link.symlink_to(tmp_path / "removed")
    assert "is a broken link" in probe.check_mount_helper(str(link)).found
    (tmp_path / "removed").touch(mode=0o755)
    assert probe.check_mount_helper(str(link)).state is State.OK


def test_passthrough_is_not_tried_where_it_cannot_be():
    assert "6.1.0" in probe.check_passthrough(OLD).found
    assert "CAP_SYS_ADMIN" in probe.check_passthrough(NOBODY).found
    without = Machine("6.18.0", (6, 18), 0, ROOT.capabilities, "CONFIG_FUSE_FS=y\n")
    assert "CONFIG_FUSE_PASSTHROUGH" in probe.check_passthrough(without).remedy


@requires("passthrough")
def test_passthrough_is_tried_where_it_can_be():
    assert probe.check_passthrough(probe.this_machine()).state is State.OK


@pytest.mark.parametrize(
    ("config", "way"),
    [("CONFIG_FUSE_FS=m\n", "modprobe.d"), ("CONFIG_FUSE_FS=y\n", "command line"), ("", "command")],
)
def test_io_uring_is_switched_on_as_the_kernel_was_built(tmp_path, config: str, way: str):
    machine = Machine("6.18.0", (6, 18), 0, 0, config)
    check = probe.check_ring(machine, _file(tmp_path, "N\n"))
    assert (check.state, way in check.remedy) == (State.LIMITED, True)
    assert probe.check_ring(machine, str(tmp_path / "absent")).state is State.MISSING


@pytest.mark.parametrize(
    ("disabled", "nobody", "root"),
    [
        ("0\n", State.OK, State.OK),
        ("1\n", State.LIMITED, State.OK),
        ("2\n", State.LIMITED, State.LIMITED),
    ],
)
def test_io_uring_that_is_switched_on_may_still_be_forbidden(
    tmp_path, disabled: str, nobody: State, root: State
):
    (tmp_path / "disabled").write_text(disabled)
    files = (_file(tmp_path, "Y\n"), str(tmp_path / "disabled"))
    for machine, state in ((NOBODY, nobody), (ROOT, root)):
        check = probe.check_ring(machine, *files)
        assert (check.state, "io_uring_disabled" in check.remedy) == (state, state != State.OK)


def test_a_pipe_has_four_slots_that_need_not_hold_data(tmp_path):
    check = probe.check_pipe(NOBODY, _file(tmp_path, "1048576\n"))
    assert (check.state, "1008 KiB" in check.found) == (State.LIMITED, True)
    assert probe.check_pipe(NOBODY, _file(tmp_path, "2097152\n")).state is State.OK
    assert probe.check_pipe(ROOT, _file(tmp_path, "1048576\n")).state is State.OK


def test_locked_memory_is_a_limit_unless_the_capability_is_there(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _what: (8 << 20, 8 << 20))
    assert "memlock" in probe.check_memlock(NOBODY).remedy
    assert probe.check_memlock(ROOT).state is State.OK


def test_a_small_socket_buffer_has_a_remedy(tmp_path):
    check = probe.check_socket_buffer(NOBODY, _file(tmp_path, "212992\n"))
    assert (check.state, "wmem_max" in check.remedy) == (State.LIMITED, True)
    assert probe.check_socket_buffer(NOBODY, _file(tmp_path, "4194304\n")).state is State.OK


def test_the_largest_request_is_in_pages(tmp_path):
    assert "1 MiB" in probe.check_request_size(_file(tmp_path, "256\n")).found
    assert probe.check_request_size(_file(tmp_path, "32\n")).state is State.LIMITED
    assert probe.check_request_size(str(tmp_path / "absent")).state is State.OK


def test_a_missing_capability_says_what_it_would_allow():
    check = probe.check_capability(NOBODY, Capability.SYS_RESOURCE)
    assert (check.state, "pipes" in check.found) == (State.LIMITED, True)
    assert probe.check_capability(ROOT, Capability.SYS_RESOURCE).state is State.OK


@pytest.mark.parametrize(("kind", "state"), [("ext4", State.OK), ("overlay", State.LIMITED)])
def test_a_stacked_filesystem_is_told_of_stack_depth(
    tmp_path, monkeypatch, kind: str, state: State
):
    monkeypatch.setattr(probe, "filesystem_of", lambda _path: kind)
    check = probe.check_backing(str(tmp_path))
    assert (check.state, "--stack-depth 2" in check.remedy) == (state, kind == "overlay")


def test_whatever_is_missing_has_a_remedy_and_the_exit_status_is_0():
    result = run_zcfuse("doctor", "--json")
    assert (result.returncode, without_progress(result.stderr)) == (0, "")
    found = json.loads(result.stdout)
    assert len(found) >= 15
    assert all(check["remedy"] for check in found if check["state"] != "ok")
    assert not [m for m in fuse_mounts() if "zcfuse-doctor-" in m.mountpoint]


def test_the_table_ends_with_what_to_do():
    result = run_zcfuse("doctor", os.path.dirname(__file__))
    assert result.returncode == 0
    assert "What to do:" in result.stdout or "Everything" in result.stdout


@requires("ordinary user")
def test_an_ordinary_user_is_told_what_root_would_have(ordinary_user):
    result = run_zcfuse("doctor", "--json", user=ordinary_user)
    assert (result.returncode, without_progress(result.stderr)) == (0, "")
    states = {check["name"]: check["state"] for check in json.loads(result.stdout)}
    assert states["passthrough"] == "missing"


def test_without_libfuse3_a_mount_and_the_doctor_name_the_package(tmp_path):
    stub, source, mountpoint = tmp_path / "stub", tmp_path / "source", tmp_path / "mnt"
    for directory in (stub, source, mountpoint):
        directory.mkdir()
    missing = "libfuse3.so.3: cannot open shared object file: No such file or directory"
    (stub / "pyfuse3.py").write_text(f"raise ImportError({missing!r})")
    env = {"PYTHONPATH": f"{stub}:{CHECKOUT}"}
    result = run_zcfuse("mount", str(source), str(mountpoint), env=env)
    refused(result, 1, "libfuse3 is not installed: install the package libfuse3-3")
    rows = json.loads(run_zcfuse("doctor", "--json", env=env).stdout)
    (row,) = [row for row in rows if row["name"] == "libfuse3"]
    assert (row["state"], row["found"]) == ("missing", missing)
    assert "libfuse3-3" in row["remedy"]
