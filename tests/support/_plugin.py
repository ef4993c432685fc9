"""The pytest plugin: markers, fixtures and the checks at the end of a run.

It fails a run for a skip on a machine that offers everything, and for a leftover mount.
"""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.support import _capabilities as capabilities
from tests.support._daemon import Daemon, Mounter
from tests.support._kernel import FuseMount, abort, detach, fuse_mounts
from tests.support._rings import kept_on as rings_kept_on
from tests.support._user import OrdinaryUser
from tests.support._user import ordinary_user as _ordinary_user

_LEFT = pytest.StashKey[list[FuseMount]]()
# Where the tests with a mark are. To collect all tests takes each worker seconds.
_FOLDERS: Final = {
    "alone": ("cli", "coherence", "integration"),
    "ring": ("integration", "programs", "sanitized"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --rings and --part."""
    parser.addoption(
        "--rings", action="store_true", help="switch FUSE over io_uring on during the run"
    )
    parser.addoption(
        "--part", choices=sorted(_FOLDERS), help="collect where tests with this mark are"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and switch FUSE over io_uring on if the run is to have it."""
    config.addinivalue_line("markers", "requires(*names): capabilities that the test needs")
    config.addinivalue_line(
        "markers", "alone: changes a machine setting, loads the machine, or needs its caches"
    )
    config.addinivalue_line("markers", "ring: needs FUSE over io_uring switched on")
    config.addinivalue_line("markers", "proof: a program that only `make proof` installs and runs")
    if config.getoption("--rings") and not _is_worker(config):
        _keep_rings_on(config)
    part = config.getoption("--part")
    if part and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        config.args = [str(config.rootpath / "tests" / folder) for folder in _FOLDERS[part]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a marked test where --part would not look for it."""
    tests = config.rootpath / "tests"
    for item in items:
        for mark, folders in _FOLDERS.items():
            if item.get_closest_marker(mark) and not any(
                item.path.is_relative_to(tests / folder) for folder in folders
            ):
                raise pytest.UsageError(f"{item.nodeid}: --part {mark} does not collect it")


def pytest_report_header() -> list[str]:
    """List the missing capabilities at the start of a run."""
    if capabilities.offers_everything():
        return ["zcfuse: this machine offers everything: a skip is a failure"]
    return [f"zcfuse: kernel {os.uname().release}, uid {os.geteuid()}: some tests may skip"]


def pytest_collection_finish() -> None:
    """Leave the objects of the collected tests out of each later garbage collection.

    They are some 200,000, and tests that count descriptors collect twice.
    """
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need a missing capability."""
    for marker in item.iter_markers("requires"):
        capabilities.skip_unless(*marker.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn an unexpected skip into a failure."""
    report = yield
    if call.excinfo is not None and call.excinfo.errisinstance(pytest.skip.Exception):
        _judge(report, str(getattr(call.excinfo.value, "msg", "")))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself at import."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        _judge(report, report.longrepr[2].removeprefix("Skipped: "))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, object, object]:
    """Escape what a worker cannot send: names that are not UTF-8, in captured text."""
    return _encodable((yield))


def _encodable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list | tuple):
        return type(value)(map(_encodable, value))
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return value


def _judge(report: pytest.TestReport | pytest.CollectReport, reason: str) -> None:
    if capabilities.offers_everything() and not capabilities.expected(reason):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: a skip that is not expected here: {reason}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove leftover mounts below the temporary directory, and fail for them.

    Among several workers the controller does it, because it decides the exit status.
    """
    if _is_worker(session.config):
        return
    base = os.path.realpath(tempfile.gettempdir())
    left = [mount for mount in fuse_mounts() if _is_ours(session.config, mount.mountpoint, base)]
    session.config.stash[_LEFT] = left
    for mount in left:
        abort(mount)
        detach(mount.mountpoint)
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the leftover mounts."""
    for mount in terminalreporter.config.stash.get(_LEFT, []):
        terminalreporter.write_line(f"left mounted by a test: {mount.mountpoint}", red=True)


def _keep_rings_on(config: pytest.Config) -> None:
    if not capabilities.missing("io_uring"):
        kept = contextlib.ExitStack()
        kept.enter_context(rings_kept_on())
        config.add_cleanup(kept.close)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _is_ours(config: pytest.Config, mountpoint: str, base: str) -> bool:
    """Whether it lies below this run's `tmp_path`, not that of another run or user."""
    factory = getattr(config, "_tmp_path_factory", None)
    own = os.path.realpath(factory.getbasetemp()) if factory is not None else base
    return mountpoint.startswith(own + "/")


@pytest.fixture
def source(tmp_path: Path) -> str:
    """An empty directory to mount."""
    path = tmp_path / "source"
    path.mkdir()
    return str(path)


@pytest.fixture
def mountpoint(tmp_path: Path) -> str:
    """An empty directory to mount it on."""
    path = tmp_path / "mnt"
    path.mkdir()
    return str(path)


@pytest.fixture
def mounted(tmp_path: Path, source: str, mountpoint: str) -> Iterator[Mounter]:
    """Makes real mounts: ``mounted("--path", "splice")`` shows `source` on `mountpoint`.

    Keyword arguments: `source`, `mountpoint` (other directories), `env` (added to the daemon's
    environment), `user` (an `OrdinaryUser` who owns both directories), `forked` (False: a command
    line that shows the arguments). The end unmounts each mount and requires exit status 0 from its
    daemon.
    """
    capabilities.skip_unless("mounting")
    daemons: list[Daemon] = []

    def mount(
        *options: str,
        source: str = source,
        mountpoint: str = mountpoint,
        env: Mapping[str, str] | None = None,
        user: OrdinaryUser | None = None,
        forked: bool = True,
    ) -> Daemon:
        log = str(tmp_path / f"daemon-{len(daemons)}.log")
        daemon = Daemon(source, mountpoint, *options, log=log, env=env, user=user, forked=forked)
        daemons.append(daemon)
        if user is not None:
            user.ends.callback(daemon.unmount)
        return daemon

    yield mount
    failures = [failure for daemon in reversed(daemons) if (failure := _failure_of(daemon))]
    if failures:
        raise failures[0]


def _failure_of(daemon: Daemon) -> AssertionError | None:
    """Unmount all, even if one fails."""
    try:
        daemon.unmount()
    except AssertionError as failure:
        return failure
    return None


@pytest.fixture
def ordinary_user() -> Iterator[OrdinaryUser]:
    """A user other than root with access to /dev/fuse; see `OrdinaryUser`."""
    capabilities.skip_unless("ordinary user")
    with _ordinary_user() as user:
        yield user
