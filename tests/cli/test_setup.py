"""`zcfuse setup`: the files that it installs below --root, and those that it leaves alone."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import DEADLINE_S, refused
from tests.support import requires
from tests.support._user import CHECKOUT
from zcfuse.cli.setup import _closed_to_others as closed_to_others

HELPER = "sbin/mount.fuse.zcfuse"
UNIT = "usr/local/lib/systemd/system/zcfuse@.service"
MANUAL = "usr/local/share/man/man1/zcfuse.1"
PAGES = {path.name for path in Path(CHECKOUT, "zcfuse/share/man").glob("*.[0-9]")}
FILES = {
    UNIT,
    *(f"usr/local/share/man/man{page[-1]}/{page}" for page in PAGES),
    "usr/local/share/bash-completion/completions/zcfuse",
    "usr/local/share/zsh/site-functions/_zcfuse",
    "usr/local/share/fish/vendor_completions.d/zcfuse.fish",
}
LINKS = {HELPER, "usr/local/bin/zcfuse"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def setup(commands, root):
    def run(*options: str, home: Path = root, umask: int = -1) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [f"{commands}/zcfuse", "setup", "--root", str(root), *options],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            env={**os.environ, "HOME": str(home)},
            umask=umask,
        )

    return run


def below(root: Path) -> set[str]:
    """The names of everything except directories."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def test_it_puts_everything_where_it_is_looked_for(setup, root, commands):
    result = setup()
    assert (result.returncode, result.stderr) == (0, "")
    assert below(root) == FILES | LINKS
    for link in LINKS:
        assert os.readlink(root / link) == f"{commands}/{os.path.basename(link)}"
        assert str(root / link) in result.stdout
    for file in FILES:
        assert stat.S_IMODE((root / file).stat().st_mode) == 0o644
        assert f"wrote {root / file}\n" in result.stdout
    unit = (root / UNIT).read_text()
    assert f"\nExecStart={commands}/zcfuse mount --foreground " in unit
    assert f"\nExecStopPost=-{commands}/zcfuse umount " in unit


def test_everybody_may_read_what_a_cautious_root_puts_in_place(setup, root):
    assert setup(umask=0o077).returncode == 0
    for path in root.rglob("*"):
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_pip_puts_the_same_files_into_its_prefix():
    with open(os.path.join(CHECKOUT, "CMakeLists.txt")) as file:
        words = {word for word in file.read().split() if word.startswith("${share}/")}
    share = Path(CHECKOUT, "zcfuse/share")
    files = {str(path.relative_to(share)) for path in share.rglob("*") if path.is_file()}
    # The pages are installed by a pattern.
    named = {name for name in files if not name.startswith("man/")}
    assert words == {"${share}/man/", *(f"${{share}}/{name}" for name in named)}
    assert len(named) + len(PAGES) == len(FILES)


def test_a_second_run_changes_nothing(setup, root):
    setup()
    before = {name: (root / name).lstat().st_ino for name in below(root)}
    result = setup()
    assert result.returncode == 0
    assert {name: (root / name).lstat().st_ino for name in below(root)} == before
    assert {line.split(":")[0] for line in result.stdout.splitlines()} == {"exists"}


def test_a_dry_run_says_the_same_and_does_nothing(setup, root):
    dry = setup("--dry-run").stdout
    assert below(root) == set()
    done = setup().stdout
    assert dry.replace("would link", "linked").replace("would write", "wrote") == done
    dry = setup("--uninstall", "--dry-run").stdout
    assert below(root) == FILES | LINKS
    assert dry.replace("would remove", "removed") == setup("--uninstall").stdout


def test_what_an_older_one_left_is_replaced(setup, root):
    setup()
    (root / MANUAL).write_text(".\\\" Put in place by 'zcfuse setup'.\nof before\n")
    os.unlink(root / HELPER)
    os.symlink("/gone/venv/bin/mount.fuse.zcfuse", root / HELPER)
    result = setup()
    assert result.returncode == 0
    assert "of before" not in (root / MANUAL).read_text()
    assert not os.readlink(root / HELPER).startswith("/gone")
    assert result.stdout.count("wrote") == result.stdout.count("linked") == 1


@pytest.mark.parametrize("name", [HELPER, UNIT])
def test_a_stranger_s_file_is_left_alone_and_nothing_is_done(setup, root, name):
    (root / name).parent.mkdir(parents=True)
    (root / name).write_text("of somebody else")
    refused(setup(), 1, str(root / name), "not of zcfuse", "--prefix")
    assert below(root) == {name}
    assert (root / name).read_text() == "of somebody else"


def test_uninstall_takes_away_ours_and_only_ours(setup, root):
    setup()
    (root / MANUAL).write_text("of somebody else")
    result = setup("--uninstall")
    assert below(root) == {MANUAL}
    assert result.returncode == 0
    assert result.stdout.count("removed ") == len(FILES | LINKS) - 1
    assert result.stderr == f"zcfuse: {root / MANUAL}: not of zcfuse, and left alone\n"


def test_a_user_without_root_gets_what_needs_none(setup, root, tmp_path):
    assert setup("--user", home=tmp_path).returncode == 0
    local = f"{tmp_path}/.local/".lstrip("/")
    assert below(root) == {
        f"{local}bin/zcfuse",
        *(f"{local}share/man/man1/{page}" for page in PAGES if page.endswith(".1")),
        f"{local}share/bash-completion/completions/zcfuse",
        f"{local}share/zsh/site-functions/_zcfuse",
        f"{local}share/fish/vendor_completions.d/zcfuse.fish",
    }


def test_an_installation_without_the_helper_is_told(setup, commands):
    os.unlink(f"{commands}/mount.fuse.zcfuse")
    result = setup()
    assert result.returncode in (0, 1)  # pip may have installed one beside the interpreter
    if result.returncode == 1:
        refused(result, 1, "mount.fuse.zcfuse", "pip")


def test_a_relative_prefix_is_refused(setup):
    refused(setup("--prefix", "here"), 2, "--prefix here", "absolute")


def test_a_command_s_path_is_written_as_systemd_reads_it():
    from zcfuse.cli.setup import _systemd_word

    assert _systemd_word("/opt/zc-1.0/bin/zcfuse") == b"/opt/zc-1.0/bin/zcfuse"
    assert _systemd_word('/a b/50%/"q"/zcfuse') == b'"/a b/50%%/\\"q\\"/zcfuse"'


@requires("root")
@pytest.mark.parametrize("harm", ["owner", "mode", "directory"])
def test_root_does_not_link_an_installation_that_others_may_write(commands, harm):
    victim = commands if harm == "directory" else f"{commands}/zcfuse"
    if harm == "owner":
        os.chown(victim, 65534, -1)
    else:
        os.chmod(victim, 0o777)
    result = subprocess.run(
        [f"{commands}/zcfuse", "setup", "--dry-run"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    refused(result, 1, str(victim), "other users than root may write it")


def test_an_installation_that_other_users_cannot_read_is_found(tmp_path):
    closed = tmp_path / "home" / "closed"
    closed.mkdir(parents=True)
    program = closed / "bin"
    program.touch(mode=0o755)
    tmp_path.chmod(0o755)
    assert not closed_to_others(str(program)).startswith(str(tmp_path))
    closed.chmod(0o750)
    assert closed_to_others(str(program)) == str(closed)
    program.chmod(0o750)
    assert closed_to_others(str(program)) == str(program)
