"""Random manifests against a plain dict: each name, each byte, in both formats."""

import contextlib
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tree.manifest.conftest import Manifests, shown
from tests.tree.manifest.test_errors import as_toml
from zcfuse.tree.manifest import ManifestError, load_manifest
from zcfuse.tree.manifest._records import Record

DATA = b"0123456789"
NAMES = st.sampled_from(["a", "b", "ab", "c.jpg", "é", "-", "a b", "[[node]]"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
RANGES = st.tuples(st.integers(0, 10), st.none() | st.integers(0, 10)).filter(
    lambda wanted: wanted[0] + (wanted[1] or 0) <= 10
)


def ranged(wanted):
    offset, length = wanted
    record = {"file": "ten", "offset": offset, "length": length}
    data = DATA[offset:] if length is None else DATA[offset : offset + length]
    return {key: value for key, value in record.items() if value is not None}, data


PIECES = st.one_of(
    RANGES.map(ranged),
    st.integers(0, 20).map(lambda size: ({"zeros": size}, bytes(size))),
    st.text("xyzé", max_size=5).map(lambda text: ({"text": text}, text.encode())),
    st.just(({"base64": "AAH/"}, b"\0\x01\xff")),
)
CONTENTS = st.one_of(
    PIECES,
    st.lists(PIECES, max_size=4).map(
        lambda pieces: (
            {"parts": [record for record, _ in pieces]},
            b"".join(data for _, data in pieces),
        )
    ),
    st.text("xyz/.", min_size=1, max_size=5).map(lambda text: ({"symlink": text}, text)),
    st.just(({"dir": True}, None)),
)
MODELS = st.dictionaries(PATHS, CONTENTS, max_size=30)
WRITERS = pytest.mark.parametrize("write", ["lines", "toml"])


def above(path):
    names = path.split("/")
    return {"/".join(names[:depth]) for depth in range(1, len(names))}


def expected(model):
    """The tree of a manifest with these nodes, or None if it contradicts itself."""
    found = {path: data for path, (_, data) in model.items()}
    for path in model:
        for directory in above(path):
            if found.setdefault(directory, None) is not None:
                return None
    return found


@WRITERS
@given(model=MODELS)
def test_a_random_manifest_shows_what_a_dict_of_it_would(write, model):
    nodes = [{"path": path, **record} for path, (record, _) in model.items()]
    wanted = expected(model)
    with tempfile.TemporaryDirectory() as directory:
        manifests = Manifests(Path(directory))
        text = "\n".join(map(as_toml, nodes))

        def read():
            return manifests.lines(*nodes) if write == "lines" else manifests.toml(text)

        if wanted is None:
            with pytest.raises(ManifestError, match="directory"):
                read()
        else:
            assert shown(read()) == wanted


@given(model=MODELS, data=st.data())
def test_names_are_found_where_they_are_and_nowhere_else(model, data):
    nodes = [{"path": path, "zeros": 1} for path, _ in model.items()]
    files = {path for path in model if not any(path in above(other) for other in model)}
    nodes = [node for node in nodes if node["path"] in files]
    with tempfile.TemporaryDirectory() as directory:
        top = Manifests(Path(directory)).lines(*data.draw(st.permutations(nodes)))
    for path in files:
        below = top
        for name in path.split("/"):
            assert below.get(name + "\0") is None
            assert list(below.names()) == sorted(below.names())
            below = below[name]


FIELDS = st.sampled_from([*Record.__struct_fields__, "other"])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), PATHS, st.just("ten")
)
OBJECTS = st.dictionaries(FIELDS, SCALARS, max_size=4)
ODD = st.one_of(OBJECTS, st.dictionaries(FIELDS, st.lists(OBJECTS, max_size=2)), SCALARS)


@given(nodes=st.lists(ODD, max_size=5), garbage=st.binary(max_size=20))
def test_nothing_but_a_manifest_error_ever_comes_of_a_bad_manifest(nodes, garbage):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "tree.jsonl")
        lines = [msgspec.json.encode(node) for node in nodes]
        for text in b"\n".join(lines), b"\n".join([*lines, garbage]):
            path.write_bytes(text)
            with contextlib.suppress(ManifestError):
                load_manifest(path)


@given(table=st.dictionaries(FIELDS, SCALARS.filter(lambda value: value is not None), max_size=4))
def test_nothing_but_a_manifest_error_ever_comes_of_bad_toml(table):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "tree.toml")
        path.write_bytes(as_toml(table).encode("utf-8", "replace"))
        with contextlib.suppress(ManifestError):
            load_manifest(path)


@given(model=MODELS, before=st.integers(0, 30), padding=st.sampled_from(["", "# [[node]]\n", "\n"]))
def test_the_line_of_a_bad_table_is_found_wherever_it_stands(model, before, padding):
    good = [as_toml({"path": f"n{n}", **record}) for n, (record, _) in enumerate(model.values())]
    bad = "[[node]]\npath = 'bad'\n\nlength = -1"
    texts = [padding + text + "\n" for text in [*good[:before], bad, *good[before:]]]
    line = "".join(texts).split("\n").index("length = -1") + 1
    with tempfile.TemporaryDirectory() as directory:
        message = Manifests(Path(directory)).toml_error("".join(texts))
    assert message == f"line {line}: length: must be 0 or more"
