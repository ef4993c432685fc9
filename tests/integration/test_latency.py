"""The histograms of a real mount, over /dev/fuse and over a ring."""

import os

import pytest

from tests.integration.conftest import RING, RING_OPTIONS, write
from tests.support import requires

pytestmark = requires("mounting")


@pytest.mark.parametrize("transport", ["dev", RING])
def test_every_request_of_a_mount_is_in_its_histograms(request, mounted, source, transport):
    if transport == "ring":
        request.getfixturevalue("ring_switch")
    for number in range(40):
        write(source, f"file{number}", os.urandom(40_000))
    options = RING_OPTIONS if transport == "ring" else ("--path", "pool")
    daemon = mounted(*options)
    daemon.run("sh", "-c", 'cat "$0"/* > "$0"/../out && ls -lR "$0" && ! cat "$0"/x', daemon.path())
    document = daemon.status()["datapath"]
    counted = {name: one["count"] for name, one in document["latency"]["operations"].items()}
    assert counted == document["requests"]
    by_path = {name: one["count"] for name, one in document["latency"]["paths"].items()}
    assert by_path == {"pool": document["paths"]["pool"]["requests"]} == {"pool": counted["READ"]}
