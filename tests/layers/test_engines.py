"""One suite for every engine: a union shows the same, whoever serves it.

The table of differences in docs/frozen.md lists what is left out of the comparison.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import run_zcfuse
from tests.layers.conftest import Dump, LayersMounted, dump, layer_options
from tests.layers.stacks import Stack, oci_stack
from tests.layers.test_overlayfs import overlayfs, require_same, shown, stack_of
from tests.support import requires

pytestmark = requires("mounting", "root", "overlay layers", "erofs")

ENGINES = ["fuse", "kernel", "frozen, fuse", "frozen, kernel"]
SEEDS = range(200, 206)
# What an image does not keep. Inode numbers and blocks are those of the engine.
NOT_FROZEN = ("ino", "blocks", "times")

Shown = Callable[[str, Stack], Dump]


@pytest.fixture
def shown_by(tmp_path: Path, union: LayersMounted) -> Iterator[Shown]:
    """``shown_by(engine, stack)`` returns everything that a client sees of a stack."""
    places: list[str] = []

    def mounted(*arguments: str) -> str:
        place = str(tmp_path / f"engine-{len(places)}")
        os.mkdir(place)
        places.append(place)
        told = run_zcfuse("mount", *arguments, place)
        assert told.returncode == 0, told.stderr
        return place

    def look(engine: str, stack: Stack) -> Dump:
        layers = layer_options(stack)
        if engine == "fuse":
            return dump(union(stack).mountpoint)
        if engine == "kernel":
            return dump(mounted("--engine", "kernel", *layers))
        image = str(tmp_path / "union.zcf")
        if not os.path.exists(image):
            told = run_zcfuse("freeze", "--leave-out", *layers, image)
            assert told.returncode == 0, told.stderr
        return dump(mounted("--engine", engine.removeprefix("frozen, "), image))

    yield look
    for place in places:
        assert run_zcfuse("umount", place).returncode == 0


def kept(found: Dump, engine: str) -> Dump:
    """What the engine must show: all of it, or what an image keeps."""
    if not engine.startswith("frozen"):
        return found
    return {
        path: one
        if isinstance(one, str)
        else {
            **{name: value for name, value in one.items() if name not in NOT_FROZEN},
            "mtime": one["times"][0],
        }
        for path, one in found.items()
    }


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["trusted", "links"])
def test_every_engine_shows_what_overlayfs_shows(
    shown_by: Shown, tmp_path: Path, kind: str, seed: int, engine: str
) -> None:
    stack = stack_of(kind, tmp_path, seed)
    with overlayfs(kind, stack, tmp_path) as root:
        expected = without_errors(shown(dump(root)), engine)
    found = without_errors(shown(shown_by(engine, stack)), engine)
    require_same(kept(found, engine), kept(expected, engine))


@pytest.mark.parametrize("engine", ["frozen, fuse", "frozen, kernel"])
@pytest.mark.parametrize("seed", SEEDS)
def test_marks_of_oci_images_are_applied_when_a_union_is_frozen(
    shown_by: Shown, tmp_path: Path, seed: int, engine: str
) -> None:
    stack = oci_stack(tmp_path, seed)
    expected = shown(shown_by("fuse", stack))
    require_same(kept(shown(shown_by(engine, stack)), engine), kept(expected, engine))


def without_errors(found: Dump, engine: str) -> Dump:
    """A dump of an image lacks what could not be read when it was made (`--leave-out`)."""
    if not engine.startswith("frozen"):
        return found
    broken = {path for path, one in found.items() if isinstance(one, str)}
    for path, one in found.items():
        if isinstance(one, dict) and "names" in one:
            names = [name for name in one["names"] if os.path.join(path, name) not in broken]
            one.update(names=names, types={name: one["types"][name] for name in names})
    return {path: one for path, one in found.items() if path not in broken}
