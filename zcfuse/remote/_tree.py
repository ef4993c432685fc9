"""`Remote`: a tree of the files of a bucket or a server.

Belongs to the trio thread of the mount that shows it. Listings are answered from memory while they
are young; otherwise a worker process asks the server, and only that request waits.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import trio

from zcfuse.arguments import require_number, require_type
from zcfuse.datapath import NAME_BYTES
from zcfuse.options import DEFAULT_CACHE_TIMEOUT_S
from zcfuse.remote._cache import Cache, check_limit, default_directory
from zcfuse.remote._fetchers import PROCESSES, Answer, Fetchers, RemoteError, awaited, waited
from zcfuse.remote._files import Store
from zcfuse.remote._messages import Info, ListDirectory, Listed, Look, Looked, Setup
from zcfuse.remote._source import check_driver, identity_of, shown_url
from zcfuse.tree import Answer as TreeAnswer
from zcfuse.tree import Attributes, BackingFile, Listing, Node, StatFs, Tree, Who

DEFAULT_DEADLINE_S: Final = 25.0
"""Below the time for an async answer, so that a client gets EIO and not ETIMEDOUT."""

DEFAULT_CONNECTIONS: Final = 16
DEFAULT_SIZE: Final = "20%"
DEFAULT_FLOOR: Final = "1%"

_GRACE_S: Final = 2.0
_BLOCK: Final = 4096
_SECTOR: Final = 512
_INO_BIT: Final = 1 << 63  # ordinary filesystems leave it clear
# Names that the listings in memory hold together; the oldest listings go first.
_MOST_NAMES: Final = 1_000_000


class RemoteNode(Node):
    """A directory, or one version of a file. The root has no parent."""

    __slots__ = ("identity", "info", "parent")

    def __init__(self, info: Info, parent: RemoteNode | None, tree: str) -> None:
        self.info = info
        self.parent = parent
        version = "" if info.is_directory else info.version
        text = repr((tree, info.path, info.is_directory, version))
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)
        self.identity: bytes = digest.digest()


class _Names:
    """A listing in memory, and when it was fetched."""

    __slots__ = ("by_name", "earlier", "fetched_s", "left_out", "whole")

    def __init__(self, listed: Listed, earlier: dict[bytes, Info]) -> None:
        self.by_name = {info.name: info for info in listed.entries}
        self.left_out = listed.left_out
        self.whole = listed.whole
        self.fetched_s = time.monotonic()
        # Facts that this listing lacks, for the time when the server is away.
        self.earlier = {
            name: earlier[name]
            for name, info in self.by_name.items()
            if _lacks_size(info) and name in earlier
        }


class Remote(Tree):
    """Shows the directory at `url`, of any filesystem that fsspec has a driver for.

    Nothing is asked of the server before the first lookup, listing or read.

    Parameters:
        url: such as ``s3://bucket/prefix`` or ``https://host/directory``.
        cache_dir: where fetched bytes are kept; None: below the user's cache directory.
        cache_size: a limit for all of it, as a size (``50G``) or a share of the disk (``20%``).
        cache_floor: the space to leave free on that disk, as a size or a share.
        cache_timeout: for how long a listing is used before it is fetched again, in seconds.
        immutable: the caller's promise that nothing changes, so that no listing is fetched twice.
        connections: requests to the server at a time, 1 or more.
        deadline: for how long a request is tried, in seconds; then the client gets EIO.
        options: of the driver, as fsspec takes them. Credentials among them appear nowhere.

    Raises:
        MissingDriverError: the driver is missing; the message names the extra.
        CacheError: the cache directory cannot be used.
        ValueError: no driver knows the scheme, or a value is out of its range.
    """

    waits = True

    root: RemoteNode

    def __init__(
        self,
        url: str,
        *,
        cache_dir: str | None = None,
        cache_size: str = DEFAULT_SIZE,
        cache_floor: str = DEFAULT_FLOOR,
        cache_timeout: float = DEFAULT_CACHE_TIMEOUT_S,
        immutable: bool = False,
        connections: int = DEFAULT_CONNECTIONS,
        deadline: float = DEFAULT_DEADLINE_S,
        **options: Any,  # noqa: ANN401 - the driver's
    ) -> None:
        require_type("url", url, str, "a URL")
        require_type("cache_dir", cache_dir, str | None, "a path or None")
        require_type("cache_size", cache_size, str, "a size as text")
        require_type("cache_floor", cache_floor, str, "a size as text")
        require_number("cache_timeout", cache_timeout, "seconds")
        require_type("immutable", immutable, bool, "True or False")
        require_type("connections", connections, int, "a number of connections")
        require_number("deadline", deadline, "seconds")
        check_driver(url)
        if connections < 1:
            raise ValueError(f"connections={connections}: give 1 or more")
        if not deadline > 0:
            raise ValueError(f"deadline={deadline}: give seconds, more than 0")
        size, floor = check_limit(cache_size), check_limit(cache_floor)
        self.url = shown_url(url)
        self._of = f" of {self.url}"
        cache = Cache(cache_dir or default_directory(), size, floor)
        identity = identity_of(url, options)
        threads = -(-connections // PROCESSES)
        setup = Setup(url, identity, options, cache.directory, size, floor, threads)
        self._fetchers = Fetchers(setup)
        self._store = Store(cache, self._fetchers, url, identity, deadline, self._file_changed)
        self._identity = identity
        self._deadline = deadline
        self._timeout = float("inf") if immutable else cache_timeout
        self._listings: OrderedDict[str, _Names] = OrderedDict()
        self._names = 0
        self._asked: dict[tuple[str, bytes | None], Answer] = {}
        self._fetched_listings = 0
        self._old_answers = 0
        self._left_out = 0
        self._made_ns = time.time_ns()
        self._owner = os.geteuid(), os.getegid()
        self.root = RemoteNode(Info(b"", "", True, 0, self._made_ns, ""), None, identity)

    def check(self) -> None:
        """Fetch the listing of the root, in a thread that may wait. Raises OSError."""
        self._keep("", waited(self._list("", False), self._deadline + _GRACE_S))
        self._store.evict()

    def lookup(self, directory: Node, name: bytes) -> tuple[Node, Attributes]:
        """Return the node of a name. Waits for the server; a mount calls `lookup_for`."""
        own = _directory(directory)
        known = self._known(own, name)
        if known is not None:
            return known
        _require_may_wait()
        names = self._young(own.info.path)
        if names is None:
            names = self._waited_names(own.info.path, sizes=False)
        info = names.by_name.get(name)
        if _needs_look(names, info):
            answer = waited(self._look(own.info.path, name), self._deadline + _GRACE_S)
            info = self._keep_looked(names, name, answer)
        return self._found(own, name, info)

    def lookup_for(
        self, directory: Node, name: bytes, who: Who
    ) -> TreeAnswer[tuple[Node, Attributes]]:
        """Return the node of a name, from a young listing if there is one."""
        own = _directory(directory)
        return self._known(own, name) or self._looked_up(own, name)

    def attributes(self, node: Node) -> Attributes:
        """Return the attributes of a directory, or of a version of a file."""
        return self._attributes(_own(node))

    def readlink(self, node: Node) -> bytes:
        """Refuse: a server has no symbolic links."""
        raise _error(errno.EINVAL)

    def open(self, node: Node) -> BackingFile:
        """Open a version of a file.

        Raises OSError: BeingMadeError while kept bytes are verified; of the cache directory.
        """
        own = _own(node)
        if own.info.is_directory:
            raise _error(errno.EISDIR)
        return self._store.open(own.info, self._attributes(own))

    def listing(self, node: Node) -> Listing:
        """Return the names of a directory. Waits for the server; a mount calls `listing_for`."""
        own = _directory(node)
        names = self._young(own.info.path)
        if names is None or _lacks_sizes(names):
            _require_may_wait()
            names = self._waited_names(own.info.path, sizes=True)
        return _RemoteListing(self, own, names)

    def listing_for(self, node: Node, who: Who) -> TreeAnswer[Listing]:
        """Return the names of a directory, from a young listing if there is one."""
        own = _directory(node)
        names = self._young(own.info.path)
        if names is None or _lacks_sizes(names):
            return self._listed(own)
        return _RemoteListing(self, own, names)

    def statfs(self) -> StatFs:
        """Return no sizes, because a server has no limit that it tells."""
        return StatFs(_BLOCK, _BLOCK, 0, 0, 0, 0, 0, 0, NAME_BYTES)

    def describe(self, node: Node) -> str:
        """Return where the file is."""
        own = _own(node)
        kind = "directory" if own.info.is_directory else "file"
        return f"{kind} of {self.url}, kept in {self._store.cache.directory}"

    def report(self) -> Mapping[str, Mapping[str, object]]:
        """Return, as "remotes", the counts, by URL."""
        told = {
            **msgspec.to_builtins(self._store.counts),
            "listings": self._fetched_listings,
            "old_answers": self._old_answers,
            "left_out": self._left_out,
            "offline": self._fetchers.is_offline,
            "workers": self._fetchers.pids(),
            "worker_restarts": self._fetchers.restarts,
            "cache_directory": self._store.cache.directory,
        }
        return {"remotes": {self.url: told}}

    def close(self) -> None:
        """End the worker processes."""
        self._fetchers.close()

    def _known(self, directory: RemoteNode, name: bytes) -> tuple[Node, Attributes] | None:
        """Return the answer that needs no server, None without one. Raises ENOENT."""
        if name == b".":
            return directory, self._attributes(directory)
        if name == b"..":
            above = directory.parent or directory
            return above, self._attributes(above)
        if len(name) > NAME_BYTES:
            raise _error(errno.ENAMETOOLONG)
        names = self._young(directory.info.path)
        info = None if names is None else names.by_name.get(name)
        if info is not None and (info.is_directory or info.size is not None):
            return self._found(directory, name, info)
        if names is not None and names.whole and info is None:
            raise _error(errno.ENOENT)
        return None

    async def _looked_up(self, directory: RemoteNode, name: bytes) -> tuple[Node, Attributes]:
        path = directory.info.path
        names = self._young(path)
        if names is None:
            names = await self._awaited_names(path, sizes=False)
        info = names.by_name.get(name)
        if _needs_look(names, info):
            info = await self._awaited_look(names, path, name)
        return self._found(directory, name, info)

    async def _listed(self, directory: RemoteNode) -> Listing:
        return _RemoteListing(
            self, directory, await self._awaited_names(directory.info.path, sizes=True)
        )

    async def _awaited_names(self, path: str, *, sizes: bool) -> _Names:
        try:
            return self._keep(path, await self._answered(self._list(path, sizes)))
        except RemoteError as error:
            return self._old(path, error)

    def _waited_names(self, path: str, *, sizes: bool) -> _Names:
        try:
            return self._keep(path, waited(self._list(path, sizes), self._deadline + _GRACE_S))
        except RemoteError as error:
            return self._old(path, error)

    async def _answered(self, answer: Answer) -> object:
        return await awaited(answer, self._deadline + _GRACE_S)

    async def _awaited_look(self, names: _Names, path: str, name: bytes) -> Info | None:
        try:
            reply = await self._answered(self._look(path, name))
        except RemoteError as error:
            return self._earlier(names, name, error)
        return self._keep_looked(names, name, reply)

    def _earlier(self, names: _Names, name: bytes, error: RemoteError) -> Info:
        """Return earlier facts of a name if the server is unreachable; raise the error if not."""
        info = names.earlier.get(name)
        if info is None or not error.unreachable:
            raise error
        self._old_answers += 1
        return info

    def _old(self, path: str, error: RemoteError) -> _Names:
        """Return an old listing if the server is unreachable; raise the error otherwise."""
        names = self._listings.get(path)
        if names is None or not error.unreachable:
            raise error
        self._old_answers += 1
        names.by_name.update(names.earlier)
        return names

    def _young(self, path: str) -> _Names | None:
        names = self._listings.get(path)
        if names is None or time.monotonic() - names.fetched_s > self._timeout:
            return None
        return names

    def _list(self, path: str, sizes: bool) -> Answer:
        seconds = self._seconds()
        return self._once(
            (path, None if not sizes else b""),
            lambda: self._fetchers.ask(lambda n: ListDirectory(n, path, sizes, seconds)),
        )

    def _look(self, path: str, name: bytes) -> Answer:
        seconds = self._seconds()
        return self._once(
            (path, name), lambda: self._fetchers.ask(lambda n: Look(n, path, name, seconds))
        )

    def _seconds(self) -> float:
        return 0.0 if self._fetchers.is_offline else self._deadline

    def _once(self, what: tuple[str, bytes | None], ask: Any) -> Answer:  # noqa: ANN401
        """Return the answer of a request that is on its way already, or of a new one."""
        answer = self._asked.get(what)
        if answer is None or answer.done():
            for other in [key for key, one in self._asked.items() if one.done()]:
                del self._asked[other]
            answer = self._asked[what] = ask()
        return answer

    def _keep(self, path: str, reply: object) -> _Names:
        assert isinstance(reply, Listed)
        before = self._listings.pop(path, None)
        if before is not None:
            self._names -= len(before.by_name)
            self._left_out -= before.left_out
        earlier = {} if before is None else {**before.earlier, **before.by_name}
        names = _Names(reply, {n: one for n, one in earlier.items() if not _lacks_size(one)})
        self._listings[path] = names
        self._names += len(names.by_name)
        self._left_out += names.left_out
        self._fetched_listings += 1
        while self._names > _MOST_NAMES and len(self._listings) > 1:
            _, oldest = self._listings.popitem(last=False)
            self._names -= len(oldest.by_name)
            self._left_out -= oldest.left_out
        return names

    def _keep_looked(self, names: _Names, name: bytes, reply: object) -> Info | None:
        assert isinstance(reply, Looked)
        info = reply.info
        if info is None or _lacks_size(info):
            names.by_name.pop(name, None)
            return None
        names.by_name[name] = info
        return info

    def _found(
        self, directory: RemoteNode, name: bytes, info: Info | None
    ) -> tuple[Node, Attributes]:
        if info is None or _lacks_size(info):
            raise _error(errno.ENOENT)
        node = RemoteNode(info, directory, self._identity)
        return node, self._attributes(node)

    def _file_changed(self, path: str) -> None:
        """Forget the listing that has an old version of a file."""
        for above, names in list(self._listings.items()):
            if path.startswith(above):
                names.fetched_s = float("-inf")

    def _attributes(self, node: RemoteNode) -> Attributes:
        info = node.info
        uid, gid = self._owner
        size = 0 if info.is_directory else info.size or 0
        time_ns = info.mtime_ns or self._made_ns
        return Attributes(
            ino=int.from_bytes(node.identity[:8]) | _INO_BIT,
            mode=stat.S_IFDIR | 0o555 if info.is_directory else stat.S_IFREG | 0o444,
            nlink=1,
            uid=uid,
            gid=gid,
            rdev=0,
            size=size,
            blksize=_BLOCK,
            blocks=-(-size // _SECTOR),
            atime_ns=time_ns,
            mtime_ns=time_ns,
            ctime_ns=time_ns,
        )


class _RemoteListing(Listing):
    """The names of one listing. Offset n stands behind entry n - 1, "." being entry 0."""

    __slots__ = ("_directory", "_infos", "_tree")

    def __init__(self, tree: Remote, directory: RemoteNode, names: _Names) -> None:
        self._tree = tree
        self._directory = directory
        self._infos = tuple(names.by_name.values())

    def entries(self, start: int) -> Iterator[tuple[int, bytes, Node, Attributes]]:
        """Yield the entries from offset `start`."""
        own = self._directory
        for offset, (name, node) in enumerate(((b".", own), (b"..", own.parent or own)), 1):
            if start < offset:
                yield offset, name, node, self._tree._attributes(node)
        for index in range(max(start - 2, 0), len(self._infos)):
            info = self._infos[index]
            if info.is_directory or not _lacks_size(info):
                yield index + 3, info.name, *self._tree._found(own, info.name, info)

    def close(self) -> None:
        """Free the names."""
        self._infos = ()


def _require_may_wait() -> None:
    """Raise EOPNOTSUPP in a trio thread, which would stop every request of its mount."""
    if trio.lowlevel.in_trio_run():
        raise _error(errno.EOPNOTSUPP)


def _lacks_size(info: Info) -> bool:
    return info.size is None and not info.is_directory


def _needs_look(names: _Names, info: Info | None) -> bool:
    """Say whether the server has to be asked for a name, because its listing does not tell."""
    return not names.whole if info is None else _lacks_size(info)


def _lacks_sizes(names: _Names) -> bool:
    return any(map(_lacks_size, names.by_name.values()))


def _own(node: Node) -> RemoteNode:
    if isinstance(node, RemoteNode):
        return node
    raise _error(errno.ESTALE)


def _directory(node: Node) -> RemoteNode:
    own = _own(node)
    if not own.info.is_directory:
        raise _error(errno.ENOTDIR)
    return own


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
