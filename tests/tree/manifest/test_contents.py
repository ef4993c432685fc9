"""The contents of a manifest, in both formats, and their tree."""

import os
import stat

import pytest

from tests.tree.manifest.conftest import attributes, shown
from zcfuse.tree import Dir, Mirror, Slice, VirtualTree
from zcfuse.tree.manifest import load_manifest

TOML = """
# A comment, and a string that looks like a table: '[[node]]'
[[node]]
path = "slices/middle"
file = "ten"
offset = 2
length = 5

[[node]]
path = "slices/rest"
file = "ten"
offset = 7

[[node]]
path = "slices/whole"
file = "ten"

[[node]]
path = "link"
symlink = "slices/whole"

[[node]]
path = "text"
text = '''
[[node]]
é'''

[[node]]
path = "binary"
base64 = "AAH/"

[[node]]
path = "hole"
zeros = 3

[[node]]
path = "all"
parts = [
    { file = "ten", offset = 8 },  # two bytes
    { zeros = 2 }, { text = "x" },
    { base64 = "AAH/" },
]

[[node]]
path = "empty"
dir = true
"""

LINES = (
    {"path": "slices/middle", "file": "ten", "offset": 2, "length": 5},
    {"path": "slices/rest", "file": "ten", "offset": 7},
    {"path": "slices/whole", "file": "ten"},
    {"path": "link", "symlink": "slices/whole"},
    {"path": "text", "text": "[[node]]\né"},
    {"path": "binary", "base64": "AAH/"},
    {"path": "hole", "zeros": 3},
    "",
    {
        "path": "all",
        "parts": [{"file": "ten", "offset": 8}, {"zeros": 2}, {"text": "x"}, {"base64": "AAH/"}],
    },
    {"path": "empty", "dir": True},
)

SHOWN = {
    "slices": None,
    "slices/middle": b"23456",
    "slices/rest": b"789",
    "slices/whole": b"0123456789",
    "link": "slices/whole",
    "text": "[[node]]\né".encode(),
    "binary": b"\0\x01\xff",
    "hole": bytes(3),
    "all": b"89\0\0x\0\x01\xff",
    "empty": None,
}


def test_a_toml_manifest_shows_what_it_says(manifests):
    assert shown(manifests.toml(TOML)) == SHOWN


def test_a_json_lines_manifest_shows_what_it_says(manifests):
    assert shown(manifests.lines(*LINES)) == SHOWN


def test_nodes_may_be_written_as_a_list_of_inline_tables(manifests):
    directory = manifests.toml('node = [{ path = "a", zeros = 1 }, { path = "b", text = "" }]')
    assert shown(directory) == {"a": b"\0", "b": b""}


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_a_manifest_without_nodes_is_an_empty_directory(manifests, text):
    assert shown(manifests.toml(text)) == {}
    assert shown(manifests.lines()) == {}


def test_relative_paths_begin_at_the_manifest(manifests, tmp_path, monkeypatch):
    directory = manifests.lines(
        {"path": "a", "file": "below/../ten"}, {"path": "b", "file": os.fspath(tmp_path / "ten")}
    )
    monkeypatch.chdir("/")
    assert shown(directory) == {"a": b"0123456789", "b": b"0123456789"}


def test_a_mirror_shows_a_real_directory(manifests, tmp_path):
    (tmp_path / "below" / "file").write_bytes(b"real")
    directory = manifests.lines({"path": "deep/real", "mirror": "below"})
    assert isinstance(directory["deep"]["real"], Mirror)
    assert directory["deep"]["real"] is directory["deep"]["real"]
    assert shown(directory)["deep/real/file"] == b"real"


def test_null_is_as_good_as_nothing(manifests):
    directory = manifests.lines('{"path": "a", "file": null, "zeros": 1, "mode": null}')
    assert shown(directory) == {"a": b"\0"}


def test_attributes_are_those_that_were_given(manifests):
    directory = manifests.toml(
        '[[node]]\npath = "a"\nzeros = 1\nmode = "0640"\nuid = 7\ngid = 8\nmtime = 1.5\n'
        '[[node]]\npath = "b"\nzeros = 1\nmtime = 2024-01-01T00:00:00+01:00\n'
        '[[node]]\npath = "d"\ndir = true\nmode = "700"\nmtime = 3\n'
    )
    one, dated, below = (attributes(directory, path) for path in "abd")
    assert one.mode == stat.S_IFREG | 0o640
    assert (one.uid, one.gid, one.mtime_ns) == (7, 8, 1_500_000_000)
    assert dated.mtime_ns == 1_704_063_600_000_000_000
    assert (below.mode, below.mtime_ns) == (stat.S_IFDIR | 0o700, 3_000_000_000)


