"""A train/val split without trio: ``serve_views.py SOURCE MOUNTPOINT COMMAND [ARGUMENT...]``.

Shows the files of SOURCE in ``train`` and ``val`` while COMMAND runs, and exits with its status. A
thread serves the mount, so the program may block as it likes.
"""

import subprocess
import sys

import zcfuse
from zcfuse import views


def main(source: str, mountpoint: str, command: list[str]) -> int:
    tree = views.split(source, by={"train": 0.9, "val": 0.1})
    with zcfuse.serve(tree, mountpoint) as mount:
        print(f"{source} is mounted on {mount.mountpoint}", flush=True)
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
