"""`Remote`: a tree of the files of a bucket or a server.

Belongs to the trio thread of the mount that shows it. Listings are kept, and answer while they are
young; otherwise a worker process asks the server, and only that request waits.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec
import trio

from zcfuse.arguments import require_number, require_type
from zcfuse.datapath import NAME_BYTES
from zcfuse.options import DEFAULT_CACHE_TIMEOUT_S
from zcfuse.remote._cache import Cache, check_limit, default_directory
from zcfuse.remote._fetchers import (
    PROCESSES,
    Answer,
    Fetchers,
    Parts,
    RemoteError,
    awaited,
    waited,
)
from zcfuse.remote._files import Store
from zcfuse.remote._listings import ListRequest, Names, lacks_size
from zcfuse.remote._messages import Info, ListDirectory, Listed, Look, Looked, Page, Reply, Setup
from zcfuse.remote._names import NameStore, NameTable
from zcfuse.remote._source import check_driver, identity_of, shown_url
from zcfuse.tree import Answer as TreeAnswer
from zcfuse.tree import (
    Attributes,
    BackingFile,
    Listing,
    Node,
    NotYetError,
    StatFs,
    Tree,
    Who,
    answered,
    asked_since,
)

DEFAULT_DEADLINE_S: Final = 25.0
"""Below the time for an async answer, so that a client gets EIO and not ETIMEDOUT."""

DEFAULT_CONNECTIONS: Final = 16
DEFAULT_SIZE: Final = "20%"
DEFAULT_FLOOR: Final = "1%"

_GRACE_S: Final = 2.0
_BLOCK: Final = 4096
_SECTOR: Final = 512
_INO_BIT: Final = 1 << 63  # ordinary filesystems leave it clear
# Names that the kept listings hold together, and the kept listings; the oldest go first.
_MOST_NAMES: Final = 1_000_000
_MOST_LISTINGS: Final = 10_000
# Names that a reader of a listing takes at a time, at first and at most.
_FIRST_ENTRIES: Final = 32
_MOST_ENTRIES: Final = 512
# Missing names that a listing remembers, of a server that has to be asked for each.
_MOST_MISSING: Final = 10_000

_T = TypeVar("_T")


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
        each = -(-connections // PROCESSES)
        setup = Setup(url, identity, options, cache.directory, size, floor, each)
        self._fetchers = Fetchers(setup)
        self._store = Store(
            cache, self._fetchers, url, identity, deadline, connections, self._file_changed
        )
        self._identity = identity
        self._deadline = deadline
        self._timeout = float("inf") if immutable else cache_timeout
        self._name_store = NameStore(cache.directory)
        self._listings: OrderedDict[str, Names] = OrderedDict()
        self._names = 0
        self._mounted = False
        self._asking = threading.Lock()
        self._asked: dict[tuple[str, bytes | None], Answer] = {}
        self._requests: dict[tuple[str, bool], ListRequest] = {}
        self._fetched_listings = 0
        self._old_answers = 0
        self._left_out = 0
        self._made_ns = time.time_ns()
        self._owner = os.geteuid(), os.getegid()
        self.root = RemoteNode(Info(b"", "", True, 0, self._made_ns, ""), None, identity)

    def check(self) -> None:
        """Fetch the listing of the root, in a thread that may wait. Raises OSError."""
        self._fetched("", sizes=False)
        self._store.evict()

    def lookup(self, directory: Node, name: bytes) -> tuple[Node, Attributes]:
        """Return the node of a name, from a young listing if there is one.

        Raises `NotYetError` in the thread of a mount instead of waiting for the server.
        """
        own = _directory(directory)
        if name == b".":
            return own, self._attributes(own)
        if name == b"..":
            above = own.parent or own
            return above, self._attributes(above)
        if len(name) > NAME_BYTES:
            raise _error(errno.ENAMETOOLONG)
        path = own.info.path
        names = self._young(path) or self._fetched(path, sizes=False)
        info = names.by_name.get(name)
        if lacks_size(info) if info is not None else not names.whole and name not in names.missing:
            info = self._looked(names, path, name)
        if info is None or lacks_size(info):
            raise _error(errno.ENOENT)
        return self._found(own, info)

    def lookup_for(
        self, directory: Node, name: bytes, who: Who
    ) -> TreeAnswer[tuple[Node, Attributes]]:
        """Return what `lookup` does; an awaitable of it if the server has to be asked."""
        return answered(lambda: self.lookup(directory, name))

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
        """Return the names of a directory; raises `NotYetError` as `lookup` does."""
        own = _directory(node)
        names = self._young(own.info.path)
        if names is None or not names.sized:
            names = self._fetched(own.info.path, sizes=True)
        return _RemoteListing(self, own, names)

    def listing_for(self, node: Node, who: Who) -> TreeAnswer[Listing]:
        """Return what `listing` does; an awaitable of it if the server has to be asked."""
        return answered(lambda: self.listing(node))

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
        self._store.count_late()
        told = {
            **msgspec.to_builtins(self._store.counts),
            "request_latency": self._store.latency.described(),
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
        """End the worker processes, and free the names."""
        self._fetchers.close()
        self._name_store.close()

    def _fetched(self, path: str, *, sizes: bool) -> Names:
        """Fetch a listing, or its next page; an old one stands in while the server is unreachable.

        The first page makes it a listing that grows.
        """
        names = self._listings.get(path)
        # What comes in pages has the sizes.
        growing = None if names is None else names.growing
        request = growing or self._listed(path, sizes)
        return self._settled(
            request.pages.next,
            lambda reply: self._arrived(path, request, reply),
            lambda error: self._failed(path, request, error),
        )

    def _grow(self, path: str, request: ListRequest, page: Answer) -> None:
        """Wait for a page of a listing; raises as `_settled` does."""
        if request.failure is not None:
            raise request.failure
        self._settled(
            page,
            lambda reply: self._arrived(path, request, reply),
            lambda error: self._failed(path, request, error),
        )

    def _looked(self, names: Names, path: str, name: bytes) -> Info | None:
        return self._settled(
            self._look(path, name),
            lambda reply: _keep_looked(names, name, reply),
            lambda error: self._earlier(names, name, error),
        )

    def _settled(
        self,
        answer: Answer,
        keep: Callable[[Reply], _T],
        fall_back: Callable[[RemoteError], _T],
    ) -> _T:
        """Return what an answer or its failure means, in a thread that may wait for it.

        Raises `NotYetError` in another one, and everywhere once a mount has asked: then only its
        thread changes what is known.
        """
        seconds = self._deadline + _GRACE_S
        self._mounted = self._mounted or trio.lowlevel.in_trio_run()
        if self._mounted:

            async def wait() -> None:
                try:
                    reply = await awaited(answer, seconds)
                except RemoteError as error:
                    fall_back(error)
                else:
                    keep(reply)

            raise NotYetError(wait)
        try:
            return keep(waited(answer, seconds))
        except RemoteError as error:
            return fall_back(error)

    def _earlier(self, names: Names, name: bytes, error: RemoteError) -> Info:
        """Return earlier facts of a name if the server is unreachable; raise the error if not."""
        info = names.earlier.get(name)
        if info is None or not error.unreachable:
            raise error
        self._old_answers += 1
        names.by_name.put(info)
        return info

    def _old(self, path: str, error: RemoteError) -> Names:
        """Return an old listing if the server is unreachable; raise the error otherwise."""
        names = self._listings.get(path)
        if names is None or not error.unreachable:
            raise error
        self._old_answers += 1
        for info in names.earlier.values():
            names.by_name.put(info)
        names.tried_s, names.sized = time.monotonic(), True
        return names

    def _young(self, path: str) -> Names | None:
        names = self._listings.get(path)
        if names is None:
            return None
        if names.growing is not None and names.growing.answer.done():
            return None  # take the rest of it
        young = time.monotonic() - names.fetched_s <= self._timeout
        return names if young or names.tried_s >= asked_since() else None

    def _listed(self, path: str, sizes: bool) -> ListRequest:
        """Return the request for a listing that is on its way already, or a new one."""
        with self._asking:
            request = self._requests.get((path, sizes))
            if request is None:
                seconds = self._seconds()

                def ask(pages: Parts[Page]) -> Answer:
                    return self._fetchers.ask(
                        lambda number: ListDirectory(number, path, sizes, seconds), pages
                    )

                request = ListRequest(NameTable(self._name_store), ask, sizes)
                self._requests[path, sizes] = request
            return request

    def _arrived(self, path: str, request: ListRequest, reply: object) -> Names:
        """Keep the pages that came, and the answer. Raises OSError if the disk does not."""
        try:
            return self._joined(path, request, reply)
        except OSError as error:
            request.failure = error
            self._give_up(path, request)
            raise

    def _joined(self, path: str, request: ListRequest, reply: object) -> Names:
        pages = request.pages.take()
        if request.failure is not None:
            raise request.failure
        if pages and request.names is None:
            nothing = Listed(0, [], 0, False)
            request.names = self._keep(path, request, nothing, sizes=True)
            request.names.growing = request
        for page in pages:
            self._grown(path, request, page.left_out)
        if isinstance(reply, Listed):
            if request.names is None:
                request.names = self._keep(path, request, reply, sizes=request.sizes)
            elif request.names.growing is not None:
                self._grown(path, request, reply.left_out)
                request.names.whole, request.names.growing = reply.whole, None
            self._drop(path, request)
        assert request.names is not None
        return request.names

    def _grown(self, path: str, request: ListRequest, left_out: int) -> None:
        assert request.names is not None
        new = request.names.grow(request, left_out)
        if self._listings.get(path) is request.names:
            self._names += new
            self._left_out += left_out

    def _failed(self, path: str, request: ListRequest, error: RemoteError) -> Names:
        request.failure = error
        self._give_up(path, request)
        return self._old(path, error)

    def _give_up(self, path: str, request: ListRequest) -> None:
        self._drop(path, request)
        names = self._listings.get(path)
        if names is not None and names is request.names:
            self._forget(path)

    def _drop(self, path: str, request: ListRequest) -> None:
        """Have nobody join a request any more. Those who read its names get the rest of it."""
        if self._requests.get((path, request.sizes)) is request:
            del self._requests[path, request.sizes]

    def _forget(self, path: str) -> None:
        names = self._listings.pop(path)
        self._names -= names.counted
        self._left_out -= names.left_out
        if names.growing is not None:
            self._drop(path, names.growing)

    def _look(self, path: str, name: bytes) -> Answer:
        seconds = self._seconds()
        return self._once(
            (path, name), lambda: self._fetchers.ask(lambda n: Look(n, path, name, seconds))
        )

    def _seconds(self) -> float:
        return 0.0 if self._fetchers.is_offline else self._deadline

    def _once(self, what: tuple[str, bytes | None], ask: Any) -> Answer:  # noqa: ANN401
        """Return the answer of a request that is on its way already, or of a new one."""
        with self._asking:  # a thread of a call to a far filesystem may ask too
            answer = self._asked.get(what)
            if answer is None or answer.done():
                for other in [key for key, one in self._asked.items() if one.done()]:
                    del self._asked[other]
                answer = self._asked[what] = ask()
            return answer

    def _keep(self, path: str, request: ListRequest, reply: Listed, *, sizes: bool) -> Names:
        before = self._listings.get(path)
        names = Names(request, reply, before, sized=sizes)
        if before is not None:
            self._forget(path)
        self._listings[path] = names
        self._names += names.counted
        self._left_out += names.left_out
        self._fetched_listings += 1
        while len(self._listings) > 1 and self._is_full():
            self._forget(next(iter(self._listings)))
        return names

    def _is_full(self) -> bool:
        return self._names > _MOST_NAMES or len(self._listings) > _MOST_LISTINGS

    def _found(self, directory: RemoteNode, info: Info) -> tuple[Node, Attributes]:
        node = RemoteNode(info, directory, self._identity)
        return node, self._attributes(node)

    def _file_changed(self, path: str) -> None:
        """Forget the listing that has an old version of a file."""
        for above, names in list(self._listings.items()):
            if path.startswith(above):
                names.fetched_s = names.tried_s = float("-inf")

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
    """The names of one listing. Offset n + 3 stands behind name number n, and 1 behind "."."""

    __slots__ = ("_directory", "_names", "_tree")

    def __init__(self, tree: Remote, directory: RemoteNode, names: Names) -> None:
        self._tree = tree
        self._directory = directory
        self._names = names

    def entries(self, start: int) -> Iterator[tuple[int, bytes, Node, Attributes]]:
        """Yield the entries from offset `start`; raises `NotYetError` before the next page."""
        own = self._directory
        for offset, (name, node) in enumerate(((b".", own), (b"..", own.parent or own)), 1):
            if start < offset:
                yield offset, name, node, self._tree._attributes(node)
        number = max(start - 2, 0)
        most = _FIRST_ENTRIES
        while True:
            growing = self._names.growing
            # Taken first: names of a page that comes meanwhile need no further page.
            page = None if growing is None else growing.pages.next
            found = self._names.by_name.entries(number, most)
            for at, info in found:
                if not lacks_size(info):
                    yield at + 3, info.name, *self._tree._found(own, info)
                number = at + 1
            most = min(2 * most, _MOST_ENTRIES)
            if not found:
                if growing is None or page is None:
                    return
                self._tree._grow(own.info.path, growing, page)

    def close(self) -> None:
        """Do nothing: names go with the last object that has them."""


def _keep_looked(names: Names, name: bytes, reply: object) -> Info | None:
    assert isinstance(reply, Looked)
    info = reply.info
    if info is None or lacks_size(info):
        names.by_name.remove(name)
        if len(names.missing) >= _MOST_MISSING:
            names.missing.clear()
        names.missing.add(name)
        return None
    names.by_name.put(info)
    return info


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
