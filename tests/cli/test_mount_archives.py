"""`zcfuse mount` of archives: one as the tree, several and a directory of them as directories."""

import gzip
import io
import json
import os
import pty
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests.cli.conftest import refused, run_zcfuse
from tests.support import find_mount, requires
from tests.support._user import CHECKOUT

pytestmark = requires("mounting")

DATA = bytes(range(256)) * 5000
SECONDS = 30


def run(*argv):
    return subprocess.run(argv, capture_output=True, timeout=SECONDS, check=True).stdout


def make_tar(path, members=(("d/data", DATA), ("hello", b"hello\n"))):
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return str(path)


def make_zip(path, data=DATA):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("packed", data)
    return str(path)


def make_damaged_tar(path):
    make_tar(path)
    with open(path, "r+b") as file:
        file.seek(512 + len(DATA) + -len(DATA) % 512)
        file.write(b"damage" * 80)
    return str(path)


@pytest.fixture
def cache(tmp_path):
    return str(tmp_path / "cache")


@pytest.fixture
def zc(zcfuse, cache):
    """Runs ``zcfuse ARGUMENTS`` with a separate cache directory."""
    return lambda *arguments: zcfuse(*arguments, env={"XDG_CACHE_HOME": cache})


@pytest.fixture
def mounts(zc, mountpoint):
    """Mounts, requires exactly the output `told`, and unmounts at the end."""

    def mount(*arguments, told=""):
        result = zc("mount", *arguments, mountpoint)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", told)

    yield mount
    assert zc("umount", mountpoint).returncode == 0


@pytest.fixture
def refuses(zc, mountpoint):
    """Requires a refused mount, and that nothing is mounted afterwards."""

    def refuse(status, words, *arguments):
        refused(zc("mount", *arguments, mountpoint), status, *words)
        assert find_mount(os.path.realpath(mountpoint)) is None

    return refuse


def status_of(zc, mountpoint):
    return json.loads(zc("status", "--json", mountpoint).stdout)["tree"]["archives"]


@pytest.mark.parametrize("path", ["auto", "naive"])
def test_a_source_that_is_an_archive_is_the_tree(mounts, tmp_path, mountpoint, path):
    archive = make_tar(tmp_path / "a.tar")
    mounts("--path", path, archive)
    assert run("cat", f"{mountpoint}/d/data") == DATA
    assert run("ls", mountpoint).split() == [b"d", b"hello"]
    assert run("findmnt", "-n", "-o", "SOURCE", mountpoint).decode().strip() == archive


def test_several_archives_are_directories_by_their_stems(mounts, tmp_path, mountpoint):
    first, second = make_tar(tmp_path / "a.b.tar"), make_zip(tmp_path / "c.zip")
    mounts("--archive", first, "--archive", second)
    assert run("ls", mountpoint).split() == [b"a.b", b"c"]
    assert run("cat", f"{mountpoint}/a.b/d/data") == run("cat", f"{mountpoint}/c/packed") == DATA
    source = run("findmnt", "-n", "-o", "SOURCE", mountpoint).decode().strip()
    assert source == f"{first} and 1 more"


def test_a_directory_of_shards_shows_each_and_tells_of_the_rest(mounts, source, mountpoint):
    for number in range(3):
        make_tar(f"{source}/{number}.tar", [("key", b"%d" % number)])
    make_zip(f"{source}/looks-like-none")
    os.symlink("0.tar", f"{source}/linked.tar")
    for name in ("README", ".hidden", "0.tar.zcidx"):
        with open(f"{source}/{name}", "w") as file:
            file.write("no archive")
    os.mkdir(f"{source}/sub")
    os.symlink("nowhere", f"{source}/broken.tar")
    os.mkfifo(f"{source}/fifo")
    told = "4 left out, no tar or zip archives: README, broken.tar, fifo, ..."
    mounts("--archives", source, told=f"zcfuse: {source}: {told}\n")
    assert run("ls", mountpoint).split() == [b"0", b"1", b"2", b"linked", b"looks-like-none"]
    shown = run("cat", *(f"{mountpoint}/{name}/key" for name in ("0", "1", "2", "linked")))
    assert shown == b"0120"


