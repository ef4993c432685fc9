"""Directory leases on real mounts: the same tree, without upcalls."""

from __future__ import annotations

import os
import threading

import pytest

from tests.integration.conftest import PASSTHROUGH, kernel_mount, write
from tests.integration.counts import Counts, counts, eventually
from tests.support import Daemon, requires

pytestmark = requires("mounting")

ANY_BYTES = [b"\xff\xfe\x80", b"new\nline", b"'\"$`\\", "größe".encode(), b" ", b"x" * 255]


@pytest.fixture(
    params=["dev", pytest.param("uring", marks=[requires("root", "io_uring"), pytest.mark.ring])]
)
def transport(request):
    """Each transport in turn; a ring switches the kernel's switch on."""
    if request.param == "uring":
        request.getfixturevalue("ring_switch")
    return request.param


@pytest.fixture
def mounted(mounted, transport):
    """Mounts over that transport; the test's options come last."""
    return lambda *options, **how: mounted("--transport", transport, *options, **how)


def fill(source: str) -> None:
    """One file of each kind, at several depths."""
    base = os.fsencode(source)
    for depth in range(3):
        for name in ANY_BYTES:
            with open(os.path.join(base, b"plain-" + name[:200]), "wb") as file:
                file.write(name * 100)
        os.symlink(b"plain-" + ANY_BYTES[0], os.path.join(base, b"symlink"))
        os.symlink("/etc/passwd", os.path.join(base, b"absolute"))
        os.mkfifo(os.path.join(base, b"fifo"))
        os.link(os.path.join(base, b"plain- "), os.path.join(base, b"hard"))
        base = os.path.join(base, b"deeper%d" % depth)
        os.mkdir(base)


def test_a_tree_of_everything_is_shown_without_an_upcall(mounted, pairs, source) -> None:
    fill(source)
    daemon = mounted()
    pair = pairs(daemon)
    pair.same("FIELDS.remove('atime_ns')")
    pair.same("tree()")
    pair.same("[digest(content(name)) for name, s in tree().items() if s['mode'] >> 12 == 8]")
    pair.same("sorted(entries())")
    pair.same("os.path.lexists(p('missing'))")
    found = counts(daemon)
    assert found.control["upcalls"] == {}
    assert found.datapath["upcalls"] == {"INIT": 1}
    assert found.datapath["directories"]["leased"] == 1


@pytest.mark.parametrize("option", ["--no-directory-lease", "--path=upcall"])
def test_it_can_be_switched_off(mounted, pairs, source, option) -> None:
    write(source, "file", b"bytes")
    daemon = mounted(option)
    pairs(daemon).same("digest(content('file'))")
    found = counts(daemon)
    assert found.control["upcalls"]["lookup"] == found.control["upcalls"]["open"] == 1
    assert found.datapath["directories"]["leased"] == 0


@requires("root")
def test_what_is_mounted_deep_inside_the_source_is_answered_by_python(
    mounted, pairs, source
) -> None:
    os.makedirs(f"{source}/one/two/inner")
    with kernel_mount("-t", "tmpfs", "zcfuse-tests", f"{source}/one/two/inner"):
        write(f"{source}/one/two/inner", "file", b"inner" * 1000)
        write(f"{source}/one/two", "file", b"outer" * 1000)
        daemon = mounted("--cache-timeout", "0")
        pair = pairs(daemon)
        for name in ("one/two/inner/file", "one/two/file"):
            pair.same(f"digest(content({name!r}))")
        assert counts(daemon).control["upcalls"]["open"] == 1
    pair.same("os.listdir(p('one/two/inner'))")


def test_a_walk_needs_few_descriptors(mounted, pairs, source) -> None:
    for n in range(600):
        os.makedirs(f"{source}/dir-{n % 20}/dir-{n}")
        write(f"{source}/dir-{n % 20}/dir-{n}", "file")
    daemon = mounted()
    pairs(daemon).same("len(tree())")
    directories = counts(daemon).datapath["directories"]
    assert directories["descriptors"] <= directories["descriptor_limit"]
    assert directories["node_bytes"] / directories["nodes"] <= 200


@pytest.mark.parametrize("swap", ["symlink", "fifo", "other file"])
def test_a_file_swapped_while_it_is_read_is_never_mistaken(mounted, clients, source, swap) -> None:
    right, wrong = b"right" * 1000, b"WRONG" * 1000
    write(os.path.dirname(source), "outside", wrong)
    write(source, "file", right)
    client = clients(mounted("--cache-timeout", "0"))
    done = threading.Event()

    def outsider() -> None:
        while not done.is_set():
            os.rename(f"{source}/file", f"{source}/away")
            if swap == "symlink":
                os.symlink(f"{os.path.dirname(source)}/outside", f"{source}/file")
            elif swap == "fifo":
                os.mkfifo(f"{source}/file")
            else:
                write(source, "file", b"other" * 1000)
            os.unlink(f"{source}/file")
            os.rename(f"{source}/away", f"{source}/file")

    thread = threading.Thread(target=outsider)
    thread.start()
    read = "os.pread(os.open(p('file'), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), 5000, 0)"
    try:
        answers = [client.outcome(read) for _ in range(300)]
    finally:
        done.set()
        thread.join()
    assert wrong not in answers
    found = {answer for answer in answers if isinstance(answer, bytes)}
    whole = {right, b"other" * 1000} if swap == "other file" else {right}
    assert all(any(one.startswith(answer) for one in whole) for answer in found)


