"""A gRPC server that streams chunks of a mapped file."""

from __future__ import annotations

import os
import re
import sys
from importlib import metadata

import pytest

from tests.programs.conftest import Record
from tests.programs.heavy.machine import require_no_pages_twice
from tests.programs.served import FAST, FROZEN, Served, served_mount
from tests.support import requires

SERVER = os.path.join(os.path.dirname(os.path.realpath(__file__)), "grpc_stream.py")
BLOB_BYTES = (32 << 20) + 4321
DEADLINE_S = 100

pytestmark = [pytest.mark.proof, requires("mounting", "grpcio")]


def fill(directory: str) -> None:
    with open(os.path.join(directory, "blob"), "wb") as file:
        file.write(os.urandom(BLOB_BYTES))


served = served_mount(fill, [*FAST, FROZEN])


def test_a_server_streams_chunks_of_a_mapped_file(served: Served, record: Record) -> None:
    with served.proof(delivered=BLOB_BYTES) as proof:
        said = served.same(sys.executable, SERVER, "{}/blob", timeout=DEADLINE_S).decode()
    assert f"{BLOB_BYTES} bytes" in said
    # A fault of the mapping brought every byte, as a page of the page cache.
    mapped = re.search(r"mapped (\d+), resident (\d+), copied 0$", said)
    assert mapped is not None
    assert mapped[1] == mapped[2]
    require_no_pages_twice(served, "blob")
    did = "a server streams a mapped file; chunks, bytes and SHA-256 that arrived"
    record("gRPC", metadata.version("grpcio"), did, proof)