def test_archives_of_one_stem_keep_their_endings(mounts, source, mountpoint):
    make_tar(f"{source}/a.tar")
    make_zip(f"{source}/a.zip")
    make_zip(f"{source}/b.zip")
    told = "zcfuse: 2 archives are called a: shown with their endings\n"
    mounts("--archives", source, told=told)
    assert run("ls", mountpoint).split() == [b"a.tar", b"a.zip", b"b"]


def test_archives_of_one_name_are_refused(refuses, source, tmp_path):
    one, other = make_tar(f"{source}/a.tar"), make_tar(tmp_path / "a.tar")
    words = [f"{one} and {other} would both be a.tar", "another name"]
    refuses(2, words, "--archive", one, "--archive", other)


@pytest.mark.parametrize("option", [(), ("--archive",), ("--archives",)])
def test_the_mount_point_may_be_the_directory_of_the_archive(zc, mountpoint, option):
    archive = make_tar(f"{mountpoint}/a.tar")
    shown = mountpoint if option == ("--archives",) else archive
    result = zc("mount", *option, shown, "--keep-index", "beside", mountpoint)
    assert (result.returncode, result.stderr) == (0, "")
    above = f"{mountpoint}/a" if option else mountpoint
    assert run("cat", f"{above}/d/data") == DATA
    assert zc("umount", mountpoint).returncode == 0
    assert sorted(os.listdir(mountpoint)) == ["a.tar", "a.tar.zcidx"]


@pytest.mark.parametrize(
    ("option", "kept"),
    [((), "cache/zcfuse/archives"), (("--keep-index", "beside"), "source/a.tar.zcidx")],
)
def test_the_second_mount_takes_the_kept_index(
    zc, tmp_path, source, mountpoint, cache, option, kept
):
    archive = make_tar(f"{source}/a.tar")
    for reused in (False, True):
        log = str(tmp_path / f"log-{reused}")
        assert zc("mount", *option, "--log-file", log, archive, mountpoint).returncode == 0
        told = status_of(zc, mountpoint)[archive]
        assert zc("umount", mountpoint).returncode == 0
        assert told["index_reused"] is reused
        assert told["index"].startswith(str(tmp_path / kept))
        with open(log) as file:
            line = next(line for line in file if f"{archive}: 2 members, " in line)
        assert ("its kept index is used" if reused else "indexed") in line
        assert told["index"] in line
    assert os.path.exists(cache) is not bool(option)


def test_a_changed_archive_is_indexed_anew_and_the_log_says_why(zc, tmp_path, mountpoint):
    archive, log = str(tmp_path / "a.tar"), str(tmp_path / "log")
    for data in (b"before", b"afterwards"):
        make_tar(archive, [("member", data)])
        assert zc("mount", "--log-file", log, archive, mountpoint).returncode == 0
        assert run("cat", f"{mountpoint}/member") == data
        assert zc("umount", mountpoint).returncode == 0
    with open(log) as file:
        assert "was not used: the archive has changed since" in file.read()


def test_no_index_is_kept_where_none_is_wanted(mounts, zc, source, mountpoint, cache):
    archive = make_tar(f"{source}/a.tar")
    mounts("--keep-index", "no", archive)
    told = status_of(zc, mountpoint)[archive]
    assert (told["index"], told["index_reason"]) == (None, "not asked for")
    assert (os.listdir(source), os.path.exists(cache)) == (["a.tar"], False)


def test_what_is_left_out_is_in_the_log_and_in_the_status(mounts, zc, tmp_path, mountpoint):
    members = [("../outside", b""), ("../other", b""), ("in", b"")]
    archive, log = make_tar(tmp_path / "a.tar", members), str(tmp_path / "log")
    mounts("--log-file", log, archive)
    [[reason, count, example]] = status_of(zc, mountpoint)[archive]["notes"]
    assert (count, example) == (2, "../outside")
    with open(log) as file:
        assert f"{archive}: 2 members: {reason} ('../outside')" in file.read()
    assert reason in zc("status", mountpoint).stdout


