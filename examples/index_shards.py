"""A manifest of the members of tar shards: ``index_shards.py SHARD... > index.jsonl``.

Writes one line per regular member, with its offset in the shard. Then
``zcfuse mount --tree index.jsonl MOUNTPOINT`` shows one directory per shard with the members as
files. Their bytes are the shards' pages, without unpacking.
"""

import json
import os
import sys
import tarfile
from collections.abc import Iterator


def nodes(shard: str) -> Iterator[dict[str, object]]:
    """Yield the members of one shard; of several with one name the last, as tar does."""
    above = os.path.basename(shard).removesuffix(".tar")
    with tarfile.open(shard, "r:") as archive:  # "r:" refuses compressed archives
        members = {os.path.normpath(member.name): member for member in archive}
    for name, member in members.items():
        if member.isreg() and not member.issparse() and not name.startswith(("/", "../")):
            yield {
                "path": f"{above}/{name}",
                "file": os.path.abspath(shard),
                "offset": member.offset_data,
                "length": member.size,
                "mtime": member.mtime,
            }


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for path in sys.argv[1:]:
        for node in nodes(path):
            print(json.dumps(node))
