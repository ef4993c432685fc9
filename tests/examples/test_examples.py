"""Each example does what its first paragraph says."""

import os
import signal
import subprocess
import sys
import zlib

from tests.examples.conftest import DEADLINE_S, Programs
from tests.support import find_mount
from tests.support._user import CHECKOUT

CONTENT = bytes(range(256)) * 4096


def write(directory: str, name: str, content: bytes = b"x") -> str:
    path = os.path.join(directory, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    return path


def names_below(directory: str) -> list[str]:
    listing = ["find", directory, "-mindepth", "1", "-printf", "%P\\n"]
    output = subprocess.run(listing, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    return sorted(output.stdout.split())


def test_read_mapped_prints_size_and_checksum_of_any_file(tmp_path: os.PathLike[str]) -> None:
    path = write(str(tmp_path), "file", CONTENT)
    program = os.path.join(CHECKOUT, "examples", "read_mapped.py")
    command = [sys.executable, program, path]
    output = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert output.stdout == f"{len(CONTENT)} bytes, CRC-32 {zlib.crc32(CONTENT):08x}\n"


def test_read_mapped_takes_an_empty_file(tmp_path: os.PathLike[str]) -> None:
    path = write(str(tmp_path), "empty", b"")
    program = os.path.join(CHECKOUT, "examples", "read_mapped.py")
    command = [sys.executable, program, path]
    output = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert output.stdout == "0 bytes, CRC-32 00000000\n"


def test_mount_from_trio_shows_the_source_while_a_command_runs(
    programs: Programs, source: str, mountpoint: str
) -> None:
    write(source, "file", CONTENT)
    reader = os.path.join(CHECKOUT, "examples", "read_mapped.py")
    command = [sys.executable, reader, os.path.join(mountpoint, "file")]
    output = programs.run("mount_from_trio.py", source, mountpoint, *command)
    assert f"{len(CONTENT)} bytes, CRC-32 {zlib.crc32(CONTENT):08x}" in output
    assert find_mount(mountpoint) is None


def test_mount_from_trio_ends_with_the_status_of_the_command(
    programs: Programs, source: str, mountpoint: str
) -> None:
    process = programs.start("mount_from_trio.py", source, mountpoint, "sh", "-c", "exit 7")
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 7


def test_policy_hides_what_matches_and_shows_the_rest(
    programs: Programs, source: str, mountpoint: str
) -> None:
    for name in ("kept", "scratch.tmp", "sub/kept", "sub/scratch.tmp", ".git/config"):
        write(source, name)
    process = programs.start("policy.py", source, mountpoint, "*.tmp", ".git")
    programs.wait_until_mounted(process)
    assert names_below(mountpoint) == ["kept", "sub", "sub/kept"]
    by_name = subprocess.run(["test", "-e", f"{mountpoint}/scratch.tmp"], timeout=DEADLINE_S)
    assert by_name.returncode == 1


def test_policy_unmounts_at_a_signal(programs: Programs, source: str, mountpoint: str) -> None:
    process = programs.start("policy.py", source, mountpoint, "*.tmp")
    programs.wait_until_mounted(process)
    assert names_below(mountpoint) == []
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors
    assert find_mount(mountpoint) is None


def test_union_shows_three_layers_as_one(
    programs: Programs, tmp_path: os.PathLike[str], mountpoint: str
) -> None:
    layers = [os.path.join(tmp_path, name) for name in ("top", "middle", "bottom")]
    for layer in layers:
        write(layer, "same", os.path.basename(layer).encode())
        write(layer, f"sub/{os.path.basename(layer)}")
    write(layers[1], "sub/.wh.bottom")
    process = programs.start("union.py", mountpoint, *layers)
    programs.wait_until_mounted(process)
    assert names_below(mountpoint) == ["same", "sub", "sub/middle", "sub/top"]
    same = subprocess.run(["cat", f"{mountpoint}/same"], capture_output=True, timeout=DEADLINE_S)
    assert same.stdout == b"top"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors


def test_restarted_goes_on_after_it_is_killed_and_edited(
    programs: Programs, source: str, mountpoint: str
) -> None:
    write(source, "file", CONTENT)
    write(source, "file.tmp", CONTENT)
    first = programs.start("restarted.py", source, mountpoint)
    programs.wait_until_mounted(first)
    assert first.stdout is not None
    assert first.stdout.readline() == f"{mountpoint} is mounted\n"
    assert names_below(mountpoint) == ["file"]
    first.kill()
    first.wait()
    second = programs.start("restarted.py", source, mountpoint)
    assert second.stdout is not None
    assert second.stdout.readline() == f"{mountpoint} is taken over\n"
    assert names_below(mountpoint) == ["file"]
    unmount = [sys.executable, "-m", "zcfuse", "umount", mountpoint]
    subprocess.run(unmount, check=True, timeout=DEADLINE_S)
    assert second.wait(DEADLINE_S) == 0
