"""Random archives, against GNU tar and zipfile."""

import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tree.archive.support import (
    directory,
    extracted,
    hard_link,
    member,
    nodes,
    opened,
    opened_or_refused,
    shown,
    symlink,
    write,
)
from zcfuse.tree.archive import Kind

NAMES = st.lists(st.sampled_from(["a", "b", "c", "\udcff"]), min_size=1, max_size=3).map("/".join)
LEAVES = st.sampled_from(["f1", "f2", "f3"])
DIRECTORIES = st.lists(st.sampled_from(["d1", "d2"]), max_size=2).map("/".join)


def below(parts):
    return "/".join(part for part in parts if part)


FILES = st.tuples(DIRECTORIES, LEAVES).map(below)
# Files and directories have separate names: if they collide, zcfuse deliberately differs from tar.
MEMBERS = st.one_of(
    st.builds(lambda name, data: member(name, data=data), FILES, st.binary(max_size=1200)),
    st.builds(symlink, FILES, FILES),
    st.tuples(DIRECTORIES.filter(bool), st.sampled_from([0o700, 0o755, 0o1777])).map(
        lambda made: directory(made[0], mode=made[1])
    ),
)
SETTINGS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def described(seen):
    """Leave out attributes of directories that tar created, which are not in the archive."""
    return {
        path: found if not stat.S_ISDIR(found.mode) else stat.S_IFDIR
        for path, found in seen.items()
    }


def with_links(members):
    """Add hard links, each to an earlier name."""

    def add(choices):
        made, files = [], []
        for item, link in zip(members, choices, strict=True):
            made.append(item)
            if item[0].type in (tarfile.REGTYPE, tarfile.SYMTYPE):
                files.append(item[0].name)
            if link is not None and files:
                made.append(hard_link(link[0], files[link[1] % len(files)]))
                files.append(link[0])
        return made

    link = st.none() | st.tuples(FILES, st.integers(0, 50))
    return st.lists(link, min_size=len(members), max_size=len(members)).map(add)


@SETTINGS
@given(
    st.lists(MEMBERS, max_size=12).flatmap(with_links),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_a_random_tar_is_shown_as_gnu_tar_unpacks_it(members, kind):
    work = Path(tempfile.mkdtemp())
    try:
        path = write(work / "a.tar", *members, format=kind)
        seen, linked = shown(opened(path))
        expected, expected_links = extracted(path, work / "x")
        assert described(seen) == described(expected)
        assert linked == expected_links
    finally:
        shutil.rmtree(work)


@SETTINGS
@given(
    st.dictionaries(
        NAMES,
        st.tuples(st.binary(max_size=2000), st.sampled_from([0, 8, 12, 14])),
        max_size=8,
    )
)
def test_a_random_zip_has_what_zipfile_reads(members):
    work = Path(tempfile.mkdtemp())
    try:
        with zipfile.ZipFile(work / "a.zip", "w") as archive:
            for name, (data, method) in members.items():
                archive.writestr(name.replace("\udcff", "ü"), data, compress_type=method)
        with zipfile.ZipFile(work / "a.zip") as archive:
            names = [os.fsencode(name) for name in archive.namelist()]
            expected = {name: archive.read(os.fsdecode(name)) for name in names}
        directories = {
            b"/".join(name.split(b"/")[:depth])
            for name in names
            for depth in range(1, name.count(b"/") + 1)
        }
        seen, _ = shown(opened(work / "a.zip"))
        files = {path: found.content for path, found in seen.items() if found.content is not None}
        assert files == {name: data for name, data in expected.items() if name not in directories}
        assert seen.keys() - files.keys() == directories
    finally:
        shutil.rmtree(work)


@SETTINGS
@given(
    st.lists(MEMBERS, min_size=1, max_size=6).flatmap(with_links),
    st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 255)), min_size=1, max_size=8),
    st.booleans(),
)
def test_a_tar_with_damage_at_random_is_an_index_in_bounds_or_one_line(members, damage, salvage):
    work = Path(tempfile.mkdtemp())
    try:
        path = write(work / "a.tar", *members)
        data = bytearray(path.read_bytes())
        for at, value in damage:
            data[at % len(data)] = value
        path.write_bytes(data)
        index = opened_or_refused(path, salvage=salvage)
        for _, node in nodes(index) if index else ():
            found = index.member(node)
            if found.kind in (Kind.FILE, Kind.SPARSE):
                runs = list(index.runs(node))
                assert sum(run.length for run in runs) == found.size
                assert all(
                    run.offset is None or run.offset + run.length <= len(data) for run in runs
                )
    finally:
        shutil.rmtree(work)
