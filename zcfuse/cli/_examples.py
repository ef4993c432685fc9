"""The examples on the help page of each command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

EXAMPLES: Final[Mapping[str, Sequence[str]]] = {
    "mount": (
        "zcfuse mount /data /mnt/zc",
        "sudo zcfuse mount --allow-other --immutable /data/train /mnt/zc",
        "zcfuse mount photos.zip ~/mnt",
        "zcfuse mount s3://bucket/prefix ~/mnt",
        "zcfuse mount --layer changes --layer base ~/mnt",
    ),
    "umount": (
        "zcfuse umount /mnt/zc",
        "zcfuse umount --wait 30 /mnt/zc",
        "zcfuse umount --all",
    ),
    "list": ("zcfuse list", "zcfuse list --json"),
    "status": ("zcfuse status /mnt/zc", "zcfuse status -v /mnt/zc | less"),
    "top": ("zcfuse top /mnt/zc", "zcfuse top --once --sort bytes /mnt/zc"),
    "trace": (
        "zcfuse trace /mnt/zc",
        "zcfuse trace --for 10 --format files -o used.txt /mnt/zc",
    ),
    "explain": ("zcfuse explain /mnt/zc/model.bin",),
    "freeze": ("zcfuse freeze /data data.img",),
    "check": ("zcfuse check data.img",),
    "warm": (
        "zcfuse warm /mnt/zc/train",
        "zcfuse warm --lock 2G /mnt/zc/train",
        "zcfuse warm --from used.txt",
    ),
    "cache": ("zcfuse cache list", "zcfuse cache prune --cache-size 50G"),
    "copies": ("zcfuse copies --size 64M", "zcfuse copies --path pool --path splice"),
    "doctor": ("zcfuse doctor", "zcfuse doctor --json"),
    "completion": ("source <(zcfuse completion bash)",),
    "upgrade": ("zcfuse upgrade /mnt/zc", "sudo zcfuse upgrade --all"),
    "diff": ("zcfuse diff /mnt/zc",),
    "commit": ("zcfuse commit /mnt/zc changes.tar", "zcfuse commit /mnt/zc /layers/changes"),
    "reset": ("zcfuse reset /layers/upper",),
    "sync": ("zcfuse sync /mnt/zc",),
    "bench": ("zcfuse bench /data", "zcfuse bench --tar --paths auto,splice /data"),
    "bench transfer": ("zcfuse bench transfer --html report.html /data/model.bin",),
    "setup": ("sudo zcfuse setup --dry-run", "zcfuse setup --user"),
}
"""The commands that a user types first."""


def epilog(name: str) -> str | None:
    """Return the last paragraph of a help page; click keeps its lines as they are."""
    lines = EXAMPLES.get(name)
    return None if lines is None else "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
