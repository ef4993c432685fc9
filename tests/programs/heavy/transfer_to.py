"""The consumer of ``Transfer.java``: ``transfer_to.py FILE CLASSES``.

Starts it with the directory of its classes, receives its data over loopback TCP, and prints what it
reports as sent and what arrived: bytes and SHA-256.
"""

import hashlib
import socket
import subprocess
import sys

DEADLINE_S = 60
# A small heap and one collector thread: the bytes do not use the heap.
JAVA = ("java", "-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def received(server: socket.socket) -> tuple[int, str]:
    """Bytes and SHA-256 of one client's data."""
    state, size, buffer = hashlib.sha256(), 0, bytearray(1 << 18)
    connection, _ = server.accept()
    connection.settimeout(DEADLINE_S)
    with connection, memoryview(buffer) as view:
        while count := connection.recv_into(buffer):
            state.update(view[:count])
            size += count
    return size, state.hexdigest()


def main(path: str, classes: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE_S)
        command = [*JAVA, "-cp", classes, "Transfer", path, str(server.getsockname()[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sender:
            size, digest = received(server)
            said, _ = sender.communicate(timeout=DEADLINE_S)
    if sender.returncode:
        sys.exit(f"java ended with {sender.returncode}")
    print(f"sent {said.strip()}, arrived {size}, SHA-256 {digest}")


if __name__ == "__main__":
    main(*sys.argv[1:])
