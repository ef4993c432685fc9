"""``zcfuse mount MODULE:NAME`` and ``FILE.py:NAME``: a tree that a Python program describes."""

import os

import pytest

from tests.cli.conftest import refused
from tests.support import requires

TREE = """
from dataclasses import dataclass
from beside import DATA
from zcfuse import Bytes, Dir

@dataclass
class Held:
    text: bytes

tree = Dir({"a": Bytes(Held(DATA).text)})

def make():
    return Dir({"b": Bytes(b"made")})

class Views:
    view = tree

def fails():
    raise ValueError("two\\nlines")

def wants(argument):
    return tree

number = 7
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "beside.py").write_text("DATA = b'data'\n")
    path = tmp_path / "views.py"
    path.write_text(TREE)
    return str(path)


@requires("mounting")
@pytest.mark.parametrize(
    ("name", "file", "content"),
    [("tree", "a", "data"), ("make", "b", "made"), ("Views.view", "a", "data")],
)
@pytest.mark.parametrize("as_module", [False, True])
def test_a_tree_of_a_program_is_mounted(
    zcfuse, program, mountpoint, name, file, content, as_module
):
    source = f"views:{name}" if as_module else f"{program}:{name}"
    path = f"{os.getcwd()}:{os.path.dirname(program)}"
    told = zcfuse("mount", source, mountpoint, env={"PYTHONPATH": path})
    assert (told.returncode, told.stderr) == (0, "")
    with open(os.path.join(mountpoint, file)) as shown:
        assert shown.read() == content
    listed = zcfuse("list")
    assert f"{source} " in listed.stdout
    assert zcfuse("umount", mountpoint).returncode == 0


@pytest.mark.parametrize(
    ("source", "status", "told"),
    [
        ("no_such_module:tree", 2, "No module named 'no_such_module'"),
        ("json.no_such:tree", 2, "No module named 'json.no_such'"),
        ("{directory}/missing.py:tree", 2, "there is no file {directory}/missing.py"),
        ("{program}:absent", 2, "views.py has no name 'absent'"),
        ("{program}:number", 2, "not a Dir or a Tree, nor a function that returns one, but 7"),
        ("{program}:fails", 1, "ValueError: two lines ({program}, line "),
        ("{program}:wants", 1, "TypeError: wants() missing 1 required positional argument"),
        ("{directory}/broken.py:tree", 1, "ModuleNotFoundError: No module named 'absent'"),
    ],
)
def test_what_is_no_tree_is_refused_in_one_line(zcfuse, program, mountpoint, source, status, told):
    directory = os.path.dirname(program)
    with open(os.path.join(directory, "broken.py"), "w") as file:
        file.write("import absent\n")
    given = source.format(program=program, directory=directory)
    result = zcfuse("mount", given, mountpoint)
    refused(result, status, told.format(program=program, directory=directory))


@requires("mounting")
def test_an_option_that_cannot_do_what_it_promises_is_told_at_once(zcfuse, tmp_path, mountpoint):
    path = tmp_path / "views.py"
    path.write_text(
        "from zcfuse import Bytes, Computed, Dir, Union\n"
        "async def read(offset, size): return b'x' * size\n"
        "class Asks(Dir):\n"
        "    async def lookup(self, name, who): return None\n"
        "plain = Dir({'a': Bytes(b'a')})\n"
        "computed = Dir({'a': Computed(1, read), 'b': Bytes(b'b')})\n"
        "policy = Asks()\n"
        "class Leases(Asks):\n"
        "    leases = True\n"
        "leased = Dir({'a': Leases()})\n"
        "union = Union([Dir({'a': Bytes(b'a')}), Dir({'b': Bytes(b'b')})])\n"
    )
    for options, name, told in [
        (["--immutable"], "plain", ""),
        (["--immutable"], "computed", "immutable: Python answers for 1 of its entries"),
        (["--immutable"], "policy", "immutable: Python answers for this tree"),
        (["--immutable"], "leased", "immutable: Python answers for 1 of its entries"),
        (["--immutable"], "union", "immutable: Python answers for the layers"),
        (["--cache-timeout", "9"], "plain", ""),
        (["--cache-timeout", "9"], "leased", ""),
        (["--cache-timeout", "9"], "policy", "cache_timeout: a policy answers each client"),
        (["--path", "naive", "--threads", "3"], "plain", "threads: path naive has no data path"),
        (["--transport", "dev", "--threads", "3"], "plain", ""),
    ]:
        result = zcfuse("mount", *options, f"{path}:{name}", mountpoint)
        assert result.returncode == 0
        assert result.stderr.count("\n") == (1 if told else 0), result.stderr
        assert told in result.stderr
        assert zcfuse("umount", mountpoint).returncode == 0
