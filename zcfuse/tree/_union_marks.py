"""Read the marks of overlayfs and OCI layers: whiteouts, opaque directories, redirects.

The source of the kernel's forms is Documentation/filesystems/overlayfs.rst (Linux 6.18), that of
the others the layer chapter of the OCI image specification.
"""

from __future__ import annotations

import errno
import stat
from typing import Final

import msgspec

from zcfuse.datapath import SourceDirectory
from zcfuse.tree._backing import IDENTITY_BYTES
from zcfuse.tree._types import Attributes

OCI_PREFIX: Final = b".wh."
OCI_OPAQUE: Final = b".wh..wh..opq"

# `trusted.` can only be written by root, `user.` by whoever owns the file. Looked at in this order.
_TRUSTED: Final = b"trusted.overlay."
_USER: Final = b"user.overlay."
_NAMESPACES: Final = (_TRUSTED, _USER)

_ABSENT: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM})
_CAP_SYS_ADMIN: Final = 21
_ALL_IDS: Final = ["0", "0", "4294967295"]  # uid_map of the initial user namespace


class Marks(msgspec.Struct, frozen=True, gc=False):
    """The marks in the extended attributes of a file or directory of a layer.

    `whiteout` counts for an empty regular file only. `opaque`: nothing of the layers below shows.
    `redirect` is where these have the file or directory, an absolute path or a name. `refused` says
    why metacopy or redirect cannot be followed; empty where they can.
    """

    whiteout: bool = False
    opaque: bool = False
    metacopy: bool = False
    redirect: bytes | None = None
    refused: str = ""


NO_MARKS: Final = Marks()


def read_marks(at: SourceDirectory, name: bytes, identity: bytes) -> Marks:
    """Return the marks of a name in an open directory."""
    whiteout, opaque, has_metacopy, has_redirect = at.marks(name)
    metacopy = _first(at, name, identity, b"metacopy") if has_metacopy else None
    redirect = _first(at, name, identity, b"redirect") if has_redirect else None
    return Marks(
        whiteout=whiteout,
        opaque=opaque,
        metacopy=metacopy is not None,
        redirect=None if redirect is None else redirect[1],
        refused=_refusal(metacopy, redirect),
    )


def is_device_whiteout(attributes: Attributes) -> bool:
    """Say whether it is a character device 0:0."""
    return stat.S_ISCHR(attributes.mode) and attributes.rdev == 0


def redirect_names(redirect: bytes) -> list[bytes]:
    """Return the names of the path, or the one name, that a redirect consists of."""
    return redirect.split(b"/")[1:] if redirect.startswith(b"/") else [redirect]


def may_read_trusted() -> bool:
    """Say whether this process sees `trusted.` attributes: xattr(7), CAP_SYS_ADMIN at the top."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        effective = next(line for line in status if line.startswith("CapEff:")).split()[1]
    with open("/proc/self/uid_map", encoding="ascii") as ids:
        initial = ids.read().split() == _ALL_IDS
    return initial and bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1)


def _first(
    at: SourceDirectory, name: bytes, identity: bytes, mark: bytes
) -> tuple[bytes, bytes] | None:
    """Return namespace and value of a mark; None if it is missing or unreadable."""
    for namespace in _NAMESPACES:
        try:
            value = at.get_xattr(name, identity[-IDENTITY_BYTES:], namespace + mark)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
        else:
            return None if value is None else (namespace, value)
    return None


def _refusal(metacopy: tuple[bytes, bytes] | None, redirect: tuple[bytes, bytes] | None) -> str:
    for what, mark in (("metacopy", metacopy), ("redirect", redirect)):
        # Its owner could name a file of another layer that he has no right to read.
        if mark is not None and mark[0] == _USER:
            return f"user.overlay.{what} is not followed, as whoever owns the file may have set it"
    if redirect is not None and not _is_sound(redirect[1]):
        return f"the redirect {redirect[1]!r} is no path"
    return ""


def _is_sound(redirect: bytes) -> bool:
    names = redirect_names(redirect)
    dubious = {b"", b".", b".."} & set(names)
    return not dubious and b"\0" not in redirect and not any(b"/" in name for name in names)
