"""A union mounted by a program: a lease that is revoked, and a policy that is never bypassed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.layers.conftest import Dump
from tests.layers.stacks import NAMES
from tests.layers.test_overlayfs import (
    KINDS,
    listed_but_missing,
    require_same,
    shown,
    stack_of,
)
from tests.layers.tree_dump import tree_dump
from tests.support import requires
from tests.support._user import CHECKOUT
from zcfuse.tree import Union

pytestmark = requires("mounting", "root", "xattr")

DUMP_PROGRAM = str(Path(__file__).with_name("dump.py"))

# A child works in the root's node, so that control answers for names known before the revoke.
REVOKING = """
import subprocess, sys, trio
from zcfuse import MountOptions, Union, mount

mountpoint, dump, names, *layers = sys.argv[1:]

async def dumped():
    with trio.fail_after(40):
        command = [sys.executable, "-I", dump, mountpoint, *names.split()]
        return (await trio.run_process(command, capture_stdout=True)).stdout.decode().strip()

async def main():
    async with mount(Union(layers), mountpoint, MountOptions(unmount_wait=1)) as served:
        holder = await trio.lowlevel.open_process(
            ["sh", "-c", 'cd "$0"; exec sleep 60', mountpoint])
        before = await dumped()
        served.revoke_lease()
        after = await dumped()
        upcalls = served.statistics()["control"]["upcalls"]
        holder.kill()
        await holder.wait()
    print([before, after, dict(upcalls)])

trio.run(main)
"""

HIDING = """
import errno, os, subprocess, sys, trio
from zcfuse import Union, mount

mountpoint, *layers = sys.argv[1:]

class Hiding(Union):
    def METHOD(self, directory, name, *who):
        if name == b"hidden":
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return super().METHOD(directory, name, *who)

async def main():
    async with mount(Hiding(layers), mountpoint):
        with trio.fail_after(20):
            asked = ["stat", f"{mountpoint}/hidden", f"{mountpoint}/shown"]
            print((await trio.run_process(asked, check=False, capture_stdout=True,
                                          capture_stderr=True)).stderr.decode().count("\\n"))

trio.run(main)
"""


def run(program: str, *arguments: str) -> str:
    """The output of a separate program."""
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": CHECKOUT},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_revoke_control_shows_the_same(tmp_path: Path, kind: str) -> None:
    stack = stack_of(kind, tmp_path, 300)
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    output = run(REVOKING, str(mountpoint), DUMP_PROGRAM, " ".join(NAMES), *stack.layers)
    *dumps, upcalls = ast.literal_eval(output)
    before, after = (ast.literal_eval(one) for one in dumps)
    assert len(before) > 10
    assert not listed_but_missing(after)
    require_same(shown(after), shown(before))
    assert upcalls["lookup"] > 0
    assert upcalls["opendir"] > 0


@pytest.mark.parametrize("method", ["lookup", "lookup_for"])
def test_a_union_with_a_policy_of_its_own_is_asked_for_every_name(
    tmp_path: Path, method: str
) -> None:
    layer, mountpoint = tmp_path / "layer", tmp_path / "mnt"
    layer.mkdir()
    mountpoint.mkdir()
    (layer / "hidden").touch()
    (layer / "shown").touch()
    program = HIDING.replace("METHOD", method)
    assert run(program, str(mountpoint), str(layer)).strip() == "1"


NESTING = """
import os, sys, trio
from zcfuse import Bytes, Dir, Union, mount

mountpoint, dump, names, *layers = sys.argv[1:]

async def main():
    root = Dir({"note": Bytes(b"!"), "inner": Union(layers)})
    async with mount(root, mountpoint) as served:
        with trio.fail_after(40):
            command = [sys.executable, "-I", dump, f"{mountpoint}/inner", *names.split()]
            found = (await trio.run_process(command, capture_stdout=True)).stdout.decode().strip()
        print([found, dict(served.statistics()["control"]["upcalls"])])

trio.run(main)
"""


def renumbered(found: Dump) -> Dump:
    """Without inode numbers, which differ for a tree below another."""
    return {path: one if isinstance(one, str) else {**one, "ino": 0} for path, one in found.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_union_below_a_directory_of_a_program_shows_what_it_shows_alone(
    tmp_path: Path, kind: str
) -> None:
    stack = stack_of(kind, tmp_path, 300)
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    names = " ".join(NAMES)
    output = run(NESTING, str(mountpoint), DUMP_PROGRAM, names, *stack.layers)
    dumped, upcalls = ast.literal_eval(output)
    found = ast.literal_eval(dumped)
    tree = Union(stack.layers)
    expected = tree_dump(tree, NAMES)
    tree.close()
    assert not listed_but_missing(found)
    require_same(renumbered(shown(found)), renumbered(shown(expected)))
    if kind != "links":
        assert not upcalls.keys() & {"open", "opendir", "readlink", "getxattr"}
        assert upcalls["lookup"] == 1  # of "inner"
