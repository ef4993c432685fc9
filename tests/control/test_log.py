"""The log escapes names and limits each kind of message."""

import io
import logging
import os
import socket
import stat

import pytest

from zcfuse.control import _log, _log_limit
from zcfuse.linux._mounting import MountError
from zcfuse.text import escaped

NAME = "a\x1b[31m\n2026-01-01 00:00:00,000 ERROR zcfuse: forged\u202e\udcff"


@pytest.fixture
def log():
    """A log as the daemon sets it up, and its output stream."""
    root, stream = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    handler = _log_limit.LimitedHandler(stream)
    handler.setFormatter(_log._Formatter(_log._FORMAT))
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    yield logging.getLogger("zcfuse.test"), stream
    handler.close()
    root.handlers[:] = before
    root.setLevel(level)


def test_a_message_is_one_line_without_control_characters(log):
    logger, stream = log
    logger.warning("the name %s", NAME)
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert line.endswith(f"the name {escaped(NAME)}")


def test_a_traceback_forges_no_message(log):
    logger, stream = log
    try:
        raise ValueError(NAME)
    except ValueError:
        logger.exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("failed")
    assert rest
    assert all(line.startswith("  ") and line.isprintable() for line in rest)


def test_each_kind_of_message_is_limited_and_the_rest_counted(log, monkeypatch):
    logger, stream = log
    monkeypatch.setattr(_log_limit, "MESSAGES_PER_PERIOD", 3)
    for number in range(100):
        logger.warning("one kind: %d", number)
    logger.warning("another kind")
    assert stream.getvalue().count("one kind") == 3
    assert stream.getvalue().count("another kind") == 1
    monkeypatch.setattr(_log_limit, "PERIOD_S", 0.0)
    logger.warning("after the period")
    assert "97 more messages of this kind left out: one kind: %d" in stream.getvalue()


def test_messages_left_out_are_counted_when_the_log_is_closed(log, monkeypatch):
    logger, stream = log
    monkeypatch.setattr(_log_limit, "MESSAGES_PER_PERIOD", 0)
    logger.warning("never written")
    logging.getLogger().handlers[0].close()
    assert "1 more messages of this kind left out: never written" in stream.getvalue()


def test_information_that_no_request_causes_is_not_limited(log):
    logger, stream = log
    for number in range(100):
        logger.info("archive %d", number)
    assert len(stream.getvalue().splitlines()) == 100


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00e9", "plain \u00e9"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("\u202e\x9b\xa0", "\\u202e\\x9b\\xa0"),
        ("\udcff", "\\xff"),
        ("\ud800", "\\ud800"),
        (b"\xff\n", "\\xff\\n"),
    ],
)
def test_text_is_escaped_to_one_printable_line(text, shown):
    assert escaped(text) == shown


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_a_new_log_file_is_its_owners_alone_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with _log.open_log(str(tmp_path / "log")) as file:
            file.write("line\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["link", "fifo", "read fifo", "socket"])
def test_a_log_file_is_no_link_and_nothing_to_wait_for(tmp_path, kind):
    path, reader = tmp_path / "log", -1
    if kind == "link":
        path.symlink_to(tmp_path / "victim")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    else:
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if kind == "read fifo" else -1
    with pytest.raises(MountError, match="name a regular file") as caught:
        _log.open_log(str(path))
    assert caught.value.usage
    assert not (tmp_path / "victim").exists()
    if reader >= 0:
        os.close(reader)
