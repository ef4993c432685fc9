"""Reads of ranges over SFTP: all requests of a range are on their way at once.

The client of paramiko belongs to one thread at a time: a thread that reads an answer drops those
that others wait for. Its own read-ahead may stop after the first answer, so this module sends the
requests itself.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Final

_PART_BYTES: Final = 32 << 10
"""The most that every server answers in one message (draft-ietf-secsh-filexfer-02, section 3)."""


class _Answers:
    """Gets the answers to the reads of one range from paramiko, in any order."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - of paramiko
        self._client = client
        self.by_number: dict[int, bytes] = {}

    def _async_response(self, kind: int, message: Any, number: int) -> None:  # noqa: ANN401
        from paramiko.sftp import CMD_DATA

        if kind != CMD_DATA:
            with contextlib.suppress(EOFError):
                self._client._convert_status(message)
        self.by_number[number] = message.get_string() if kind == CMD_DATA else b""


def send_at_once(fs: Any) -> None:  # noqa: ANN401 - of fsspec
    """Have a connection send each request without waiting for the answer to the last one."""
    with contextlib.suppress(OSError, AttributeError):  # a proxy command has a pipe
        fs.client.get_transport().sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def read(fs: Any, path: str, start: int, length: int) -> tuple[bytes, dict[str, Any]]:  # noqa: ANN401
    """Return a range, shorter where the file ends, and the facts of the file after the read.

    After an error the connection is of no use: answers may still come. Raises what paramiko does.
    """
    from paramiko.sftp import CMD_READ, int64

    client = fs.ftp
    with client.open(path, "rb") as file:
        answers = _Answers(client)
        end = start + length
        sent = [
            client._async_request(
                answers, CMD_READ, file.handle, int64(at), min(_PART_BYTES, end - at)
            )
            for at in range(start, end, _PART_BYTES)
        ]
        while len(answers.by_number) < len(sent):
            client._read_response()
        data = b"".join(answers.by_number[number] for number in sent)
        return data, {**fs._decode_stat(file.stat()), "name": path}
