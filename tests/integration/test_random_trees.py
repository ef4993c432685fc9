"""Random trees against a plain-Python model: every name, attribute and byte range, by each path."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import random
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.client import Client
from tests.integration.conftest import ALL_PATHS
from tests.integration.program import Program
from tests.layers.random_layers import Layer, layer_lists, merged, write_layer
from tests.support import requires, skip_unless

pytestmark = [requires("mounting"), pytest.mark.timeout(300)]

SIZES: Final = [0, 1, 4096, 70_001, 300_000]
RUNS: Final = [(0, 1 << 20), (1, 4095), (4095, 2), (5000, 70_000), (65_536, 4096), (1 << 30, 10)]
_NUMBERS: Final = itertools.count()
GRAFTED: Final = ("archive", "union")

Spec = tuple[Any, ...]
OFFSETS = st.one_of(st.integers(0, 200), st.sampled_from([4095, 4096, 8191, 69_999, 1 << 40]))
LENGTHS = st.one_of(OFFSETS, st.integers(0, 150_000))
DATA = st.one_of(st.binary(max_size=40), st.just(300_000).map(lambda n: b"large" * n))


def larger(parts: st.SearchStrategy[Spec]) -> st.SearchStrategy[Spec]:
    return st.one_of(
        st.tuples(st.just("slice"), parts, OFFSETS, st.one_of(st.none(), LENGTHS)),
        st.tuples(st.just("concat"), st.lists(parts, max_size=4)),
    )


BLOBS: Final = st.recursive(
    st.one_of(
        st.tuples(st.just("file"), st.integers(0, len(SIZES) - 1)),
        st.tuples(st.just("zeros"), st.one_of(st.integers(0, 9000), st.just(100_000))),
        st.tuples(st.just("bytes"), DATA),
    ),
    larger,
    max_leaves=8,
)
NAMES: Final = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=9
).filter(lambda name: name not in (".", "..") and not name.startswith("mirror"))
LEAVES: Final = st.one_of(
    BLOBS,
    st.tuples(st.just("symlink"), st.text("abc/", min_size=1, max_size=9)),
    st.tuples(st.just("computed"), st.integers(0, 100_000)),
)


def directory(children: st.SearchStrategy[Spec]) -> st.SearchStrategy[Spec]:
    return st.tuples(st.just("dir"), st.dictionaries(NAMES, children, max_size=4))


# The contents of a separate tree on disk: names of files, by their numbers, and of directories of
# such.
_FILES: Final = st.integers(0, len(SIZES) - 1)
_OWN_NAMES: Final = NAMES.filter(lambda name: not name.startswith(".wh."))
MEMBERS: Final = st.dictionaries(
    _OWN_NAMES, st.one_of(_FILES, st.dictionaries(_OWN_NAMES, _FILES, max_size=3)), max_size=4
)
LAYERS: Final = layer_lists(_FILES)
GRAFTS: Final = st.one_of(
    st.tuples(st.just("archive"), MEMBERS), st.tuples(st.just("union"), LAYERS)
)
TREES: Final = directory(st.recursive(st.one_of(LEAVES, GRAFTS), directory, max_leaves=6))


def write_archive(path: Path, members: dict[str, Any], files: list[bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, found in members.items():
            inside = found.items() if isinstance(found, dict) else ()
            if isinstance(found, dict):
                member = tarfile.TarInfo(name)
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
            else:
                inside = [("", found)]
            for below, number in inside:
                member = tarfile.TarInfo(f"{name}/{below}" if below else name)
                member.size = len(files[number])
                archive.addfile(member, io.BytesIO(files[number]))


def write(spec: Spec, base: Path, files: list[bytes]) -> str:
    """Put an archive or layers on disk; return the entry in the program's syntax."""
    kind, what = spec
    if kind == "archive":
        path = base / f"{next(_NUMBERS)}.tar"
        write_archive(path, what, files)
        return f"Archive({str(path)!r}, keep=Keep.NOT)"
    paths = []
    for layer in what:
        paths.append(base / f"layer-{next(_NUMBERS)}")
        write_layer(paths[-1], layer, files)
    return f"Union({list(map(str, paths))!r})"


def source_of(spec: Spec, base: Path, files: list[bytes]) -> str:
    """The entry in the program's syntax."""
    kind, *rest = spec
    if kind in GRAFTED:
        return write(spec, base, files)
    if kind == "file":
        return f"File(where + '/{rest[0]}')"
    if kind == "slice":
        return f"Slice({source_of(rest[0], base, files)}, {rest[1]}, {rest[2]})"
    if kind == "concat":
        return f"Concat([{', '.join(source_of(part, base, files) for part in rest[0])}])"
    if kind == "dir":
        inner = (f"{name!r}: {source_of(one, base, files)}" for name, one in rest[0].items())
        return f"Dir({{{', '.join(inner)}}})"
    if kind == "computed":
        return f"Computed({rest[0]}, made)"
    return f"{kind.capitalize()}({rest[0]!r})"


def content_of(spec: Spec, files: list[bytes]) -> tuple[bytes, bool]:
    """The bytes, and whether the range is complete."""
    kind, *rest = spec
    if kind == "file":
        return files[rest[0]], True
    if kind == "zeros":
        return bytes(rest[0]), True
    if kind == "bytes":
        return rest[0], True
    if kind == "computed":
        return made(0, rest[0]), True
    if kind == "slice":
        inner, complete = content_of(rest[0], files)
        if rest[2] is None:
            return inner[rest[1] :], complete
        found = inner[rest[1] : rest[1] + rest[2]]
        return found, len(found) == rest[2]
    whole = b""
    for part in rest[0]:
        found, complete = content_of(part, files)
        whole += found
        if not complete:
            return whole, False
    return whole, True


