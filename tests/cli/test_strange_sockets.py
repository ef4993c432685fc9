"""A status socket on which another user listens is neither asked nor believed."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from tests.cli.conftest import refused
from tests.support import Daemon, find_mount, requires
from zcfuse.admin.status._registry import runtime_directories, socket_name

pytestmark = requires("root", "mounting")

STRANGER = 65534


def status_socket(daemon: Daemon) -> str:
    """Return the path of a daemon's status socket."""
    status = os.stat(daemon.mountpoint)
    name = socket_name((os.major(status.st_dev), os.minor(status.st_dev)))
    paths = [os.path.join(place, name) for place in runtime_directories(os.geteuid())]
    (path,) = filter(os.path.exists, paths)
    return path


@pytest.fixture
def strange(mounted) -> Iterator[tuple[Daemon, socket.socket]]:
    """A mount, and the stranger who listens in its daemon's place."""
    daemon = mounted()
    path = status_socket(daemon)
    aside = path + ".aside"
    os.rename(path, aside)
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(path)
        strangers = os.stat(path).st_ino
        os.seteuid(STRANGER)
        try:
            listener.listen()  # the kernel notes the user here
        finally:
            os.seteuid(0)
        listener.setblocking(False)
        yield daemon, listener
    if find_mount(daemon.mountpoint) is not None:
        os.rename(aside, path)
        return
    os.unlink(aside)
    # Without this mount the next one may have the number, and its socket the name.
    with suppress(FileNotFoundError):
        if os.stat(path).st_ino == strangers:
            os.unlink(path)


def was_asked(listener: socket.socket) -> bool:
    """Whether a client has sent the stranger anything; at least one has connected."""
    connection, _ = listener.accept()
    with connection:
        return connection.recv(1) != b""


def test_list_shows_a_mount_whose_daemon_does_not_answer(strange, zcfuse):
    daemon, listener = strange
    rows = json.loads(zcfuse("list", "--json").stdout)
    (row,) = [row for row in rows if row["mountpoint"] == daemon.mountpoint]
    assert (row["state"], row["pid"], row["path"]) == ("no answer", None, None)
    assert not was_asked(listener)


def test_explain_names_the_stranger(strange, zcfuse):
    daemon, listener = strange
    refused(zcfuse("explain", daemon.path("file")), 1, f"user {STRANGER} listens")
    assert not was_asked(listener)


def test_umount_removes_the_mount_itself(strange, zcfuse):
    daemon, listener = strange
    zcfuse("umount", daemon.mountpoint)
    assert find_mount(daemon.mountpoint) is None
    assert not was_asked(listener)
