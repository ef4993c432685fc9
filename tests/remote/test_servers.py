"""nginx, OpenSSH and moto's S3, each behind a proxy with faults: right bytes, or an error."""

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.programs.nginx import nginx
from tests.programs.servers import answers_on, free_port, running
from tests.remote.conftest import LARGE, SMALL, Ask
from tests.remote.proxy import FAULTS, Proxy
from tests.remote.test_s3 import Bucket, serving_s3
from tests.support import Mounter, requires, skip_unless
from zcfuse.remote._cache import PIECE_BYTES, key_of
from zcfuse.remote._fetchers import RemoteError
from zcfuse.remote._messages import Ensure, Ensured, Info, ListDirectory, Listed, Setup

_DEADLINE_S = 1.0
_SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {base}/key
AuthorizedKeysFile {base}/key.pub
StrictModes no
UsePAM no
PidFile none
MaxStartups 100
Subsystem sftp internal-sftp
"""


class Server:
    """A URL of a directory with "large" and "small", the driver's options, and the proxy."""

    def __init__(self, url: str, options: dict[str, Any], proxy: Proxy) -> None:
        self.url = url
        self.options = options
        self.proxy = proxy


@pytest.fixture(params=["http", "s3", "sftp"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Each server behind a proxy."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "large").write_bytes(LARGE)
    (files / "small").write_bytes(SMALL)
    made = {"http": _http, "s3": _s3, "sftp": _sftp}[request.param]
    with made(tmp_path, files) as server:
        yield server
        server.proxy.close()


@contextlib.contextmanager
def _http(base: Path, files: Path) -> Iterator[Server]:
    skip_unless("nginx", "fsspec", "aiohttp")
    with nginx(base / "nginx", str(files), "autoindex on;") as web:
        proxy = Proxy(web.port)
        yield Server(f"http://127.0.0.1:{proxy.port}/", {}, proxy)


@contextlib.contextmanager
def _s3(base: Path, files: Path) -> Iterator[Server]:
    skip_unless("fsspec", "s3fs", "moto")
    with serving_s3() as port:
        bucket = Bucket(port)
        bucket.put("set/large", LARGE)
        bucket.put("set/small", SMALL)
        proxy = Proxy(port)
        options = {**bucket.options, "endpoint_url": f"http://127.0.0.1:{proxy.port}"}
        yield Server("s3://bucket/set", options, proxy)


@contextlib.contextmanager
def _sftp(base: Path, files: Path) -> Iterator[Server]:
    skip_unless("root", "sshd", "fsspec", "paramiko")
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert sshd is not None
    os.makedirs("/run/sshd", exist_ok=True)  # which sshd demands
    key = str(base / "key")
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key]
    subprocess.run(make, check=True, timeout=30)
    port = free_port()
    configuration = base / "sshd_config"
    configuration.write_text(_SSHD.format(port=port, base=base))
    command = [sshd, "-D", "-e", "-f", str(configuration)]
    with running(command, log=str(base / "sshd.log"), ready=answers_on(port)):
        proxy = Proxy(port)
        yield Server(f"sftp://root@127.0.0.1:{proxy.port}{files}", {"key_filename": key}, proxy)


@requires("mounting")
def test_a_mount_has_the_bytes_of_the_server(server: Server, mounted: Mounter, tmp_path: Path):
    options = [f"--option={name}={value}" for name, value in server.options.items()]
    limits = ("--cache-dir", str(tmp_path / "cache"), "--cache-floor", "0")
    daemon = mounted(*options, *limits, source=server.url, forked=False)
    listed = daemon.run("find", daemon.mountpoint, "-type", "f", "-printf", "%P %s\\n").stdout
    assert sorted(listed.decode().split("\n")[:-1]) == [f"large {len(LARGE)}", "small 12"]
    assert daemon.run("cat", daemon.path("small")).stdout == SMALL
    for _ in range(2):
        digest = daemon.run("sha256sum", daemon.path("large")).stdout.split()[0].decode()
        assert digest == hashlib.sha256(LARGE).hexdigest()
    assert daemon.run("cat", daemon.path("absent"), check=False).returncode == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_on_the_way_costs_time_or_an_error_and_never_a_byte(
    server: Server, workers: Callable[[Setup], Ask], tmp_path: Path, fault: str
):
    cache = tmp_path / "cache"
    setup = Setup(server.url, "server", server.options, str(cache), "1000000000", "0", 1)
    ask = workers(setup)
    info = _large(ask)
    ensure = Ensure(
        2, key_of("server", info.path, info.version), info, 0, len(LARGE), True, _DEADLINE_S
    )
    server.proxy.fault, server.proxy.faulty = fault, 2
    if fault == "hung":
        began = time.monotonic()
        with pytest.raises(RemoteError) as failure:
            ask(ensure)
        assert (failure.value.errno, failure.value.unreachable) == (errno.EIO, True)
        assert time.monotonic() - began < 30 * _DEADLINE_S
        server.proxy.faulty = 0
    done = ask(Ensure(3, ensure.key, info, 0, len(LARGE), True, 30.0))
    assert isinstance(done, Ensured)
    assert server.proxy.faulty == 0
    [data] = cache.rglob("*.data")
    assert hashlib.sha256(data.read_bytes()).digest() == hashlib.sha256(LARGE).digest()


def test_several_threads_read_from_one_sftp_server_at_a_time(
    workers: Callable[[Setup], Ask], tmp_path: Path
):
    files = tmp_path / "files"
    files.mkdir()
    (files / "large").write_bytes(LARGE)
    with _sftp(tmp_path, files) as server:
        cache = str(tmp_path / "cache")
        setup = Setup(server.url, "server", server.options, cache, "1000000000", "0", 4)
        ask = workers(setup)
        info = _large(ask)
        key = key_of("server", info.path, info.version)
        starts = range(0, len(LARGE), PIECE_BYTES)
        asked = [
            Ensure(2, key, info, start, min(PIECE_BYTES, len(LARGE) - start), True, 20.0)
            for start in starts
        ]
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, asked))
        server.proxy.close()
    assert all(isinstance(one, Ensured) and one.retries == 0 for one in answers), answers
    [data] = (tmp_path / "cache").rglob("*.data")
    assert data.read_bytes() == LARGE


def _large(ask: Ask) -> Info:
    listed = ask(ListDirectory(1, "", True, 20))
    assert isinstance(listed, Listed)
    return next(info for info in listed.entries if info.name == b"large")