def made(offset: int, size: int) -> bytes:
    return bytes(n % 251 for n in range(offset, offset + size))


PROGRAM: Final = """
from zcfuse.tree.archive import Keep

async def made(offset, size):
    return bytes(n % 251 for n in range(offset, offset + size))

tree = Dir({"mirror": Mirror(where)})
options = MountOptions(path=path, cache_timeout=100)
"""


@pytest.fixture(scope="module", params=ALL_PATHS)
def mount(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Program, Client, list[bytes]]]:
    skip_unless("mounting")
    base = tmp_path_factory.mktemp("random")
    (base / "mnt").mkdir()
    where = base / "where"
    where.mkdir()
    source = random.Random(5)
    files = [source.randbytes(size) for size in SIZES]
    for number, data in enumerate(files):
        (where / str(number)).write_bytes(data)
        os.chmod(where / str(number), 0o640)
    given = f"where = {str(where)!r}\npath = {request.param!r}\n"
    program = Program(given + PROGRAM, str(base / "mnt"), str(base / "log"))
    client = Client(program.mountpoint, program)
    try:
        yield program, client, files
    finally:
        client.close()
        program.end()


def digest(data: bytes) -> tuple[int, str]:
    return len(data), hashlib.blake2b(data, digest_size=16).hexdigest()


def check_grafted(client: Client, path: str, shown: dict[str, Any], files: list[bytes]) -> None:
    """The names, sizes and bytes that another tree shows below a directory."""
    listed = client.value(f"sorted(os.listdir(p({path!r})))")
    assert listed == sorted(os.fsencode(name) for name in shown)
    assert client.outcome(f"os.lstat(p({path!r} + '/not there'))") == "ENOENT"
    for name, found in shown.items():
        at = f"{path}/{name}"
        if isinstance(found, dict):
            check_grafted(client, at, found, files)
            continue
        data = files[found]
        assert client.value(f"attributes({at!r})")["size"] == len(data)
        wanted = [digest(data[offset : offset + size]) for offset, size in RUNS]
        assert client.value(f"by_read({at!r}, {RUNS})") == wanted


def check(client: Client, path: str, spec: Spec, files: list[bytes]) -> None:
    kind, rest = spec[0], spec[1]
    found = client.value(f"attributes({path!r})")
    if kind == "dir":
        below = sum(child[0] in ("dir", *GRAFTED) for child in rest.values())
        assert (found["mode"], found["nlink"]) == (stat.S_IFDIR | 0o555, 2 + below)
        listed = client.value(f"sorted(os.listdir(p({path!r})))")
        assert listed == sorted(os.fsencode(name) for name in rest)
        for name, child in rest.items():
            check(client, f"{path}/{name}", child, files)
        return
    if kind in GRAFTED:
        shown = merged(rest) if kind == "union" else rest
        check_grafted(client, path, shown, files)
        return
    if kind == "symlink":
        assert client.value(f"os.readlink(p({path!r}))") == rest.encode()
        assert (found["mode"], found["size"]) == (stat.S_IFLNK | 0o777, len(rest))
        return
    data, _ = content_of(spec, files)
    assert stat.S_ISREG(found["mode"])
    assert (found["size"], found["nlink"], found["uid"]) == (len(data), 1, os.geteuid())
    wanted = [digest(data[offset : offset + size]) for offset, size in RUNS]
    assert client.value(f"by_read({path!r}, {RUNS})") == wanted
    if data and kind != "computed":
        assert client.value(f"by_mmap({path!r}, {RUNS})") == wanted
    assert client.value(f"digest(content({path!r}))") == digest(data)


def examples(number: int) -> settings:
    unhealthy = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=number, deadline=None, suppress_health_check=unhealthy)


@examples(20)
@given(tree=TREES)
def test_a_random_tree_is_what_the_model_says(
    mount: tuple[Program, Client, list[bytes]], tree: Spec, tmp_path_factory
) -> None:
    show_and_compare(mount, tree, tmp_path_factory.mktemp("grafts"))


@examples(12)
@given(layers=LAYERS)
def test_a_random_union_is_what_the_model_says(
    mount: tuple[Program, Client, list[bytes]], layers: list[Layer], tmp_path_factory
) -> None:
    tree = ("dir", {"beside": ("bytes", b"!"), "union": ("union", layers)})
    show_and_compare(mount, tree, tmp_path_factory.mktemp("layers"))


def show_and_compare(mount: tuple[Program, Client, list[bytes]], tree: Spec, where: Path) -> None:
    """Add the tree to the mount, compare it with the model, remove it."""
    program, client, files = mount
    name = f"example-{next(_NUMBERS)}"
    entry = source_of(tree, where, files)
    program.run(f"tree.add({name!r}, {entry}); await served.notified()")
    check(client, name, tree, files)
    program.run(f"tree.remove({name!r}); await served.notified()")
    assert client.outcome(f"os.lstat(p({name!r}))") == "ENOENT"


def test_a_mirror_below_shows_what_is_there(mount: tuple[Program, Client, list[bytes]]) -> None:
    _, client, files = mount
    for number, data in enumerate(files):
        found = client.value(f"attributes('mirror/{number}')")
        assert (found["mode"], found["size"]) == (stat.S_IFREG | 0o640, len(data))
        assert client.value(f"digest(content('mirror/{number}'))") == digest(data)
    assert client.outcome("os.lstat(p('mirror/missing'))") == "ENOENT"
    assert client.value("os.stat(p('mirror/..')).st_ino == os.stat(p()).st_ino")
