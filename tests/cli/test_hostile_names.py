"""Names from other users reach the terminal as escapes, and programs unchanged."""

import json
import os

import pytest

from tests.support import requires

pytestmark = requires("mounting")

HOSTILE = "\x1b[2J\nroot  alive\x9b\u202e"


@pytest.fixture
def hostile(zcfuse, tmp_path):
    """A mount whose source, mount point and only file have hostile names."""
    source, mountpoint = tmp_path / f"s{HOSTILE}", tmp_path / f"m{HOSTILE}"
    source.mkdir()
    mountpoint.mkdir()
    (source / HOSTILE).write_bytes(b"bytes")
    assert zcfuse("mount", "--no-directory-lease", str(source), str(mountpoint)).returncode == 0
    assert (mountpoint / HOSTILE).read_bytes() == b"bytes"
    yield str(mountpoint)
    assert zcfuse("umount", str(mountpoint)).returncode == 0


def test_no_output_has_control_characters_or_forged_rows(zcfuse, hostile):
    file = os.path.join(hostile, HOSTILE)
    for arguments in (["list"], ["status", hostile], ["top", "--once", hostile],
                      ["explain", file], ["warm", file], ["warm", file + "gone"]):  # fmt: skip
        result = zcfuse(*arguments)
        for line in (result.stdout + result.stderr).splitlines():
            assert line.isprintable(), (arguments, line)
            assert not line.startswith("root  alive")


def test_json_has_the_exact_names(zcfuse, hostile):
    assert json.loads(zcfuse("status", "--json", hostile).stdout)["mountpoint"] == hostile
    mounts = json.loads(zcfuse("list", "--json").stdout)
    assert hostile in [mount["mountpoint"] for mount in mounts]
    file = os.path.join(hostile, HOSTILE)
    assert json.loads(zcfuse("explain", "--json", file).stdout)["file"]["path"] == file