def test_the_status_counts_what_was_decompressed(mounts, zc, tmp_path, mountpoint):
    fits, large = make_zip(tmp_path / "fits.zip"), make_zip(tmp_path / "large.zip", DATA * 2)
    mounts("--unpack-budget", "2M", "--archive", fits, "--archive", large)
    assert run("cat", f"{mountpoint}/fits/packed") == DATA
    failed = subprocess.run(
        ["cat", f"{mountpoint}/large/packed"], capture_output=True, timeout=SECONDS, check=False
    )
    assert b"Cannot allocate memory" in failed.stderr
    told = status_of(zc, mountpoint)
    assert told[fits]["unpacked"]["unpacked"] == 1
    assert told[fits]["unpacked"]["bytes"] == len(DATA)
    [reason] = told[large]["unpacked"]["reasons"]
    assert f"budget of {2 << 20} bytes" in reason
    printed = zc("status", mountpoint).stdout
    for word in (fits, large, reason):
        assert word in printed


def test_a_damaged_tar_is_refused_and_can_be_salvaged(refuses, mounts, tmp_path, mountpoint):
    archive = make_damaged_tar(tmp_path / "a.tar")
    words = [f"{archive}: ", "no readable tar header at byte ", "--salvage", "whole copy"]
    refuses(1, words, archive)
    refuses(1, words, "--archive", archive)
    told = "no readable tar header at byte 1280512, after 1 member (invalid header)"
    told = f"zcfuse: {archive}: {told}: everything after that is missing\n"
    mounts("--salvage", archive, told=told)
    assert run("cat", f"{mountpoint}/d/data") == DATA


def test_a_tar_that_was_cut_off_is_refused_and_can_be_salvaged(refuses, zc, tmp_path, mountpoint):
    archive = make_tar(tmp_path / "a.tar", [("whole", b"x" * 700), ("cut", DATA), ("gone", b"x")])
    os.truncate(archive, 4000)
    words = [f"{archive}: it was cut off at byte 4000, after 2 members", "--salvage", "whole copy"]
    refuses(1, words, archive)
    result = zc("mount", "--salvage", "--keep-index", "no", archive, mountpoint)
    try:
        (line,) = result.stderr.splitlines()
        assert f"{archive}: it was cut off at byte 4000, after 2 members, the last of" in line
        assert sorted(os.listdir(mountpoint)) == ["cut", "whole"]
        assert run("cat", f"{mountpoint}/whole") == b"x" * 700
        failed = subprocess.run(
            ["cat", f"{mountpoint}/cut"], capture_output=True, timeout=SECONDS, check=False
        )
        assert b"Input/output error" in failed.stderr
    finally:
        zc("umount", mountpoint)


def test_a_damaged_archive_among_shards_is_left_out_with_a_line(zc, mounts, source, mountpoint):
    make_tar(f"{source}/a.tar")
    damaged = make_damaged_tar(f"{source}/b.tar")
    alone = zc("mount", "--archive", damaged, mountpoint)
    refused(alone, 1, damaged, "--salvage")
    told = alone.stderr.strip()
    mounts("--archives", source, told=f"{told} (left out, and the other archives are shown)\n")
    assert run("ls", mountpoint).split() == [b"a"]


def test_damaged_archives_alone_are_refused(refuses, source):
    damaged = make_damaged_tar(f"{source}/b.tar")
    refuses(1, [f"{damaged}: ", "--salvage"], "--archives", source)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.tar", b"", ["the file is empty", "name a tar or zip archive"]),
        ("a.tar", b"text\n" * 1000, ["neither a tar nor a zip archive", "name a tar"]),
        ("a.zip", gzip.compress(b"text", mtime=0), ["compressed with gzip", "gzip -dk"]),
    ],
)
@pytest.mark.parametrize("option", [(), ("--archive",), ("--archives",)])
def test_what_is_no_archive_is_refused(refuses, source, name, content, words, option):
    path = f"{source}/{name}"
    with open(path, "wb") as file:
        file.write(content)
    refuses(2, [f"{path}: ", *words], *option, source if option == ("--archives",) else path)


