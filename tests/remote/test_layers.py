"""A server as a layer: of a union, beside local layers, and below a filter."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.remote.conftest import LARGE, SMALL, Shown
from tests.remote.server import WebServer
from tests.support import Daemon, requires
from tests.support._user import CHECKOUT

pytestmark = requires("mounting")

_LISTED = (
    "import os, sys; print(sorted((e.name, e.stat().st_size) for e in os.scandir(sys.argv[1])))"
)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A directory with another "small", "local", and a whiteout of "gone"."""
    directory = tmp_path / "local"
    directory.mkdir()
    (directory / "small").write_bytes(b"local")
    (directory / "local").write_bytes(b"12345")
    (directory / ".wh.gone").touch()
    return directory


def _listed(daemon: Daemon) -> str:
    return daemon.python(_LISTED, daemon.mountpoint).stdout.decode().strip()


@pytest.mark.parametrize("timeout", ["0", "60"])
@pytest.mark.parametrize("above", ["local", "server"])
def test_a_server_is_a_layer_above_or_below_a_directory(
    shown: Shown, web: WebServer, local: Path, above: str, timeout: str
):
    web.files["gone"] = b"hidden by the directory, if that is above"
    layers = [str(local), web.url]
    if above == "server":
        layers.reverse()
    daemon = shown(*(f"--layer={one}" for one in layers), "--cache-timeout", timeout, source="")
    small, gone = (b"local", 0) if above == "local" else (SMALL, len(web.files["gone"]))
    names = {
        "large": len(LARGE),
        "small": len(small),
        "local": 5,
        **({"gone": gone} if gone else {}),
    }
    for _ in range(2):
        assert _listed(daemon) == str(sorted(names.items()))
    assert daemon.run("cat", daemon.path("small")).stdout == small
    for _ in range(2):
        found = daemon.run("sha256sum", daemon.path("large")).stdout.split()[0].decode()
        assert found == hashlib.sha256(LARGE).hexdigest()
    assert daemon.run("cat", daemon.path("absent"), check=False).returncode == 1
    [told] = daemon.status()["tree"]["remotes"].values()
    assert told["fetched_bytes"] == web.fetched


@requires("passthrough")
def test_the_kernel_serves_a_complete_file_of_a_layer(shown: Shown, web: WebServer, local: Path):
    daemon = shown(f"--layer={local}", f"--layer={web.url}", source="")
    for _ in range(2):
        daemon.run("cat", daemon.path("large"))
    assert daemon.status()["datapath"]["opens"]["passthrough"] == 1


def test_a_name_that_a_server_gains_is_found_once_the_cache_timeout_is_over(
    shown: Shown, web: WebServer, local: Path
):
    web.listed = False  # each name costs a request
    options = ("--cache-timeout", "0")
    daemon = shown(f"--layer={local}", f"--layer={web.url}", *options, source="")
    assert daemon.run("cat", daemon.path("new"), check=False).returncode == 1
    web.files["new"] = b"new"
    assert daemon.run("cat", daemon.path("new")).stdout == b"new"


def test_a_filter_hides_names_of_a_server(shown: Shown, web: WebServer):
    daemon = shown("--hide", "l*")
    assert _listed(daemon) == str([("small", len(SMALL))])
    assert daemon.run("cat", daemon.path("large"), check=False).returncode == 1
    assert daemon.run("cat", daemon.path("small")).stdout == SMALL


def test_kept_names_of_a_layer_are_shown_while_its_server_is_away(
    shown: Shown, web: WebServer, local: Path
):
    options = ("--cache-timeout", "0", "--deadline", "10")
    daemon = shown(f"--layer={local}", f"--layer={web.url}", *options, source="")
    before = _listed(daemon)
    web.close()
    result = daemon.python(_LISTED, daemon.mountpoint, timeout=100)
    assert result.stdout.decode().strip() == before


def test_changes_do_not_go_above_a_server(web: WebServer, local: Path, tmp_path: Path):
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    layers = ["--upper", str(local), "--layer", web.url]
    command = [sys.executable, "-m", "zcfuse", "mount", *layers, str(mountpoint)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=CHECKOUT)
    assert result.returncode == 2
    assert "--upper" in result.stderr
    assert "URL" in result.stderr
