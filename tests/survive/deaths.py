"""The ways in which the daemon of a surviving mount ends under load.

Each is a function of the mount's status. It returns when the daemon is dead or about to be, and the
holder brings the successor.
"""

import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support import eventually, let_pass
from tests.support._capabilities import memory_cgroups
from zcfuse.admin.status import StatusDocument

_ATTACHED_S = 10.0
_REACHED_S = 2.0
STOPPED_S = 20.0
_STARVED_S = 2.0
_SPARE_BYTES = 8 << 20

# Where a daemon dies: backing ids are made and closed, attributes of open files, replies, names.
_SERVING = ("ioctl", "writev", "write", "openat2", "statx", "close")
# Where a successor dies while it attaches to the state and takes the session over.
_ATTACHING = ("recvmsg", "mmap", "fstat", "close", "ioctl", "futex", "write", "writev", "clone3")


def kill(document: StatusDocument, _: random.Random) -> None:
    """SIGKILL, at whatever the daemon does."""
    os.kill(document.processes["datapath"], signal.SIGKILL)


def inject(document: StatusDocument, chosen: random.Random) -> None:
    """SIGKILL at the entry of a system call: of the daemon, or of its successor as it attaches."""
    daemon = document.processes["datapath"]
    if chosen.random() < 0.5:
        with _dying_at(daemon, chosen.choice(_SERVING), chosen.randint(1, 40)):
            eventually(lambda: _is_gone(daemon), _REACHED_S)
    else:
        standby = _standby(document)
        if standby is not None:
            with _dying_at(standby, chosen.choice(_ATTACHING), chosen.randint(1, 20)):
                _end(daemon)
                eventually(lambda: _is_gone(standby), _REACHED_S)
    _end(daemon)


def answer(document: StatusDocument, chosen: random.Random) -> None:
    """SIGKILL as the daemon is about to answer: what was asked is done, and nobody knows."""
    daemon = document.processes["datapath"]
    with _dying_at(daemon, "writev", chosen.randint(1, 100)):
        eventually(lambda: _is_gone(daemon), _REACHED_S)
    _end(daemon)


def freeze(document: StatusDocument, _: random.Random) -> None:
    """SIGSTOP for a while, then SIGCONT, then SIGKILL: clients wait, and get their answers."""
    daemon = document.processes["datapath"]
    os.kill(daemon, signal.SIGSTOP)
    let_pass(STOPPED_S)
    os.kill(daemon, signal.SIGCONT)
    os.kill(daemon, signal.SIGKILL)


def starve(document: StatusDocument, _: random.Random) -> None:
    """SIGKILL; then the kernel kills for memory: successors need more than their group has."""
    daemon = document.processes["datapath"]
    group = _group_of(document)
    for used, limit, none in (
        ("memory.current", "memory.max", "max"),
        ("memory.usage_in_bytes", "memory.limit_in_bytes", "-1"),
    ):
        if (group / limit).exists():
            (group / limit).write_text(str(int((group / used).read_text()) + _SPARE_BYTES))
            _end(daemon)
            let_pass(_STARVED_S)
            (group / limit).write_text(none)


WAYS: dict[str, Callable[[StatusDocument, random.Random], None]] = {
    "kill": kill,
    "inject": inject,
    "answer": answer,
    "freeze": freeze,
    "starve": starve,
}


def leave_groups(document: StatusDocument) -> None:
    """Remove what `starve` made; the processes of the mount have ended."""
    group = _group_path(document)
    if group.exists():
        eventually(lambda: _removed(group))


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def _group_path(document: StatusDocument) -> Path:
    return Path(memory_cgroups(), f"zcfuse-survive-{document.processes['holder']}")


def _group_of(document: StatusDocument) -> Path:
    """Return the group of the mount's processes, with all of them in it."""
    group = _group_path(document)
    group.mkdir(exist_ok=True)
    holder = document.processes["holder"]
    for process in (*_children(holder), holder):
        with contextlib.suppress(ProcessLookupError):
            (group / "cgroup.procs").write_text(str(process))
    return group


def _children(process: int) -> list[int]:
    return [
        int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]


def _standby(document: StatusDocument) -> int | None:
    """Return the process that waits for its turn, if it runs."""
    others = set(_children(document.processes["holder"])) - {document.processes["datapath"]}
    return min(others, default=None)


def _is_gone(process: int) -> bool:
    return not os.path.exists(f"/proc/{process}/exe")


def _end(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


@contextlib.contextmanager
def _dying_at(process: int, call: str, occurrence: int) -> Iterator[None]:
    """Have strace(1) kill a process as it enters a system call for the `occurrence`-th time."""
    tracer = subprocess.Popen(
        [
            *("strace", "-f", "-p", str(process), "-o", "/dev/null"),
            *("-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={occurrence}"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: _is_traced(process) or tracer.poll() is not None, _ATTACHED_S)
        yield
    finally:
        # SIGTERM would make it wait for threads that do not stop; the kernel detaches at its death.
        tracer.kill()
        tracer.wait()


def _is_traced(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return True
    return "TracerPid:\t0\n" not in status