def test_a_directory_may_be_described_after_what_it_holds(manifests):
    records = {"path": "d/a", "zeros": 1}, {"path": "d", "dir": True, "mode": "0700"}
    for order in records, reversed(records):
        directory = manifests.lines(*order)
        assert attributes(directory, "d").mode == stat.S_IFDIR | 0o700
        assert attributes(directory, "d/a").size == 1


def test_what_has_no_file_has_the_time_of_the_manifest(manifests, tmp_path):
    directory = manifests.lines(
        {"path": "d/text", "text": "a"}, {"path": "link", "symlink": "d"}, {"path": "z", "zeros": 1}
    )
    changed = (tmp_path / "tree.jsonl").stat().st_mtime
    for path in "d", "d/text", "link", "z":
        assert abs(attributes(directory, path).mtime_ns / 1e9 - changed) < 1e-3


def test_what_has_a_file_has_its_attributes(manifests, tmp_path):
    os.utime(tmp_path / "ten", (1, 2))
    (tmp_path / "ten").chmod(0o640)
    directory = manifests.lines({"path": "a", "parts": [{"file": "ten"}, {"text": "x"}]})
    found = attributes(directory, "a")
    assert (found.mode, found.mtime_ns) == (stat.S_IFREG | 0o640, 2_000_000_000)


def test_the_serving_path_is_passed_on(manifests):
    directory = manifests.lines({"path": "a", "file": "ten", "length": 1, "serve": "pool"})
    entry = directory["a"]
    assert isinstance(entry, Slice)
    assert entry.overrides.path == "pool"


def test_a_node_is_the_same_each_time_it_is_looked_up(manifests):
    tree = VirtualTree(manifests.toml(TOML))
    first, second = (dict(_inodes(tree, tree.root)) for _ in range(2))
    assert first == second
    assert len(set(first.values())) == len(SHOWN)


def test_a_manifest_loaded_anew_is_other_nodes(manifests):
    top = Dir({"data": manifests.lines({"path": "a", "zeros": 1})})
    tree = VirtualTree(top)
    before, _ = tree.lookup(tree.root, b"data")
    top.replace("data", manifests.lines({"path": "b", "zeros": 1}))
    after, _ = tree.lookup(tree.root, b"data")
    assert before.identity != after.identity


def test_a_directory_counts_the_directories_in_it(manifests):
    directory = manifests.lines({"path": "a/b/x", "zeros": 1}, {"path": "a/c", "dir": True})
    assert attributes(directory, "a").nlink == 4
    assert attributes(directory, "a/b").nlink == 2


def test_a_directory_is_a_mapping_that_cannot_be_changed(manifests):
    directory = manifests.lines({"path": "b", "zeros": 1}, {"path": "a", "zeros": 2})
    assert list(directory) == ["a", "b"]
    assert (len(directory), "a" in directory, "c" in directory) == (2, True, False)
    assert list(directory.names()[1:]) == [b"b"]
    with pytest.raises(KeyError):
        directory["c"]
    for change in (
        lambda: directory.add("c", Dir()),
        lambda: directory.replace("a", Dir()),
        lambda: directory.remove("a"),
    ):
        with pytest.raises(TypeError, match="cannot be changed"):
            change()


def test_progress_is_told_in_bytes_up_to_all_of_them(manifests, tmp_path):
    manifests.lines(*({"path": f"{n:06}", "zeros": n} for n in range(40_000)))
    told = []
    load_manifest(tmp_path / "tree.jsonl", progress=lambda *state: told.append(state))
    size = (tmp_path / "tree.jsonl").stat().st_size
    assert {total for _, total in told} == {size}
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len(told) == 3
    assert told[-1][0] == size


def _inodes(tree, node):
    for _, _, child, found in tree.listing(node).entries(2):
        yield child.identity, found.ino
        if stat.S_ISDIR(found.mode):
            yield from _inodes(tree, child)


def test_a_url_is_opened_when_a_client_looks_it_up(tmp_path):
    path = tmp_path / "tree.jsonl"
    path.write_text('{"path": "a/bucket", "remote": "s3://bucket/prefix"}\n')
    below = tmp_path / "below"
    below.mkdir()
    opened = []

    def remote(url: str) -> Mirror:
        opened.append(url)
        return Mirror(below)

    tree = load_manifest(path, remote=remote)
    assert (list(tree.urls), opened) == (["s3://bucket/prefix"], [])
    directory = tree["a"]
    assert isinstance(directory, Dir)
    assert isinstance(directory["bucket"], Mirror)
    assert directory["bucket"] is next(iter(tree.subtrees()))
    assert opened == ["s3://bucket/prefix"]
