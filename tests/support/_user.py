"""An ordinary user who may mount: nobody, in a new mount namespace.

The tests usually run as root, and only root may open /dev/fuse. So the fixture makes a namespace
with a node of mode 666 over /dev/fuse, where the interpreter is reachable even below a home
directory that only root can enter. Commands run there as nobody. If the tests run as an ordinary
user, they use that user.
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

# $1 is a scratch directory; then come pairs of a closed directory and a path below it that must be
# reachable. An open directory with only those paths covers each closed one.
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
        # Daemons that must end before the namespace does.
        self.ends = contextlib.ExitStack()

    @property
    def mountinfo_pid(self) -> int | str:
        """The process that holds the user's mount namespace."""
        return "self" if self._namespace is None else self._namespace

    def command(self, argv: list[str]) -> list[str]:
        """`argv` as this user runs it; exec keeps the process id."""
        if self._namespace is None:
            return list(argv)
        enter = ["nsenter", f"--mount=/proc/{self._namespace}/ns/mnt"]
        become = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        settle = ["env", f"--chdir={self.home}", "--unset=XDG_RUNTIME_DIR", f"HOME={self.home}"]
        return [*enter, *become, *settle, *argv]

    def run(self, *argv: str, timeout: float = _DEADLINE_S) -> subprocess.CompletedProcess[str]:
        """Run `argv` as this user and return its output, whatever its status."""
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
    """An ordinary user during the context.

    Raises:
        OSError: this machine refuses a namespace, a device node or the interpreter; the message
            comes from the first failed command.
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
    """Raise OSError if `user` cannot run the tests' interpreter."""
    result = user.run(sys.executable, "-c", "import trio")
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or ["no message"]
        raise OSError(f"an ordinary user cannot run {sys.executable}: {lines[-1]}")


def _closed_paths() -> list[str]:
    """Pairs (closed directory, path below it) for everything that the user must read."""
    pairs: list[str] = []
    for wanted in {CHECKOUT, *map(os.path.realpath, (sys.prefix, sys.base_prefix))}:
        ancestors = ["/"]
        for name in wanted.split("/")[1:-1]:
            ancestors.append(os.path.join(ancestors[-1], name))
        closed = [path for path in ancestors if not os.stat(path).st_mode & 0o001]
        if closed:
            pairs += [closed[0], os.path.relpath(wanted, closed[0])]
    return pairs
