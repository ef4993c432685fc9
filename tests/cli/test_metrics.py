"""A scraper on the same machine: `--metrics-listen` of a real mount."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.conftest import serving, write
from tests.support import Daemon, eventually, requires

pytestmark = requires("mounting")

DEADLINE_S = 20


def listening(daemon: Daemon) -> tuple[str, int]:
    """The address of the metrics; the mount answers a moment before it listens."""
    assert eventually(lambda: daemon.status()["metrics"])
    host, _, port = daemon.status()["metrics"].rpartition(":")
    return host, int(port)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """A mount by `pool` that listens on a free port, and that port."""
    base = tmp_path_factory.mktemp("scraped")
    source = base / "source"
    source.mkdir()
    write(str(source), "file", os.urandom(1 << 20))
    with serving(base, str(source), "--path", "pool", "--metrics-listen", "0") as daemon:
        host, port = listening(daemon)
        assert host == "127.0.0.1"
        yield daemon, int(port)


def get(port, path="/metrics", method="GET"):
    """(status, body) of one request."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, DEADLINE_S)) as client:
        client.request(method, path)
        answer = client.getresponse()
        return answer.status, answer.read().decode()


def scrape(port):
    """Values by (name, values of the labels except the mount point, in the order of their
    names)."""
    status, body = get(port)
    assert status == 200
    found = {}
    for family in text_string_to_metric_families(body):
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key != "mountpoint"}
            found[sample.name, *(labels[key] for key in sorted(labels))] = sample.value
    return found


def test_a_scraper_gets_what_the_status_says(scraped):
    daemon, port = scraped
    daemon.run("cat", daemon.path("file"))
    found = scrape(port)
    document = daemon.status()
    assert found["zcfuse_requests_total", "READ"] == document["datapath"]["requests"]["READ"]
    assert found["zcfuse_read_bytes_total", "pool"] == 1 << 20
    reads = found["zcfuse_requests_total", "READ"]
    assert found["zcfuse_request_duration_seconds_count", "READ"] == reads
    assert found["zcfuse_request_duration_seconds_bucket", "+Inf", "READ"] == reads
    assert found["zcfuse_read_duration_seconds_count", "pool"] == reads


def test_the_command_prints_the_same_families(scraped, zcfuse):
    daemon, port = scraped
    result = zcfuse("status", "--prometheus", daemon.mountpoint)
    assert (result.returncode, result.stderr) == (0, "")
    printed = {family.name for family in text_string_to_metric_families(result.stdout)}
    assert printed == {family.name for family in text_string_to_metric_families(get(port)[1])}
    assert "zcfuse_request_duration_seconds" in printed


def test_scrapes_are_answered_while_a_reader_is_busy(scraped):
    daemon, port = scraped
    code = (
        "import os, sys\nwhile True:\n fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        " os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)\n"
        " while os.read(fd, 1 << 17): pass\n os.close(fd)"
    )
    reader = subprocess.Popen(["python3", "-c", code, daemon.path("file")])
    try:
        seen = [scrape(port)["zcfuse_read_bytes_total", "pool"] for _ in range(20)]
        deadline = time.monotonic() + DEADLINE_S
        while seen[-1] <= seen[0] and time.monotonic() < deadline:
            seen.append(scrape(port)["zcfuse_read_bytes_total", "pool"])
    finally:
        reader.send_signal(signal.SIGKILL)
        reader.wait(DEADLINE_S)
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


def test_clients_that_say_nothing_hold_up_nobody_for_long(scraped):
    _, port = scraped
    with contextlib.ExitStack() as ends:
        silent = [
            ends.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE_S))
            for _ in range(4)
        ]
        for one in silent:
            assert one.recv(1) == b""  # the daemon closes it
    assert get(port)[0] == 200


def test_nothing_but_a_get_is_answered(scraped):
    _, port = scraped
    assert get(port, method="POST")[0] == 405


def test_a_port_in_use_is_one_line_before_anything_is_mounted(scraped, zcfuse, mountpoint):
    daemon, port = scraped
    result = zcfuse("mount", daemon.source, mountpoint, "--metrics-listen", str(port))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert f"--metrics-listen {port}: Address already in use" in result.stderr
    assert not os.path.ismount(mountpoint)


@pytest.mark.parametrize("where", ["0.0.0.0:0", "99999"])
def test_only_a_port_on_loopback_is_listened_on(scraped, zcfuse, mountpoint, where):
    daemon, _ = scraped
    for options, words in (
        (
            ("--metrics-listen", where),
            f"zcfuse mount: Invalid value for '--metrics-listen': {where}: ",
        ),
        (("-o", f"metrics_listen={where}"), f"zcfuse: -o metrics_listen={where}: "),
    ):
        result = zcfuse("mount", daemon.source, mountpoint, *options)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith(words)
        assert result.stderr.count("\n") == 1


def test_the_port_is_let_go_of_with_the_mount(mounted, source):
    daemon = mounted("--metrics-listen", "127.0.0.1:0")
    _, port = listening(daemon)
    assert get(port)[0] == 200
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S):
        daemon.unmount()  # a scraper that stays does not block it
    with pytest.raises(ConnectionRefusedError):
        get(port)
