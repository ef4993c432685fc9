"""Random stacks of layers on disk, as overlayfs and as OCI images write them.

Equal seeds make equal stacks. There are few names, so that layers overlap often.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NAMES: Final = ("a", "b", "c", "d")
DEPTH: Final = 3
ATTRIBUTE_WHITEOUTS: Final = (b"a1", b"b1")
# One size for all files, because a metacopy has the size of the file with its bytes.
SIZE: Final = 5000
_OLDEST_S: Final = 1_500_000_000


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers, the topmost first."""

    layers: tuple[str, ...]


class Builder:
    """Fills one layer. `namespace` of the marks is "trusted" or "user"; `links` adds redirects.

    `attributes` adds whiteouts by attribute (Linux 6.7).
    """

    def __init__(
        self, rng: random.Random, namespace: str, *, links: bool = False, attributes: bool = True
    ) -> None:
        self._rng = rng
        self._namespace = namespace
        self._links = links
        self._attributes = attributes
        self._files: list[Path] = []

    def fill(self, directory: Path, depth: int = 0) -> None:
        """Create an entry, or none, under each of the names."""
        makers: list[tuple[int, Callable[[Path, int], None]]] = [
            (20, self._file),
            (18 if depth < DEPTH else 0, self._directory),
            (4, self._symlink),
            (2, self._fifo),
            (8, self._whiteout),
            (3, self._hard_link),
            (3, self._empty),
            (4 if self._links else 0, self._metacopy),
        ]
        weights = [weight for weight, _ in makers]
        for name in NAMES:
            if self._rng.random() < 0.6:
                _, make = self._rng.choices(makers, weights)[0]
                make(directory / name, depth)
        self._age(directory)

    def _mark(self, path: Path, mark: str, value: bytes) -> None:
        os.setxattr(path, f"{self._namespace}.overlay.{mark}", value, follow_symlinks=False)

    def _age(self, path: Path) -> None:
        """Give it a distinct time."""
        when = (_OLDEST_S + self._rng.randrange(10**8)) * 10**9 + self._rng.randrange(10**9)
        os.utime(path, ns=(when, when), follow_symlinks=False)

    def _note(self, path: Path) -> None:
        if self._rng.random() < 0.3:
            os.setxattr(path, "user.note", self._rng.randbytes(4))
        if self._rng.random() < 0.1:
            self._mark(path, "overlay.opaque", b"y")  # from an overlayfs inside

    def _file(self, path: Path, depth: int) -> None:
        path.write_bytes(self._rng.randbytes(SIZE))
        path.chmod(self._rng.choice((0o644, 0o600, 0o755)))
        self._note(path)
        self._age(path)
        self._files.append(path)

    def _empty(self, path: Path, depth: int) -> None:
        path.touch()
        self._age(path)

    def _directory(self, path: Path, depth: int) -> None:
        path.mkdir()
        self._note(path)
        kind = self._rng.random()
        if kind < 0.15:
            self._mark(path, "opaque", b"y")
        elif kind < 0.3 and self._attributes:
            self._mark(path, "opaque", b"x")
            self._attribute_whiteouts(path)
        elif kind < 0.55 and self._links:
            self._mark(path, "redirect", self._elsewhere())
        self.fill(path, depth + 1)
        path.chmod(self._rng.choice((0o755, 0o700)))

    def _attribute_whiteouts(self, directory: Path) -> None:
        for name in map(os.fsdecode, ATTRIBUTE_WHITEOUTS):
            (directory / name).touch()
            self._mark(directory / name, "whiteout", b"")

    def _elsewhere(self) -> bytes:
        names = self._rng.choices(NAMES, k=self._rng.randint(1, 2))
        absolute = self._rng.random() < 0.6
        return ("/" + "/".join(names) if absolute else names[0]).encode()

    def _symlink(self, path: Path, depth: int) -> None:
        path.symlink_to(self._rng.choice((*NAMES, "/etc/passwd", "../a")))
        self._age(path)

    def _fifo(self, path: Path, depth: int) -> None:
        os.mkfifo(path)
        self._age(path)

    def _whiteout(self, path: Path, depth: int) -> None:
        os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))

    def _hard_link(self, path: Path, depth: int) -> None:
        if self._files:
            os.link(self._rng.choice(self._files), path)

    def _metacopy(self, path: Path, depth: int) -> None:
        path.touch()
        os.truncate(path, SIZE)
        self._mark(path, "metacopy", b"")
        if self._rng.random() < 0.5:
            self._mark(path, "redirect", self._elsewhere())
        self._age(path)


class OciBuilder(Builder):
    """Fills a layer as an OCI image does."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng, "user")

    def fill(self, directory: Path, depth: int = 0) -> None:
        """Create an entry, or none, under each name, and hide some of the layers below."""
        super().fill(directory, depth)
        for name in NAMES:
            if self._rng.random() < 0.15:
                (directory / f".wh.{name}").touch()
        if depth and self._rng.random() < 0.15:
            (directory / ".wh..wh..opq").touch()
        self._age(directory)

    def _mark(self, path: Path, mark: str, value: bytes) -> None:
        """An image has none of overlayfs's marks."""

    def _whiteout(self, path: Path, depth: int) -> None:
        path.with_name(f".wh.{path.name}").touch()

    def _attribute_whiteouts(self, directory: Path) -> None:
        """An image has none of overlayfs's marks."""


def overlay_stack(base: Path, seed: int, namespace: str, **options: bool) -> Stack:
    """Make two to four layers below `base`; the options are the builder's."""
    rng = random.Random(f"{namespace} {options.get('links', False)} {seed}")
    return _stack(base, rng, lambda: Builder(rng, namespace, **options))


def oci_stack(base: Path, seed: int) -> Stack:
    """Make two to four layers of an image below `base`."""
    rng = random.Random(f"oci {seed}")
    return _stack(base, rng, lambda: OciBuilder(rng))


def _stack(base: Path, rng: random.Random, builder: Callable[[], Builder]) -> Stack:
    layers = []
    for number in range(rng.randint(2, 4)):
        layer = base / f"layer{number}"
        layer.mkdir(parents=True)
        builder().fill(layer)
        layers.append(str(layer))
    return Stack(tuple(layers))
