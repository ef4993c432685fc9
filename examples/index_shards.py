"""A manifest of what lies in tar shards: ``index_shards.py SHARD... > index.jsonl``.

Writes one line for each regular member, its place in the shard included. Then
``zcfuse mount --tree index.jsonl MOUNTPOINT`` shows the members as files in a directory for each
shard, and their bytes are still the shards' pages: nothing is unpacked.
"""

import json
import os
import sys
import tarfile
from collections.abc import Iterator


def nodes(shard: str) -> Iterator[dict[str, object]]:
    """The members of one shard; a name that comes twice means the last, as for tar."""
    above = os.path.basename(shard).removesuffix(".tar")
    with tarfile.open(shard, "r:") as archive:  # "r:": compressed bytes are nobody's file
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
