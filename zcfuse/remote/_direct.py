"""Reads ranges of objects without the driver, where a plain HTTP connection can do that.

Any thread may call `Direct`. The driver stays responsible for all other requests, and for each
range that this way does not get: it knows redirects, refusals and servers without ranges.
"""

from __future__ import annotations

import os
import re
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from zcfuse.remote._connections import Connections
from zcfuse.remote._messages import Info
from zcfuse.remote._ranges import Ranges

# For how long a signed URL is good, by a clock that may be wrong; and for how long it is used.
_SIGNED_S: Final = 3600
_REUSED_S: Final = 300.0
_MOST_SIGNED: Final = 10_000
# Answers to a signature that is too old, or whose credentials are.
_EXPIRED: Final = frozenset({"status 400", "status 401", "status 403"})
# After so many ranges in a row that only the driver got, it gets all for so many seconds.
_MOST_LEFT: Final = 3
_LEFT_S: Final = 300.0
# Without a user, and encoded.
_PLAIN_URL: Final = re.compile(r"https?://[\w.:\[\]-]+/[!-~]*", re.ASCII)
# Options of a driver, by its attributes, that a connection without the driver can respect.
_PLAIN_OPTIONS: Final[Mapping[bool, Mapping[str, frozenset[str]]]] = {
    False: {
        "client_kwargs": frozenset({"headers"}),
        "kwargs": frozenset({"headers"}),
    },
    True: {
        "client_kwargs": frozenset({"endpoint_url", "region_name"}),
        "config_kwargs": frozenset({"signature_version", "s3", "retries"}),
        "kwargs": frozenset({"profile"}),
        "s3_additional_kwargs": frozenset(),
        "req_kw": frozenset(),
    },
}


class Direct:
    """Reads for one driver.

    Parameters:
        fs: the filesystem of fsspec, for HTTP or S3.
        is_s3: whether URLs have to be signed.
        run: runs a coroutine function in the driver's thread, with a time-out in seconds.
        check: raises if the headers of an answer name another version of a file.
        clock: seconds, for how old a signature is and how long the driver reads all ranges.
    """

    # Any: fsspec has no types.
    def __init__(
        self,
        fs: Any,  # noqa: ANN401
        *,
        is_s3: bool,
        run: Callable[[Any, float], Any],
        check: Callable[[Mapping[str, str], Info], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fs = fs
        self._clock = clock
        self._is_s3 = is_s3
        self._run = run
        self._check = check
        self._connections = Connections()
        self._ranges = Ranges(self._connections, stores_encoded=is_s3)
        self._signed: dict[str, tuple[str, float]] = {}
        # The driver of web servers uses no proxy of the environment.
        self._proxies = urllib.request.getproxies() if is_s3 else {}
        self._left = 0
        self._left_reason = ""
        self._left_until = 0.0
        self._reason = _reason_of_options(fs, _PLAIN_OPTIONS[is_s3])

    def read(
        self,
        info: Info,
        start: int,
        length: int,
        deadline: float,
        keep: Callable[[memoryview], None],
    ) -> str:
        """Call `keep` with a range as `Ranges.read` does; return "", or why the driver must read.

        Raises what `Ranges.read` and `check` raise.
        """
        if self._reason:
            return self._reason
        if self._clock() < self._left_until:
            return self._left_reason
        known, _ = self._signed.get(info.path, ("", 0.0))
        reason, url = self._asked(info, start, length, deadline, keep)
        if self._is_s3 and reason in _EXPIRED:
            self._forget(info.path, url)
            if url == known:
                reason, _ = self._asked(info, start, length, deadline, keep)
        if not reason:
            self._left = 0
        return reason

    def left(self, reason: str) -> None:
        """Note that the driver got a range that `read` left to it for `reason`."""
        if self._clock() < self._left_until:
            return  # nothing else was tried
        self._left += 1
        if self._left >= _MOST_LEFT:
            self._left = 0
            self._left_reason = reason
            self._left_until = self._clock() + _LEFT_S

    def _asked(
        self,
        info: Info,
        start: int,
        length: int,
        deadline: float,
        keep: Callable[[memoryview], None],
    ) -> tuple[str, str]:
        """Ask once for a range; return "", or why it did not come, and the URL."""
        url, headers = self._request(info, deadline)
        if not _PLAIN_URL.fullmatch(url):
            return "form of the address", url
        if self._has_proxy(url):
            return "a proxy", url

        def check(said: Mapping[str, str]) -> None:
            self._check(said, info)

        return self._ranges.read(url, headers, start, length, deadline, check, keep), url

    def _request(self, info: Info, deadline: float) -> tuple[str, dict[str, str]]:
        """Return the URL and the headers to ask for a version of a file."""
        if self._is_s3:
            return self._signed_url(info.path, deadline), same_version(info, "If-Match")
        fs = self._fs
        given = fs.client_kwargs.get("headers", {}), fs.kwargs.get("headers", {})
        return info.path, {
            name.lower(): value for headers in given for name, value in headers.items()
        }

    def _signed_url(self, path: str, deadline: float) -> str:
        """Return a URL of an object, which lets anybody read the object until it expires."""
        url, until = self._signed.get(path, ("", 0.0))
        now = self._clock()
        if now > until:
            url = self._run(lambda: self._sign(path), max(deadline - time.monotonic(), 0.1))
            if len(self._signed) >= _MOST_SIGNED:
                self._signed.clear()
            self._connections.authorities = self._fs.session.get_config_variable(
                "ca_bundle"
            ) or os.environ.get("REQUESTS_CA_BUNDLE")
            self._signed[path] = url, now + _REUSED_S
        return url

    async def _sign(self, path: str) -> str:
        fs = self._fs
        await fs.set_session()
        client = await fs.get_s3(fs.split_path(path)[0])
        client.meta.events.register(
            "choose-signer.s3.GetObject", _without_sigv2, unique_id="zcfuse"
        )
        return str(await fs._url(path, expires=_SIGNED_S))

    def _forget(self, path: str, url: str) -> None:
        """Give up the URL of an object, unless another thread has signed a new one."""
        if self._signed.get(path, ("", 0.0))[0] == url:
            self._signed.pop(path, None)

    def _has_proxy(self, url: str) -> bool:
        """Say whether botocore would use a proxy of the environment for a URL."""
        parts = urlsplit(url)
        return parts.scheme in self._proxies and not urllib.request.proxy_bypass(parts.netloc)


def _without_sigv2(signature_version: object, **_: object) -> str | None:
    """Keep botocore from SigV2, its default for URLs, which AWS refuses for encrypted objects."""
    return "s3v4-query" if signature_version == "v4-query" else None


def same_version(info: Info, name: str) -> dict[str, str]:
    """Return the option `name` that has S3 refuse to send another version than `info` has."""
    tag = info.version.partition(" ")[2]
    return {name: tag} if tag.startswith('"') else {}


def _reason_of_options(fs: Any, plain: Mapping[str, frozenset[str]]) -> str:  # noqa: ANN401
    """Return why a connection without the driver would differ from those of the driver."""
    if any(set(getattr(fs, name, None) or ()) - known for name, known in plain.items()):
        return "options of the driver"
    return ""
