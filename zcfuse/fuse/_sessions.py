"""One pyfuse3 for each mount of a process.

pyfuse3 keeps its only session in globals of its extension module. The first mount uses the module
that `import pyfuse3` gives; each further one at the same time uses a copy of it, loaded from a
memfd, which has separate globals. Modules cannot be unloaded: a copy that a mount no longer uses
serves the next one. Every type that pyfuse3 checks (EntryAttributes, FileInfo, FUSEError) must
come from the module of the mount.
"""

from __future__ import annotations

import errno
import importlib.machinery
import importlib.util
import os
import shutil
import threading
from collections.abc import Awaitable, Callable, Collection
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

import pyfuse3

if TYPE_CHECKING:
    from collections.abc import Iterator

ReaddirReply = Callable[[pyfuse3.ReaddirToken, bytes, pyfuse3.EntryAttributes, int], bool]


class Session(Protocol):
    """The part of the module pyfuse3, or of a copy of it, that zcfuse uses."""

    EntryAttributes: type[pyfuse3.EntryAttributes]
    FileInfo: type[pyfuse3.FileInfo]
    StatvfsData: type[pyfuse3.StatvfsData]
    FUSEError: type[pyfuse3.FUSEError]
    readdir_reply: ReaddirReply
    main: Callable[[int, int], Awaitable[None]]
    terminate: Callable[[], None]
    init: Callable[[Any, str, Collection[str]], None]
    close: Callable[[bool], None]
    invalidate_entry: Callable[[Any, Any], None]
    invalidate_inode: Callable[[Any, bool], None]


FIRST: Session = cast("Session", pyfuse3)

_lock = threading.Lock()
_free: list[Session] = [FIRST]


@contextmanager
def own_session() -> Iterator[Session]:
    """Have a session that no other mount of this process uses, for the length of the block.

    Raises:
        OSError: a further copy of pyfuse3 cannot be loaded.
    """
    with _lock:
        session = _free.pop() if _free else _copy()
    try:
        yield session
    finally:
        with _lock:
            _free.append(session)


def _copy() -> Session:
    """Load another copy of pyfuse3's extension module."""
    # The loader takes two files for one if their paths are equal, so the descriptor stays open.
    memory = os.memfd_create("pyfuse3", os.MFD_CLOEXEC)
    error_type = pyfuse3.FUSEError
    try:
        with open(pyfuse3.__file__, "rb") as source, open(memory, "wb", closefd=False) as target:
            shutil.copyfileobj(source, target)
        path = f"/proc/self/fd/{memory}"
        loader = importlib.machinery.ExtensionFileLoader("pyfuse3", path)
        spec = importlib.util.spec_from_file_location(
            "pyfuse3", path, loader=loader, submodule_search_locations=list(pyfuse3.__path__)
        )
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except ImportError as error:
        os.close(memory)
        raise OSError(errno.ENOEXEC, f"pyfuse3 cannot be loaded again: {error}") from error
    except BaseException:
        os.close(memory)
        raise
    finally:
        # Loading puts the copy's type there, for the base class that all of them share.
        pyfuse3._pyfuse3.FUSEError = error_type  # type: ignore[attr-defined]
    return cast("Session", module)
