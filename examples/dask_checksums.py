"""Checksums of a data set, by Dask's workers: ``dask_checksums.py SOURCE MOUNTPOINT [OPTION...]``.

    python dask_checksums.py s3://bucket/train /tmp/train

Every machine mounts SOURCE once, when its first worker starts. Its workers share the mount and the
cache of fetched bytes. With a cluster of several machines, give `Client` the scheduler's address
instead of a `LocalCluster`. Prints the number of files, their bytes, a checksum, and what each
worker reports.
"""

import os
import sys
import zlib

try:
    from distributed import Client, LocalCluster
except ImportError as error:
    sys.exit(f"dask_checksums.py: {error}: pip install distributed")

from zcfuse.dask import MountPlugin

FILES_A_TASK = 100


def names(mountpoint: str) -> list[str]:
    """Return the paths of all files, as a worker sees them."""
    return sorted(
        os.path.join(where, name) for where, _, found in os.walk(mountpoint) for name in found
    )


def checksums(paths: list[str]) -> list[tuple[int, int]]:
    """Return the size and the checksum of each file."""
    found = []
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            data = file.readall()
        found.append((len(data), zlib.crc32(data)))
    return found


def main(source: str, mountpoint: str, *options: str) -> None:
    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
        plugin = MountPlugin(source, mountpoint, *options)
        client.register_plugin(plugin)
        paths = client.submit(names, mountpoint, pure=False).result()
        parts = [paths[at : at + FILES_A_TASK] for at in range(0, len(paths), FILES_A_TASK)]
        results = client.gather(client.map(checksums, parts))
        found = [one for part in results for one in part]
        total = zlib.crc32(repr([check for _, check in found]).encode())
        print(f"{len(found)} files, {sum(size for size, _ in found)} bytes, checksum {total:08x}")
        workers = client.scheduler_info()["workers"].values()
        for worker in sorted(workers, key=lambda one: one["name"]):
            print(f"worker {worker['name']}: {worker['metrics'].get(plugin.name, {})}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: dask_checksums.py SOURCE MOUNTPOINT [OPTION...]")
    main(*sys.argv[1:])
