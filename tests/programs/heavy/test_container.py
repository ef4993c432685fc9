"""A minimal Debian root filesystem, entered with chroot from the mount."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.programs.conftest import Record
from tests.programs.heavy.container_root import RELEASE, container_root
from tests.programs.served import FAST, Served, mounted_by
from tests.support import requires

DEADLINE_S = 100
# Of everything except the mounts over the root, because the machine's processes change.
ATTRIBUTES = (
    "find / -xdev -path /proc -prune -o -path /dev -prune"
    ' -o -printf "%p %y %m %U %G %n %s %T@ %l\\n" | sort'
)
# Commands to run in the root. The first reads every byte of it.
PROGRAMS = [
    ["sh", "-c", "find / -xdev -type f -print0 | sort -z | xargs -0 sha256sum"],
    ["sh", "-c", ATTRIBUTES],
    ["sh", "-c", 'for file in /etc/*; do if test -f "$file"; then md5sum "$file"; fi; done'],
    ["sh", "-c", "tar --sort=name -C / -cf - etc usr/share | sha256sum"],
    ["perl", "-e", 'print "$_ ", -s $_, "\\n" for sort glob "/usr/bin/*"'],
    ["dpkg", "-l"],
    ["dpkg", "--verify"],
]

# Like a container runtime: mounts the machine's devices and processes over the root's directories
# in a private namespace. Device files of the mount itself cannot be opened.
ENTER = [
    *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
    'mount --bind /dev "$0/dev" && mount --bind /proc "$0/proc" && exec chroot "$0" "$@"',
    "{}",
]

pytestmark = [
    pytest.mark.proof,
    requires("mounting", "root", "debootstrap"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module", params=FAST)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    base = tmp_path_factory.mktemp("container")
    with mounted_by(base, container_root(), request.param) as made:
        yield made


def test_programs_say_in_the_mounted_root_what_they_say_in_the_backing_one(
    served: Served, record: Record
) -> None:
    # The first command reads every file, and dpkg --verify reads those of the packages again.
    with served.proof(delivered=served.size() + served.size("usr")) as proof:
        for argv in PROGRAMS:
            served.same(*ENTER, *argv, timeout=DEADLINE_S)
    did = "a root entered with chroot: sh, find, sha256sum, tar, perl, dpkg; what they print"
    record(f"Debian {RELEASE}", release_of(served), did, proof)


def release_of(served: Served) -> str:
    """The release number in the root itself."""
    return served.native("cat", "{}/etc/debian_version").stdout.decode().strip()
