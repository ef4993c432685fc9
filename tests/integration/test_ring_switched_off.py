"""FUSE over io_uring, where the kernel has it switched off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.counts import counts
from tests.support import DaemonError, find_mount, requires
from tests.support._rings import RING_SWITCH, rings_off

pytestmark = [
    requires("root", "fuse", "io_uring"),
    pytest.mark.usefixtures("switched_off"),
    pytest.mark.alone,
]


@pytest.fixture
def switched_off() -> Iterator[None]:
    """Switched off, whatever the machine's own setting is."""
    with rings_off():
        yield


def test_auto_stays_with_the_device_where_the_kernel_has_it_switched_off(mounted) -> None:
    found = counts(mounted("--path", "pool")).datapath["transport"]
    assert found["kind"] == "dev"
    assert found["reason"] == "ring_switched_off"


def test_a_ring_that_is_demanded_and_switched_off_is_refused_in_one_line(
    mounted, mountpoint
) -> None:
    with pytest.raises(DaemonError) as refused:
        mounted("--transport", "uring")
    assert (refused.value.status, refused.value.log.count("\n")) == (1, 1)
    assert RING_SWITCH in refused.value.log
    assert find_mount(mountpoint) is None
