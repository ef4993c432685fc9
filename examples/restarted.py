"""A view that may be edited and started again: ``restarted.py SOURCE MOUNTPOINT``.

It shows SOURCE without the names in HIDDEN. End or kill it, edit it, and start it again
within a minute: clients wait meanwhile, and get no error. ``zcfuse umount MOUNTPOINT`` unmounts.
"""

import contextlib
import sys

import zcfuse

HIDDEN = ["*.tmp"]


def main(source: str, mountpoint: str) -> None:
    tree = zcfuse.Filter(zcfuse.Mirror(source), hide=HIDDEN)
    again = zcfuse.is_waiting(mountpoint)
    with zcfuse.serve(tree, mountpoint, attach=again, survive=True) as served:
        print(f"{mountpoint} is {'taken over' if again else 'mounted'}", flush=True)
        served.wait_ended()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
