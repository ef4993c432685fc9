"""Any directory, frozen: what find, getfattr, sha256sum and stat print is what they print of it."""

import os
import subprocess

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.conftest import run_zcfuse
from tests.support import requires
from zcfuse.engine import mount_image
from zcfuse.tree import Mirror

pytestmark = requires("root", "erofs", "mounting", "xattr")

PROGRAMS = (
    r"find . -type d -printf '%p %y %m %U %G %T@\n'",
    r"find . ! -type d -printf '%p %y %m %U %G %s %n %T@ %l\n'",
    "find . ! -type d -exec stat --format='%n %F %t,%T' {} +",
    "find . -type f -exec sha256sum {} +",
    "find . -print0 | xargs -0 getfattr -hd -m - --",
)
"""The size of a directory and its links are those of a filesystem, not of the tree."""

names = st.binary(min_size=1, max_size=255).filter(
    lambda name: name not in (b".", b"..") and not set(name) & {0, 0x2F}
)
nanoseconds = st.integers(-(1 << 33) * 10**9, (1 << 33) * 10**9)
attributes = st.dictionaries(
    st.text("abc.", min_size=1, max_size=9).map(lambda name: "user." + name),
    st.binary(max_size=60),
    max_size=2,
)
files = st.tuples(
    st.sampled_from(["file", "hole", "device", "FIFO", "link", "symlink"]),
    st.binary(min_size=1, max_size=200),
    st.integers(0, 0o7777),
    st.integers(0, 4_000_000_000),
    nanoseconds,
    attributes,
)
trees = st.recursive(
    st.dictionaries(names, files, max_size=4),
    lambda inner: st.dictionaries(names, st.one_of(files, inner), max_size=4),
    max_leaves=10,
)


def make(directory, tree, link):
    """Make a directory's entries; a link is another name of the file `link`."""
    for name, entry in tree.items():
        path = os.path.join(directory, name)
        if isinstance(entry, dict):
            os.mkdir(path)
            make(path, entry, link)
            continue
        kind, content, mode, owner, time, xattrs = entry
        if kind == "link":
            os.link(link, path)
            continue
        if kind == "symlink":
            os.symlink(content.replace(b"\0", b"-"), path)
        elif kind in ("device", "FIFO"):
            os.mknod(path, 0o20000 if kind == "device" else 0o10000, os.makedev(len(content), 7))
        else:
            with open(path, "wb") as file:
                file.write(content)
                file.truncate(len(content) + 70_000 * (kind == "hole"))
        os.chown(path, owner, 7, follow_symlinks=False)
        if kind in ("file", "hole"):
            for attribute, value in xattrs.items():
                os.setxattr(path, attribute, value)
        if kind != "symlink":
            os.chmod(path, mode)
        os.utime(path, ns=(0, time), follow_symlinks=False)


def printed(directory):
    """What the programs print about a directory, in the order of the lines."""
    found = []
    for program in PROGRAMS:
        told = subprocess.run(
            ["bash", "-o", "pipefail", "-c", program],
            cwd=directory,
            capture_output=True,
            timeout=60,
        )
        assert told.stderr == b""
        found.append(sorted(told.stdout.split(b"\n")))
    return found


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=trees)
def test_common_programs_print_the_same_of_any_frozen_tree(tree, tmp_path_factory, frozen):
    base = tmp_path_factory.mktemp("any")
    root, by_kernel, by_fuse = (os.fsencode(base / name) for name in ("root", "kernel", "fuse"))
    for path in (root, by_kernel, by_fuse):
        os.mkdir(path)
    link = os.path.join(root, b"linked")
    with open(link, "wb") as file:
        file.write(b"bytes of two names")
    make(root, {name: entry for name, entry in tree.items() if name != b"linked"}, link)
    expected = printed(root)
    image, summary = frozen(Mirror(root), roots=[root])
    assert summary.left_out == []
    mount_image(image, os.fsdecode(by_kernel))
    try:
        assert printed(by_kernel) == expected
        told = run_zcfuse("mount", "--engine", "fuse", image, os.fsdecode(by_fuse))
        assert (told.returncode, told.stderr) == (0, "")
        assert printed(by_fuse) == expected
    finally:
        for place in (by_fuse, by_kernel):
            if os.path.ismount(place):
                subprocess.run(["umount", place], timeout=20, check=True)
