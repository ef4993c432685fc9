"""Opening by path without entering the mount that shows the file."""

import errno
import os
import subprocess
import sys

import pytest

from tests.support import requires
from zcfuse.tree._paths import PathOpener

NOWHERE = (0, 0)  # the device of no mount


def opener(device=NOWHERE):
    made = PathOpener()
    made.refuse_device(*device)
    return made


def opened(path, made=None):
    fd = (made or opener()).open(os.fsencode(path), os.O_RDONLY)
    try:
        return os.path.realpath(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.mark.parametrize("made", [PathOpener, opener])
def test_paths_lead_where_open_leads(tmp_path, made, monkeypatch, descriptors):
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").touch()
    os.symlink("dir", tmp_path / "link")
    os.symlink("../dir/./file", tmp_path / "dir" / "relative")
    os.symlink(tmp_path / "link" / "relative", tmp_path / "absolute")
    wanted = os.path.realpath(tmp_path / "dir" / "file")
    walked = made()
    for walk in (False, True):
        if walk:
            monkeypatch.setattr(PathOpener, "_open_on_its_mount", refuse)
        for path in ("dir/file", "link/file", "dir/relative", "absolute", "dir/../dir//file"):
            assert opened(tmp_path / path, walked) == wanted
            assert opened(f"{tmp_path}/{path}", walked) == wanted


def refuse(*_):
    raise OSError(errno.EXDEV, "walk")


def test_a_loop_of_links_is_an_error(tmp_path, monkeypatch, descriptors):
    monkeypatch.setattr(PathOpener, "_open_on_its_mount", refuse)
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        opened(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "missing" / "file")


def test_other_mounts_are_entered():
    assert opened("/proc/self/status").endswith("/status")


PROGRAM = """
import os, subprocess, sys
from zcfuse.tree._paths import PathOpener
base = sys.argv[1].encode()
def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)
def look(path):
    try:
        os.close(opener.open(base + b"/" + path, os.O_RDONLY))
        print("opened")
    except OSError as error:
        print(error.errno)
for name in (b"refused", b"other", b"bound"):
    os.mkdir(base + b"/" + name)
mount("-t", "tmpfs", "none", base + b"/refused")
mount("-t", "tmpfs", "none", base + b"/other")
os.mkdir(base + b"/refused/dir")
open(base + b"/refused/dir/file", "w").close()
open(base + b"/other/file", "w").close()
mount("--bind", base + b"/refused/dir", base + b"/bound")
os.symlink(b"../refused/dir", base + b"/other/link")
device = os.stat(base + b"/refused").st_dev
opener = PathOpener()
opener.refuse_device(os.major(device), os.minor(device))
mount("--bind", base + b"/refused", base + b"/other/../other")
mount("-t", "tmpfs", "none", base + b"/other")
for name in (b"/other/new", b"/other/file"):
    open(base + name, "w").close()
mount("--bind", base + b"/other/new", base + b"/other/file")
for path in (b"refused/dir/file", b"bound/file", b"refused", b"other/new", b"refused/../other/new"):
    look(path)
opener.refuse_device(os.major(device), os.minor(device))
look(b"other/file")
"""


@requires("root", "private mounts")
def test_the_refused_device_is_never_entered_by_whatever_way(tmp_path):
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", PROGRAM, tmp_path],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    loop = str(errno.ELOOP)
    assert done.stdout.split() == [loop, loop, loop, "opened", loop, "opened"], done.stderr
