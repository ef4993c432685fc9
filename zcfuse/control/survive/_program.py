"""The part of a program in a mount that survives it: it starts the holder, or takes over from it.

The holder is no parent of the program, and starts none. It knows the program by the kernel's word
for the other end of a socket, and its end by a pidfd. All calls here block; each wait is bounded.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import fields
from typing import Final, NoReturn

from zcfuse.admin.status import StatusError, connect_holder, find_mount, listen_for_programs
from zcfuse.control.survive._link import HolderRefusedError, Link, Takeover
from zcfuse.control.survive._survival import Survival, UnmountedError, layout_of_state
from zcfuse.datapath import holder_program
from zcfuse.linux import MountEntry, MountError
from zcfuse.options import MountOptions

log = logging.getLogger(__name__)

# It answers at once, unless the machine is very busy.
_ANSWER_S: Final = 10.0
_OPTIONS: Final = "options"
# The kernel, or what INIT agreed on, holds the mount to these.
_FIXED: Final = ("path", "coherence", "allow_other", "stack_depth", "immutable", "noexec")


class ProgramSurvival(Survival):
    """A program's part in keeping a mount over its own end."""

    is_program = True

    def __init__(self, link: Link, takeover: Takeover, options: MountOptions) -> None:
        super().__init__(link, takeover)
        self._free = True
        self._fixed = {name: getattr(options, name) for name in _FIXED}
        if not self.first:
            self._check_options()

    def give_up(self, why: str) -> None:
        """Note that a part failed: the mount ends, for a successor would fail in the same way."""
        log.error("%s: the mount ends", why)

    async def renew(self) -> None:
        """Refuse an upgrade.

        Raises:
            MountError: always.
        """
        raise MountError("a program serves this mount: start that program again")

    def hand_over(self) -> NoReturn:
        """Refuse an upgrade; see `renew`."""
        raise MountError("a program serves this mount: start that program again")

    def leave(self, *, free: bool) -> None:
        """Leave the mount to the next program.

        Parameters:
            free: whether no thread of this process works on a request any more. Otherwise the next
                program must wait for the end of this process.
        """
        self._free = free
        with contextlib.suppress(OSError):  # the holder may be gone
            self._link.handing_over()

    def close_if_free(self) -> None:
        """Tell the holder that nothing of this process serves, unless a thread may still do so."""
        if self._free:
            self._link.close()

    def _announce(self, device: tuple[int, int]) -> None:
        kept = os.memfd_create("zcfuse-options", os.MFD_CLOEXEC)
        os.write(kept, json.dumps(self._fixed).encode())
        self._keep_all(_OPTIONS, [kept])
        os.close(kept)
        listener, directory, name = listen_for_programs(device)
        with listener:
            self._link.listen(listener, directory, name)
        os.close(directory)

    def _check_options(self) -> None:
        (kept,) = self._numbered(_OPTIONS) or (-1,)
        if kept < 0:
            raise MountError("attach: the holder's records are not complete: unmount, mount again")
        found: Mapping[str, object] = json.loads(os.pread(kept, os.fstat(kept).st_size, 0))
        for name, value in self._fixed.items():
            if found.get(name) != value:
                raise MountError(
                    f"attach: {name} is {found.get(name)!r} for this mount: give the same, or"
                    " unmount and mount again",
                    usage=True,
                )


def start_holder(options: MountOptions) -> ProgramSurvival:
    """Start a holder in the background, for a mount that this process is about to make.

    Raises:
        MountError: it did not start; it does not remain.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = Link(ours)
    try:
        with theirs:
            wait = str(round(options.survive_wait * 1000))
            # It goes into the background, so that it is no child of this process.
            subprocess.run(
                [holder_program(), "program", str(theirs.fileno()), wait],
                pass_fds=[theirs.fileno()],
                check=True,
                timeout=_ANSWER_S,
            )
        return _taken_over(link, ours, options)
    except (OSError, subprocess.SubprocessError, HolderRefusedError) as error:
        link.close()
        raise MountError(f"survive: the holder did not start: {error}") from error
    except BaseException:
        link.close()
        raise


def take_from_holder(
    mountpoint: str | bytes | os.PathLike[str], options: MountOptions
) -> ProgramSurvival:
    """Take over a mount whose program has ended.

    Raises:
        MountError: there is no such mount, or its holder refuses; nothing changes.
    """
    where = os.fsdecode(mountpoint)
    try:
        entry = find_mount(mountpoint)
    except StatusError as error:
        raise MountError(f"attach: {error}", usage=error.usage) from error
    owner, _ = entry.owner
    if owner != os.geteuid():
        raise MountError(f"attach: {where}: belongs to user {owner}: only that user may attach")
    channel = connect_holder(entry.device, owner, _ANSWER_S)
    if channel is None:
        raise MountError(
            f"attach: {where}: no holder keeps this mount: unmount it, and mount with survive=True"
        )
    link = Link(channel)
    try:
        return _taken_over(link, channel, options)
    except HolderRefusedError as error:
        link.close()
        raise MountError(f"attach: {where}: {_reason(str(error), entry)}") from error
    except (OSError, UnmountedError) as error:
        link.close()
        raise MountError(f"attach: {where}: the holder gave no answer: {error}") from error
    except BaseException:
        link.close()
        raise


def _taken_over(link: Link, channel: socket.socket, options: MountOptions) -> ProgramSurvival:
    channel.settimeout(_ANSWER_S)
    link.warm(layout_of_state())
    takeover = link.wait_takeover()
    if takeover is None:
        raise UnmountedError("it ended")
    channel.settimeout(None)
    try:
        return ProgramSurvival(link, takeover, options)
    except BaseException:
        # A copy that stays open would keep the connection beyond the holder's end.
        for descriptor in takeover.descriptors.values():
            os.close(descriptor)
        raise


def _reason(refusal: str, entry: MountEntry) -> str:
    if refusal == "serves":
        return "a program serves it: end that one first"
    if refusal == "layout":
        return (
            "its state has the layout of another version of zcfuse: attach with that version, or"
            f" 'zcfuse umount {entry.mountpoint}' and mount again"
        )
    return f"the holder refused ({refusal})"


assert set(_FIXED) <= {one.name for one in fields(MountOptions)}
