"""nginx serves static files from the mount: by sendfile, by O_DIRECT in threads, behind HAProxy."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

from tests.integration.conftest import write
from tests.programs.nginx import Web, answer, configured, nginx
from tests.programs.records import Record, version
from tests.programs.served import FAST, Served, served_mount
from tests.programs.servers import answers_on, free_port, running
from tests.support import requires
from tests.support._user import CHECKOUT

pytestmark = requires("mounting", "nginx")

SIZE = 6 << 20
SMALL = 40_000

SENDFILE = "sendfile on; tcp_nopush on; open_file_cache max=100;"
DIRECT = "aio threads; directio 1m; output_buffers 2 512k; sendfile on;"
LOAD_S = 1


def fill(source: str) -> None:
    write(source, "large", os.urandom(SIZE))
    write(source, "small", os.urandom(SMALL))
    os.mkdir(f"{source}/slow")
    write(source, "slow/large", os.urandom(SIZE))


served = served_mount(fill, FAST)


def require_same(web: Web, served: Served, *names: str) -> None:
    assert web.get(*names) == [answer(os.path.join(served.source, name)) for name in names]


def load(web: Web, name: str) -> int:
    """The number of wrk's requests, which must all succeed."""
    command = ["wrk", "-t1", "-c4", f"-d{LOAD_S}s", "--timeout", "10", web.url(name)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert "Non-2xx" not in result.stdout
    assert "Socket errors" not in result.stdout, result.stdout
    found = re.search(r"(\d+) requests in", result.stdout)
    assert found is not None, result.stdout
    return int(found[1])


@requires("wrk")
def test_nginx_sends_files_of_the_mount_by_sendfile_under_load(
    served: Served, record: Record, tmp_path: Path
) -> None:
    with nginx(tmp_path, served.mountpoint, SENDFILE) as web, served.proof() as proof:
        require_same(web, served, "large", "small")
        proof.delivered = SIZE + SMALL
        answered = load(web, "large")
        if served.path == "passthrough":  # by splice, the first pass fills the mount's page cache
            proof.delivered += answered * SIZE
        require_same(web, served, "large", "small")
    record("nginx, sendfile on, under wrk", version("nginx", "-v"), "bodies of answers", proof)


def test_nginx_sends_files_of_the_mount_by_direct_reads_in_threads(
    served: Served, record: Record, tmp_path: Path
) -> None:
    with (
        nginx(tmp_path, served.mountpoint, DIRECT) as web,
        served.proof(delivered=SIZE + SMALL) as proof,
    ):
        require_same(web, served, "large", "small")
    record("nginx, aio threads; directio", version("nginx", "-v"), "bodies of answers", proof)


HAPROXY = """
global
    nbthread 1
    stats socket {directory}/admin level admin
    {user}
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
    option splice-response
frontend in
    bind 127.0.0.1:{port}
    default_backend out
backend out
    server nginx 127.0.0.1:{behind}
"""


def haproxy_shows(directory: Path) -> dict[str, str]:
    """The counters of ``show info``."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(directory / "admin"))
        client.sendall(b"show info\n")
        text = b"".join(iter(lambda: client.recv(1 << 16), b"")).decode()
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


@requires("haproxy")
def test_haproxy_splices_what_nginx_sends_from_the_mount(
    served: Served, record: Record, tmp_path: Path
) -> None:
    port = free_port()
    with nginx(tmp_path / "nginx", served.mountpoint, SENDFILE) as behind:
        configuration = tmp_path / "haproxy.cfg"
        user = "user root" if os.geteuid() == 0 else ""
        text = HAPROXY.format(directory=tmp_path, port=port, behind=behind.port, user=user)
        configuration.write_text(text)
        command = ["haproxy", "-db", "-f", str(configuration)]
        with (
            running(command, log=str(tmp_path / "haproxy.log"), ready=answers_on(port)),
            served.proof(delivered=SIZE + SMALL) as proof,
        ):
            require_same(Web(port), served, "large", "small")
            shown = haproxy_shows(tmp_path)
    # Some versions misspell the name. HAProxy does not splice bytes that arrive with a header.
    (spliced,) = (int(n) for name, n in shown.items() if name.startswith("TotalSplic"))
    assert spliced > SIZE * 0.9, shown
    record("HAProxy before nginx", version("haproxy", "-v"), "bodies of answers, spliced", proof)


def test_the_example_serves_the_mount_as_it_stands(
    served: Served, record: Record, tmp_path: Path
) -> None:
    with open(f"{CHECKOUT}/examples/nginx.conf") as file:
        text = file.read()
    port = free_port()
    for written, ours in {
        "listen 127.0.0.1:8080;": f"listen 127.0.0.1:{port};",
        "root /mnt/zc;": f"root {served.mountpoint};",
        "\nerror_log error.log;": "\nerror_log stderr;",
    }.items():
        assert text.count(written) == 1
        text = text.replace(written, ours)
    with (
        configured(tmp_path, port, f"daemon off;\n{text}") as web,
        served.proof(delivered=2 * SIZE + SMALL) as proof,
    ):
        require_same(web, served, "large", "small", "slow/large")
    record("nginx, examples/nginx.conf", version("nginx", "-v"), "bodies of answers", proof)
