"""The status socket's protocol, spoken to the server without a mount."""

import contextlib
import os
import socket

import msgspec
import pytest
import trio
import trio.testing

from tests.support import requires
from zcfuse.admin.status import _client as client_module
from zcfuse.admin.status._document import (
    MAX_REQUEST_BYTES,
    Refusal,
    Request,
    UnmountReply,
    printable,
    thread_usage,
)
from zcfuse.admin.status._server import serve_status

STRANGER = 12345


@pytest.fixture
async def ask(nursery, tmp_path):
    """Send bytes to a server and return the answer, until it closes."""
    listener = socket.socket(socket.AF_UNIX)
    path = str(tmp_path / "sock")
    listener.bind(path)
    listener.listen()

    async def respond(request):
        return UnmountReply(failed=False, message=f"{request.request} {request.wait_s}")

    nursery.start_soon(serve_status, listener, respond, nursery)

    async def exchange(data, *, half_close=False):
        stream = await trio.open_unix_socket(path)
        async with stream:
            await stream.send_all(data)
            if half_close:
                await stream.send_eof()
            return b"".join([chunk async for chunk in stream])

    return exchange


async def test_a_request_is_answered_with_one_line(ask):
    line = msgspec.json.encode(Request("unmount", 2.5)) + b"\n"
    with trio.fail_after(10):
        answer = await ask(line)
    assert answer.endswith(b"\n")
    assert msgspec.json.decode(answer, type=UnmountReply).message == "unmount 2.5"


@pytest.mark.parametrize("line", [b"{}\n", b"hello\n", b'{"request":"format"}\n', b"\xff\n", b"\n"])
async def test_what_is_no_request_is_refused_with_a_reason(ask, line):
    with trio.fail_after(10):
        answer = msgspec.json.decode(await ask(line), type=Refusal)
    assert answer.message.startswith("not a request")


async def test_a_request_without_an_end_is_cut_off_at_its_bound(ask):
    with trio.fail_after(10):
        assert await ask(b"x" * (MAX_REQUEST_BYTES + 1)) == b""


async def test_a_client_that_hangs_up_early_gets_nothing(ask):
    with trio.fail_after(10):
        assert await ask(b'{"request"', half_close=True) == b""


@requires("root")  # to connect as another user
@pytest.mark.parametrize(("uid", "told"), [(0, True), (STRANGER, False)])
async def test_another_user_is_told_nothing(nursery, caplog, uid, told):
    asked = []

    async def respond(request):
        asked.append(request)
        return UnmountReply(failed=False, message="told")

    # The kernel picks an abstract name, which no directory's mode protects.
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")
    listener.listen()
    address = listener.getsockname()
    nursery.start_soon(serve_status, listener, respond, nursery)
    client = socket.socket(socket.AF_UNIX)
    os.seteuid(uid)
    try:
        client.connect(address)  # SO_PEERCRED returns the user at this moment
    finally:
        os.seteuid(0)
    answer = b""
    async with trio.SocketStream(trio.socket.from_stdlib_socket(client)) as stream:
        # The server refuses before it reads, and closing a socket with unread data resets it.
        with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(msgspec.json.encode(Request("status")) + b"\n")
            answer = b"".join([chunk async for chunk in stream])
    assert bool(answer) is bool(asked) is told
    assert (f"refused a status request of user {STRANGER}" in caplog.text) is not told


async def test_a_silent_client_is_dropped_after_the_bound(ask, autojump_clock):
    with trio.fail_after(60):
        assert await ask(b"") == b""


async def test_a_silent_client_does_not_keep_others_waiting(ask, nursery):
    nursery.start_soon(ask, b"")
    with trio.fail_after(2):
        assert await ask(msgspec.json.encode(Request("status")) + b"\n")


def test_every_thread_is_listed_with_its_role_or_its_own_name():
    usage = thread_usage({os.getpid(): "main"})
    mine = next(thread for thread in usage if thread.tid == os.getpid())
    assert mine.role == "main"
    assert mine.minor_faults > 0
    assert mine.voluntary_switches >= 0
    assert thread_usage({})[0].role


@pytest.mark.parametrize(
    ("raw", "text"), [(b"/a", "/a"), (b"/\xff", "/\\xff"), ("/ä".encode(), "/ä")]
)
def test_any_path_is_made_printable(raw, text):
    assert printable(os.fsdecode(raw)) == text


@pytest.mark.parametrize("path", ["/", "/proc", "/nonexistent/x"])
def test_what_is_no_zcfuse_mount_is_a_usage_error(path):
    with pytest.raises(client_module.StatusError) as caught:
        client_module.read_status(path)
    assert caught.value.usage
    assert path in str(caught.value)
