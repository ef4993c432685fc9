"""A program whose mounts survive it: ``program.py WAIT KIND BACKING MOUNT...``, three for each.

It mounts, or takes over what waits, and prints "serves" with the generation of each mount. Each
line of its standard input is a command: "leave" ends the blocks, "again" leaves and takes over in
the same process, "unmount" unmounts, "exec" becomes another instance of itself. Its end leaves all.
"""

import contextlib
import os
import sys

import zcfuse


class Policy(zcfuse.Dir):
    """Names that only Python knows."""

    async def lookup(self, name: str, who: zcfuse.Who) -> zcfuse.Node | None:
        """Find the only entry."""
        return zcfuse.Bytes(b"from Python") if name == "made" else None


def tree_of(kind: str, backing: str) -> zcfuse.Tree | zcfuse.Dir:
    """Return a tree of a kind over a directory."""
    if kind == "mirror":
        return zcfuse.Mirror(backing)
    if kind == "policy":
        return Policy()
    found: dict[str, str | zcfuse.Bytes] = {}
    if kind == "edited":
        found["0/new"] = zcfuse.Bytes(b"new")
    for directory, _, names in os.walk(backing):
        for name in names:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, backing)] = path
    return zcfuse.Dir.from_paths(found)


def serve(stack: contextlib.ExitStack, wait: float) -> list[zcfuse.ServedMount]:
    """Mount or take over each mount of the command line."""
    served = []
    for kind, backing, where in zip(sys.argv[2::3], sys.argv[3::3], sys.argv[4::3], strict=True):
        mounted = zcfuse.serve(
            tree_of(kind, backing),
            where,
            attach=zcfuse.is_waiting(where),
            survive=True,
            survive_wait=wait,
        )
        served.append(stack.enter_context(mounted))
    generations = [one.run(one.mount.status).survival for one in served]
    print("serves", *[one.generation for one in generations if one], flush=True)
    return served


def main() -> None:
    """Serve until the input ends, and obey it."""
    with contextlib.ExitStack() as stack:
        served = serve(stack, float(sys.argv[1]))
        for line in sys.stdin:
            if line == "leave\n":
                stack.close()
                print("left", flush=True)
            elif line == "again\n":
                stack.close()
                served = serve(stack, float(sys.argv[1]))
            elif line == "unmount\n":
                for one in served:
                    one.unmount()
                print("unmounted", flush=True)
            elif line == "exec\n":
                os.execv(sys.executable, [sys.executable, *sys.argv])


if __name__ == "__main__":
    main()
