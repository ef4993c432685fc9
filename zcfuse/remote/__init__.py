"""Trees of buckets and servers: files that come over a network and stay in a cache of local files.

`Remote` is the tree. Worker processes list, fetch and verify; the mount's thread only reads cache
files. A complete cache file backs its opens, so the kernel serves it like any local file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.remote._cache import BLOCK_BYTES as BLOCK_BYTES
    from zcfuse.remote._cache import Cache as Cache
    from zcfuse.remote._cache import CacheError as CacheError
    from zcfuse.remote._cache import Kept as Kept
    from zcfuse.remote._cache import check_limit as check_limit
    from zcfuse.remote._cache import default_directory as default_directory
    from zcfuse.remote._source import MissingDriverError as MissingDriverError
    from zcfuse.remote._source import check_driver as check_driver
    from zcfuse.remote._source import is_url as is_url
    from zcfuse.remote._source import shown_url as shown_url
    from zcfuse.remote._tree import Remote as Remote
    from zcfuse.remote._tree import RemoteNode as RemoteNode
else:
    __getattr__ = lazy(
        __name__,
        {
            "_cache": (
                "BLOCK_BYTES",
                "Cache",
                "CacheError",
                "Kept",
                "check_limit",
                "default_directory",
            ),
            "_source": ("MissingDriverError", "check_driver", "is_url", "shown_url"),
            "_tree": ("Remote", "RemoteNode"),
        },
    )
