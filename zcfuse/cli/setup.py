"""``zcfuse setup``: puts files where mount(8), systemd, man and the shells look for them.

pip writes only into its own prefix, which may be a virtual environment. The command first checks
every file, then writes. It never replaces a file that zcfuse did not write.
"""

from __future__ import annotations

import functools
import grp
import os
import pwd
import re
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import click

from zcfuse.cli import _completion
from zcfuse.cli._errors import CommandError, warn

_HELPER: Final = "mount.fuse.zcfuse"
_SHARE: Final = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "share")
# Every file that zcfuse writes has this in its first lines.
_MARK: Final = b"'zcfuse setup'"
_MARK_WITHIN: Final = 512

# Places below the prefix, from file_hierarchy(7), systemd.unit(5) and each shell's documentation.
_FILES: Final = {
    "lib/systemd/system/zcfuse@.service": "systemd/zcfuse@.service",
    "share/bash-completion/completions/zcfuse": "completions/zcfuse",
    "share/zsh/site-functions/_zcfuse": "completions/_zcfuse",
    "share/fish/vendor_completions.d/zcfuse.fish": "completions/zcfuse.fish",
}
_PLAIN: Final = re.compile(r"[\w/.+-]+", re.ASCII)
_ROOT_ONLY: Final = ("lib/systemd/", "share/man/man8/")


@dataclass(frozen=True, slots=True)
class _Item:
    """A file to write with this content, or a link to make."""

    path: str
    content: bytes = b""
    link: str = ""

    def is_there(self) -> bool:
        """Whether the item is in place already, or the linked file itself lies there."""
        try:
            if self.link:
                return os.path.realpath(self.path) == os.path.realpath(self.link)
            with open(self.path, "rb") as file:
                return file.read() == self.content
        except OSError:
            return False

    def may_be_replaced(self) -> bool:
        """Whether the place is empty or holds a file of zcfuse, even of another installation."""
        if os.path.islink(self.path):
            return os.path.basename(os.readlink(self.path)) == os.path.basename(self.path)
        if not os.path.exists(self.path):
            return True
        if self.link or not os.path.isfile(self.path):
            return False
        with open(self.path, "rb") as file:
            return _MARK in file.read(_MARK_WITHIN)

    def put(self) -> None:
        """Put the item in place atomically."""
        _make_directory(os.path.dirname(self.path))
        new = f"{self.path}.{os.getpid()}.new"
        try:
            if self.link:
                os.symlink(self.link, new)
            else:
                with open(new, "xb") as file:
                    file.write(self.content)
                os.chmod(new, 0o644)
            os.replace(new, self.path)
        except OSError:
            if os.path.lexists(new):
                os.unlink(new)
            raise

    def __str__(self) -> str:
        return f"{self.path} -> {self.link}" if self.link else self.path


@click.command()
@click.option("--dry-run", is_flag=True, help="List the steps without doing them.")
@click.option("--uninstall", is_flag=True, help="Remove the files that setup wrote.")
@click.option(
    "--user",
    "for_user",
    is_flag=True,
    help="Without root, for this user: manual page and completion, below ~/.local.",
)
@click.option(
    "--prefix",
    metavar="DIR",
    shell_complete=_completion.directories,
    help="Where the unit, the manual pages and the completion go. [default: /usr/local]",
)
@click.option(
    "--root",
    metavar="DIR",
    default="/",
    shell_complete=_completion.directories,
    help="Put all files below DIR, as for a package.",
)
def setup(dry_run: bool, uninstall: bool, for_user: bool, prefix: str | None, root: str) -> None:
    """Tell mount(8), systemd, man and the shells about zcfuse.

    Links mount.fuse.zcfuse into /sbin and zcfuse into PREFIX/bin, and writes the unit
    zcfuse@.service, the manual pages and the completion for bash, zsh and fish. Run it again
    after an upgrade. It replaces only files of zcfuse.
    """
    where = os.path.expanduser(prefix or ("~/.local" if for_user else "/usr/local"))
    if not os.path.isabs(where):
        raise CommandError(f"--prefix {where}: give an absolute path", usage=True)
    if os.geteuid() == 0 and os.path.realpath(root) == "/" and not uninstall and not for_user:
        _require_safe_installation()
        _warn_of_unreadable_installation()
    items = list(_items(where, os.path.abspath(root), for_user=for_user))
    if uninstall:
        _remove(items, dry_run=dry_run)
    else:
        _install(items, dry_run=dry_run)
    here = os.path.realpath(root) == "/" and os.path.exists("/run/systemd/system")  # sd_booted(3)
    if here and not for_user and not dry_run:
        click.echo("now run 'systemctl daemon-reload'")


def _items(prefix: str, root: str, *, for_user: bool) -> Iterator[_Item]:
    scripts = _scripts()

    def below_root(path: str) -> str:
        return os.path.join(root, path.lstrip("/"))

    if not for_user:
        yield _Item(below_root(f"/sbin/{_HELPER}"), link=os.path.join(scripts, _HELPER))
    yield _Item(below_root(f"{prefix}/bin/zcfuse"), link=os.path.join(scripts, "zcfuse"))
    if os.path.realpath(prefix) == os.path.realpath(sysconfig.get_path("data")):
        return  # pip put the files there
    for target, name in {**_FILES, **_manual_pages()}.items():
        if not (for_user and target.startswith(_ROOT_ONLY)):
            with open(os.path.join(_SHARE, name), "rb") as file:
                content = file.read()
            if name.startswith("systemd/"):
                content = _with_command(content, os.path.join(scripts, "zcfuse"))
            yield _Item(below_root(f"{prefix}/{target}"), content)


