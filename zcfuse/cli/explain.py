"""``zcfuse explain``: says how one file is served and why not better, layer by layer."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import Any, Final

import click
import msgspec

from zcfuse.admin import FileRange
from zcfuse.admin.explain import BackingPart, Explanation, advice
from zcfuse.admin.status import Request, StatusError, ask, printable, read_status_of
from zcfuse.cli._errors import CommandError
from zcfuse.cli._gain import Gain, described, measured
from zcfuse.cli._kernel_mounts import explained_by_kernel
from zcfuse.cli._mount_paths import MountPath, MountPaths
from zcfuse.cli._output import json_option, print_json, print_pairs, print_table, shown, size
from zcfuse.linux import MountEntry, cachestat, nodeid_of, read_mounts
from zcfuse.reasons import reason_advice, reason_text
from zcfuse.text import escaped

_PATIENCE_S: Final = 60.0  # for a tree that has to decompress a member first
_ALIVE_S: Final = 3.0
_OPTIONS: Final = (
    "path",
    "transport",
    "stack_depth",
    "immutable",
    "directory_lease",
    "lock_budget",
    "allow_other",
)
_CHANNELS: Final = {"dev": "/dev/fuse", "uring": "io_uring", "socket": "a socket"}
_FUSE_MAJOR: Final = 7


class Client(msgspec.Struct):
    """Facts that this process found itself, with the file open while it asks the daemon.

    `cached_bytes` are in the mount's own cache; None if the kernel hides the number from this
    user. `error` says why the file did not open.
    """

    path: str
    size: int
    kind: str
    nodeid: int
    cached_bytes: int | None
    error: str


class Report(msgspec.Struct):
    """The document of ``--json``."""

    file: Client
    daemon: Explanation
    advice: str
    gain: Gain | None = None


@click.command()
@click.argument("file", metavar="FILE")
@json_option
def explain(file: str, as_json: bool) -> None:
    """Say how FILE, in a zcfuse mount, is served, and why not better.

    The report goes from the mount's options down to the kernel's errno. Its last line advises how
    to serve FILE better. The command opens FILE, and the files behind it, for a moment.
    """
    mounts = read_mounts()
    above = list(_above(os.path.abspath(file), mounts))
    try:
        for entry in above:
            # Never look at a file of a daemon that hangs: the look would hang, too.
            read_status_of(entry, timeout=_ALIVE_S)
        if explained_by_kernel(file, as_json=as_json):
            return
        report = _report(file, mounts, above)
    except StatusError as error:
        raise CommandError(str(error), usage=error.usage) from error
    if as_json:
        print_json(report)
    else:
        _print(report)


def _report(given: str, mounts: list[MountEntry], above: list[MountEntry]) -> Report:
    path, place, status = _find(given, mounts, above)
    fd = -1
    error = ""
    if stat.S_ISREG(status.st_mode):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as failure:
            error = failure.strerror or str(failure)
    try:
        handle = fd if fd >= 0 else os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            nodeid = nodeid_of(handle)
            request = Request("explain", files=[FileRange(place.path, nodeid)])
            reply = ask(place.mount, request, timeout=_PATIENCE_S)
        finally:
            if handle != fd:
                os.close(handle)
        cached = _cached(fd) if fd >= 0 else None
    finally:
        if fd >= 0:
            os.close(fd)
    if not isinstance(reply, Explanation):
        raise StatusError(f"{place.mount.mountpoint}: unexpected answer {reply!r}")
    client = Client(printable(path), status.st_size, _kind(status), nodeid, cached, error)
    gain = None
    if stat.S_ISREG(status.st_mode) and reply.directories and len(reply.parts) == 1:
        gain = measured(path, reply.parts[0].path, len(reply.directories))
    return Report(client, reply, advice(reply), gain)


def _find(
    given: str, mounts: list[MountEntry], above: list[MountEntry]
) -> tuple[str, MountPath, os.stat_result]:
    path = os.path.realpath(given)
    try:
        status = os.stat(path)
    except OSError as error:
        hint = ""
        if error.errno == errno.EACCES and above and above[-1].owner[0] != os.geteuid():
            hint = f": only user {above[-1].owner[0]} is let in (--allow-other): ask as that user"
        raise CommandError(f"{given}: {error.strerror}{hint}") from error
    place = MountPaths(mounts).find(path, status.st_dev)
    if place is None:
        raise CommandError(f"{given}: in no zcfuse mount: see 'zcfuse list' for those that are")
    return path, place, status


def _above(path: str, mounts: list[MountEntry]) -> Iterator[MountEntry]:
    for entry in mounts:
        inside = path == entry.mountpoint or path.startswith(entry.mountpoint.rstrip("/") + "/")
        if entry.is_ours and inside:
            yield entry


def _cached(fd: int) -> int | None:
    try:
        return cachestat(fd).cached_bytes
    except OSError:
        return None


def _kind(status: os.stat_result) -> str:
    kinds = {stat.S_IFREG: "regular file", stat.S_IFDIR: "directory"}
    return kinds.get(stat.S_IFMT(status.st_mode), "special file")


def _print(report: Report) -> None:
    found = report.daemon
    is_file = report.file.kind == "regular file"
    print_pairs("file", dict(_file_lines(report)))
    if is_file:
        _print_parts(report)
    print_pairs("between the kernel and the daemon", dict(_kernel_lines(found)))
    if found.served.steps:
        rows = [
            (step.path, step.used or "-", reason_text(step.reason) or "-")
            for step in found.served.steps
        ]
        print_table("serving paths, the best first", ("path", "used for", "why"), rows)
    if found.fallbacks:
        counts = sorted(found.fallbacks.items(), key=lambda item: -item[1])
        counted = [(reason_text(one), count, reason_advice(one)) for one, count in counts]
        print_table("counted on this mount", ("reason", "times", "advice"), counted)
    if report.gain is not None:
        click.echo(f"without FUSE: {described(report.gain)}")
    click.echo(f"advice: {escaped(report.advice)}")


def _file_lines(report: Report) -> Iterator[tuple[str, str]]:
    file, found = report.file, report.daemon
    served = found.served
    yield "path", file.path
    yield "size", f"{size(file.size)}, {file.kind}"
    yield "mount", f"{found.mountpoint}, which shows {found.source} (process {found.pid})"
    yield "options", " ".join(_options(found))
    yield "in the tree", found.node
    yield "name and opens", _names(found)
    yield "may be cached", _timeout(found)
    yield "if the daemon dies", _after_death(found)
    if served.mode:
        yield "served", _served(found)
    if file.error:
        yield "this user", f"cannot open it: {file.error}"
    if served.locked_bytes:
        yield "kept in memory", size(served.locked_bytes)


def _options(found: Explanation) -> Iterator[str]:
    for name in _OPTIONS:
        value = found.options.get(name)
        if name == "lock_budget":
            yield f"{name}={size(value).replace(' ', '')}"
        elif value is not None:
            yield f"{name}={shown(value)}"


def _names(found: Explanation) -> str:
    if found.names.leased:
        return "answered by the data path, under a directory lease"
    return f"answered by Python: {reason_text(found.names.reason)}"


def _timeout(found: Explanation) -> str:
    seconds = found.names.timeout_s
    if found.volatile:
        return "not at all: the answer depends on the client"
    if found.names.strict:
        return "names until they change; a file's size and times only while it has no writer"
    if found.names.pushed:
        return "until it changes: each change is pushed to the kernel"
    if found.names.not_pushed and seconds is not None:
        return f"for {seconds:g} s: {reason_text(found.names.not_pushed)}"
    if seconds is not None:
        return f"for {seconds:g} s"
    return "for good: the mount is immutable" if found.options.get("immutable") else "for good"


def _after_death(found: Explanation) -> str:
    if found.options.get("survive"):
        return "a successor continues, and clients wait for some milliseconds"
    return "the mount ends, and clients get ENOTCONN: --survive keeps it"


def _served(found: Explanation) -> str:
    served = found.served
    words = {
        "passthrough": "by the kernel, from the backing file itself",
        "cached": "by the data path, into the mount's own page cache",
        "upcall": "by Python, each read",
        "naive": "by Python, each read: there is no data path",
    }
    text = f"{served.mode}: {words.get(served.mode, served.mode)} (tried now)"
    if served.open_as and served.open_as != served.mode:
        text += f"; programs that have it open use: {served.open_as}"
    return text


def _print_parts(report: Report) -> None:
    found = report.daemon
    more = found.parts_in_all - len(found.parts)
    title = f"behind it (and {more:,} more parts)" if more > 0 else "behind it"
    rows = [
        (part.path or "-", _range(part), _filesystem(part), _known(part.cached_bytes))
        for part in found.parts
    ]
    if rows:
        columns = ("file, as the daemon sees it", "bytes", "filesystem", "in its page cache")
        print_table(title, columns, rows)
    if not report.file.error:
        click.echo(f"in the mount's own page cache: {_known(report.file.cached_bytes)}\n")


def _range(part: BackingPart) -> str:
    if part.length is None:
        return "all" if part.offset == 0 else f"from {part.offset:,}"
    return f"{part.length:,} from {part.offset:,}"


def _filesystem(part: BackingPart) -> str:
    return f"{part.filesystem}, stacked on others" if part.stacked else part.filesystem


def _known(cached: int | None) -> str:
    return "hidden from this user" if cached is None else size(cached)


def _kernel_lines(found: Explanation) -> Iterator[tuple[str, str]]:
    kernel: dict[str, Any] = found.kernel
    channel = _CHANNELS.get(found.transport, found.transport)
    why = reason_text(found.transport_reason)
    yield "transport", f"{channel}: {why}" if why else channel
    if not kernel:
        yield "protocol", "by libfuse: the mount has no data path"
        return
    yield "protocol", f"{_FUSE_MAJOR}.{kernel.get('minor')}"
    depth = kernel.get("stack_depth")
    granted = f"negotiated, over {depth} stacked filesystem{'' if depth == 1 else 's'} at most"
    yield "passthrough", granted if kernel.get("passthrough") else _no_passthrough(found)
    without = "the kernel sends none" if kernel.get("zero_message_opens") else "a message each"
    yield "opens", without
    yield "largest read", size(int(kernel.get("max_pages", 0)) * os.sysconf("SC_PAGE_SIZE"))


def _no_passthrough(found: Explanation) -> str:
    if found.options.get("immutable"):
        return "not requested: the mount is immutable"
    if found.kernel.get("zero_message_opens"):
        return "not requested: the files are small, so opens send no message"
    if found.options.get("path") not in ("auto", "passthrough"):
        return f"not requested: path {found.options.get('path')} is demanded"
    return "not offered by this kernel"
