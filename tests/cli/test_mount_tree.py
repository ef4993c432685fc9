"""`zcfuse mount --tree`: a manifest on a real mount."""

import json
import os
import subprocess

import pytest

from tests.cli.conftest import refused
from tests.support import find_mount, requires

pytestmark = requires("mounting")

MOST_MIB = 300
# To read a million lines takes seconds, and a busy machine takes ten times as long.
LARGE_S = 150.0


def write(source, name, text):
    path = os.path.join(source, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def run(*argv):
    return subprocess.run(argv, capture_output=True, timeout=30, check=True).stdout


@pytest.fixture
def mount_tree(zcfuse, mountpoint):
    def mount(manifest, *options, **limits):
        result = zcfuse("mount", "--tree", manifest, *options, mountpoint, **limits)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")

    yield mount
    assert zcfuse("umount", mountpoint).returncode == 0


@pytest.fixture
def status(zcfuse, mountpoint):
    return lambda: json.loads(zcfuse("status", "--json", mountpoint).stdout)


@pytest.fixture
def shard(source):
    data = os.urandom(3 << 20)
    with open(os.path.join(source, "shard"), "wb") as file:
        file.write(data)
    return data


@pytest.mark.parametrize("path", ["auto", "naive"])
def test_a_toml_manifest_is_mounted(mount_tree, source, mountpoint, shard, path):
    manifest = write(
        source,
        "tree.toml",
        '[[node]]\npath = "a/slice"\nfile = "shard"\noffset = 4097\nlength = 1500000\n'
        '[[node]]\npath = "joined"\nparts = [{ file = "shard" }, { zeros = 9 }, { text = "é" }]\n'
        '[[node]]\npath = "link"\nsymlink = "a/slice"\n'
        '[[node]]\npath = "real"\nmirror = "."\n',
    )
    mount_tree(manifest, "--path", path)
    assert run("cat", f"{mountpoint}/a/slice") == shard[4097:1504097]
    assert run("cat", f"{mountpoint}/link") == shard[4097:1504097]
    assert run("cat", f"{mountpoint}/joined") == shard + bytes(9) + "é".encode()
    assert run("cmp", f"{mountpoint}/real/shard", f"{source}/shard") == b""
    assert run("ls", mountpoint).split() == [b"a", b"joined", b"link", b"real"]
    assert run("findmnt", "-n", "-o", "SOURCE", mountpoint).decode().strip() == manifest


def test_each_node_is_served_by_the_path_that_it_asks_for(
    mount_tree, source, mountpoint, shard, status
):
    node = '{"path":"%s","file":"shard","offset":1,"length":2000000,"serve":"%s"}\n'
    manifest = write(source, "t.jsonl", "".join(node % (path, path) for path in ("splice", "mmap")))
    mount_tree(manifest, "--transport", "dev")
    for path in "splice", "mmap":
        assert run("cat", f"{mountpoint}/{path}") == shard[1:2000001]
        served = status()["datapath"]["paths"][path]
        # The first READ may be small, and then copying is cheaper.
        assert served["bytes"] > 1_500_000
        assert served["copied_in"] == 0


def test_relative_paths_are_those_of_whoever_mounts(mount_tree, source, mountpoint, shard):
    manifest = os.path.relpath(write(source, "t.jsonl", '{"path":"a","file":"shard"}\n'))
    mount_tree(manifest)
    assert run("cat", f"{mountpoint}/a") == shard


def test_lookups_in_a_manifest_send_no_upcall(mount_tree, source, mountpoint, status):
    write(source, "shard", "x" * 1000)
    lines = (
        f'{{"path":"{n % 10}/{n}","file":"shard","offset":{n},"length":1}}\n' for n in range(1000)
    )
    mount_tree(write(source, "t.jsonl", "".join(lines)), "--cache-timeout", "60")
    run("stat", *(f"{mountpoint}/{n}" for n in range(10)))
    before = status()["control"]["upcalls"]
    run("stat", *(f"{mountpoint}/{n % 10}/{n}" for n in range(100)))
    assert status()["control"]["upcalls"] == before
    assert status()["datapath"]["requests"]["LOOKUP"] >= 110


@pytest.mark.alone
@pytest.mark.timeout(300)
def test_a_million_nodes_are_mounted_within_the_memory_that_is_promised(
    mount_tree, source, mountpoint, status
):
    with open(os.path.join(source, "shard"), "wb") as file:
        file.truncate(1_000_000)
    manifest = os.path.join(source, "index.jsonl")
    with open(manifest, "w") as file:
        for n in range(1_000_000):
            path = f"train/{n // 1000:03}/{n:06}.jpg"
            file.write(f'{{"path":"{path}","file":"shard","offset":{n},"length":1}}\n')
    mount_tree(manifest, timeout=LARGE_S)
    names = [f"{n // 1000:03}/{n:06}.jpg" for n in range(7, 1_000_000, 10_007)]
    run("stat", *(f"{mountpoint}/train/{name}" for name in names))
    assert len(run("ls", "-U", f"{mountpoint}/train/500").split()) == 1000
    with open(f"/proc/{status()['pid']}/status") as file:
        sizes = dict(line.split(":") for line in file)
    assert int(sizes["VmHWM"].split()[0]) >> 10 < MOST_MIB


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.toml", '[[node]]\npath = "a"\nofset = 1\n', "line 3: ofset: there is no such field"),
        ("t.jsonl", '{"path":"a","zeros":1}\n\n{"path":"a"', "line 3: not a JSON object"),
        ("t.jsonl", '{"path":"a","file":"gone"}\n', "line 1: file: gone does not exist"),
        ("t.yaml", "", "its name must end in .toml"),
    ],
)
def test_a_bad_manifest_is_refused_before_anything_is_mounted(
    zcfuse, source, mountpoint, name, text, words
):
    manifest = write(source, name, text)
    refused(zcfuse("mount", "--tree", manifest, mountpoint), 2, f"{manifest}: ", words)
    assert find_mount(os.path.realpath(mountpoint)) is None


def test_a_source_beside_a_manifest_is_refused(zcfuse, source, mountpoint):
    refused(zcfuse("mount", "--tree", "t.toml", source, mountpoint), 2, "SOURCE", source)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "SOURCE and MOUNTPOINT"),
        (("--tree", "t.toml"), "MOUNTPOINT"),
        (("source",), "MOUNTPOINT"),
    ],
)
def test_a_missing_argument_is_named(zcfuse, arguments, words):
    refused(zcfuse("mount", *arguments), 2, words)