def _manual_pages() -> dict[str, str]:
    names = sorted(os.listdir(os.path.join(_SHARE, "man")))
    return {
        f"share/man/man{name[-1]}/{name}": f"man/{name}" for name in names if name[-1].isdigit()
    }


def _with_command(unit: bytes, path: str) -> bytes:
    """Return the unit with zcfuse's absolute path, since systemd searches only a few places."""
    word = _systemd_word(path)
    return re.sub(rb"(?<==)(-?)zcfuse ", lambda match: match[1] + word + b" ", unit)


def _systemd_word(path: str) -> bytes:
    """Return a path as a unit quotes it: systemd.syntax(7), and systemd.unit(5) for percents."""
    if _PLAIN.fullmatch(path):
        return os.fsencode(path)
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return os.fsencode(f'"{escaped}"')


def _scripts() -> str:
    """Return where pip put the commands of this installation."""
    places = [os.path.dirname(os.path.abspath(sys.argv[0])), sysconfig.get_path("scripts")]
    for place in places:
        if all(os.access(os.path.join(place, name), os.X_OK) for name in ("zcfuse", _HELPER)):
            return place
    raise CommandError(
        f"no {_HELPER} beside the command zcfuse, in {' or '.join(dict.fromkeys(places))}:"
        " install zcfuse with pip"
    )


def _require_safe_installation() -> None:
    """Refuse an installation that another user may write, since root and mount(8) will run it."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    commands = [os.path.join(_scripts(), name) for name in ("zcfuse", _HELPER)]
    for path in (*commands, package, sys.executable):
        writable = _writable_by_others(os.path.realpath(path))
        if writable:
            raise CommandError(
                f"{writable}: other users than root may write it, and root would run {path}:"
                " nothing was changed; install zcfuse as root, or correct owner and mode"
            )


def _warn_of_unreadable_installation() -> None:
    """Warn in one line if users other than root cannot run the command about to be linked."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for path in (os.path.join(_scripts(), "zcfuse"), package, sys.executable):
        closed = _closed_to_others(os.path.realpath(path))
        if closed:
            warn(
                f"zcfuse: {closed}: closed to other users, who therefore cannot run zcfuse:"
                " install it in a place that they can read, such as /opt/zcfuse"
            )
            return


def _closed_to_others(path: str) -> str:
    """Return a path, or the nearest directory above it, that others may not use."""
    while True:
        wanted = stat.S_IXOTH if os.path.isdir(path) else stat.S_IROTH
        if not os.stat(path).st_mode & wanted:
            return path
        if path == "/":
            return ""
        path = os.path.dirname(path)


def _writable_by_others(path: str) -> str:
    """Return a path, or the nearest directory above it, that users other than root may write."""
    while True:
        status = os.stat(path)
        by_all = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
        by_group = status.st_mode & stat.S_IWGRP and _has_members(status.st_gid)
        if status.st_uid != 0 or by_all or by_group:
            return path
        if path == "/":
            return ""
        path = os.path.dirname(path)


def _has_members(gid: int) -> bool:
    """Say whether a group has a user other than root. Debian gives /usr/local to an empty group."""
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        return gid != 0
    members |= {user.pw_name for user in pwd.getpwall() if user.pw_gid == gid}
    return bool(members - {"root"})


def _install(items: list[_Item], *, dry_run: bool) -> None:
    strange = [item.path for item in items if not item.is_there() and not item.may_be_replaced()]
    if strange:
        raise CommandError(
            f"{', '.join(strange)}: not of zcfuse: nothing was changed; move it"
            " away, or choose another --prefix"
        )
    for item in items:
        if item.is_there():
            click.echo(f"exists: {item}")
        elif dry_run:
            click.echo(f"would {'link' if item.link else 'write'} {item}")
        else:
            _done(item.put, item)
            click.echo(f"{'linked' if item.link else 'wrote'} {item}")


def _remove(items: list[_Item], *, dry_run: bool) -> None:
    for item in items:
        if not os.path.lexists(item.path):
            continue
        if item.link == item.path:
            continue  # the command itself, which pip owns
        if not item.may_be_replaced():
            warn(f"zcfuse: {item.path}: not of zcfuse, and left alone")
            continue
        if not dry_run:
            _done(functools.partial(os.unlink, item.path), item)
        click.echo(f"{'would remove' if dry_run else 'removed'} {item.path}")


def _make_directory(path: str) -> None:
    """Make a directory and its parents, readable for everybody whatever root's umask is."""
    if not os.path.isdir(path):
        _make_directory(os.path.dirname(path))
        os.mkdir(path)
        os.chmod(path, 0o755)


def _done(action: Callable[[], None], item: _Item) -> None:
    try:
        action()
    except PermissionError as error:
        raise CommandError(
            f"{item.path}: {error.strerror}: run it as root, or with --user for yourself alone"
        ) from error
    except OSError as error:
        raise CommandError(f"{item.path}: {error.strerror}") from error
