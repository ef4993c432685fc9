"""A PyTorch DataLoader with several workers: over small files, and over one mapped file."""

from __future__ import annotations

import os
import random
import sys
from importlib import metadata

import pytest

from tests.programs.conftest import Record
from tests.programs.heavy.machine import require_no_pages_twice
from tests.programs.served import FAST, FROZEN, PASSTHROUGH_URING, Served, served_mount
from tests.support import requires
from tests.support._user import CHECKOUT

SMALL = os.path.join(CHECKOUT, "examples", "dataloader_files.py")
MAPPED = os.path.join(CHECKOUT, "examples", "dataloader_mapped.py")
CLASSES = 8
FILES = 800
LARGEST_BYTES = 64 << 10
RECORD_BYTES = 4096
RECORDS = 8192
WORKERS = "3"
DEADLINE_S = 100

pytestmark = [pytest.mark.proof, requires("mounting", "pytorch"), pytest.mark.timeout(300)]


def fill(directory: str) -> None:
    chosen = random.Random(5)
    for number in range(CLASSES):
        os.makedirs(os.path.join(directory, "train", f"class-{number}"))
    for number in range(FILES):
        at = os.path.join(directory, "train", f"class-{number % CLASSES}", f"{number:06}.bin")
        with open(at, "wb") as file:
            # The first one is empty, which is also a sample.
            file.write(chosen.randbytes(chosen.randrange(LARGEST_BYTES) if number else 0))
    with open(os.path.join(directory, "tokens.bin"), "wb") as file:
        file.write(os.urandom(RECORDS * RECORD_BYTES + 17))


served = served_mount(fill, [*FAST, PASSTHROUGH_URING, FROZEN])


def test_workers_read_small_files(served: Served, record: Record) -> None:
    size = served.size("train")
    with served.proof(delivered=size) as proof:
        said = served.same(sys.executable, SMALL, "{}/train", WORKERS, timeout=DEADLINE_S).decode()
    assert said.startswith(f"{FILES} samples of {CLASSES} classes, {size} bytes, ")
    did = f"a DataLoader of {WORKERS} workers over {FILES} small files; order, bytes and CRC-32"
    record("PyTorch", metadata.version("torch"), did, proof)


def test_workers_share_one_mapped_file(served: Served, record: Record) -> None:
    size = RECORDS * RECORD_BYTES
    argv = [sys.executable, MAPPED, "{}/tokens.bin", str(RECORD_BYTES), WORKERS]
    with served.proof(delivered=size) as proof:
        said = served.same(*argv, timeout=DEADLINE_S).decode()
    assert said.startswith(f"{RECORDS} records, {size} bytes, ")
    require_no_pages_twice(served, "tokens.bin")
    did = f"a DataLoader of {WORKERS} workers over one mapped file; order, bytes and CRC-32"
    record("PyTorch", metadata.version("torch"), did, proof)
