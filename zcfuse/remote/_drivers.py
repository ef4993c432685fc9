"""Questions of a worker to a server: names, facts of one name, and ranges of bytes, through fsspec.

Each function blocks its thread. HTTP and S3 have their own way to read a range: one request, which
the server refuses if the file has changed. Other drivers look at the file again after each read,
SFTP at the open file.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email.utils
import errno
import os
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from zcfuse.remote import _sftp
from zcfuse.remote._direct import Direct, same_version
from zcfuse.remote._messages import Info
from zcfuse.remote._ranges import AnswerError
from zcfuse.remote._source import scheme_of

_NAME_BYTES: Final = 255
_SECOND_NS: Final = 1_000_000_000
# Names of facts, in lower case: drivers spell them in several ways.
_VERSIONS: Final = ("etag", "e_tag", "md5", "content_md5", "content-md5")
_TIMES: Final = (
    *("lastmodified", "last_modified", "last-modified", "mtime"),
    *("modificationtime", "updated", "created"),
)
_GONE: Final = frozenset({404, 410, 412, 416})
_REFUSED: Final = frozenset({401, 403})
_CONNECT_S: Final = 10.0
# The most that is taken from a connection at a time.
_PART_BYTES: Final = 512 << 10
_SFTP_LIMITS: Final = ("timeout", "banner_timeout", "auth_timeout")
# Connections that are made at a time: sshd refuses some of more than 10 (MaxStartups).
_CONNECTS: Final = 4
_LEAST_TIMEOUT_S: Final = 0.5
_WHOLE, _PARTIAL, _REDIRECT, _MISSING = 200, 206, 300, 404


Data: TypeAlias = bytes | memoryview


class ChangedError(OSError):
    """The file has another version at the server."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.ESTALE, os.strerror(errno.ESTALE), path)


class RefusedError(OSError):
    """The server refuses; a further attempt is useless."""


