"""Programs that read a server's files, and the bytes that are fetched for what they need."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.remote.conftest import Shown
from tests.remote.kills import told
from tests.remote.server import WebServer
from tests.support import requires, skip_unless
from tests.support._user import CHECKOUT

pytestmark = requires("mounting")

_PIECE = 128 << 10


def _made(code: str, path: Path) -> None:
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=120)


@pytest.fixture
def parquet(tmp_path: Path) -> bytes:
    """A Parquet file of two columns in 20 row groups; "wide" takes most of its bytes."""
    skip_unless("duckdb")
    path = tmp_path / "table.parquet"
    code = (
        "import duckdb, sys\n"
        'rows = "SELECT i AS id, md5(i::VARCHAR) || md5((i + 1)::VARCHAR) AS wide"\n'
        "to = f\"TO '{sys.argv[1]}' (FORMAT parquet, ROW_GROUP_SIZE 10000)\"\n"
        'duckdb.sql(f"COPY ({rows} FROM range(200000) t(i)) {to}")'
    )
    _made(code, path)
    return path.read_bytes()


def test_duckdb_fetches_the_footer_and_the_columns_that_it_needs(
    shown: Shown, web: WebServer, parquet: bytes
):
    web.files["table.parquet"] = parquet
    daemon = shown()
    code = (
        "import duckdb, sys\n"
        "print(duckdb.sql(f\"SELECT sum(id) FROM '{sys.argv[1]}'\").fetchall()[0][0])"
    )
    result = daemon.python(code, daemon.path("table.parquet"))
    assert int(result.stdout) == sum(range(200_000))
    # 20 pieces of the narrow column, each within two fetched pieces at most, and the footer.
    assert web.fetched <= min(len(parquet), 42 * _PIECE)
    assert web.fetched < len(parquet) / 2


def test_safetensors_fetches_the_header_and_the_tensor_that_it_maps(
    shown: Shown, web: WebServer, tmp_path: Path
):
    skip_unless("safetensors")
    code = (
        "import numpy, sys; from safetensors.numpy import save_file\n"
        "tensors = {f't{n}': numpy.full((1 << 20,), n, dtype='float32') for n in range(8)}\n"
        "save_file(tensors, sys.argv[1])"
    )
    _made(code, tmp_path / "model")
    web.files["model.safetensors"] = (tmp_path / "model").read_bytes()
    daemon = shown()
    code = (
        "import sys; from safetensors import safe_open\n"
        "with safe_open(sys.argv[1], framework='numpy') as model:\n"
        "    tensor = model.get_tensor('t5')\n"
        "print(float(tensor.min()), float(tensor.max()), tensor.size)"
    )
    result = daemon.python(code, daemon.path("model.safetensors"))
    assert result.stdout.split() == [b"5.0", b"5.0", str(1 << 20).encode()]
    # The tensor lies in two of nine blocks of 4 MiB; at most four more are fetched.
    assert 4 << 20 <= web.fetched <= 24 << 20


def test_zarr_fetches_the_chunks_that_it_needs(shown: Shown, tmp_path: Path):
    skip_unless("zarr")
    code = (
        "import numpy, sys, zarr\n"
        "array = zarr.create_array(sys.argv[1], shape=(1024, 1024), chunks=(128, 128),"
        " dtype='int32', compressors=None)\n"
        "array[:] = numpy.arange(1 << 20, dtype='int32').reshape(1024, 1024)"
    )
    store = tmp_path / "store"
    _made(code, store)
    daemon = shown(source=f"file://{tmp_path}/store")
    code = (
        "import json, sys, zarr\n"
        "array = zarr.open_array(sys.argv[1], mode='r')\n"
        "print(json.dumps(array[200, 250:262].tolist()))"
    )
    result = daemon.python(code, daemon.mountpoint)
    assert json.loads(result.stdout) == [200 * 1024 + n for n in range(250, 262)]
    metadata = (store / "zarr.json").stat().st_size
    assert told(daemon)["fetched_bytes"] == metadata + 2 * 128 * 128 * 4


def test_the_workers_of_a_dataloader_fetch_each_sample_once(shown: Shown, web: WebServer):
    skip_unless("pytorch")
    web.files = {f"sample-{n:03}": random.Random(n).randbytes(1000 + 37 * n) for n in range(64)}
    daemon = shown("--immutable")
    program = os.path.join(CHECKOUT, "examples", "dataloader_files.py")
    for _ in range(2):
        result = daemon.run(sys.executable, program, daemon.mountpoint, "2", timeout=120)
        size = sum(map(len, web.files.values()))
        assert result.stdout.startswith(b"64 samples of 1 classes, %d bytes, " % size)
        assert web.fetched == size


def test_warm_fetches_the_files_of_a_list_and_goes_on_where_it_ended(
    shown: Shown, web: WebServer, tmp_path: Path
):
    web.files = {name: os.urandom(3 * _PIECE + 5) for name in ("a", "b", "c")}
    daemon = shown("--immutable")
    for names in ("a", "ab"):
        listed = tmp_path / "used.txt"
        listed.write_text("".join(f"{daemon.path(name)}\n" for name in names))
        daemon.run(sys.executable, "-m", "zcfuse", "warm", "--from", str(listed), timeout=60)
        assert {name for name, _, _ in web.ranges} == set(names)
        assert web.fetched == len(names) * (3 * _PIECE + 5)