@requires("ordinary user")
def test_an_archive_that_may_not_be_read_is_refused(ordinary_user):
    source, mountpoint = ordinary_user.directory("source"), ordinary_user.directory("mnt")
    archive = make_tar(f"{source}/a.tar")
    os.chmod(archive, 0o000)
    for arguments in ((archive,), ("--archive", archive), ("--archives", source)):
        result = run_zcfuse("mount", *arguments, mountpoint, user=ordinary_user)
        refused(result, 1, archive, "not readable", "read permission")


@requires("ordinary user", "fusermount3")
def test_an_ordinary_user_mounts_an_archive_without_a_place_for_its_index(ordinary_user):
    source, mountpoint = ordinary_user.directory("source"), ordinary_user.directory("mnt")
    archive = make_tar(f"{source}/a.tar")
    as_user = {"user": ordinary_user, "env": {"XDG_CACHE_HOME": "/proc/nowhere"}}
    result = run_zcfuse("mount", archive, mountpoint, **as_user)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    try:
        read = ordinary_user.command(["cat", f"{mountpoint}/d/data"])
        assert run(*read) == DATA
        printed = run_zcfuse("status", "--json", mountpoint, **as_user).stdout
        told = json.loads(printed)["tree"]["archives"][archive]
        assert told["index"] is None
        assert "not kept as /proc/nowhere" in told["index_reason"]
    finally:
        assert run_zcfuse("umount", mountpoint, **as_user).returncode == 0


def test_a_directory_without_archives_is_refused(refuses, source):
    refuses(2, [f"{source}: there is no tar or zip archive in it"], "--archives", source)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--archive", "gone.tar"], ["gone.tar: does not exist"]),
        (["--archives", "gone"], ["--archives gone: does not exist"]),
        (["--archives", "README.md"], ["--archives README.md: not a directory"]),
        (["--archive", "a.tar", "b.tar"], ["--archive takes the place of SOURCE", "b.tar"]),
        (["--archives", "docs", "b.tar"], ["--archives takes the place of SOURCE"]),
        (["--tree", "t.toml", "--archive", "a.tar"], ["--tree", "--archive"]),
        (["--salvage", "docs"], ["--salvage", "for archives, not for docs"]),
        (["--keep-index", "no", "--tree", "t.toml"], ["--keep-index", "not for --tree"]),
        (["--keep-index", "where", "docs"], ["--keep-index", "beside"]),
        (["--unpack-budget", "much", "docs"], ["--unpack-budget", "64M"]),
    ],
)
def test_wrong_use_is_told(refuses, arguments, words):
    refuses(2, words, *arguments)


def test_a_terminal_sees_how_far_the_index_is(tmp_path):
    """The line appears after a short wait; it names the archive and its number."""
    code = (
        "import zcfuse.cli.mount._progress as p, sys\n"
        "p._PATIENCE_S = 0\n"
        "from zcfuse.cli.mount._archives import *\n"
        "load_archives(sys.argv[1:], (), ArchiveOptions('no'))\n"
    )
    archives = [make_tar(tmp_path / "a.tar"), make_tar(tmp_path / "b.tar")]
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-c", code, *archives]
        subprocess.run(command, stderr=theirs, timeout=SECONDS, check=True, cwd=CHECKOUT)
        shown = os.read(ours, 4096).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "indexing 'a.tar' (1 of 2): 100 %" in shown
    assert "indexing 'b.tar' (2 of 2): 100 %" in shown
    assert shown.endswith("\r\x1b[K")


def test_an_archive_that_goes_away_is_stale_and_never_other_bytes(mounts, source, mountpoint):
    archive = make_tar(f"{source}/a.tar")
    mounts(archive)
    shutil.copyfile(make_tar(f"{source}/b.tar", [("x", bytes(len(DATA)))]), f"{source}/c")
    os.rename(f"{source}/c", archive)
    failed = subprocess.run(
        ["cat", f"{mountpoint}/d/data"], capture_output=True, timeout=SECONDS, check=False
    )
    assert failed.stdout == b""
    assert b"Stale file handle" in failed.stderr
