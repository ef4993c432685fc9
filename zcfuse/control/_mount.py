"""Makes the parts that serve a tree, attaches them to the kernel, and undoes them in order.

Each mount of a process has a separate pyfuse3, and may have a separate trio loop. The caller holds
a `Mount` (_served.py).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, overload

import pyfuse3
import trio

from zcfuse.admin import FileRequests
from zcfuse.admin.locks import FileLocks, LockRoom, OwnBudget
from zcfuse.admin.status import listening
from zcfuse.control._checks import (
    check_mountpoint,
    check_options,
    chosen_lock_budget,
)
from zcfuse.control._opens import opens_silently
from zcfuse.control._renewal import Renewal
from zcfuse.control._served import CONTROL_TASKS, Mount, serving
from zcfuse.fuse import Changes, DirectoryLeases, Operations, Session, own_session
from zcfuse.linux import (
    Capability,
    KernelMount,
    MountError,
    abort_file,
    attach,
    has_initial_capability,
)
from zcfuse.options import MountOptions
from zcfuse.reasons import reason_line
from zcfuse.tree import BackingFile, Dir, Filter, Mirror, Tree, Union, VirtualTree

if TYPE_CHECKING:
    from zcfuse.admin.metrics import MetricsServer
    from zcfuse.control.survive import Survival
    from zcfuse.datapath import Config, DataPath
    from zcfuse.engine import KernelServed

log = logging.getLogger(__name__)


@overload
def mount(
    tree: Tree | Dir,
    mountpoint: str | bytes | os.PathLike[str],
    options: MountOptions | None = None,
    *,
    engine: Literal["fuse"] = "fuse",
    survival: Survival | None = None,
) -> AbstractAsyncContextManager[Mount]: ...


@overload
def mount(
    tree: Tree | Dir,
    mountpoint: str | bytes | os.PathLike[str],
    options: MountOptions | None = None,
    *,
    engine: Literal["kernel"],
    survival: Survival | None = None,
) -> AbstractAsyncContextManager[KernelServed]: ...


def mount(
    tree: Tree | Dir,
    mountpoint: str | bytes | os.PathLike[str],
    options: MountOptions | None = None,
    *,
    engine: Literal["fuse", "kernel"] = "fuse",
    survival: Survival | None = None,
) -> AbstractAsyncContextManager[Mount | KernelServed]:
    """Mount a tree and serve it for the length of an ``async with`` block.

    Parameters:
        tree: the tree to show. The caller closes a Tree after the block. Tasks of the same trio
            loop may change a Dir within the block.
        mountpoint: an existing directory without a mount on it.
        options: of the mount; None: the defaults.
        engine: "fuse", or "kernel" for a mount that no process serves. The kernel mounts a mirror
            and a union of directories as they are, and any other tree from an image that zcfuse
            makes first. The block then gets a `KernelServed`. Nothing may change the tree.
        survival: takes over a mount, or lets another process take over this one.

    Raises:
        MountError: the mount failed; nothing stays mounted, unless a successor takes it over.
        TypeError: `tree` is neither a Dir nor a Tree.
        ValueError: there is no such engine.

    A cancellation unmounts like the end of the block: within the bounded wait, then lazily.

    With ``survive`` among the options, neither the end of the block nor that of the program
    unmounts. A holder keeps the mount, and clients wait for a program that calls `attach`, for
    ``survive_wait`` seconds. `Mount.unmount` within the block ends the mount, and so does ``zcfuse
    umount`` at any time.
    """
    check_engine(engine)
    if engine == "fuse":
        chosen = options or MountOptions()
        if chosen.survive and survival is None:
            return _surviving(as_tree(tree), mountpoint, chosen)
        return _by_fuse(as_tree(tree), mountpoint, chosen, survival)
    from zcfuse.control._by_kernel import mounted_by_kernel

    return mounted_by_kernel(as_tree(tree), os.fsdecode(mountpoint), options or MountOptions())


@asynccontextmanager
async def _surviving(
    shown: Tree, mountpoint: str | bytes | os.PathLike[str], chosen: MountOptions
) -> AsyncIterator[Mount]:
    from zcfuse.control.survive import start_holder

    check_mountpoint(os.fsdecode(mountpoint))  # before there is a holder
    survival = await trio.to_thread.run_sync(start_holder, chosen)
    try:
        async with _by_fuse(shown, mountpoint, chosen, survival) as served:
            yield served
    finally:
        survival.close_if_free()


@asynccontextmanager
async def _by_fuse(
    shown: Tree,
    mountpoint: str | bytes | os.PathLike[str],
    chosen: MountOptions,
    survival: Survival | None,
) -> AsyncIterator[Mount]:
    check_options(chosen)
    if chosen.rw:
        _check_writable(shown, survival)
    if shown.wants_push() and not chosen.pushes:
        replace(chosen, coherence="push")  # refuses what excludes it
    lock_limit = chosen.lock_budget
    # Compute it once, before the process locks memory, because that reduces the limit's rest.
    chosen = replace(chosen, lock_budget=chosen_lock_budget(chosen))
    # A successor's mount point is its own mount already, at which it must not look.
    is_new = survival is None or survival.first
    path = check_mountpoint(os.fsdecode(mountpoint)) if is_new else os.fsdecode(mountpoint)
    source = chosen.source_name or "zcfuse"
    metrics: MetricsServer | None = None
    try:
        metrics = _metrics_server(chosen)
        make = functools.partial(
            attach,
            source,
            path,
            allow_other=chosen.allow_other,
            read_only=not chosen.rw,
            noexec=chosen.noexec,
        )
        if survival is None or survival.first:
            kernel = await trio.to_thread.run_sync(make)
        else:
            kernel = survival.taken_over()  # at once: clients wait
        with contextlib.ExitStack() as resources:
            resources.callback(kernel.close)
            try:
                session = _session(resources)
                served, listener = _prepare(
                    resources, shown, kernel, session, source, chosen, lock_limit, survival
                )
                async with serving(served, listener):
                    if survival is not None:
                        survival.serving()
                    for line in served.shortfalls:
                        log.warning("%s: %s", path, line)
                    if metrics is not None:
                        served.answer_scrapers(metrics)
                    yield served
            finally:
                if survival is None or not survival.leaves_mount:
                    _unmount_at_once(kernel)
    finally:
        if metrics is not None:
            metrics.close()


def _session(resources: contextlib.ExitStack) -> Session:
    try:
        return resources.enter_context(own_session())
    except OSError as error:
        raise MountError(f"a further mount of this process: {error.strerror}") from error


def _check_writable(tree: Tree, survival: Survival | None) -> None:
    lease = tree.lease_of(tree.root)
    is_plain = lease is not None and lease.fd >= 0 and not lease.filters
    is_merged = lease is not None and lease.layers and lease.refusals is None
    if lease is None or not is_plain or (is_merged and lease.work < 0):
        raise MountError(
            "rw: only a directory can be changed, and all of it, or a union with an upper layer:"
            " leave rw out, or mount a Mirror or a Union that overrides nothing, or a Pool",
            usage=True,
        )
    if survival is not None and (lease.refusals is not None or survival.is_program):
        raise MountError(
            "rw: with survive only 'zcfuse mount' of one directory, or with --upper: leave rw or"
            " survive out",
            usage=True,
        )


def _metrics_server(options: MountOptions) -> MetricsServer | None:
    """Listen for scrapers if an option asks for it; call it before the mount."""
    if options.metrics_listen is None:
        return None
    from zcfuse.admin.metrics import MetricsServer  # its library takes a while to load

    return MetricsServer(options.metrics_listen)


def _prepare(
    resources: contextlib.ExitStack,
    tree: Tree,
    kernel: KernelMount,
    session: Session,
    source: str,
    options: MountOptions,
    lock_limit: int | None,
    survival: Survival | None,
) -> tuple[Mount, socket.socket]:
    """Make the parts that serve the mount; *resources* closes pyfuse3 before the data path."""
    tree.refuse_device(*kernel.device)
    listener = resources.enter_context(listening(kernel.device))
    datapath: DataPath | None = None
    silent_opens = True
    channel = kernel.take_descriptor()
    if options.path != "naive":
        fence = _fence_directory(resources, kernel) if _watches(tree, options) else ""
        config = _config_of(options, tree, fence)
        silent_opens = config.silent_opens
        datapath, channel = _make_datapath(channel, kernel, options, config, survival)
        resources.callback(datapath.stop)
    directory_leases: DirectoryLeases | None = None
    wanted = options.directory_lease or options.immutable
    if datapath is not None and wanted and options.path != "upcall":
        directory_leases = DirectoryLeases(
            tree,
            datapath,
            coherence=options.coherence,
            watches=_watches(tree, options),
        )
    operations = Operations(
        tree,
        cache_timeout=options.effective_cache_timeout,
        leases=datapath,
        directory_leases=directory_leases,
        users=None if datapath is None else datapath.user_descriptors(),
        shared=options.allow_other,
        answer_timeout=options.answer_timeout,
        session=session,
    )
    resources.callback(operations.close)
    changes = Changes(operations.nodeid, _teller(datapath, session))
    tree.watch(changes.note)
    resources.callback(tree.watch, None)
    # For a name of this form, libfuse serves an existing connection. It owns the descriptor now.
    if datapath is None:
        resources.enter_context(_kept_from_children(channel))
    try:
        session.init(operations, f"/dev/fd/{channel}", set())
    except BaseException:
        os.close(channel)
        raise
    resources.callback(session.close, False)
    if datapath is not None:
        datapath.refuse_device(*kernel.device)
        if directory_leases is not None:
            directory_leases.grant_root()
        if survival is not None and not survival.first:
            # Before threads read: the kernel would send again what they work on, too.
            datapath.resend()
        try:
            datapath.start()
        except RuntimeError as error:
            raise MountError(f"{kernel.mountpoint}: {error}") from error
    files = _file_requests(tree, operations, datapath, options, lock_limit)
    renewal = Renewal(tree, operations, changes, push=options.pushes)
    resources.callback(files.locks.close)
    served = Mount(
        kernel,
        source,
        options,
        operations,
        datapath,
        directory_leases,
        changes,
        tree,
        files,
        renewal,
        survival,
        silent_opens=silent_opens,
    )
    return served, listener


# Descriptors of connections without a data path, which guards its own (sys/fork_guard.hpp).
_not_for_children: set[int] = set()


def _replace_in_child() -> None:
    """Give up the connections in a forked child: clients would wait for it if the parent died."""
    if _not_for_children:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in _not_for_children:
            os.dup2(null, descriptor, inheritable=False)
        os.close(null)
        _not_for_children.clear()


os.register_at_fork(after_in_child=_replace_in_child)


@contextlib.contextmanager
def _kept_from_children(descriptor: int) -> Iterator[None]:
    _not_for_children.add(descriptor)
    try:
        yield
    finally:
        _not_for_children.discard(descriptor)


def _file_requests(
    tree: Tree,
    operations: Operations,
    datapath: DataPath | None,
    options: MountOptions,
    lock_limit: int | None,
) -> FileRequests:
    """Make the answers about files. `lock_limit` is the lock budget of the options, if any."""

    def serve(backing: BackingFile) -> tuple[str, str]:
        if datapath is None:
            return "naive", ""
        extents = [(run.fd, run.offset, run.length) for run in backing.extents]
        return datapath.would_serve(extents, backing.path)

    budget = datapath if datapath is not None else OwnBudget(lock_limit or 0)
    locks = FileLocks(LockRoom(lock_limit, budget))
    timeout = options.answer_timeout
    return FileRequests(tree, locks, serve, operations.node, timeout, operations.far)


def check_engine(engine: str) -> None:
    """Raise ValueError unless there is such an engine."""
    if engine not in ("fuse", "kernel"):
        raise ValueError(f"engine: 'fuse' or 'kernel', not {engine!r}")


def as_tree(tree: Tree | Dir) -> Tree:
    """Return a Dir as a tree, and a tree as it is; raise TypeError for anything else."""
    if isinstance(tree, Dir):
        return VirtualTree(tree)
    if not isinstance(tree, Tree):
        raise TypeError(f"a mount shows a Dir or a Tree such as Mirror, not {tree!r}")
    return tree


def _teller(datapath: DataPath | None, session: Session) -> Callable[[int, bytes], None]:
    """Return a function that has the kernel forget a name and its directory's attributes."""

    def tell(nodeid: int, name: bytes) -> None:
        if datapath is None:
            with contextlib.suppress(FileNotFoundError):
                session.invalidate_entry(pyfuse3.InodeT(nodeid), pyfuse3.FileNameT(name))
            with contextlib.suppress(FileNotFoundError):
                session.invalidate_inode(pyfuse3.InodeT(nodeid), True)
            return
        datapath.invalidate_entry(nodeid, name)
        datapath.invalidate_inode(nodeid, 0, 0)  # and its listing, if the kernel has it

    return tell


