"""A server as a mount: what clients read, what the server is asked for, and who serves it."""

import contextlib
import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote import kills
from tests.remote.conftest import LARGE, MIB, SMALL, Shown
from tests.remote.kills import told
from tests.remote.server import FAULTS, WebServer
from tests.support import Daemon, eventually, requires, skip_unless
from tests.support._user import CHECKOUT

DIGEST = hashlib.sha256(LARGE).hexdigest()
_READ_ALL = "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"
_READ_AT = (
    "import os, sys; fd = os.open(sys.argv[1], os.O_RDONLY)\n"
    "os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)\n"
    "for at in sys.argv[3:]: sys.stdout.buffer.write(os.pread(fd, int(sys.argv[2]), int(at)))"
)


def digest_of(daemon: Daemon, name: str = "large") -> str:
    return daemon.python(_READ_ALL, daemon.path(name)).stdout.decode().strip()


@contextlib.contextmanager
def held_reader(daemon: Daemon, code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A client that has a file open, and waits for its standard input; killed at the end."""
    client = subprocess.Popen(
        [sys.executable, "-c", code, daemon.path("large")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield client
    finally:
        client.kill()
        client.communicate()


def test_a_cold_file_has_the_bytes_of_the_server(shown: Shown, web: WebServer):
    daemon = shown()
    assert daemon.run("cat", daemon.path("small")).stdout == SMALL
    assert digest_of(daemon) == DIGEST
    assert web.fetched == len(LARGE) + len(SMALL)
    # The last ones become durable after the close.
    assert eventually(lambda: told(daemon)["fetched_bytes"] == web.fetched)
    remote = told(daemon)
    assert remote["request_seconds"] > 0
    latency = remote["request_latency"]
    assert latency["count"] == remote["requests"]  # type: ignore[index]
    assert 0 < latency["p50_ns"] <= latency["max_ns"]  # type: ignore[index]


@requires("passthrough")
def test_the_kernel_serves_a_complete_file_without_a_read_by_the_daemon(
    shown: Shown, web: WebServer
):
    daemon = shown()
    assert digest_of(daemon) == DIGEST
    before = daemon.status()
    assert digest_of(daemon) == DIGEST
    after = daemon.status()
    assert after["datapath"]["opens"]["passthrough"] == 1
    assert after["control"]["read_requests"] == before["control"]["read_requests"]
    assert after["datapath"]["paths"] == before["datapath"]["paths"]
    assert web.fetched == len(LARGE)


@requires("passthrough")
def test_a_kept_file_passes_through_at_its_first_open_by_the_next_daemon(
    shown: Shown, web: WebServer
):
    digest_of(shown())
    daemon = shown()
    assert digest_of(daemon) == DIGEST
    assert daemon.status()["datapath"]["opens"] == {"passthrough": 1}
    assert web.fetched == len(LARGE)


def test_a_manifest_shows_a_server_beside_local_files(
    shown: Shown, web: WebServer, cache: str, tmp_path: Path
):
    manifest = tmp_path / "tree.toml"
    manifest.write_text(
        f'[[node]]\npath = "local/text"\ntext = "here"\n'
        f'[[node]]\npath = "server/files"\nremote = "{web.url}"\n'
    )
    daemon = shown("--tree", str(manifest), source="")
    assert daemon.run("cat", daemon.path("local/text")).stdout == b"here"
    assert daemon.run("cat", daemon.path("server/files/small")).stdout == SMALL
    assert digest_of(daemon, "server/files/large") == DIGEST
    assert web.fetched == len(LARGE) + len(SMALL)
    assert eventually(lambda: told(daemon)["fetched_bytes"] == web.fetched)


def test_a_url_without_a_driver_in_a_manifest_fails_the_mount(tmp_path: Path):
    manifest = tmp_path / "tree.toml"
    manifest.write_text('[[node]]\npath = "files"\nremote = "gopher://nowhere/"\n')
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    command = ["mount", "--tree", str(manifest), str(mountpoint)]
    result = subprocess.run(
        [sys.executable, "-m", "zcfuse", *command],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=CHECKOUT,
    )
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "gopher" in result.stderr


def test_the_command_ends_for_who_reads_its_output(web: WebServer, cache: str, mountpoint: str):
    """A worker process must not keep the standard error of the command that mounted."""
    program = [sys.executable, "-m", "zcfuse"]
    options = [f"--cache-dir={cache}", "--cache-floor=0"]
    command = [*program, "mount", web.url, str(mountpoint), *options]
    try:
        result = subprocess.run(command, capture_output=True, timeout=60, cwd=CHECKOUT)
        assert (result.returncode, result.stderr) == (0, b"")
    finally:
        unmount = [*program, "umount", "--force", str(mountpoint)]
        subprocess.run(unmount, capture_output=True, timeout=60, cwd=CHECKOUT)


def test_a_small_read_of_a_cold_file_fetches_128_kib(shown: Shown, web: WebServer):
    daemon = shown()
    at = 5 * MIB + 8192
    result = daemon.python(_READ_AT, daemon.path("large"), "4096", str(at))
    assert result.stdout == LARGE[at : at + 4096]
    assert 0 < web.fetched <= 128 << 10


def test_the_data_path_serves_present_bytes_of_an_incomplete_file(shown: Shown, web: WebServer):
    daemon = shown()
    code = (
        "import os, sys; fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)\n"
        "for _ in range(2):\n"
        "    sys.stdout.buffer.write(os.pread(fd, 65536, 5 << 20)); sys.stdout.flush()\n"
        "    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)\n"
        "    sys.stdin.readline()"
    )
    with held_reader(daemon, code) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        wanted = LARGE[5 * MIB : 5 * MIB + 65536]
        assert client.stdout.read(65536) == wanted
        before = daemon.status()
        client.stdin.write(b"\n")
        client.stdin.flush()
        assert client.stdout.read(65536) == wanted
        after = daemon.status()
    assert after["control"]["read_requests"] == before["control"]["read_requests"]
    served = sum(
        path["bytes"] for name, path in after["datapath"]["paths"].items() if name != "upcall"
    )
    assert served >= 65536
    assert before["datapath"]["fallbacks"]["read_not_present"] >= 1
    assert web.fetched <= 128 << 10


def test_what_was_to_be_fetched_ahead_is_given_up_at_the_last_close(shown: Shown, web: WebServer):
    web.files["huge"] = huge = 4 * LARGE
    daemon = shown("--connections", "4")
    code = "import sys; print(len(open(sys.argv[1], 'rb', buffering=0).read(6 << 20)))"
    web.fault, web.faulty = "slow", 10**6
    assert int(daemon.python(code, daemon.path("huge")).stdout) == 6 << 20
    assert eventually(lambda: told(daemon)["cancelled"] > 0)  # type: ignore[operator]
    web.faulty = 0
    assert digest_of(daemon, "huge") == hashlib.sha256(huge).hexdigest()
    assert told(daemon)["failures"] == 0


def test_a_mapping_of_a_cold_file_has_the_bytes_of_the_server(shown: Shown):
    daemon = shown()
    code = (
        "import hashlib, mmap, sys; file = open(sys.argv[1], 'rb')\n"
        "print(hashlib.sha256(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)).hexdigest())"
    )
    for _ in range(2):
        assert daemon.python(code, daemon.path("large")).stdout.decode().strip() == DIGEST


@pytest.mark.parametrize("fault", [one for one in FAULTS if one not in ("none", "hung")])
def test_a_read_outlives_a_fault_of_the_server(shown: Shown, web: WebServer, fault: str):
    web.fault, web.faulty = fault, 2
    daemon = shown()
    assert digest_of(daemon) == DIGEST
    assert web.faulty == 0
    assert (told(daemon)["retries"] >= 1) == (fault not in ("redirect", "slow"))


def test_another_tag_of_the_same_bytes_is_an_error_and_nothing_is_kept(
    shown: Shown, web: WebServer
):
    web.fault, web.faulty = "wrong tag", 10**6
    daemon = shown("--cache-timeout", "0")
    assert daemon.run("cat", daemon.path("small"), check=False).returncode == 1
    assert told(daemon)["fetched_bytes"] == 0
    web.faulty = 0
    assert daemon.run("cat", daemon.path("small")).stdout == SMALL


def test_a_server_without_ranges_is_read_all_the_same(shown: Shown, web: WebServer):
    web.knows_ranges = False
    daemon = shown()
    assert daemon.run("cat", daemon.path("small")).stdout == SMALL


def test_a_server_without_listings_is_read_by_name(shown: Shown, web: WebServer):
    web.listed = False
    daemon = shown()
    assert daemon.run("cat", daemon.path("small")).stdout == SMALL
    assert daemon.run("cat", daemon.path("absent"), check=False).returncode == 1


def test_one_listing_answers_for_names_present_and_missing(shown: Shown, web: WebServer):
    daemon = shown("--immutable")
    code = "import os, sys; print([os.path.exists(f'{sys.argv[1]}/{n}') for n in range(50)])"
    daemon.python(code, daemon.mountpoint)
    assert daemon.run("cat", daemon.path("small")).stdout == SMALL
    assert web.requests["GET", ""] == 1
    assert {name for method, name in web.requests if method == "HEAD"} == {"small"}


def test_a_listing_shows_what_the_server_has_once_the_cache_timeout_is_over(
    shown: Shown, web: WebServer
):
    daemon = shown("--cache-timeout", "0")
    assert daemon.run("ls", daemon.mountpoint).stdout == b"large\nsmall\n"
    web.files["new"] = b"12345"
    code = (
        "import os, sys; print(sorted((e.name, e.stat().st_size) for e in os.scandir(sys.argv[1])))"
    )
    seen = daemon.python(code, daemon.mountpoint).stdout.decode().strip()
    assert seen == str(sorted((name, len(data)) for name, data in web.files.items()))


def test_an_open_file_never_mixes_two_versions(shown: Shown, web: WebServer):
    daemon = shown("--cache-timeout", "0")
    code = (
        "import os, sys; fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)\n"
        "old = os.pread(fd, 4096, 0); print('ready', flush=True); sys.stdin.readline()\n"
        "assert os.pread(fd, 4096, 0) == old\n"
        "try: os.pread(fd, 4096, 8 << 20)\n"
        "except OSError as error: print(error.errno)"
    )
    with held_reader(daemon, code) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        web.files["large"] = LARGE[::-1]
        output, _ = client.communicate(b"\n", timeout=30)
    assert output.split() == [b"%d" % errno.ESTALE]
    assert digest_of(daemon) == hashlib.sha256(LARGE[::-1]).hexdigest()


def test_kept_bytes_are_read_while_the_server_is_away(shown: Shown, web: WebServer):
    daemon = shown("--cache-timeout", "0", "--deadline", "10")
    assert daemon.run("cat", daemon.path("small")).stdout == SMALL
    daemon.run("stat", daemon.path("large"))
    web.close()
    code = (
        "import os, sys\n"
        "for name in sys.argv[2:]:\n"
        "    try: print(len(open(f'{sys.argv[1]}/{name}', 'rb').read()))\n"
        "    except OSError as error: print(error.errno)"
    )
    result = daemon.python(code, daemon.mountpoint, "small", "large", "small", timeout=100)
    assert result.stdout.split() == [b"%d" % len(SMALL), b"%d" % errno.EIO, b"%d" % len(SMALL)]
    assert daemon.log().count("similar failures") <= 2


@requires("root")
@pytest.mark.timeout(300)
def test_no_wrong_byte_is_read_after_kill_9_of_daemon_and_workers(tmp_path: Path):
    skip_unless("mounting", "fsspec", "aiohttp")
    # A kill may come before or after a fetch, so all of a few may miss every one.
    for attempt in range(6):
        (tmp_path / str(attempt)).mkdir()
        report = kills.run(2, tmp_path / str(attempt))
        assert report.wrong == [], report.text()
        if report.cut > 0:
            break
    assert report.cut > 0, report.text()


def test_a_reader_outlives_kill_9_of_the_workers(shown: Shown, web: WebServer):
    daemon = shown()
    daemon.run("cat", daemon.path("small"))
    for pid in told(daemon)["workers"]:  # type: ignore[attr-defined]
        os.kill(pid, signal.SIGKILL)
    assert digest_of(daemon) == DIGEST
    assert told(daemon)["worker_restarts"] == 2


def _files(cache: str, kind: str) -> list[Path]:
    return sorted(Path(cache).rglob(f"*.{kind}"))


def _flip(path: Path, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("damage", ["data", "cut data", "hole", "header", "record", "cut record"])
def test_no_wrong_byte_is_read_from_a_damaged_cache(
    shown: Shown, web: WebServer, cache: str, damage: str
):
    first = shown()
    digest_of(first)
    first.unmount()
    kind = "data" if damage in ("data", "cut data", "hole") else "record"
    [path] = _files(cache, kind)
    if damage == "data":
        _flip(path, 5 * MIB)
    elif damage == "hole":
        os.truncate(path, 4 * MIB)
        os.truncate(path, len(LARGE))
    elif damage == "header":
        _flip(path, 0)
    elif damage == "record":
        _flip(path, 4096 + 5)
    else:
        os.truncate(path, path.stat().st_size - 7)
    before = web.fetched
    again = shown()
    assert digest_of(again) == DIGEST
    assert web.fetched > before
    assert digest_of(again) == DIGEST


def test_two_daemons_on_one_cache_directory_fetch_each_byte_once(shown: Shown, web: WebServer):
    daemons = [shown(), shown()]
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", _READ_ALL, daemon.path("large")], stdout=subprocess.PIPE
        )
        for daemon in daemons
    ]
    seen = [client.communicate(timeout=60)[0].decode().strip() for client in clients]
    assert seen == [DIGEST, DIGEST]
    assert web.fetched == len(LARGE)


def test_a_credential_shows_nowhere(shown: Shown, web: WebServer, cache: str):
    secret = "s3cr3t-0f-th3-t3st"
    header = f'headers={{"Authorization": "{secret}"}}'
    user = f"http://user:{secret}@{web.url.partition('//')[2]}"
    daemon = shown("--option", header, forked=False)
    daemon.run("cat", daemon.path("small"))
    assert any(one.get("Authorization") == secret for one in web.headers)
    _is_nowhere(secret, daemon, cache)
    daemon = shown(source=user, forked=False)
    daemon.run("cat", daemon.path("small"))
    assert any(one.get("Authorization", "").startswith("Basic") for one in web.headers)
    _is_nowhere(secret, daemon, cache)


def _is_nowhere(secret: str, daemon: Daemon, cache: str) -> None:
    workers = told(daemon)["workers"]
    assert isinstance(workers, list)
    for pid in (daemon.pid, *workers):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"zcfuse" in command
        assert secret.encode() not in command
    assert secret not in str(daemon.status())
    assert secret not in daemon.log()
    assert secret not in Path("/proc/self/mountinfo").read_text()
    for path in Path(cache).rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()


def test_a_missing_driver_is_one_line_that_names_the_extra(tmp_path: Path):
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 's3fs' else find(name)\n"
        "from zcfuse.cli import main; main(['mount', 's3://bucket', sys.argv[1]])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        timeout=60,
        env={**os.environ, "PYTHONPATH": CHECKOUT},
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert "zcfuse[s3]" in result.stderr or "fsspec" in result.stderr
