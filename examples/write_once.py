"""An archive that keeps what is put into it: ``write_once.py DIRECTORY... MOUNTPOINT``.

Users make files and directories, and write the files that they make. From then on the mount refuses
to write, truncate, rename or remove them. A new file goes to the DIRECTORY with the most free
space. Ctrl-C unmounts.
"""

import contextlib
import errno
import sys

import zcfuse
from zcfuse.placement import most_free

REFUSED = {"remove": errno.EPERM, "rename": errno.EPERM, "write": errno.EPERM}


def main(directories: list[str], mountpoint: str) -> None:
    archive = zcfuse.Pool(directories, most_free(directories), refuse=REFUSED)
    with zcfuse.serve(archive, mountpoint, rw=True) as served:
        print(f"{mountpoint} keeps what is put into it", flush=True)
        served.wait_ended()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1:-1], sys.argv[-1])
