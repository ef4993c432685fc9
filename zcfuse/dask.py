"""Mounts in the workers of a Dask cluster. Needs ``pip install 'zcfuse[dask]'``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from distributed import Worker, WorkerPlugin

from zcfuse.workers import SharedMount


class MountPlugin(WorkerPlugin):
    """Mounts when a worker starts, and unmounts when the last worker of its machine ends.

    The workers of a machine share the mount, and with it the page cache and the cache of fetched
    bytes. Each worker reports `SharedMount.figures` with its heartbeat, as a metric of the plugin's
    name: ``client.scheduler_info()["workers"][address]["metrics"]["zcfuse /mnt/data"]``.

    Parameters:
        source: a directory, a URL or an archive.
        mountpoint: the directory to mount on.
        options: further arguments of ``zcfuse mount``.
    """

    idempotent = True

    def __init__(self, source: str, mountpoint: str | os.PathLike[str], *options: str) -> None:
        self._shared = SharedMount(source, mountpoint, *options)
        self.name = f"zcfuse {self._shared.mountpoint}"

    async def setup(self, worker: Worker) -> None:
        """Enter the mount.

        Raises:
            MountError: the mount failed; then the worker does not start.
        """
        await asyncio.to_thread(self._shared.enter)
        # A heartbeat may be going over the mapping, so it is replaced instead of changed.
        worker.metrics = {**worker.metrics, self.name: self._figures}

    async def teardown(self, worker: Worker) -> None:
        """Leave the mount."""
        others = {name: one for name, one in worker.metrics.items() if name != self.name}
        worker.metrics = others
        await asyncio.to_thread(self._shared.leave)

    async def _figures(self, _: Worker) -> Mapping[str, int]:
        return await asyncio.to_thread(self._shared.figures)
