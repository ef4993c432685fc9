"""Python's own ways of moving a file: socket.sendfile, shutil.copyfile, numpy.memmap."""

from __future__ import annotations

import platform
import sys

from tests.integration.conftest import write
from tests.programs.records import Record
from tests.programs.served import FAST, Served, served_mount
from tests.support import requires

pytestmark = requires("mounting")

SIZE = 8 << 20


def fill(source: str) -> None:
    write(source, "file", BYTES)
    write(source, "numbers", BYTES)


# All blocks of 4 KiB differ, so a repeated or shifted page changes every result.
BYTES = b"".join(number.to_bytes(8, "little") * 512 for number in range(SIZE // 4096))

served = served_mount(fill, FAST)

BY_SENDFILE = """
import hashlib, socket, sys, threading

near, far = socket.socketpair()
received = hashlib.sha256()

def receive():
    while data := far.recv(1 << 20):
        received.update(data)

receiver = threading.Thread(target=receive)
receiver.start()
with near, open(sys.argv[1], "rb") as file:
    # Without its fall-back to send(), which shutil and http.server leave to it.
    sent = near._sendfile_use_sendfile(file)
receiver.join()
print(sent, received.hexdigest())
"""

BY_COPYFILE = """
import hashlib, os, shutil, sys, tempfile

assert shutil._USE_CP_SENDFILE
with tempfile.NamedTemporaryFile() as copy:
    shutil.copyfile(sys.argv[1], copy.name)
    print(os.path.getsize(copy.name), hashlib.sha256(copy.read()).hexdigest())
"""

BY_MEMMAP = """
import sys, numpy

numbers = numpy.memmap(sys.argv[1], dtype="<u8", mode="r")
print(numbers.shape, numbers.sum(), numbers[::512].tolist() == list(range(len(numbers) // 512)))
"""


def test_socket_sendfile_sends_the_file(served: Served, record: Record) -> None:
    with served.proof(delivered=SIZE) as proof:
        assert served.same(sys.executable, "-c", BY_SENDFILE, "{}/file").startswith(b"%d " % SIZE)
    record("Python socket.sendfile", platform.python_version(), "what a socket received", proof)


def test_shutil_copyfile_makes_the_same_copy(served: Served, record: Record) -> None:
    with served.proof(delivered=SIZE) as proof:
        served.same(sys.executable, "-c", BY_COPYFILE, "{}/file")
    record("Python shutil.copyfile", platform.python_version(), "the copy", proof)


def test_numpy_memmap_maps_the_same_numbers(served: Served, record: Record) -> None:
    import numpy

    with served.proof(delivered=SIZE) as proof:
        assert served.same(sys.executable, "-c", BY_MEMMAP, "{}/numbers").strip().endswith(b"True")
    record("numpy.memmap", numpy.__version__, "sum and elements of the array", proof)
