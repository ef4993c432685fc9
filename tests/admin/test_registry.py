"""The places of status sockets, and their permissions."""

import os
import socket
import stat
from contextlib import ExitStack

import pytest

from zcfuse.admin.status import _registry
from zcfuse.admin.status._client import StatusError, read_status_of
from zcfuse.admin.status._registry import (
    connect,
    listening,
    open_directory,
    peer_credentials,
    runtime_directories,
    socket_name,
)
from zcfuse.linux._mount_table import parse_mountinfo

# Unused by any filesystem: minor numbers of anonymous devices start at 1 and have 20 bits.
DEVICE = (0, 1 << 20)


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "zcfuse"


def test_the_socket_is_the_owners_alone_and_goes_at_the_end(runtime):
    with listening(DEVICE):
        assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
        socket = runtime / socket_name(DEVICE)
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert not socket.exists()


def test_a_client_reaches_the_listener_and_each_knows_the_other(runtime):
    with listening(DEVICE) as listener, connect(DEVICE, os.geteuid(), 5) as client:
        assert peer_credentials(client) == (os.getpid(), os.geteuid())
        server, _ = listener.accept()
        with server:
            assert peer_credentials(server) == (os.getpid(), os.geteuid())


def test_a_runtime_directory_with_a_long_path_will_do(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with listening(DEVICE), connect(DEVICE, os.geteuid(), 5) as client:
        assert client.fileno() >= 0


def test_the_socket_of_a_daemon_that_is_gone_is_replaced(runtime):
    runtime.mkdir(mode=0o700)
    (runtime / socket_name(DEVICE)).touch()
    with listening(DEVICE), connect(DEVICE, os.geteuid(), 5) as client:
        assert client is not None


def test_the_socket_of_the_next_mount_with_that_number_is_left_alone(runtime):
    with ExitStack() as successor:
        with listening(DEVICE) as listener:
            listener.close()  # as when a daemon ends
            successor.enter_context(listening(DEVICE))
        with connect(DEVICE, os.geteuid(), 5) as client:
            assert client is not None
    assert connect(DEVICE, os.geteuid(), 5) is None


def test_nobody_listens(runtime):
    assert connect(DEVICE, os.geteuid(), 5) is None


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_that_others_may_enter_is_not_used(tmp_path, mode):
    place = tmp_path / "zcfuse"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(PermissionError):
        open_directory(str(place), os.geteuid())


def test_a_directory_of_somebody_else_is_not_used(tmp_path):
    place = tmp_path / "zcfuse"
    place.mkdir(mode=0o700)
    with pytest.raises(PermissionError):
        open_directory(str(place), os.geteuid() + 1)


def test_a_symlink_is_not_followed(tmp_path):
    place = tmp_path / "place"
    place.mkdir(mode=0o700)
    (tmp_path / "zcfuse").symlink_to(place)
    with pytest.raises(NotADirectoryError):
        open_directory(str(tmp_path / "zcfuse"), os.geteuid())


def test_a_runtime_directory_of_another_user_is_left_out(monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc/self" if os.geteuid() else "/nonexistent")
    assert "/nonexistent/zcfuse" not in runtime_directories(os.geteuid())


def test_every_user_has_a_place_without_any_environment(monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert runtime_directories(0)[0] == "/run/zcfuse"
    assert runtime_directories(4242) == ["/run/user/4242/zcfuse", "/tmp/zcfuse-4242"]


def test_a_directory_in_tmp_that_another_user_made_stops_nobody(monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    taken = [f"/tmp/zcfuse-test-{os.getpid()}"]
    monkeypatch.setattr(_registry, "_fixed_directories", lambda uid: taken)
    os.mkdir(taken[0], 0o777)
    os.chmod(taken[0], 0o777)
    try:
        with listening(DEVICE), connect(DEVICE, os.geteuid(), 5) as client:
            made = [place for place in runtime_directories(os.geteuid()) if place not in taken]
            assert client is not None
            with listening((0, (1 << 20) + 1)):
                again = [place for place in runtime_directories(os.geteuid()) if place not in taken]
        assert made == again
    finally:
        os.rmdir(taken[0])
        for place in made:
            if not os.listdir(place):
                os.rmdir(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user has to listen")
def test_a_socket_of_another_user_than_the_mounts_is_not_asked(runtime):
    line = f"9 1 {DEVICE[0]}:{DEVICE[1]} / /m ro - fuse.zcfuse s ro,user_id=0,group_id=0\n"
    (entry,) = parse_mountinfo(line.encode())
    runtime.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(runtime / socket_name(DEVICE)))
        os.seteuid(65534)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        with pytest.raises(StatusError, match="user 65534 listens on the status socket"):
            read_status_of(entry, timeout=5)
