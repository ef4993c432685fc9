"""The part of one process in a surviving mount: it takes over, keeps, and reports to the holder.

Belongs to the trio thread. The holder has a copy of the session's descriptor, of each clone of it,
and of each memfd of the state: the kernel ends the requests of a clone whose last copy closes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final, NoReturn

import msgspec
import trio

from zcfuse.admin import status
from zcfuse.control.survive._link import Link, Takeover
from zcfuse.linux import KernelMount, MountError, adopt

if TYPE_CHECKING:
    from zcfuse.datapath import DataPath, SurvivingState

log = logging.getLogger(__name__)

_SESSION: Final = "session"
_CLONE: Final = "clone"
_STATE: Final = "state"
_SUSPECTS: Final = "suspects"
# For a standby of another version: Python and the sources load, an archive may be indexed.
_RENEW_TIMEOUT_S: Final = 120.0
# The exit status of a daemon that a successor replaces (EX_SOFTWARE, EX_OK of sysexits.h).
_FAILED: Final = 70
_HANDED_OVER: Final = 0


class UnmountedError(Exception):
    """The mount was unmounted before this daemon could take it over."""


def layout_of_state() -> str:
    """Return the layout of state that this version takes over. Versions compare it as text."""
    from zcfuse.datapath import SurvivingState

    return str(SurvivingState.LAYOUT)


class Survival(ABC):
    """A process's part in keeping its mount alive: what a daemon and a program do alike.

    `is_program`: the mount stays where the code that serves it ends without an unmount.
    """

    is_program: ClassVar = False

    def __init__(self, link: Link, takeover: Takeover) -> None:
        self._link = link
        self._takeover = takeover
        self._pause = 0.0
        self._serves = False
        self._leaves = False
        self._state: SurvivingState | None = None

    @property
    def first(self) -> bool:
        """Whether this daemon makes the mount, instead of taking it over."""
        return self._takeover.generation == 1

    @property
    def leaves_mount(self) -> bool:
        """Whether the mount stays if this process ends now."""
        return not self._leaves and (self._serves or not self.first)

    @property
    def state(self) -> SurvivingState:
        """The state that outlives this process."""
        if self._state is None:
            from zcfuse.datapath import SurvivingState

            found = self._numbered(_STATE)
            try:
                self._state = SurvivingState.attach(found) if found else SurvivingState.create()
            except ValueError as error:
                raise MountError(f"survive: {error}") from error
            for descriptor in found:
                os.close(descriptor)
        return self._state

    def taken_over(self) -> KernelMount:
        """Return the mount that an earlier daemon made.

        Raises:
            UnmountedError: there is nothing left to take over.
        """
        for name, descriptor in self._takeover.descriptors.items():
            kind, _, device = name.partition(" ")
            if kind == _SESSION:
                major, _, minor = device.partition(":")
                kernel = adopt(descriptor, (int(major), int(minor)))
                if kernel is not None:
                    return kernel
        raise UnmountedError

    def hold(self, session: int, device: tuple[int, int], threads: int) -> list[int]:
        """Have the holder keep the session, its clones and the state.

        Parameters:
            session: the descriptor of ``/dev/fuse`` that was mounted.
            device: the mount's number.
            threads: how many shall serve requests, as in the options.

        Returns:
            The clones; the caller owns them.
        """
        clones = self._numbered(_CLONE)
        if not self.first:
            return clones
        from zcfuse.datapath import clone_device, serving_threads

        clones = [clone_device(session) for _ in range(serving_threads(threads) - 1)]
        self._link.keep(f"{_SESSION} {device[0]}:{device[1]}", session)
        self._keep_all(_CLONE, clones)
        self._keep_all(_STATE, self.state.fds())
        self._announce(device)
        return clones

    @abstractmethod
    def _announce(self, device: tuple[int, int]) -> None:
        """Let others find the holder, where they need to."""

    def keep_orphans(self, datapath: DataPath) -> None:
        """Hand over the files without a name, and have the holder keep further ones."""
        from zcfuse.datapath import ORPHAN_PREFIX

        for name, descriptor in self._takeover.descriptors.items():
            if name.startswith(ORPHAN_PREFIX):
                datapath.inherit_orphan(int(name.removeprefix(ORPHAN_PREFIX)), descriptor)
                os.close(descriptor)
        datapath.connect_holder(self._link.fileno())

    def watch_requests(self, datapath: DataPath) -> None:
        """Note the requests under way, and log those that killed earlier daemons."""
        from zcfuse.datapath import MOST_DEATHS, SUSPECTS_BYTES

        found = self._numbered(_SUSPECTS)
        file = found[0] if found else os.memfd_create("zcfuse-suspects", os.MFD_CLOEXEC)
        if not found:
            os.ftruncate(file, SUSPECTS_BYTES)
            self._keep_all(_SUSPECTS, [file])
        names = datapath.operations()
        for operation, nodeid, deaths in datapath.watch_requests(file):
            if deaths >= MOST_DEATHS:
                log.error(
                    "the daemon died %d times in a row during %s of node %d: it gets EIO now",
                    *(deaths, names[operation], nodeid),
                )
        os.close(file)

    def serving(self) -> None:
        """Report that this daemon answers; with this, the pause ends."""
        began = self._takeover.began
        self._pause = 0.0 if began is None else time.monotonic() - began
        self._serves = True
        self._link.serving()
        if not self.first:
            last = self._takeover.handovers[-1]
            log.warning(
                "generation %d serves, clients waited %.1f ms: the one before it ended (%s)",
                *(self._takeover.generation, self._pause * 1000, last.cause),
            )

    def ending(self) -> None:
        """Report that the mount is over, and with it the holder."""
        self._leaves = True
        with contextlib.suppress(OSError):  # the holder may be gone
            self._link.ending()

    @abstractmethod
    def give_up(self, why: str) -> None:
        """End what this process serves: a part of it failed."""

    @abstractmethod
    async def renew(self) -> None:
        """Have a standby of the installed version wait for `hand_over`.

        Raises:
            MountError: no standby waits; this process serves on.
        """

    @abstractmethod
    def hand_over(self) -> NoReturn:
        """End this process for the standby that `renew` made.

        Raises:
            MountError: there is no such standby.
        """

    @property
    def holder(self) -> int:
        """The process id of the holder."""
        return self._takeover.holder

    @property
    def generation(self) -> int:
        """Which daemon of the mount this is, from 1."""
        return self._takeover.generation

    async def upgraded(self, *, hand_over: bool) -> status.Reply:
        """Answer a request: `renew`, or `hand_over` first, which returns only where it fails."""
        try:
            if hand_over:
                self.hand_over()
            await self.renew()
        except (MountError, OSError) as error:
            return status.Refusal(message=status.printable(str(error)))
        return status.RenewReply(generation=self.generation)

    async def wait_alone(self, device: tuple[int, int]) -> None:
        """Take the holder's messages until it has ended; then the mount ends with this process.

        Parameters:
            device: the mount's number. Programs find the holder by it.
        """
        await self._link.attend()
        status.remove_holder_socket(device)
        log.error("the holder was killed: unmounting, because nobody keeps the mount over a crash")

    def report(self) -> status.Survival:
        """Return the state of the promise now."""
        over = self._takeover
        last = [status.Restart(one.at, one.cause, one.pause) for one in over.handovers]
        if last and self._serves:
            last[-1] = msgspec.structs.replace(last[-1], pause_s=self._pause)
        return status.Survival(
            generation=over.generation,
            restarts=over.deaths,
            resent=self.state.resent,
            longest_pause_s=max(over.longest_pause, self._pause),
            last=last,
            program=self.is_program,
        )

    def _keep_all(self, kind: str, descriptors: Sequence[int]) -> None:
        for number, descriptor in enumerate(descriptors):
            self._link.keep(f"{kind} {number}", descriptor)

    def _numbered(self, kind: str) -> list[int]:
        """Return the descriptors of a kind, in the order in which they were kept."""
        return [
            descriptor
            for name, descriptor in self._takeover.descriptors.items()
            if name.partition(" ")[0] == kind
        ]


class DaemonSurvival(Survival):
    """A daemon's part: a standby, which the holder started, takes over."""

    def __init__(self, link: Link, takeover: Takeover) -> None:
        super().__init__(link, takeover)
        self._renewed = ""

    def give_up(self, why: str) -> None:
        """End this process at once, for a successor: a part of it failed."""
        log.error("%s: a successor takes over", why)
        logging.shutdown()
        os._exit(_FAILED)

    async def renew(self) -> None:
        """Have a standby of the installed version wait for `hand_over`.

        A cancellation leaves the new standby in place, which takes over at the next death.

        Raises:
            MountError: it did not start, or it cannot take this state; this daemon serves on.
        """
        self._renewed = ""
        with trio.move_on_after(_RENEW_TIMEOUT_S):
            self._renewed = await self._link.renewed()
        layout = layout_of_state()
        if not self._renewed:
            raise MountError("the installed version did not start: its log has the reason")
        if self._renewed != layout:
            found, self._renewed = self._renewed, ""
            raise MountError(
                f"the installed version has another layout of state ({found}, not {layout}):"
                " unmount, and mount again"
            )

    def hand_over(self) -> NoReturn:
        """End this process for the standby that `renew` made; clients wait a moment.

        The kernel sends the successor each request that has no answer yet.

        Raises:
            MountError: there is no such standby.
        """
        if not self._renewed:
            raise MountError("no standby of the installed version waits")
        log.info("handing over to the installed version")
        self._link.handing_over()
        logging.shutdown()
        os._exit(_HANDED_OVER)

    def _announce(self, device: tuple[int, int]) -> None:
        """Do nothing: the holder starts each of its daemons."""
