"""Reads ranges of objects without the driver, where a plain HTTP connection can do that.

Any thread may call `Direct`. The driver stays responsible for all other requests, and for each
range that this way does not get: it knows redirects, refusals and servers without ranges.
"""

from __future__ import annotations

import functools
import re
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, Final

from zcfuse.remote._messages import Info
from zcfuse.remote._ranges import Ranges

# For how long a signed URL is good; a worker takes another one after half of that.
_SIGNED_S: Final = 3600
_MOST_SIGNED: Final = 10_000
# After so many ranges in a row that only the driver got, it gets all.
_MOST_LEFT: Final = 3
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
    """

    # Any: fsspec has no types.
    def __init__(
        self,
        fs: Any,  # noqa: ANN401
        *,
        is_s3: bool,
        run: Callable[[Any, float], Any],
        check: Callable[[Mapping[str, str], Info], None],
    ) -> None:
        self._fs = fs
        self._is_s3 = is_s3
        self._run = run
        self._check = check
        self._ranges = Ranges()
        self._signed: dict[str, tuple[str, float]] = {}
        self._left = 0
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
        url, headers = self._request(info, deadline)
        if not _PLAIN_URL.fullmatch(url):
            return "form of the address"
        reason = self._ranges.read(
            url, headers, start, length, deadline, lambda said: self._check(said, info), keep
        )
        if reason:
            self._signed.pop(info.path, None)  # the signature may be too old
        else:
            self._left = 0
        return reason

    def left(self, reason: str) -> None:
        """Note that the driver got a range that `read` left to it for `reason`."""
        self._left += 1
        if self._left >= _MOST_LEFT:
            self._reason = reason

    def _request(self, info: Info, deadline: float) -> tuple[str, dict[str, str]]:
        """Return the URL and the headers to ask for a version of a file."""
        if self._is_s3:
            return self._signed_url(info.path, deadline), same_version(info, "If-Match")
        fs = self._fs
        given = fs.client_kwargs.get("headers", {}), fs.kwargs.get("headers", {})
        return info.path, {**given[0], **given[1]}

    def _signed_url(self, path: str, deadline: float) -> str:
        """Return a URL of an object, which lets anybody read the object until it expires."""
        url, until = self._signed.get(path, ("", 0.0))
        now = time.monotonic()
        if now > until:
            sign = functools.partial(self._fs._url, path, expires=_SIGNED_S)
            url = self._run(sign, max(deadline - now, 0.1))
            if len(self._signed) >= _MOST_SIGNED:
                self._signed.clear()
            self._ranges.authorities = self._fs.session.get_config_variable("ca_bundle")
            self._signed[path] = url, now + _SIGNED_S / 2
        return url


def same_version(info: Info, name: str) -> dict[str, str]:
    """Return the option `name` that has S3 refuse to send another version than `info` has."""
    tag = info.version.partition(" ")[2]
    return {name: tag} if tag.startswith('"') else {}


def _reason_of_options(fs: Any, plain: Mapping[str, frozenset[str]]) -> str:  # noqa: ANN401
    """Return why a connection without the driver would differ from those of the driver."""
    if any(set(getattr(fs, name, None) or ()) - known for name, known in plain.items()):
        return "options of the driver"
    if urllib.request.getproxies().keys() & {"http", "https", "all"}:
        return "a proxy"
    return ""