def _watches(tree: Tree, options: MountOptions) -> bool:
    return options.pushes or tree.wants_push()


def _fence_directory(resources: contextlib.ExitStack, kernel: KernelMount) -> str:
    """Make a private directory of this daemon; *resources* removes it.

    It also removes what killed daemons of the same mount left.
    """
    place = "/run" if os.access("/run", os.W_OK) else tempfile.gettempdir()
    prefix = f"zcfuse-fence-{'-'.join(map(str, kernel.device))}-"
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith(prefix):
                shutil.rmtree(entry.path, ignore_errors=True)
    directory = tempfile.mkdtemp(prefix=prefix, dir=place)
    resources.callback(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _config_of(options: MountOptions, tree: Tree, fence: str) -> Config:
    from zcfuse.datapath import Config

    config = Config()
    for name in ("path", "transport", "threads", "stack_depth", "prefault", "immutable"):
        setattr(config, name, getattr(options, name))
    config.passthrough_permitted = has_initial_capability(Capability.SYS_ADMIN)
    config.source_stacked = isinstance(tree, Filter | Mirror | Union) and tree.stacked
    config.source_in_parts = tree.part_bytes() >= config.splice_min
    config.lock_budget = options.lock_budget or 0
    config.hot_files = options.hot_files
    config.read_only = not options.rw
    config.cache_timeout = round(options.cache_timeout * 1000)
    config.push = _watches(tree, options)
    config.fence_directory = fence
    config.shared = options.allow_other
    config.control_tasks = CONTROL_TASKS
    if options.immutable or config.push:
        passes = config.passthrough_permitted and (
            not config.source_stacked or options.stack_depth > 1
        )
        config.silent_opens = opens_silently(tree, options, passthrough=passes)
    return config


def _make_datapath(
    channel: int,
    kernel: KernelMount,
    options: MountOptions,
    config: Config,
    survival: Survival | None,
) -> tuple[DataPath, int]:
    from zcfuse.datapath import MESSAGE_BYTES, DataPath, upcall_pair

    ours, theirs, message_bytes = upcall_pair(MESSAGE_BYTES)
    config.message_bytes = message_bytes
    try:
        if survival is not None:
            return _surviving_datapath(channel, ours, config, kernel, survival), theirs
        datapath = DataPath(channel, ours, config, device=True)
    except RuntimeError as error:
        os.close(theirs)
        raise MountError(f"--transport {options.transport}: {reason_line(str(error))}") from error
    except BaseException:
        os.close(theirs)
        raise
    datapath.set_abort(abort_file(kernel.device), os.fsencode(kernel.mountpoint))
    return datapath, theirs


def _surviving_datapath(
    channel: int, upcalls: int, config: Config, kernel: KernelMount, survival: Survival
) -> DataPath:
    """Make a data path whose state and descriptors the holder keeps.

    It never aborts the connection: if a part of it fails, a successor takes over.
    """
    from zcfuse.datapath import DataPath

    try:
        state = survival.state
        clones = survival.hold(channel, kernel.device, config.threads)
        config.threads = 1 + len(clones)
    except BaseException:
        os.close(channel)
        os.close(upcalls)
        raise
    datapath = DataPath(channel, upcalls, config, device=True, state=state, clones=clones)
    datapath.set_mountpoint(os.fsencode(kernel.mountpoint))
    survival.watch_requests(datapath)
    survival.keep_orphans(datapath)
    return datapath


def _unmount_at_once(kernel: KernelMount) -> None:
    """Remove the mount if its start or its orderly end failed."""
    if kernel.entry() is None:
        return
    try:
        kernel.abandon()
    except (OSError, MountError) as error:
        log.error("%s: still mounted: %s", kernel.mountpoint, error)
