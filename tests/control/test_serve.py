"""`zcfuse.serve` from programs without trio; each case is a separate program."""

import subprocess
import sys

import pytest

from tests.support import find_mount, requires
from tests.support._user import CHECKOUT

pytestmark = requires("mounting")

PROGRAM = """
import os, subprocess, sys
from zcfuse import Bytes, Dir, File, Mirror, MountError, serve
source, first, second, path, case = sys.argv[1:]

def client(*argv):
    return subprocess.run(argv, capture_output=True, text=True, timeout=20).stdout

def reads():
    with serve(Mirror(source), first, path=path) as served:
        print(client("cat", f"{first}/file"), served.mountpoint == first)
        print(sorted(served.statistics()))

def two():
    with serve(Mirror(source), first, path=path), serve(Dir({"b": Bytes(b"b")}), second, path=path):
        print(client("cat", f"{first}/file", f"{second}/b", f"{second}/b", f"{first}/file"))
    with serve(Mirror(source), second, path=path):
        print(client("cat", f"{second}/file"))

def in_another_order():
    one = serve(Mirror(source), first, path=path)
    other = serve(Mirror(source), second, path=path)
    one.__enter__(), other.__enter__(), one.__exit__(None, None, None)
    print(client("cat", f"{second}/file"))
    other.__exit__(None, None, None)

def changes():
    tree = Dir({"a": Bytes(b"1")})
    with serve(tree, first, path=path) as served:
        print(client("cat", f"{first}/a"))
        served.run(tree.replace, "a", Bytes(b"2"))
        served.notified()
        print(client("cat", f"{first}/a"))

def raises():
    try:
        with serve(Mirror(source), first, path=path):
            raise KeyError("the caller's own")
    except KeyError as error:
        print("raised", error)

def refused():
    for where, options in [(first + "/missing", {}), (first, {"path": "fast"})]:
        try:
            with serve(Mirror(source), where, **options):
                pass
        except MountError as error:
            print(error)
    try:
        with serve("no tree", first):
            pass
    except TypeError as error:
        print(error)

def ends_outside():
    with serve(Mirror(source), first, path=path) as served:
        print(served.wait_ended(0.01))
        client("fusermount3", "-u", first)
        print(served.wait_ended(20))

def busy():
    with serve(Mirror(source), first, path=path, unmount_wait=0.2):
        child = subprocess.Popen(["sh", "-c", 'cd "$0"; echo; exec sleep 60', first], stdout=-1)
        child.stdout.readline()
    print("ended")
    child.kill()

def interrupted():
    import threading
    from zcfuse.control._thread import _Thread

    class Interrupted(threading.Event):
        def wait(self, timeout=None):
            super().wait(timeout)
            while threading.active_count() < 2 or not os.listdir(first):
                pass
            raise KeyboardInterrupt

    begin = _Thread.__init__
    def begin_interrupted(self, *arguments):
        begin(self, *arguments)
        self._begun = Interrupted()
    _Thread.__init__ = begin_interrupted
    try:
        with serve(Mirror(source), first, path=path):
            print("served")
    except KeyboardInterrupt:
        print("interrupted", any(thread.name == "zcfuse serve" for thread in threading.enumerate()))

globals()[case]()
"""

CASES = {
    "reads": ["hello True", "['control', 'datapath']"],
    "two": ["hellobbhello", "hello"],
    "in_another_order": ["hello"],
    "changes": ["1", "2"],
    "raises": ['raised "the caller\'s own"'],
    "ends_outside": ["None", "unmounted"],
    "busy": ["ended"],
    "interrupted": ["interrupted False"],
}


@pytest.fixture
def program(tmp_path, source, mountpoint):
    (tmp_path / "source" / "file").write_text("hello")
    second = tmp_path / "second"
    second.mkdir()

    def run(path, case):
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, source, mountpoint, str(second), path, case],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=CHECKOUT,
        )
        assert (result.returncode, result.stderr) == (0, ""), result
        assert find_mount(mountpoint) is None
        assert find_mount(str(second)) is None
        return result.stdout.splitlines()

    return run


@pytest.mark.parametrize("path", ["naive", "upcall", "auto"])
@pytest.mark.parametrize("case", CASES)
def test_a_program_without_trio_serves_a_mount(program, path, case):
    assert program(path, case) == CASES[case]


def test_errors_of_mounting_are_raised_in_the_caller(program):
    missing, option, tree = program("auto", "refused")
    assert "does not exist" in missing
    assert option.startswith("path=fast: choose one of")
    assert "a mount shows a Dir or a Tree" in tree