class Driver:
    """A filesystem of fsspec, below the directory of a URL. Any thread may use it.

    A driver that is not asynchronous has a connection for each thread that uses it at the moment.
    `clock` tells `Direct` how old what it remembers is.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        scheme = scheme_of(url)
        self._is_http = scheme in {"http", "https"}
        self._is_s3 = scheme in {"s3", "s3a"}
        self._is_sftp = scheme in {"sftp", "ssh"}
        self._url = url
        self._options = options
        self._idle: list[Any] = []
        self._connecting = threading.Semaphore(_CONNECTS)
        self._shared, root = self._connected(_CONNECT_S)
        if not self._shared.async_impl:
            self._idle.append(self._shared)
        self._direct: Direct | None = None
        if self._is_http or self._is_s3:
            check = _check_object if self._is_s3 else self._check_same
            self._direct = Direct(
                self._shared, is_s3=self._is_s3, run=self._run, check=check, clock=clock
            )
        self.root = root.rstrip("/") + ("/" if self._is_http else "")

    @property
    def _fs(self) -> Any:  # noqa: ANN401 - of fsspec
        """The filesystem of an asynchronous driver, which all threads share."""
        return self._shared

    def _connected(self, timeout: float) -> tuple[Any, str]:
        """Connect; return the filesystem, and the path of the URL in it."""
        import fsspec

        # The driver of SFTP gives every option that it does not know to the connection.
        limits = dict.fromkeys(_SFTP_LIMITS, min(timeout, _CONNECT_S))
        options = limits if self._is_sftp else {"use_listings_cache": False}
        with self._connecting:
            fs, root = fsspec.core.url_to_fs(
                self._url, skip_instance_cache=True, **{**options, **self._options}
            )
        if self._is_sftp:
            _sftp.send_at_once(fs)
        return fs, str(root)

    def prepare(self) -> None:
        """Load what the first request would; asks the server nothing. May raise anything."""
        if self._is_s3:
            self._run(self._fs.set_session, _CONNECT_S)

    @contextlib.contextmanager
    def _using(self, timeout: float) -> Iterator[tuple[Any, dict[str, float]]]:
        """Lend a filesystem, and the time-out as its functions take it.

        A connection for one thread that failed is given up, since its driver keeps it for good.
        """
        if self._shared.async_impl:
            yield self._shared, {"timeout": timeout}
            return
        try:
            fs = self._idle.pop()
        except IndexError:
            fs, _ = self._connected(timeout)
        if self._is_sftp:
            fs.ftp.get_channel().settimeout(timeout)
        try:
            yield fs, {}
        except (ChangedError, RefusedError, FileNotFoundError, PermissionError):
            self._idle.append(fs)
            raise
        self._idle.append(fs)

    def page(
        self, path: str, token: str, timeout: float
    ) -> tuple[list[Info], int, bool, str | None]:
        """Return entries of a directory, the keys left out, and whether no others are there.

        Then the token of the next page, None after the last one. `token` is "" for the first page.
        """
        if self._is_s3 and not self._shared.version_aware and path.strip("/"):
            return self._page_of_s3(path, token, timeout)
        return *self._list(path, timeout), None

    def _page_of_s3(
        self, path: str, token: str, timeout: float
    ) -> tuple[list[Info], int, bool, str | None]:
        fs = self._fs
        bucket, key, _ = fs.split_path(path)
        above = key.strip("/")
        more = {"ContinuationToken": token} if token else {}

        async def ask() -> Mapping[str, Any]:
            answer: Mapping[str, Any] = await fs._call_s3(
                "list_objects_v2",
                Bucket=bucket,
                Prefix=f"{above}/" if above else "",
                Delimiter="/",
                **more,
                **fs.req_kw,
            )
            return answer

        answer = self._run(ask, timeout)
        found = [
            {"name": f"{bucket}/{one['Prefix']}", "type": "directory", "size": 0}
            for one in answer.get("CommonPrefixes", ())
        ]
        for one in answer.get("Contents", ()):
            fs._fill_info(one, bucket, versions=False)
            found.append({**one, "type": "file", "size": one["Size"]})
        if not found and not token and path.strip("/") != self.root.strip("/"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        entries, left_out = named(self._fact(path, item) for item in found)
        following = answer.get("NextContinuationToken") if answer.get("IsTruncated") else None
        return entries, left_out, True, following

    def _list(self, path: str, timeout: float) -> tuple[list[Info], int, bool]:
        try:
            with self._using(timeout) as (fs, limits):
                found = fs.ls(path, detail=True, **limits)
        except FileNotFoundError:
            if self._is_http:
                return [], 0, False  # a server may have files and no page that lists them
            if path.strip("/") == self.root.strip("/"):
                return [], 0, True
            raise
        entries, left_out = named(self._fact(path, item) for item in found)
        return entries, left_out, bool(entries) or not self._is_http

    def look(self, path: str, name: bytes, timeout: float) -> Info | None:
        """Return the facts of a name in a directory, None if it is missing."""
        if self._is_http:
            text = os.fsdecode(name)
            return self._look_http(path.rstrip("/") + "/" + quote(text), name, timeout)
        try:
            with self._using(timeout) as (fs, limits):
                item = fs.info(f"{path.rstrip('/')}/{os.fsdecode(name)}", **limits)
        except FileNotFoundError:
            return None
        return self._fact(path, item)

    def read(
        self, info: Info, start: int, length: int, timeout: float, keep: Callable[[Data], None]
    ) -> str:
        """Call `keep` with a range of the version that `info` has, in order, part by part.

        Return why the driver read it, although drivers of its kind rarely have to, "" otherwise.
        Raises ChangedError if the version is gone; before that, `keep` gets only bytes of it.
        """
        reason = ""
        if self._direct is not None:
            deadline = time.monotonic() + timeout
            reason = self._direct.read(info, start, length, deadline, keep)
            if not reason:
                return ""
            timeout = max(deadline - time.monotonic(), _LEAST_TIMEOUT_S)
        self._read_by_driver(info, start, length, timeout, keep)
        if self._direct is not None:
            self._direct.left(reason)
        return reason

    def _read_by_driver(
        self, info: Info, start: int, length: int, timeout: float, keep: Callable[[Data], None]
    ) -> None:
        came = 0

        def take(data: Data) -> None:
            nonlocal came
            came += len(data)
            if came > length:
                raise AnswerError(f"more than {length} bytes came")
            keep(data)

        if self._is_http:
            self._read_http(info, start, length, timeout, take)
        elif self._is_s3:
            self._read_s3(info, start, length, timeout, take)
        else:
            take(self._read_other(info, start, length, timeout))
        if came != length:
            raise AnswerError(f"{came} bytes came instead of {length}")

    def _read_other(self, info: Info, start: int, length: int, timeout: float) -> bytes:
        above = info.path.rpartition("/")[0]
        with self._using(timeout) as (fs, limits):
            if self._is_sftp:
                data, item = _sftp.read(fs, info.path, start, length)
            else:
                data = bytes(fs.cat_file(info.path, start=start, end=start + length, **limits))
                item = fs.info(info.path, **limits)
            if self._fact(above, item).version != info.version:
                raise ChangedError(info.path)
        return data

    def _fact(self, above: str, item: Mapping[str, Any]) -> Info:
        """Return an item of fsspec as a message. The name may be none; `named` finds that out."""
        path = str(item["name"])
        rest = path[len(above.rstrip("/")) + 1 :] if path.startswith(above.rstrip("/")) else path
        is_directory = item.get("type") == "directory"
        if self._is_http:
            rest = unquote(rest.rstrip("/")) if not urlsplit(path).query else "/"
        elif is_directory:
            rest = rest.removesuffix("/")
        elif item.get("type") == "other":
            rest = "/"  # neither a file nor a directory has this name
        size = item.get("size")
        item = {name.lower(): value for name, value in item.items()}
        time_ns = _time_ns(item)
        tag = next((str(item[name]) for name in _VERSIONS if item.get(name)), "")
        version = f"{size} {tag or time_ns}"
        return Info(_encoded(rest), path, is_directory, size, time_ns, version)

    def _look_http(self, url: str, name: bytes, timeout: float) -> Info | None:
        async def ask() -> Info | None:
            session = await self._fs.set_session()
            keywords = self._keywords({"Accept-Encoding": "identity"})
            async with session.head(url, allow_redirects=True, **keywords) as answer:
                if answer.status == _MISSING:
                    return None
                _check_status(answer.status, url)
                headers = answer.headers
                size = int(headers["Content-Length"]) if "Content-Length" in headers else None
                found = self._fact(url.rpartition("/")[0], {"name": url, "size": size, **headers})
                return Info(name, url, url.endswith("/"), size, found.mtime_ns, found.version)

        return self._run(ask, timeout)  # type: ignore[no-any-return]

    def _read_http(
        self, info: Info, start: int, length: int, timeout: float, keep: Callable[[Data], None]
    ) -> None:
        async def ask(put: Callable[[bytes], None]) -> None:
            session = await self._fs.set_session()
            wanted = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{start + length - 1}"}
            async with session.get(info.path, **self._keywords(wanted)) as answer:
                _check_status(answer.status, info.path)
                self._check_same(answer.headers, info)
                if answer.status == _WHOLE:
                    data = bytes(await answer.read())
                    if len(data) == info.size:
                        put(data[start : start + length])  # the server knows no ranges
                        return
                said = answer.headers.get("Content-Range", "")
                if answer.status != _PARTIAL or not said.startswith(f"bytes {start}-"):
                    raise AnswerError(f"status {answer.status}, Content-Range {said!r}")
                _check_length(answer.headers.get("Content-Length"), length)
                while data := await answer.content.read(_PART_BYTES):
                    put(data)

        self._streamed(ask, timeout, keep)

    def _check_same(self, headers: Mapping[str, str], info: Info) -> None:
        """Raise ChangedError if the headers of an answer name another version than `info`."""
        headers = {name.lower(): value for name, value in headers.items()}
        whole = headers.get("content-range", "").rpartition("/")[2]
        size = int(whole) if whole.isdigit() else info.size
        found = self._fact("", {"name": info.path, "size": size, **headers})
        if found.version != info.version:
            raise ChangedError(info.path)

    def _read_s3(
        self, info: Info, start: int, length: int, timeout: float, keep: Callable[[Data], None]
    ) -> None:
        async def ask(put: Callable[[bytes], None]) -> None:
            bucket, key, _ = self._fs.split_path(info.path)
            answer = await self._fs._call_s3(
                "get_object",
                Bucket=bucket,
                Key=key,
                Range=f"bytes={start}-{start + length - 1}",
                **same_version(info, "IfMatch"),
                **self._fs.req_kw,
            )
            _check_length(answer.get("ContentLength"), length)
            said = {"ETag": answer.get("ETag", ""), "Content-Range": answer.get("ContentRange", "")}
            _check_object(said, info)
            async with answer["Body"] as body:
                while data := await body.read(_PART_BYTES):
                    put(data)

        try:
            self._streamed(ask, timeout, keep)
        except FileNotFoundError:
            raise ChangedError(info.path) from None
        except OSError as error:
            if "PreconditionFailed" in repr(error) or "pre-conditions" in str(error):
                raise ChangedError(info.path) from None
            raise

    def _keywords(self, headers: Mapping[str, str]) -> dict[str, Any]:
        keywords = dict(self._fs.kwargs)
        keywords["headers"] = {**keywords.get("headers", {}), **headers}
        return keywords

    def _run(self, ask: Any, timeout: float) -> Any:  # noqa: ANN401 - a coroutine function
        from fsspec.asyn import sync

        return sync(self._fs.loop, ask, timeout=timeout)

    def _streamed(
        self,
        ask: Callable[[Callable[[bytes], None]], Awaitable[None]],
        timeout: float,
        keep: Callable[[Data], None],
    ) -> None:
        """Run `ask` in the driver's thread; call `keep` here with what it puts, as it comes."""
        came: queue.SimpleQueue[bytes] = queue.SimpleQueue()

        async def run() -> None:
            try:
                await asyncio.wait_for(ask(came.put), timeout)
            finally:
                came.put(b"")

        asked = asyncio.run_coroutine_threadsafe(run(), self._fs.loop)
        try:
            while data := came.get():
                keep(data)
        except BaseException:
            asked.cancel()
            raise
        asked.result()


