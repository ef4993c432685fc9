"""A gRPC server that streams a mapped file, and its client: ``grpc_stream.py FILE``.

The server is a separate process (``grpc_stream.py --serve FILE``): it maps the file once and sends
slices of the mapping, as model and blob servers do. The client prints the chunks, bytes and SHA-256
that arrive, and the server's final report on its mapping: bytes mapped, resident, copied.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures

import grpc

CHUNK_BYTES = 1 << 20
DEADLINE_S = 60
METHOD = "/proof.Blobs/Fetch"


def serve(path: str) -> None:
    """Serve `path` on a free loopback port, print the port, and stop when standard input ends."""
    with open(path, "rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

    def fetch(_request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
        for offset in range(0, len(mapping), CHUNK_BYTES):
            yield mapping[offset : offset + CHUNK_BYTES]

    handler = grpc.unary_stream_rpc_method_handler(fetch)  # no serializer: raw bytes
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("proof.Blobs", {"Fetch": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None).wait(DEADLINE_S)
    print(mapping_of(path))


def mapping_of(path: str) -> str:
    """The kernel's figures for this process's mapping of `path` (proc_pid_smaps(5)), in bytes."""
    with open("/proc/self/smaps") as file:
        _, _, after = file.read().partition(f" {path}\n")
    fields = re.findall(r"^(\w+): +(\d+) kB", after.partition("VmFlags")[0], re.MULTILINE)
    bytes_of = {name: int(number) << 10 for name, number in fields}
    size, resident, copied = (bytes_of[name] for name in ("Size", "Rss", "Anonymous"))
    return f"mapped {size}, resident {resident}, copied {copied}"


def fetch(port: int) -> str:
    """A description of the received bytes."""
    state, chunks, size = hashlib.sha256(), 0, 0
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for chunk in channel.unary_stream(METHOD)(b"", timeout=DEADLINE_S):
            state.update(chunk)
            chunks += 1
            size += len(chunk)
    return f"{chunks} chunks, {size} bytes, SHA-256 {state.hexdigest()}"


def main(path: str) -> None:
    command = [sys.executable, __file__, "--serve", path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        print(fetch(int(server.stdout.readline())))
        server.stdin.close()
        print(server.stdout.read().decode().strip())


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    else:
        main(sys.argv[1])
