"""A bucket of a real server of S3, which the test starts: listings, ranges, versions, a mount."""

import contextlib
import errno
import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.remote.conftest import LARGE, SMALL, Ask
from tests.support import Mounter, skip_unless
from zcfuse.remote._cache import PIECE_BYTES, key_of
from zcfuse.remote._fetchers import RemoteError
from zcfuse.remote._messages import Ensure, Ensured, ListDirectory, Listed, Setup

_SERVE = (
    "from moto.moto_server.threaded_moto_server import ThreadedMotoServer\n"
    "server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)\n"
    "server.start(); print(server.get_host_and_port()[1], flush=True); input()"
)


class Bucket:
    """The bucket "bucket" of a server, and the options that reach it."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.options = {"endpoint_url": self.endpoint, "key": "k", "secret": "top-secret"}
        import boto3  # moto depends on it

        self._client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="k",
            aws_secret_access_key="top-secret",
        )
        self._client.create_bucket(Bucket="bucket")

    def put(self, key: str, data: bytes) -> None:
        """Store an object."""
        self._client.put_object(Bucket="bucket", Key=key, Body=data)


@contextlib.contextmanager
def serving_s3() -> Iterator[int]:
    """Run moto's server; yield its port."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline())
    finally:
        server.kill()
        server.communicate()


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    """Holds "set/large", "set/small" and "set/below/c", and keys that are no names."""
    skip_unless("fsspec", "s3fs", "moto")
    with serving_s3() as port:
        made = Bucket(port)
        for key, data in (("large", LARGE), ("small", SMALL), ("below/c", b"c")):
            made.put(f"set/{key}", data)
        made.put("set/both", b"file")
        made.put("set/both/inner", b"below it")
        yield made


def test_a_bucket_is_listed_and_read_and_a_new_version_is_refused(
    bucket: Bucket, workers: Callable[[Setup], Ask], tmp_path: Path
):
    ask = workers(
        Setup("s3://bucket/set", "server", bucket.options, str(tmp_path), "1000000000", "0", 1)
    )
    listed = ask(ListDirectory(1, "", True, 10))
    assert isinstance(listed, Listed), listed
    by_name = {info.name: info for info in listed.entries}
    assert {name: info.is_directory for name, info in by_name.items()} == {
        b"large": False,
        b"small": False,
        b"below": True,
        b"both": True,
    }
    assert listed.left_out == 1
    info = by_name[b"large"]
    assert info.size == len(LARGE)
    key = key_of("server", info.path, info.version)
    done = ask(Ensure(2, key, info, 0, PIECE_BYTES, True, 10))
    assert isinstance(done, Ensured), done
    assert (done.requests, done.by_driver) == (1, {})
    bucket.put("set/large", LARGE[::-1])
    with pytest.raises(RemoteError) as failure:
        ask(Ensure(3, key, info, PIECE_BYTES, PIECE_BYTES, True, 10))
    assert (failure.value.errno, failure.value.unreachable) == (errno.ESTALE, False)


def test_a_mounted_bucket_has_the_bytes_of_its_objects(
    bucket: Bucket, mounted: Mounter, tmp_path: Path
):
    options = [f"--option={name}={value}" for name, value in bucket.options.items()]
    limits = ("--cache-dir", str(tmp_path / "cache"), "--cache-floor", "0")
    daemon = mounted(*options, *limits, source="s3://bucket/set", forked=False)
    listed = daemon.run("find", daemon.mountpoint, "-type", "f", "-printf", "%P %s\\n").stdout
    assert sorted(listed.decode().split("\n")[:-1]) == [
        "below/c 1",
        "both/inner 8",
        f"large {len(LARGE)}",
        f"small {len(SMALL)}",
    ]
    for _ in range(2):
        digest = daemon.run("sha256sum", daemon.path("large")).stdout.split()[0].decode()
        assert digest == hashlib.sha256(LARGE).hexdigest()
    assert "top-secret" not in str(daemon.status())
    assert b"top-secret" not in Path(f"/proc/{daemon.pid}/cmdline").read_bytes()
