"""A minimal Debian root filesystem, entered with chroot from the mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs.conftest import Record
from tests.programs.frozen import PATH, frozen_mount
from tests.programs.heavy.container_root import RELEASE, container_root
from tests.programs.served import FAST, Served, mounted_by
from tests.support import requires

DEADLINE_S = 100
# Of everything except the mounts over the root, because the machine's processes change.
ATTRIBUTES = (
    "find / -xdev -path /proc -prune -o -path /dev -prune"
    ' -o -printf "%p %y %m %U %G %n %s %T@ %l\\n" | sort'
)
# An image has other sizes and link counts of directories.
FROZEN_ATTRIBUTES = ATTRIBUTES.replace(
    "-printf", '-type d -printf "%p %y %m %U %G %T@\\n" -o -printf', 1
)
LAYERS = 12
COPY = (
    'tar -C "$0" --xattrs --xattrs-include="*" --null --no-recursion -T - -cf -'
    ' | tar -C "$1" --xattrs --xattrs-include="*" --delay-directory-restore -xpf -'
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


@requires("erofs", "overlay layers")
def test_programs_say_the_same_in_a_root_frozen_from_twelve_layers(
    tmp_path: Path, record: Record
) -> None:
    root = container_root()
    with frozen_mount(tmp_path, root, layers_of(root, tmp_path)) as mount:
        served = Served(PATH, mount)
        with served.proof(delivered=served.size() + served.size("usr")) as proof:
            for argv in PROGRAMS:
                chosen = [FROZEN_ATTRIBUTES if word == ATTRIBUTES else word for word in argv]
                served.same(*ENTER, *chosen, timeout=DEADLINE_S)
    did = f"a root of {LAYERS} layers, frozen and entered with chroot; what the programs print"
    record(f"Debian {RELEASE}", release_of(served), did, proof)


def layers_of(root: str, base: Path) -> list[str]:
    """Spread a root over layers, the topmost first; some hide older files and a removed one."""
    members: list[list[str]] = [["."] for _ in range(LAYERS)]
    for at, directories, files in os.walk(root):
        for name in [*directories, *files]:
            path = os.path.join(at, name)
            shared = os.path.isdir(path) and not os.path.islink(path)
            # All links of a file go to one layer.
            chosen = members if shared else [members[os.lstat(path).st_ino % LAYERS]]
            for layer in chosen:
                layer.append(os.path.relpath(path, root))
    layers = [str(base / f"layer-{number}") for number in range(LAYERS)]
    for layer, names in zip(layers, members, strict=True):
        os.mkdir(layer)
        given = b"\0".join(os.fsencode(name) for name in names)
        subprocess.run(
            ["bash", "-o", "pipefail", "-c", COPY, root, layer],
            input=given,
            check=True,
            timeout=DEADLINE_S,
        )
    for name in members[0]:
        if os.path.isfile(old := os.path.join(layers[0], name)) and not os.path.islink(old):
            Path(layers[-1], name).write_text("an older version")
    Path(layers[-1], "etc", "removed").write_text("removed")
    os.mknod(os.path.join(layers[1], "etc", "removed"), 0o20000)
    return layers


def release_of(served: Served) -> str:
    """The release number in the root itself."""
    return served.native("cat", "{}/etc/debian_version").stdout.decode().strip()
