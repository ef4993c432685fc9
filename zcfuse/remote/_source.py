"""URLs of remote sources: the driver that each needs, and their form without credentials.

Pure and light: ``zcfuse mount`` imports it before the daemon forks, and no driver.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)

# Scheme: the module of its driver, and the extra of this package that installs it.
_DRIVERS: Final[Mapping[str, tuple[str, str]]] = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gs"),
    "gcs": ("gcsfs", "gs"),
    "abfs": ("adlfs", "abfs"),
    "az": ("adlfs", "abfs"),
    "hdfs": ("pyarrow", "hdfs"),
    "webhdfs": ("requests", "webhdfs"),
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
    "sftp": ("paramiko", "sftp"),
    "ssh": ("paramiko", "sftp"),
    "hf": ("huggingface_hub", "hf"),
    "oci": ("ocifs", "oci"),
    "file": ("fsspec", "remote"),
}

# Where the same URL means another server.
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "FSSPEC_S3_ENDPOINT_URL")
# Options whose values tell who asks, and not what is asked for.
_CREDENTIALS: Final = frozenset(
    {"account_key", "auth", "connection_string", "credential", "headers", "key", "key_filename"}
    | {"passphrase", "password", "passwd", "pkey", "profile", "sas_token", "secret", "token"}
    | {"user", "username"}
)


class MissingDriverError(OSError):
    """A URL lacks its driver; the message names the extra that installs it."""


def is_url(text: str) -> bool:
    """Return whether a source is a URL and no path."""
    return _URL.match(text) is not None


def scheme_of(url: str) -> str:
    """Return the scheme of a URL in lower case."""
    return url.partition("://")[0].lower()


def check_driver(url: str) -> None:
    """Check, without an import of it, that the driver of a URL is installed.

    Raises:
        MissingDriverError: it is not; the message names the extra that installs it.
        ValueError: no driver knows the scheme.
    """
    scheme = scheme_of(url)
    if scheme not in _DRIVERS:
        raise ValueError(f"no driver for {scheme}://: known are {', '.join(sorted(_DRIVERS))}")
    module, extra = _DRIVERS[scheme]
    for needed in dict.fromkeys(("fsspec", module)):
        if importlib.util.find_spec(needed) is None:
            raise MissingDriverError(
                f"{scheme}:// needs {needed}, and it is missing: pip install 'zcfuse[{extra}]'"
            )


def shown_url(url: str) -> str:
    """Return a URL without user, password, query and fragment, any of which may be a secret."""
    parts = urlsplit(url)
    # An Azure URL has the container where others have the user.
    user, _, host = parts.netloc.rpartition("@")
    keeps_user = scheme_of(url) in {"abfs", "az"} and ":" not in user
    return urlunsplit((parts.scheme, parts.netloc if keeps_user else host, parts.path, "", ""))


def place_of(url: str, path: str) -> str:
    """Return the URL of a path that the driver of `url` names, without parts that may be secret."""
    return shown_url(path if is_url(path) else f"{scheme_of(url)}://{path}")


def identity_of(url: str, options: Mapping[str, object]) -> str:
    """Return a digest of the server that a URL and options mean, for any user.

    Two mounts of one bucket get the same digest, so they share cached bytes.
    """
    parts = urlsplit(url)
    asked = sorted((name, repr(_public(value))) for name, value in options.items() if _tells(name))
    places = [os.environ.get(name, "") for name in _ENDPOINTS] if parts.scheme in _S3 else []
    text = repr((scheme_of(url), parts.netloc.rpartition("@")[2], asked, places))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_S3: Final = frozenset({"s3", "s3a"})


def _tells(name: str) -> bool:
    return name.lower() not in _CREDENTIALS


def _public(value: object) -> object:
    if isinstance(value, Mapping):
        return sorted((str(name), _public(inner)) for name, inner in value.items() if _tells(name))
    return value
