"""Reports of trees, combined by their places."""

from zcfuse.tree import Dir, File, Mirror, Symlink, VirtualTree
from zcfuse.tree._report import MOST_NAMES


class Telling(Mirror):
    """A tree with a report."""

    def __init__(self, source, section, name):
        super().__init__(source)
        self._told = {section: {name: {"counted": 1}}}

    def report(self):
        return self._told


def test_trees_that_have_nothing_to_tell_tell_nothing(tmp_path):
    assert VirtualTree(Dir({"mirror": Mirror(tmp_path), "file": File("/x")})).report() == {}


def test_reports_of_all_depths_are_put_together(tmp_path):
    a, b, c = (
        Telling(tmp_path, section, name) for section, name in (("s", "a"), ("s", "b"), ("t", "c"))
    )
    below = Dir({"b": b, "again": a, "link": Symlink("b"), "deeper": Dir({"c": c})})
    told = {"counted": 1}
    report = VirtualTree(Dir({"a": a, "below": below, "twice": below})).report()
    assert report == {"s": {"a": told, "b": told}, "t": {"c": told}}


def test_a_directory_within_itself_is_looked_into_once(tmp_path):
    directory = Dir({"a": Telling(tmp_path, "s", "a")})
    directory.add("itself", directory)
    assert VirtualTree(directory).report() == {"s": {"a": {"counted": 1}}}


def test_a_directory_that_makes_its_contents_is_not_asked():
    class Asked(Dir):
        async def lookup(self, name, who):
            raise AssertionError

        def names(self):
            raise AssertionError

    assert VirtualTree(Dir({"asked": Asked()})).report() == {}


def test_only_so_many_names_are_looked_through(tmp_path):
    many = Dir({str(number): Symlink("x") for number in range(MOST_NAMES)})
    many.add("z", Telling(tmp_path, "s", "a"))
    assert VirtualTree(many).report() == {}
