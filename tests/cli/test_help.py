"""The help pages, which load no event loop."""

import subprocess
import sys

import pytest

from tests.cli.conftest import run_zcfuse

COMMANDS = [
    "mount",
    "umount",
    "list",
    "status",
    "explain",
    "warm",
    "top",
    "copies",
    "doctor",
    "completion",
    "setup",
    "bench",
]


def test_the_help_page_lists_every_command():
    result = run_zcfuse("--help")
    assert result.returncode == 0
    for command in COMMANDS:
        assert command in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_page(command):
    result = run_zcfuse(command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: zcfuse {command}")


def test_a_bare_zcfuse_shows_its_help_and_is_a_usage_error():
    result = run_zcfuse()
    assert result.returncode == 2
    assert "Commands" in result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["mount", "/nonexistent", "/"]])
def test_no_command_imports_the_event_loop_before_it_needs_it(arguments):
    # `mount` must fork before any library starts a thread.
    code = (
        "import sys\nfrom zcfuse.cli._errors import run\nfrom zcfuse.cli._group import zcfuse\n"
        "run(zcfuse, sys.argv[1:])\n"
        "sys.exit(bool({'trio', 'pyfuse3'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, timeout=30
    )
    assert result.returncode == 0
