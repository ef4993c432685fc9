"""A reader of the guides in a bare system: a user with sudo and a virtual environment.

Nothing stands for anything here: /data is /data, sudo is sudo, and commands run as that user.
"""

import contextlib
import os
import pwd
import re
import subprocess
import tempfile
from typing import Final

from tests.docs.interpreters import Interpreter
from tests.docs.sandbox import COMMAND_S
from tests.support import FuseMount, abort, fuse_mounts
from tests.support._kernel import detach
from tests.support._user import CHECKOUT

_USER: Final = "you"
_DATA: Final = ("/data", "/mnt", "/shards", "/srv", "/layers")
_WHEELS: Final = "/dist"
_MAKE_USER: Final = """
set -e
useradd --create-home --shell /bin/bash you
echo 'you ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/you
"""
# The tutorial's environment, from the wheels instead of the sources, with an extra of a guide.
_MAKE_ENVIRONMENT: Final = f"""
set -e
python3 -m venv ~/zcfuse-venv
~/zcfuse-venv/bin/pip install --quiet --no-index --find-links {_WHEELS} "zcfuse[compressed]" numpy
ln -sfn {CHECKOUT}/examples ~/examples
"""
_PORT: Final = re.compile(r"127\.0\.0\.1:8080")


class Reader:
    """One page's reader, with empty data directories that belong to the reader."""

    def __init__(self) -> None:
        try:
            pwd.getpwnam(_USER)
        except KeyError:
            self._root(_MAKE_USER)
            self._root(f"runuser -u {_USER} -- env HOME=/home/you bash -c '{_MAKE_ENVIRONMENT}'")
        account = pwd.getpwnam(_USER)
        self.uid, self.home = account.pw_uid, account.pw_dir
        for directory in _DATA:
            self._root(f"rm -rf {directory}; install -d -o you -g you {directory}")
        self._root("install -d -o you -g you /mnt/zc")
        self._interpreters: dict[str, Interpreter] = {}
        self._scripts = tempfile.mkdtemp(prefix="zcfuse-page-")
        os.chmod(self._scripts, 0o755)
        self._number = 0

    def _root(self, script: str) -> None:
        subprocess.run(["bash", "-c", script], check=True, timeout=10 * COMMAND_S)

    def _environment(self) -> dict[str, str]:
        path = f"{self.home}/zcfuse-venv/bin:/usr/local/bin:/usr/bin:/bin"
        of_terminal = {"COLUMNS": "100", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
        return {"PATH": path, "HOME": self.home, "CHECKOUT": CHECKOUT, **of_terminal}

    def inside(self, text: str) -> str:
        """`text` itself, with another port: the network is the machine's."""
        return _PORT.sub("127.0.0.1:18080", text)

    def shell(self, text: str) -> tuple[int, str]:
        """Run `text` in the page's shell; status and output."""
        return self._run("bash", text)

    def python(self, text: str) -> tuple[int, str]:
        """Run `text` in the page's interpreter, in one namespace; status and output."""
        return self._run("python", text)

    def prepare(self, text: str) -> tuple[int, str]:
        """Run `text`, which makes the files that the page assumes; status and output."""
        return self.shell(text)

    def _run(self, language: str, text: str) -> tuple[int, str]:
        if language not in self._interpreters:
            become = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--init-groups"]
            begun = Interpreter(language, self.home, self._environment(), become)
            self._interpreters[language] = begun
        self._number += 1
        script = os.path.join(self._scripts, str(self._number))
        with open(script, "w") as file:
            file.write(self.inside(text) + "\n")
        status, output = self._interpreters[language].run(script, COMMAND_S)
        return status, output.replace(":18080", ":8080")

    def write(self, name: str, text: str) -> None:
        """Write a file that a page shows: the reader's at home, root's elsewhere."""
        path = os.path.join(self.home, self.inside(name))
        owner = ["--owner=you", "--group=you"] if path.startswith(f"{self.home}/") else []
        argv = ["install", "-D", "--mode=644", *owner, "/dev/stdin", path]
        subprocess.run(argv, input=self.inside(text), text=True, timeout=COMMAND_S, check=True)

    def mounts(self) -> list[FuseMount]:
        """All mounts below the directories of the pages."""
        below = tuple(f"{directory}/" for directory in (*_DATA, self.home))
        return [one for one in fuse_mounts() if one.mountpoint.startswith(below)]

    def unmount(self, mounts: list[FuseMount]) -> None:
        """Unmount, by force if necessary."""
        for mount in mounts:
            with contextlib.suppress(subprocess.TimeoutExpired):
                argv = ["zcfuse", "umount", mount.mountpoint]
                subprocess.run(argv, capture_output=True, timeout=COMMAND_S, check=False)
        for mount in self.mounts():
            if mount in mounts:
                abort(mount)
                detach(mount.mountpoint)

    def close(self) -> None:
        """End everything that the page started."""
        self.unmount(self.mounts())
        for interpreter in self._interpreters.values():
            interpreter.close()
        self.unmount(self.mounts())
