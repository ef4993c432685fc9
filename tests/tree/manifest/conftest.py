import stat

import msgspec
import pytest

from zcfuse.tree import VirtualTree
from zcfuse.tree.manifest import ManifestError, load_manifest


class Manifests:
    """Writes manifests into a directory, beside the files that they name, and loads them."""

    def __init__(self, directory):
        self.directory = directory
        (directory / "ten").write_bytes(b"0123456789")
        (directory / "below").mkdir()

    def toml(self, text):
        return self._load("tree.toml", text)

    def lines(self, *records):
        texts = (
            record if isinstance(record, str) else msgspec.json.encode(record).decode()
            for record in records
        )
        return self._load("tree.jsonl", "".join(text + "\n" for text in texts))

    def toml_error(self, text):
        return self._error(lambda: self.toml(text), "tree.toml")

    def lines_error(self, *records):
        return self._error(lambda: self.lines(*records), "tree.jsonl")

    def _load(self, name, text):
        path = self.directory / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_manifest(path)

    def _error(self, load, name):
        """Return an error without its prefix, which must be the manifest's path."""
        with pytest.raises(ManifestError) as caught:
            load()
        text = str(caught.value)
        assert text.isprintable()
        start = f"{self.directory / name}: "
        assert text.startswith(start)
        return text.removeprefix(start)


@pytest.fixture
def manifests(tmp_path):
    return Manifests(tmp_path)


def shown(directory):
    """The tree of the directory: path to bytes of a file, target of a link, or None."""
    tree = VirtualTree(directory)
    found = {}
    waiting = [("", tree.root)]
    while waiting:
        above, node = waiting.pop()
        for _, name, child, attributes in tree.listing(node).entries(2):
            path = above + name.decode()
            found[path] = None
            if stat.S_ISDIR(attributes.mode):
                waiting.append((path + "/", child))
            elif stat.S_ISLNK(attributes.mode):
                found[path] = tree.readlink(child).decode()
            else:
                found[path] = content(tree, child)
                assert len(found[path]) == attributes.size
    return found


def content(tree, node):
    opened = tree.open(node)
    try:
        return opened.pread(1 << 30, 0)
    finally:
        opened.close()


def attributes(directory, path):
    tree = VirtualTree(directory)
    node, found = tree.root, tree.attributes(tree.root)
    for name in path.encode().split(b"/"):
        node, found = tree.lookup(node, name)
    return found
