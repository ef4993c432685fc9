"""The sources of a measurement: sizes that fit, files that are removed, trees that are only
read."""

import os
import tarfile

import pytest

from zcfuse.bench import SourceError, existing_file, mountpoint_outside, survey, tar_of
from zcfuse.bench import temporary_file as make_file
from zcfuse.bench import temporary_tree as make_tree
from zcfuse.bench._sources import fitting_size, write_file

MIB = 1 << 20


@pytest.mark.parametrize(
    ("wanted", "free", "memory", "expected"),
    [
        (1024 * MIB, 10_000 * MIB, 10_000 * MIB, 1024 * MIB),
        (1024 * MIB, 1000 * MIB, 10_000 * MIB, 500 * MIB),
        (1024 * MIB, 10_000 * MIB, 400 * MIB, 100 * MIB),
        (1024 * MIB, 0, 10_000 * MIB, 0),
    ],
)
def test_a_size_fits_disk_and_memory(wanted: int, free: int, memory: int, expected: int):
    assert fitting_size(wanted, free, memory) == expected


def test_no_two_blocks_of_a_file_are_alike(tmp_path):
    path = tmp_path / "data"
    write_file(str(path), 4 * MIB + 100)
    data = path.read_bytes()
    assert len(data) == 4 * MIB + 100
    assert len({data[offset : offset + MIB] for offset in range(0, len(data), MIB)}) == 5


def test_a_temporary_file_is_gone_after_the_block():
    with make_file(MIB) as source:
        assert os.path.getsize(source.path) == MIB
        assert os.path.isdir(source.mountpoint)
        assert not source.mountpoint.startswith(source.root + "/")
    assert not os.path.exists(source.root)


def test_more_than_the_disk_has_is_refused():
    with pytest.raises(SourceError, match="--size"), make_file(1 << 60):
        pytest.fail("it does not fit")


def test_a_file_of_the_users_is_measured_to_its_end(tmp_path):
    path = tmp_path / "source" / "data"
    path.parent.mkdir()
    path.write_bytes(b"x" * 5000)
    with existing_file(str(path), None) as source:
        assert (source.size, source.path) == (5000, str(path))
    with existing_file(str(path), 9000) as source:
        assert (source.size, source.note) == (5000, "5000 bytes: all that the file has")
    assert path.exists()


@pytest.mark.parametrize("name", ["absent", "empty", "."])
def test_what_is_no_file_with_bytes_is_refused(tmp_path, name: str):
    (tmp_path / "empty").touch()
    with pytest.raises(SourceError), existing_file(str(tmp_path / name), None):
        pytest.fail("there is nothing to measure")


def test_a_mountpoint_is_outside_of_the_source_also_when_that_is_the_temporary_directory(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with mountpoint_outside(str(tmp_path)) as mountpoint:
        assert not mountpoint.startswith(f"{tmp_path}/")
    assert not os.path.exists(mountpoint)


def test_there_is_no_mountpoint_outside_of_the_root_directory():
    with pytest.raises(SourceError, match="choose a directory"), mountpoint_outside("/"):
        pytest.fail("everything is inside")


def test_a_temporary_tree_has_what_the_workloads_need():
    with make_tree(150) as tree:
        assert len(tree.small) == 150
        assert os.path.getsize(os.path.join(tree.root, tree.small[-1])) == 16384
        assert os.path.getsize(os.path.join(tree.root, tree.large)) == tree.large_size
    assert not os.path.exists(tree.root)


def test_of_a_users_tree_the_largest_file_and_the_nearest_to_16_kib_are_taken(tmp_path):
    for name, size in {"tiny": 1, "near": 16000, "far": 60000, "large": 5 * MIB}.items():
        (tmp_path / name).write_bytes(bytes(size))
    (tmp_path / "link").symlink_to("large")
    tree = survey(str(tmp_path), 2)
    assert (tree.large, tree.small, tree.entries) == ("large", ("near", "tiny"), 4)


def test_a_tree_without_a_large_file_says_so(tmp_path):
    (tmp_path / "small").write_bytes(b"x")
    assert survey(str(tmp_path), 10).large == ""


def test_a_source_that_is_no_directory_is_refused(tmp_path):
    with pytest.raises(SourceError, match="not a directory"):
        survey(str(tmp_path / "absent"), 10)


def test_the_archive_has_the_files_that_are_measured_and_is_gone_after_the_block():
    with make_tree(30) as tree, tar_of(tree) as path:
        assert os.path.commonpath([path, tree.root]) != tree.root
        with tarfile.open(path) as archive:
            members = {member.name: member.size for member in archive}
            content = archive.extractfile(tree.small[7]).read()
        with open(os.path.join(tree.root, tree.small[7]), "rb") as file:
            assert content == file.read()
        assert members.keys() == {tree.large, *tree.small}
        assert members[tree.large] == tree.large_size
    assert not os.path.exists(path)


def test_an_archive_that_does_not_fit_is_refused(tmp_path):
    for name in ("a", "b"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(1 << 43)
    tree = survey(str(tmp_path), 10)
    with pytest.raises(SourceError, match="--tar"), tar_of(tree):
        pytest.fail("it does not fit")
