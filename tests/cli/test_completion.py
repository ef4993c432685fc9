"""Completion by the shells themselves, with zcfuse's scripts."""

import json
import os
import pty
import select
import shutil
import subprocess
import time

import click
import pytest

from tests.cli.conftest import DEADLINE_S, run_zcfuse
from tests.support import requires
from tests.support._user import CHECKOUT

# At TAB bash calls the function for the words typed so far.
COMPLETE = """
source "$SCRIPT"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
compopt() { printf 'compopt %s %s\\n' "$@"; }
function=$(complete -p zcfuse | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
"$function" zcfuse
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> str:
    """A file with the output of ``zcfuse completion bash``."""
    path = tmp_path_factory.mktemp("completion") / "zcfuse"
    path.write_text(run_zcfuse("completion", "bash").stdout)
    return str(path)


@pytest.fixture
def complete(commands, script):
    """The candidates that bash offers for the last of these words."""

    def run(*words: str) -> list[str]:
        result = subprocess.run(
            ["bash", "--norc", "-c", COMPLETE, "bash", "zcfuse", *words],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            cwd=CHECKOUT,
            env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "SCRIPT": script},
        )
        assert (result.returncode, result.stderr) == (0, "")
        return [line for line in result.stdout.splitlines() if line]

    return run


def test_commands_and_options(complete):
    assert {"mount", "umount", "status", "setup"} <= set(complete(""))
    assert complete("comp") == ["completion"]
    assert complete("umount", "--w") == ["--wait"]
    assert complete("completion", "") == ["bash", "zsh", "fish"]


def test_bench_has_a_command_and_takes_directories(complete):
    assert complete("bench", "") == ["compopt -o dirnames", "transfer"]
    assert complete("bench", "x") == ["compopt -o dirnames"]
    assert "--html" in complete("bench", "transfer", "--h")


def test_what_options_take(complete):
    assert complete("mount", "--path", "p") == ["pool", "passthrough"]
    assert complete("mount", "--transport", "u") == ["uring"]
    assert complete("mount", "--log-level", "w") == ["warning"]
    assert complete("mount", "-o", "ro,allow") == ["ro,allow_other"]
    assert complete("mount", "-o", "l") == ["layer=", "lock_budget=", "log_file=", "log_level="]


def test_names_of_files_are_left_to_the_shell(complete):
    assert complete("mount", "--tree", "x") == ["compopt -o default"]
    assert complete("mount", "source", "x") == ["compopt -o dirnames"]
    assert complete("umount", "/no/mount/") == ["compopt -o dirnames"]


@requires("mounting")
def test_the_mounts_that_are_there(complete, mounted):
    daemon = mounted()
    for command in ("umount", "status"):
        assert daemon.mountpoint in complete(command, "")
        assert complete(command, daemon.mountpoint[:-1]) == [daemon.mountpoint]


def test_every_mountpoint_of_a_command_is_completed():
    from zcfuse.cli._completion import mountpoints
    from zcfuse.cli._group import zcfuse

    context = click.Context(zcfuse)
    for name in zcfuse.list_commands(context):
        for parameter in zcfuse.get_command(context, name).params:
            if parameter.name == "mountpoint" and name != "mount":
                assert parameter._custom_shell_complete is mountpoints, name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_and_what_setup_puts_in_place_are_for_that_shell(shell):
    result = run_zcfuse("completion", shell)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"_ZCFUSE_COMPLETE={shell}_complete" in result.stdout
    program = shutil.which(shell)
    if program is not None:
        checked = subprocess.run(
            [program, "-n"], input=result.stdout, capture_output=True, text=True, timeout=DEADLINE_S
        )
        assert (checked.returncode, checked.stderr) == (0, "")


def test_bash_completes_at_tab_by_the_file_that_setup_puts_in_place(commands):
    script = f"{CHECKOUT}/zcfuse/share/completions/zcfuse"
    child, terminal = pty.fork()
    if child == 0:
        os.environ["PATH"] = f"{commands}:{os.environ['PATH']}"
        os.execvp("bash", ["bash", "--norc", "-i"])
    try:
        os.write(terminal, f"PS1=; . {script}; echo re''ady\n".encode())
        _read_until(terminal, b"ready\r\n")
        os.write(terminal, b"zcfuse compl\tfish | head -1\n")
        assert b"function _zcfuse_completion" in _read_until(terminal, b"completion;")
    finally:
        os.write(terminal, b"exit\n")
        os.close(terminal)
        os.waitpid(child, 0)


def _read_until(terminal: int, wanted: bytes) -> bytes:
    deadline = time.monotonic() + DEADLINE_S
    seen = b""
    while wanted not in seen and time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 1 << 16)
    assert wanted in seen, json.dumps(seen.decode(errors="replace"))
    return seen
