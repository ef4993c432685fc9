"""The client process, on plain files: it does what it reports."""

import hashlib
import os
import signal
from collections.abc import Iterator

import pytest

from tests.support._capabilities import requires
from zcfuse.bench import ClientError, ClientProcess, ClientTimedOutError, client

SIZE = 3 << 20


@pytest.fixture(scope="module")
def process() -> Iterator[ClientProcess]:
    with client() as started:
        yield started


@pytest.fixture
def data(tmp_path) -> str:
    path = tmp_path / "data"
    path.write_bytes(os.urandom(SIZE))
    return str(path)


def test_it_reads_all_bytes_in_blocks(process: ClientProcess, data: str):
    assert process.ask("open", path=data) == SIZE
    timing = process.time("read", size=SIZE, block=1 << 20)
    assert (timing.bytes, timing.operations) == (SIZE, 3)


def test_a_file_that_is_shorter_than_asked_ends_the_reading(process: ClientProcess, data: str):
    process.ask("open", path=data)
    assert process.time("read", size=2 * SIZE, block=1 << 20).bytes == SIZE


def test_its_digest_is_that_of_the_bytes(process: ClientProcess, data: str):
    process.ask("open", path=data)
    with open(data, "rb") as file:
        expected = hashlib.sha256(file.read(SIZE - 5)).hexdigest()
    assert process.ask("digest", size=SIZE - 5) == expected


def test_touching_a_mapping_touches_every_page(process: ClientProcess, data: str):
    process.ask("open", path=data)
    timing = process.time("touch", size=SIZE)
    assert (timing.operations, timing.bytes) == (SIZE // 4096, SIZE)


@pytest.mark.parametrize("to", ["socket", "null"])
def test_sendfile_sends_all_bytes(process: ClientProcess, data: str, to: str):
    process.ask("open", path=data)
    assert process.time("sendfile", size=SIZE, block=1 << 20, to=to).bytes == SIZE


def test_random_and_repeated_blocks_are_counted(process: ClientProcess, data: str):
    process.ask("open", path=data)
    assert process.time("read_random", size=SIZE, block=4096, count=50, seed=1).operations == 50
    assert process.time("read_blocks", size=SIZE, block=65536, count=100).bytes == 100 * 65536


@requires("kernel 6.5")
def test_it_says_how_much_of_its_file_is_cached(process: ClientProcess, data: str):
    process.ask("open", path=data)
    process.time("read", size=SIZE, block=1 << 20)
    assert process.ask("cached") == SIZE


@pytest.mark.parametrize("processes", [1, 2])
def test_files_are_opened_read_and_closed(process: ClientProcess, tmp_path, processes: int):
    names = [f"{index}" for index in range(10)]
    for name in names:
        (tmp_path / name).write_bytes(b"x" * 100)
    timing = process.time(
        "open_read_close", root=str(tmp_path), names=names, limit=1000, processes=processes
    )
    assert timing.operations == 10


@pytest.mark.parametrize("processes", [1, 2])
def test_a_file_that_is_not_there_is_an_error(process: ClientProcess, tmp_path, processes: int):
    with pytest.raises(ClientError, match="No such file"):
        process.time(
            "open_read_close", root=str(tmp_path), names=["a"], limit=1, processes=processes
        )


def test_a_walk_sees_every_entry(process: ClientProcess, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    assert process.time("walk", root=str(tmp_path), limit=100).operations == 3


def test_a_name_that_was_to_be_missing_and_exists_is_an_error(process: ClientProcess, tmp_path):
    assert process.time("missing", root=str(tmp_path), names=["x"]).operations == 1
    (tmp_path / "x").touch()
    with pytest.raises(ClientError, match="exists"):
        process.time("missing", root=str(tmp_path), names=["x"])


def test_an_error_leaves_the_client_usable(process: ClientProcess, data: str):
    with pytest.raises(ClientError, match="No such file"):
        process.ask("open", path=data + ".absent")
    assert process.ask("open", path=data) == SIZE


def test_a_client_that_is_late_is_killed(tmp_path):
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    with client() as late:
        with pytest.raises(ClientTimedOutError, match="open was not back"):
            late.ask("open", path=fifo, deadline_s=0.2)
        with pytest.raises(ClientError):
            late.ask("close")


def test_a_client_that_dies_is_an_error():
    with client() as mortal:
        os.kill(mortal.pid, signal.SIGKILL)
        with pytest.raises(ClientError):
            mortal.ask("close")
