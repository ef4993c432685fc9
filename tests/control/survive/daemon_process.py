"""A daemon without a mount, for the tests of the holder: it writes what it sees into a file.

``python daemon_process.py SCRIPT LOG [first]``. SCRIPT names what it does: words of `_DEEDS`,
separated by commas, in one group for each generation; groups are separated by colons, and the last
group stands for all later generations. "-" before a word means: before it is warm.
"""

import os
import signal
import socket
import sys

from zcfuse.control.survive import SOCKET_AT, Link, Takeover


def _say(text: str) -> None:
    with open(sys.argv[2], "a") as log:
        log.write(f"{text}\n")


def _keep(link: Link, _: Takeover) -> None:
    memory = os.memfd_create("kept")
    os.write(memory, b"bytes that survive")
    link.keep("memory", memory)


def _keep_pipe(link: Link, _: Takeover) -> None:
    link.keep("pipe", int(os.environ["KEPT_PIPE"]))
    os.close(int(os.environ["KEPT_PIPE"]))


def _serve(link: Link, takeover: Takeover) -> None:
    link.serving()
    kept = {name: os.pread(fd, 99, 0).decode() for name, fd in takeover.descriptors.items()
            if name == "memory"}  # fmt: skip
    causes = [handover.cause for handover in takeover.handovers]
    _say(f"{takeover.generation} {os.getpid()} serves {kept} after {causes}")


def _wait(link: Link, _: Takeover) -> None:
    signal.sigwait([signal.SIGTERM])
    _say(f"{os.getpid()} was told to end")


def _stay(link: Link, _: Takeover) -> None:
    signal.sigwait([signal.SIGUSR1])


def _hand_over(link: Link, _: Takeover) -> None:
    link.handing_over()
    os._exit(0)


_DEEDS = {
    "keep": _keep,
    "pipe": _keep_pipe,
    "serve": _serve,
    "wait": _wait,
    "stay": _stay,
    "end": lambda link, _: link.ending(),
    "hand": _hand_over,
    "crash": lambda link, _: os.abort(),
    "fail": lambda link, _: os._exit(9),
    "three": lambda link, _: os._exit(3),
}


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
    groups = sys.argv[1].split(":")
    _say(f"{os.getpid()} begins")
    if sys.argv[3:] != ["first"] and "-fail" in groups[-1]:
        os._exit(9)
    link = Link(socket.socket(fileno=SOCKET_AT))
    link.warm("1")
    takeover = link.wait_takeover()
    if takeover is None:
        _say(f"{os.getpid()} is not needed")
        return
    for deed in groups[min(takeover.generation, len(groups)) - 1].split(","):
        if not deed.startswith("-"):
            _DEEDS[deed](link, takeover)


main()
