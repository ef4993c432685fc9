"""An ordinary user who may mount: nobody, in a mount namespace of its own.

The tests run as root where they can, and /dev/fuse may be root's only. So a namespace is made in
which a node of mode 666 lies over /dev/fuse, and in which the interpreter can be reached although
it may lie under a home directory that only root enters; the commands run there as nobody.
Where the tests run as an ordinary user already, that user is taken as it is.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Final

NOBODY: Final = 65534
_DEADLINE_S: Final = 20
CHECKOUT: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

# $1 is a directory for what this needs; then come pairs of a closed directory and a path below it
# that must be reachable. Each closed directory is covered by an open one with those paths alone.
_PREPARE: Final = """
set -eu
scratch=$1; shift
mknod "$scratch/fuse" c 10 229
chmod 666 "$scratch/fuse"
mount --bind "$scratch/fuse" /dev/fuse
n=0
for argument; do
    n=$((n + 1))
    case $((n % 2)) in
    1) closed=$argument ;;
    0) mkdir "$scratch/$n"; mount --bind "$closed/$argument" "$scratch/$n" ;;
    esac
done
n=0 covered=:
for argument; do
    n=$((n + 1))
    case $((n % 2)) in
    1)  closed=$argument
        case $covered in
        *:"$closed":*) ;;
        *) mount -t tmpfs -o mode=755 zcfuse-tests "$closed"; covered=$covered$closed: ;;
        esac ;;
    0)  mkdir -p "$closed/$argument"; mount --bind "$scratch/$n" "$closed/$argument" ;;
    esac
done
echo ready
exec cat >/dev/null
"""


class OrdinaryUser:
    """Runs commands as an ordinary user; ``home`` is a directory of that user's."""

    def __init__(self, home: str, uid: int, gid: int, namespace: int | None) -> None:
        self.home = home
        self.uid = uid
        self.gid = gid
        self._namespace = namespace
        # What must end before the namespace does: a daemon in it.
        self.ends = contextlib.ExitStack()

    @property
    def mountinfo_pid(self) -> int | str:
        """The process in whose mount namespace the user's mounts are."""
        return "self" if self._namespace is None else self._namespace

    def command(self, argv: list[str]) -> list[str]:
        """`argv` as this user would run it: it keeps its process id through exec."""
        if self._namespace is None:
            return list(argv)
        enter = ["nsenter", f"--mount=/proc/{self._namespace}/ns/mnt"]
        become = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        settle = ["env", f"--chdir={self.home}", "--unset=XDG_RUNTIME_DIR", f"HOME={self.home}"]
        return [*enter, *become, *settle, *argv]

    def run(self, *argv: str, timeout: float = _DEADLINE_S) -> subprocess.CompletedProcess[str]:
        """Run `argv` as this user and return what it printed, whatever its status."""
        command = self.command(list(argv))
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    def directory(self, name: str) -> str:
        """Make the directory `name` in the user's home and return its path."""
        path = os.path.join(self.home, name)
        os.mkdir(path)
        os.chown(path, self.uid, self.gid)
        return path


@contextlib.contextmanager
def ordinary_user() -> Iterator[OrdinaryUser]:
    """An ordinary user for as long as the context lasts.

    Raises:
        OSError: this machine lets nobody have a namespace, a device node or the interpreter; the
            message is the first command's that failed.
    """
    with tempfile.TemporaryDirectory(prefix="zcfuse-user-", ignore_cleanup_errors=True) as home:
        os.chmod(home, 0o755)
        if os.geteuid() != 0:
            user = OrdinaryUser(home, os.geteuid(), os.getegid(), None)
            with user.ends:
                yield user
            return
        os.chown(home, NOBODY, NOBODY)
        with tempfile.TemporaryDirectory(prefix="zcfuse-namespace-") as scratch:
            os.chmod(scratch, 0o755)
            with _namespace(scratch) as holder:
                user = OrdinaryUser(home, NOBODY, NOBODY, holder)
                _require_interpreter(user)
                with user.ends:
                    yield user


@contextlib.contextmanager
def _namespace(scratch: str) -> Iterator[int]:
    """A process that holds the namespace until its standard input is closed."""
    prepare = ["sh", "-c", _PREPARE, "sh", scratch, *_closed_paths()]
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "--", *prepare],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stderr is not None
    try:
        if holder.stdout.readline() != "ready\n":
            raise OSError(f"no namespace for an ordinary user: {holder.stderr.read().strip()}")
        yield holder.pid
    finally:
        holder.stdin.close()
        try:
            holder.wait(_DEADLINE_S)
        except subprocess.TimeoutExpired:
            holder.kill()
            holder.wait(_DEADLINE_S)
        holder.stdout.close()
        holder.stderr.close()


def _require_interpreter(user: OrdinaryUser) -> None:
    """Raise OSError when `user` cannot run the interpreter that runs the tests."""
    result = user.run(sys.executable, "-c", "import trio")
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or ["no message"]
        raise OSError(f"an ordinary user cannot run {sys.executable}: {lines[-1]}")


def _closed_paths() -> list[str]:
    """Pairs (closed directory, path below it) for all that the user must be able to read."""
    pairs: list[str] = []
    for wanted in {CHECKOUT, *map(os.path.realpath, (sys.prefix, sys.base_prefix))}:
        ancestors = ["/"]
        for name in wanted.split("/")[1:-1]:
            ancestors.append(os.path.join(ancestors[-1], name))
        closed = [path for path in ancestors if not os.stat(path).st_mode & 0o001]
        if closed:
            pairs += [closed[0], os.path.relpath(wanted, closed[0])]
    return pairs
