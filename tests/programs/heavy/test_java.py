"""FileChannel.transferTo to a socket, as Kafka sends its log segments."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import command
from tests.programs.conftest import Record
from tests.programs.heavy.machine import calls_of_children
from tests.programs.records import version
from tests.programs.served import FAST, FROZEN, Served, served_mount
from tests.support import requires

HERE = os.path.dirname(os.path.realpath(__file__))
CONSUMER = os.path.join(HERE, "transfer_to.py")
SEGMENT_BYTES = (48 << 20) + 4321
FETCH_BYTES = 1 << 20
DEADLINE_S = 100

pytestmark = [pytest.mark.proof, requires("mounting", "java")]


def fill(directory: str) -> None:
    with open(os.path.join(directory, "segment.log"), "wb") as file:
        file.write(os.urandom(SEGMENT_BYTES))


served = served_mount(fill, [*FAST, FROZEN])


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory with the compiled program."""
    directory: Path = tmp_path_factory.mktemp("classes")
    command("javac", "-d", str(directory), os.path.join(HERE, "Transfer.java"))
    return str(directory)


def test_transfer_to_sends_a_segment_by_sendfile(
    served: Served, classes: str, record: Record
) -> None:
    argv = [sys.executable, CONSUMER, "{}/segment.log", classes]
    expected = served.native(*argv, timeout=DEADLINE_S).stdout
    with served.proof(delivered=SEGMENT_BYTES) as proof, calls_of_children("sendfile64") as calls:
        found = served.run(*argv, timeout=DEADLINE_S).stdout
        sent = calls()
    assert found == expected
    assert f"sent {SEGMENT_BYTES}, arrived {SEGMENT_BYTES}" in found.decode()
    assert sent is None or sent >= SEGMENT_BYTES / FETCH_BYTES
    did = "FileChannel.transferTo to a TCP socket; bytes and SHA-256 that arrived"
    record("Java", version("java", "-version"), did, proof)
