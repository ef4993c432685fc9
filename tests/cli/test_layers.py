"""`zcfuse mount --layer`: what it shows, and how it refuses wrong use."""

import os
import subprocess

import pytest

from tests.cli.conftest import refused
from tests.support import find_mount, requires

pytestmark = requires("mounting")


@pytest.fixture
def layers(tmp_path):
    """Two layers, each with one file."""
    made = [str(tmp_path / name) for name in ("top", "bottom")]
    for layer in made:
        os.mkdir(layer)
        with open(os.path.join(layer, os.path.basename(layer)), "w") as file:
            file.write(layer)
    return made


@pytest.fixture
def refuse(zcfuse, mountpoint):
    def run(words, *arguments):
        refused(zcfuse("mount", *arguments), 2, *words)
        assert find_mount(mountpoint) is None

    return run


def test_it_shows_the_layers_and_is_named_after_them(zcfuse, layers, mountpoint):
    result = zcfuse("mount", "--layer", layers[0], "--layer", layers[1], mountpoint)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    listed = subprocess.run(["ls", mountpoint], capture_output=True, timeout=20, text=True)
    assert listed.stdout.split() == ["bottom", "top"]
    assert find_mount(mountpoint).source == ":".join(layers)
    assert zcfuse("umount", mountpoint).returncode == 0


def test_an_image_is_a_layer(zcfuse, layers, mountpoint, tmp_path):
    image = str(tmp_path / "top.image")
    assert zcfuse("freeze", layers[0], image).returncode == 0
    assert zcfuse("mount", "--layer", image, "--layer", layers[1], mountpoint).returncode == 0
    listed = subprocess.run(["ls", mountpoint], capture_output=True, timeout=20, text=True)
    assert listed.stdout.split() == ["bottom", "top"]
    assert zcfuse("umount", mountpoint).returncode == 0


def test_layers_and_a_source(refuse, layers, source, mountpoint):
    refuse(["--layer", "SOURCE", source], "--layer", layers[0], source, mountpoint)


def test_neither_layers_nor_a_mountpoint(refuse, source):
    refuse(["MOUNTPOINT"], source)


def test_a_missing_layer(refuse, layers, mountpoint):
    missing = f"{layers[0]}-not"
    refuse([missing, "does not exist"], "--layer", layers[0], "--layer", missing, mountpoint)


def test_layers_that_overlap(refuse, layers, mountpoint):
    inside = os.path.join(layers[0], "inside")
    os.mkdir(inside)
    refuse(["overlaps", *layers[:1]], "--layer", layers[0], "--layer", inside, mountpoint)


def test_a_mountpoint_inside_a_layer(refuse, layers):
    inside = os.path.join(layers[1], "mnt")
    os.mkdir(inside)
    refuse(["inside the source"], "--layer", layers[0], "--layer", layers[1], inside)
