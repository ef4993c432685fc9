"""The other end of the sockets: a separate process whose time is not counted.

`python -m zcfuse.bench.transfer._receiver` prints its addresses as a line of JSON and serves until
its standard input ends. The first byte of a connection selects the work: DISCARD drops the stream
without copying it, DIGEST hashes it. At the end of the stream the receiver answers with the number
of bytes received, in eight bytes of this machine's order, and for DIGEST with their SHA-256.
"""

import contextlib
import hashlib
import json
import os
import select
import socket
import sys
import threading
from typing import Final

DISCARD: Final = b"d"
DIGEST: Final = b"h"
_BLOCK: Final = 1 << 20


def _discard_tcp(connection: socket.socket) -> int:
    # tcp(7): MSG_TRUNC drops the bytes instead of copying them.
    untouched = bytearray(_BLOCK)
    total = 0
    while count := connection.recv_into(untouched, _BLOCK, socket.MSG_TRUNC):
        total += count
    return total


def _discard_unix(connection: socket.socket) -> int:
    read_end, write_end = os.pipe()
    null = os.open("/dev/null", os.O_WRONLY)
    total = 0
    try:
        while count := os.splice(connection.fileno(), write_end, _BLOCK):
            total += count
            while count:
                count -= os.splice(read_end, null, count)
    finally:
        for fd in (read_end, write_end, null):
            os.close(fd)
    return total


def _digest(connection: socket.socket) -> tuple[int, bytes]:
    state = hashlib.sha256()
    total = 0
    while data := connection.recv(_BLOCK):
        state.update(data)
        total += len(data)
    return total, state.digest()


def _serve(connection: socket.socket) -> None:
    with connection:
        digest = b""
        if connection.recv(1) == DIGEST:
            total, digest = _digest(connection)
        elif connection.family == socket.AF_INET:
            total = _discard_tcp(connection)
        else:
            total = _discard_unix(connection)
        # A refused or killed client does not read the answer.
        with contextlib.suppress(OSError):
            connection.sendall(total.to_bytes(8, sys.byteorder) + digest)


def main() -> None:
    """Serve each connection in a new thread until the input ends."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind("")  # unix(7): the kernel chooses an abstract name
        unix.listen()
        name = unix.getsockname().decode("ascii")
        print(json.dumps({"tcp": tcp.getsockname()[1], "unix": name}), flush=True)
        while True:
            ready, _, _ = select.select([sys.stdin, tcp, unix], [], [])
            if sys.stdin in ready:
                return
            for server in (tcp, unix):
                if server not in ready:
                    continue
                connection, _ = server.accept()
                threading.Thread(target=_serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
