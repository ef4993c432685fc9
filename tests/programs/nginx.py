"""nginx as a child, and an HTTP client that reads every byte."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.programs.servers import answers_on, free_port, running

CLIENT_DEADLINE_S: Final = 20
# Paths for nginx's files, so that it needs no system directory.
_SCAFFOLD: Final = """
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    {directives}
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""
_GET: Final = """
import hashlib, sys, urllib.request
for url in sys.argv[1:]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body = answer.read()
    print(answer.status, len(body), hashlib.sha256(body).hexdigest())
"""


@dataclass(frozen=True, slots=True)
class Web:
    """A server on loopback."""

    port: int

    def url(self, name: str) -> str:
        """The URL of a file."""
        return f"http://127.0.0.1:{self.port}/{name}"

    def get(self, *names: str) -> list[str]:
        """Fetch files; return the status, length and hash of each."""
        command = [sys.executable, "-I", "-c", _GET, *map(self.url, names)]
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=CLIENT_DEADLINE_S, check=True
        )
        return result.stdout.splitlines()


def answer(path: str) -> str:
    """The result of `Web.get` for a whole file."""
    with open(path, "rb") as file:
        body = file.read()
    return f"200 {len(body)} {hashlib.sha256(body).hexdigest()}"


@contextlib.contextmanager
def nginx(base: Path, root: str, directives: str) -> Iterator[Web]:
    """nginx with one worker that shows `root`; `directives` are those of its http block."""
    port = free_port()
    text = _SCAFFOLD.format(directives=directives, port=port, root=root)
    with configured(base, port, text) as web:
        yield web


@contextlib.contextmanager
def configured(base: Path, port: int, text: str) -> Iterator[Web]:
    """nginx in `base` with a given configuration, which must keep it in the foreground."""
    base.mkdir(exist_ok=True)
    configuration = base / "nginx.conf"
    # Root's nginx would run its workers as nobody, who cannot use the mount.
    user = "user root;\n" if os.geteuid() == 0 else ""
    configuration.write_text(user + text)
    command = ["nginx", "-p", str(base), "-c", str(configuration), "-e", "stderr"]
    log = str(base / "nginx.log")
    with running(command, log=log, ready=answers_on(port), stop=signal.SIGTERM):
        yield Web(port)
