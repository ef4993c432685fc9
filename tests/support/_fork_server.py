"""The fork server: ``_fork_server.py FD MODULE...`` imports modules, then forks on each request.

A request arrives over the socket FD, with the descriptors for standard input, output and error. The
fork calls the function ``main`` of a module, as a new interpreter would. The server has one thread,
and no descriptor of the tests. `tests/support/_forked.py` is its client.
"""

import faulthandler
import gc
import importlib
import json
import os
import socket
import sys
from typing import Any, Final

_MOST_BYTES: Final = 1 << 20


def _serve(asking: socket.socket) -> dict[str, Any] | None:
    """Answer requests; return one in the process that is to run it, and None at the end."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(asking, _MOST_BYTES, 3)
        if not message:
            return None
        request: dict[str, Any] = json.loads(message)
        if "reap" in request:
            _, status = os.waitpid(request["reap"], 0)
            asking.send(b"%d" % os.waitstatus_to_exitcode(status))
            continue
        pid = os.fork()
        if pid == 0:
            for standard, descriptor in enumerate(descriptors):
                os.dup2(descriptor, standard)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid == 0:
            return request
        asking.send(b"%d" % pid)


def _main() -> None:
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as asking:
        request = _serve(asking)
    if request is None:
        return
    os.setsid()
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    faulthandler.enable()
    sys.argv = ["zcfuse", *request["arguments"]]
    gc.unfreeze()
    importlib.import_module(request["module"]).main()


if __name__ == "__main__":
    _main()
