"""Manifests of a million nodes: their memory, and the number of file checks."""

import msgspec
import pytest

from tests.tree.conftest import run_child
from zcfuse.tree.manifest import ManifestError, load_manifest

NODES = 1_000_000
# The limit for the whole process, including about 20 for the interpreter and its modules.
MOST_MIB = 300
AFTERWARDS_MIB = 150

LOAD = """
import sys
from zcfuse.tree import VirtualTree
from zcfuse.tree.manifest import load_manifest

directory = load_manifest(sys.argv[1])
print(directory.nodes)
for line in open("/proc/self/status"):
    if line.startswith(("VmHWM", "VmRSS")):
        print(int(line.split()[1]) >> 10)
tree = VirtualTree(directory)
train, _ = tree.lookup(tree.root, b"train")
for number in range(0, 1_000_000, 50_021):
    node, attributes = tree.lookup(train, b"%07d.jpg" % number)
    opened = tree.open(node)
    assert opened.extents[0].offset == 3 * number and attributes.size == 3, number
    opened.close()
names = [name for _, name, _, _ in tree.listing(train).entries(999_990)]
print(*(name.decode() for name in names))
"""


def test_a_million_nodes_fit_into_the_memory_that_is_promised(tmp_path):
    (tmp_path / "shard").open("wb").truncate(3 * NODES)
    manifest = tmp_path / "index.jsonl"
    with manifest.open("w") as file:
        for number in range(NODES):
            turned = number * 7_919 % NODES  # in random order
            path = f"train/{turned:07}.jpg"
            file.write(f'{{"path":"{path}","file":"shard","offset":{3 * turned},"length":3}}\n')
    nodes, most, afterwards, names = run_child(LOAD, manifest).splitlines()
    assert int(nodes) == NODES + 2  # train/ and the root
    assert int(most) < MOST_MIB
    assert int(afterwards) < AFTERWARDS_MIB
    assert names.split() == [f"{number:07}.jpg" for number in range(NODES - 12, NODES)]


def write(tmp_path, files):
    for name in set(files):
        (tmp_path / name).write_bytes(b"x")
    records = ({"path": str(n), "file": name} for n, name in enumerate(files))
    (tmp_path / "tree.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, records)))
    return tmp_path / "tree.jsonl"


def test_a_file_is_looked_at_once_however_often_it_is_named(tmp_path):
    manifest = write(tmp_path, ["a", "b"] * 500)
    assert load_manifest(manifest, checked_files=2).unchecked_files == 0
    assert load_manifest(manifest, checked_files=1).unchecked_files == 1


def test_a_file_beyond_those_that_are_looked_at_is_as_any_missing_file(tmp_path):
    manifest = write(tmp_path, ["a", "b"])
    (tmp_path / "b").unlink()
    with pytest.raises(ManifestError, match="line 2: file: b does not exist"):
        load_manifest(manifest)
    assert list(load_manifest(manifest, checked_files=1)) == ["0", "1"]


def test_more_files_than_are_remembered_are_all_found(tmp_path):
    manifest = tmp_path / "tree.jsonl"
    count = (1 << 16) + 10
    with manifest.open("w") as file:
        for number in [*range(count), 0]:
            file.write(f'{{"path":"{number}/{file.tell()}","file":"d{number % 3}/f{number}"}}\n')
    directory = load_manifest(manifest, checked_files=0)
    for number in 0, 1, count - 1:
        for name in directory[str(number)]:
            found = directory[str(number)][name].file
            assert found == bytes(tmp_path / f"d{number % 3}" / f"f{number}")
    assert len(directory["0"]) == 2
