"""The hottest files by name, from the data path's node ids."""

from zcfuse.admin.status._document import HotFile
from zcfuse.admin.status._hot_files import HotFiles

NAMES = {1: b"", 5: b"dir/of/python\xff", 9: b"leased"}


class Counts:
    """Stands in for the data path."""

    def __init__(self, *files):
        self.files = list(files)

    def hot_files(self, most):
        return self.files


def hot(*files):
    counts = Counts(*files)
    return HotFiles(counts, NAMES.get), counts


def test_a_name_is_put_together_of_both_planes():
    files, _ = hot(
        (5, 1, 0, 0, 5, b""),
        (70, 2, 0, 0, 1, b"a/b"),
        (71, 3, 0, 0, 9, b"c"),
        (72, 4, 0, 0, 9, b""),
    )
    names = [file.path for file in files.now()]
    assert names == ["leased", "leased/c", "a/b", "dir/of/python\\xff"]


def test_those_with_the_most_requests_come_first():
    files, _ = hot((70, 1, 1, 99, 1, b"a"), (71, 0, 3, 0, 1, b"b"), (72, 2, 0, 100, 1, b"c"))
    assert [file.path for file in files.now()] == ["b", "c", "a"]


def test_a_name_is_kept_while_its_file_is_among_them_and_no_longer():
    files, counts = hot((70, 1, 0, 0, 1, b"a"))
    files.now()
    counts.files = [(70, 1, 0, 0, 0, b"")]
    assert [file.path for file in files.now()] == ["a"]
    counts.files = []
    files.now()
    counts.files = [(70, 1, 0, 0, 0, b"")]
    assert files.now() == []


def test_what_the_kernel_knew_by_two_nodes_is_one_file():
    files, counts = hot((70, 1, 2, 3, 1, b"a"), (71, 9, 0, 0, 0, b""))
    files.now()
    counts.files = [(70, 1, 2, 3, 0, b""), (90, 10, 20, 30, 1, b"a")]
    assert files.now() == [HotFile("a", 11, 22, 33)]