def _check_object(headers: Mapping[str, str], info: Info) -> None:
    """Raise ChangedError if S3 sent another version, which servers without If-Match do."""
    headers = {name.lower(): value for name, value in headers.items()}
    whole = headers.get("content-range", "").rpartition("/")[2]
    said = _bare(headers.get("etag", ""))
    tag = info.version.partition(" ")[2]
    is_other = bool(said) and tag != str(info.mtime_ns) and said != _bare(tag)
    if is_other or (whole.isdigit() and int(whole) != info.size):
        raise ChangedError(info.path)


def _bare(tag: str) -> str:
    """Return an ETag without its quotes, which not all servers send."""
    return tag.removeprefix("W/").strip('"')


def named(facts: Iterable[Info]) -> tuple[list[Info], int]:
    """Return the entries whose names a directory can have, and how many keys it cannot show.

    A file that is also a directory's prefix is left out; so is a file of unknown size elsewhere.
    """
    by_name: dict[bytes, Info] = {}
    left_out = 0
    for info in facts:
        name = info.name
        if not name and (info.is_directory or not info.size):
            continue  # the marker of the directory itself
        bad = not name or name in (b".", b"..") or b"/" in name or b"\0" in name
        if bad or len(name) > _NAME_BYTES:
            left_out += 1
            continue
        before = by_name.get(name)
        if before is not None:
            left_out += 1
            if before.is_directory:
                continue
        by_name[name] = info
    return list(by_name.values()), left_out


def _check_length(said: object, length: int) -> None:
    """Raise AnswerError before any byte is kept; an answer may leave its length out."""
    if said is not None and str(said) != str(length):
        raise AnswerError(f"{said} bytes are to come instead of {length}")


def _check_status(status: int, path: str) -> None:
    if status in _GONE:
        raise ChangedError(path)
    if status in _REFUSED:
        raise RefusedError(errno.EACCES, os.strerror(errno.EACCES), path)
    if status >= _REDIRECT:
        raise AnswerError(f"status {status}")


def _encoded(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return b""


def _time_ns(item: Mapping[str, Any]) -> int:
    for name in _TIMES:
        value = item.get(name)
        if isinstance(value, str):
            value = _parsed(value)
        if isinstance(value, datetime.datetime):
            if value.tzinfo is None:
                value = value.replace(tzinfo=datetime.UTC)
            since = value - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
            return since // datetime.timedelta(microseconds=1) * 1000
        if isinstance(value, int | float):
            return int(value * _SECOND_NS)
    return 0


def _parsed(text: str) -> datetime.datetime | None:
    for parse in (datetime.datetime.fromisoformat, email.utils.parsedate_to_datetime):
        try:
            return parse(text)
        except ValueError:
            continue
    return None
