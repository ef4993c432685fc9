"""A TCP proxy in a thread that slows, cuts or stops what a server sends."""

import contextlib
import socket
import threading
import time
from typing import Final

FAULTS: Final = ("cut", "slow", "hung")
_CHUNK: Final = 64 << 10


class Proxy:
    """Forwards connections to a loopback port until `close`.

    `fault` is what happens to the next `faulty` chunks that the server sends.
    """

    def __init__(self, port: int) -> None:
        self.fault = ""
        self.faulty = 0
        self._to = port
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.2)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Accept no more, and let what hangs go on."""
        self.faulty = 0
        self._closed.set()
        self._thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(OSError):
                client, _ = self._listener.accept()
                client.settimeout(None)
                server = socket.create_connection(("127.0.0.1", self._to))
                for end in (client, server):  # else small messages wait for delayed ACKs
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for source, target, faulty in ((client, server, False), (server, client, True)):
                    arguments = (source, target, faulty)
                    threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, faulty: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                fault = self._taken() if faulty and len(data) > _CHUNK // 8 else ""
                if fault == "cut":
                    target.sendall(data[: len(data) // 2])
                    break
                if fault == "slow":
                    time.sleep(0.05)
                while fault == "hung" and self.faulty:
                    time.sleep(0.05)
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _taken(self) -> str:
        with self._lock:
            if not self.faulty:
                return ""
            self.faulty -= self.fault != "hung"
            return self.fault