def changes_of(daemon: Daemon, before: Counts) -> dict[str, int]:
    """Requests since then, by operation, without zeros."""
    now, then = counts(daemon).datapath["requests"], before.datapath["requests"]
    return {name: n - then.get(name, 0) for name, n in now.items() if n != then.get(name, 0)}


@pytest.mark.parametrize("path", ["pool", PASSTHROUGH])
def test_a_warm_open_read_and_close_is_an_open_and_a_release(mounted, clients, source, path):
    write(source, "file", b"bytes" * 3000)
    daemon = mounted("--path", path, "--cache-timeout", "1000")
    client = clients(daemon)
    read = "[os.close(fd) for fd in [os.open(p('file'), 0)] if os.pread(fd, 15000, 0)]"
    client.value(read)
    # The kernel sends RELEASE after the close.
    assert eventually(lambda: counts(daemon).datapath["directories"]["open_files"] == 0)
    before = counts(daemon)
    for _ in range(20):
        client.value(read)
    assert eventually(lambda: changes_of(daemon, before) == {"OPEN": 20, "RELEASE": 20})


@requires("passthrough")
def test_the_opens_of_a_file_share_one_registration(mounted, pairs, source):
    write(source, "file", b"bytes" * 3000)
    os.link(f"{source}/file", f"{source}/link")
    daemon = mounted("--path", "passthrough")
    pair = pairs(daemon)
    pair.same("fds = [os.open(p(name), 0) for name in ('file', 'link', 'file')] and None")
    pair.same("digest(content('link'))")
    found = counts(daemon)
    assert found.opens == {"passthrough": 1}
    assert found.datapath["directories"]["reopened"] == 3
    assert found.datapath["directories"]["open_files"] == 1


def test_a_listing_is_kept_by_the_kernel_within_the_cache_timeout(mounted, pairs, source):
    for n in range(300):
        write(source, f"file-{n}")
    os.utime(source, ns=(0, 1_600_000_000_987_654_321))
    daemon = mounted("--cache-timeout", "1000")
    pair = pairs(daemon)
    for _ in range(2):
        pair.same("sorted(os.listdir(root))")
    before = counts(daemon)
    pair.same("sorted(os.listdir(root))")
    assert eventually(lambda: changes_of(daemon, before) == {"OPENDIR": 1, "RELEASEDIR": 1})
    write(source, "new")
    # Each open checks the directory's mtime, whatever the timeout is.
    assert b"new" in pair.same("sorted(os.listdir(root))")


def test_a_listing_never_shows_what_is_gone_for_longer_than_the_cache_timeout(
    mounted, pairs, source
):
    daemon = mounted("--cache-timeout", "0.1")
    pair = pairs(daemon)
    for n in range(40):
        write(source, f"file-{n}")
        pair.mount.value("os.listdir(root)")
        if n > 3:
            os.unlink(f"{source}/file-{n - 3}")
        assert eventually(lambda: not pair.differ("sorted(os.listdir(root))"), 1)


@requires("root")
def test_the_mount_itself_is_left_out_of_listings(mounted, clients, source):
    os.mkdir(f"{source}/back")
    os.mkdir(f"{source}/other")
    daemon = mounted("--cache-timeout", "0")
    client = clients(daemon)
    with kernel_mount("--bind", daemon.mountpoint, f"{source}/back"):
        assert client.value("os.listdir(root)") == [b"other"]
    assert client.value("sorted(os.listdir(root))") == [b"back", b"other"]


@pytest.mark.parametrize(
    ("change", "at_last"),
    [
        ("removal", "ENOENT"),
        ("rename of its directory", "ENOENT"),
        ("another directory in its place", b"another"),
        ("a link in its directory's place", b"the outside"),
    ],
)
def test_what_the_kernel_believes_in_for_too_long_is_never_another_file(
    mounted, clients, source, change, at_last
):
    os.mkdir(f"{source}/dir")
    write(source, "dir/file", b"right")
    client = clients(mounted("--cache-timeout", "1000"))
    assert client.value("content('dir/file')") == b"right"
    if change == "removal":
        os.unlink(f"{source}/dir/file")
    else:
        os.rename(f"{source}/dir", f"{source}/away")
    if change == "another directory in its place":
        os.mkdir(f"{source}/dir")
        write(source, "dir/file", b"another")
    elif change != "removal" and at_last != "ENOENT":
        # The client follows this one.
        outside = f"{os.path.dirname(source)}/outside"
        os.mkdir(outside)
        write(outside, "file", b"the outside")
        os.symlink(outside, f"{source}/dir")
    answers = []

    def asked_again() -> bool:
        answers.append(client.outcome("content('dir/file')"))
        return answers[-1] == at_last

    assert eventually(asked_again)
    assert set(answers) <= {b"right", at_last}
