"""The bounded unmount, on stand-ins that only report how busy they are."""

import errno
import threading
import time

from zcfuse.admin._unmounting import unmount_within
from zcfuse.linux._mounting import MountError


class FakeMount:
    mountpoint = "/mnt/zc"

    def __init__(self, *failures, abandon=None):
        self._failures = list(failures)
        self._abandon_error = abandon
        self.abandoned = False

    def unmount(self):
        if self._failures:
            failure = self._failures.pop(0) if len(self._failures) > 1 else self._failures[0]
            if failure is not None:
                raise failure

    def abandon(self):
        if self._abandon_error is not None:
            raise self._abandon_error
        self.abandoned = True


BUSY = OSError(errno.EBUSY, "Device or resource busy")


def test_an_idle_mount_goes_without_a_word():
    outcome = unmount_within(FakeMount(), 5)
    assert (outcome.lazy, outcome.failed, outcome.message) == (False, False, "")


def test_a_mount_that_becomes_idle_in_time_goes_without_a_word():
    mount = FakeMount(BUSY, BUSY, None)
    assert unmount_within(mount, 5).message == ""
    assert not mount.abandoned


def test_a_mount_that_stays_busy_is_abandoned_after_the_wait_with_a_line():
    mount = FakeMount(BUSY)
    began = time.monotonic()
    outcome = unmount_within(mount, 0.2)
    assert 0.2 <= time.monotonic() - began < 5
    assert mount.abandoned
    assert outcome.lazy
    assert outcome.message.startswith("/mnt/zc: was busy (waited 0.2 s)")


def test_who_is_in_a_hurry_does_not_wait():
    hurry = threading.Event()
    hurry.set()
    mount = FakeMount(BUSY)
    began = time.monotonic()
    assert unmount_within(mount, 60, hurry).lazy
    assert time.monotonic() - began < 5


def test_another_error_than_busy_is_reported_at_once():
    outcome = unmount_within(FakeMount(OSError(errno.EPERM, "Operation not permitted")), 60)
    assert outcome.failed
    assert outcome.message.startswith("/mnt/zc: Operation not permitted")


def test_a_mount_that_cannot_be_abandoned_is_reported():
    error = MountError("fusermount3 is not installed")
    outcome = unmount_within(FakeMount(BUSY, abandon=error), 0)
    assert outcome.failed
    assert "fusermount3 is not installed" in outcome.message
