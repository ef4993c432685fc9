"""Lines have a level only when they go to the journal."""

import os
import re
import signal

import pytest

from tests.cli.conftest import run_zcfuse
from tests.cli.service import DEADLINE_S, Journal, manager
from tests.support import find_mount, requires

pytestmark = requires("mounting")


def test_an_error_of_the_command_line_has_its_level():
    journal = Journal()
    assert journal.run("status", "/nowhere").wait(DEADLINE_S) == 2
    (line,) = journal.lines()
    assert line.startswith("<3>zcfuse: /nowhere: ")


def test_a_stream_that_is_not_the_journal_s_has_none():
    # Children of a service inherit the variable, even with another standard error.
    result = run_zcfuse("status", "/nowhere", env=Journal().environment)
    assert result.stderr.startswith("zcfuse: /nowhere: ")


@pytest.mark.parametrize(("level", "levels"), [("info", {"6"}), ("debug", {"6", "7"})])
def test_the_daemon_s_lines_have_their_levels_and_no_time(
    tmp_path, source, mountpoint, level, levels
):
    journal = Journal()
    with manager(str(tmp_path / "notify")) as told:
        arguments = ("mount", "--foreground", "--log-level", level, source, mountpoint)
        daemon = journal.run(*arguments, **told.environment)
        told.until("READY")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(DEADLINE_S) == 0
    lines = journal.lines()
    assert any(re.match(r"<6>zcfuse\.\S+: process \d+ serves ", line) for line in lines)
    assert {line[1] for line in lines} <= levels
    assert "6" in {line[1] for line in lines}


def test_every_line_of_a_traceback_has_its_level():
    journal = Journal()
    code = (
        "import logging, sys\nfrom zcfuse.control._log import set_up_logging\n"
        "set_up_logging(sys.stderr)\ntry:\n    raise ValueError('a\\nb')\n"
        "except ValueError:\n    logging.getLogger('x').exception('it failed')\n"
        "logging.getLogger('x').warning('careful')\n"
    )
    assert journal.python("-c", code).wait(DEADLINE_S) == 0
    lines = journal.lines()
    assert lines[0] == "<3>x: it failed"
    assert "<3>  Traceback (most recent call last):" in lines
    assert lines[-3:] == ["<3>  ValueError: a", "<3>  b", "<4>x: careful"]


def test_a_daemon_in_the_background_goes_on_writing_to_the_journal(source, mountpoint):
    journal = Journal()
    assert journal.run("mount", source, mountpoint).wait(DEADLINE_S) == 0
    assert run_zcfuse("umount", mountpoint).returncode == 0
    assert find_mount(os.path.realpath(mountpoint)) is None
    lines = journal.lines()
    assert any(line.startswith("<6>") and f"unmounted {mountpoint}" in line for line in lines)


@pytest.mark.parametrize(("level", "said"), [("info", True), ("warning", False)])
def test_the_log_level_holds_for_a_file_too(zcfuse, tmp_path, source, mountpoint, level, said):
    log = tmp_path / "log"
    options = f"log_file={log},log_level={level}"
    assert zcfuse("mount", "-o", options, source, mountpoint).returncode == 0
    assert zcfuse("umount", mountpoint).returncode == 0
    assert (f"unmounted {mountpoint}" in log.read_text()) == said
    assert not log.read_text().startswith("<")
