"""The examples that build a tree do what their first paragraphs say."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator

import pytest

from tests.examples.conftest import DEADLINE_S, Programs
from tests.support import find_mount, requires
from tests.support._user import CHECKOUT


def run(*argv: str, uid: int | None = None) -> str:
    """A client's output, or the last word of its error."""
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=DEADLINE_S, check=False, user=uid
    )
    return done.stdout if done.returncode == 0 else done.stderr.split(":")[-1].strip()


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors


def test_dataset_view_shows_files_whole_in_pieces_and_as_one(
    programs: Programs, source: str, mountpoint: str
) -> None:
    contents = {"a": os.urandom((2 << 20) + 17), "b": b"", "c": os.urandom(5000)}
    for name, content in contents.items():
        with open(os.path.join(source, name), "wb") as file:
            file.write(content)
    paths = [os.path.join(source, name) for name in contents]
    process = programs.start("dataset_view.py", mountpoint, *paths)
    programs.wait_until_mounted(process)
    assert run("ls", f"{mountpoint}/whole", f"{mountpoint}/chunks").split()[1:] == [
        *("a.000000", "a.000001", "a.000002", "c.000000"),
        *(f"{mountpoint}/whole:", "a", "b", "c"),
    ]
    assert run("cmp", f"{mountpoint}/whole/a", f"{source}/a") == ""
    joined = f"cat {mountpoint}/chunks/a.* | cmp - {source}/a"
    assert run("sh", "-c", joined) == ""
    padded = [content + bytes(-len(content) % 4096) for content in contents.values()]
    with open(os.path.join(source, "all"), "wb") as file:
        file.write(b"".join(padded))
    assert run("cmp", f"{mountpoint}/all", f"{source}/all") == ""
    end(process)
    assert find_mount(mountpoint) is None


def test_generated_config_fills_the_template_in_and_again_on_sighup(
    programs: Programs, source: str, mountpoint: str
) -> None:
    template, shown = os.path.join(source, "app.conf"), os.path.join(mountpoint, "app.conf")
    with open(template, "w") as file:
        file.write("port = $PORT\nhome = $HOME_DIR\n")
    process = programs.start("generated_config.py", template, mountpoint, "PORT=80")
    programs.wait_until_mounted(process)
    assert run("cat", shown) == "port = 80\nhome = $HOME_DIR\n"
    with open(template, "w") as file:
        file.write("changed: ${PORT}80\n")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    assert process.stdout.readline() == "generated again\n"
    assert run("cat", shown) == "changed: 8080\n"
    assert run("ls", mountpoint) == "app.conf\n"
    end(process)


@pytest.fixture
def mountpoint_of_all() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="zcfuse-users-") as path:
        os.chmod(path, 0o755)
        yield path


@pytest.fixture
def users(mountpoint_of_all: str) -> Iterator[Programs]:
    running = Programs(mountpoint_of_all)
    yield running
    running.close()


@requires("mounting", "root")
def test_per_user_shows_each_user_a_directory_of_their_own(
    users: Programs, source: str, mountpoint_of_all: str
) -> None:
    for name in ("1001", "everybody"):
        os.mkdir(os.path.join(source, name))
        with open(os.path.join(source, name, "file"), "w") as file:
            file.write(f"for {name}\n")
    process = users.start("per_user.py", source, mountpoint_of_all)
    users.wait_until_mounted(process)
    for _ in range(3):
        assert run("ls", mountpoint_of_all, uid=1001) == "everybody\nmine\nwhoami\n"
        assert run("ls", mountpoint_of_all, uid=1002) == "everybody\nwhoami\n"
        assert run("cat", f"{mountpoint_of_all}/mine/file", uid=1001) == "for 1001\n"
        missing = run("cat", f"{mountpoint_of_all}/mine/file", uid=1002)
        assert missing == "No such file or directory"
        for uid in (1001, 1002):
            assert run("cat", f"{mountpoint_of_all}/whoami", uid=uid) == f"{uid}\n"
            shared = run("cat", f"{mountpoint_of_all}/everybody/file", uid=uid)
            assert shared == "for everybody\n"
    end(process)


def test_index_shards_writes_a_manifest_that_shows_their_members(
    programs: Programs, source: str, mountpoint: str
) -> None:
    contents = {"a.jpg": os.urandom(70_000), "below/b.json": b"{}", "empty": b""}
    shards = [os.path.join(source, f"{number:03}.tar") for number in range(2)]
    for shard in shards:
        with tarfile.open(shard, "w") as archive:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(content), 1_700_000_000
                archive.addfile(member, io.BytesIO(content))
    index = os.path.join(source, "index.jsonl")
    with open(index, "w") as file:
        example = os.path.join(CHECKOUT, "examples", "index_shards.py")
        subprocess.run([sys.executable, example, *shards], stdout=file, timeout=60, check=True)
    zcfuse = (sys.executable, "-m", "zcfuse")
    assert run(*zcfuse, "mount", "--tree", index, mountpoint) == ""
    assert run("find", mountpoint, "-type", "f", "-printf", "%P %s %Ts\n").split("\n")[:-1] == [
        f"{shard}/{name} {len(content)} 1700000000"
        for shard in ("000", "001")
        for name, content in sorted(contents.items())
    ]
    os.mkdir(f"{source}/unpacked")
    run("tar", "-xf", shards[1], "-C", f"{source}/unpacked")
    assert run("diff", "-r", f"{source}/unpacked", f"{mountpoint}/001") == ""
    assert run(*zcfuse, "umount", mountpoint) == ""


def test_serve_views_shows_a_split_while_a_command_runs(
    programs: Programs, source: str, mountpoint: str
) -> None:
    for number in range(50):
        with open(os.path.join(source, f"{number}.txt"), "w") as file:
            file.write(f"{number}\n")
    command = f"cat {mountpoint}/train/* {mountpoint}/val/* | sort -n; ls {mountpoint}"
    shown = programs.run("serve_views.py", source, mountpoint, "sh", "-c", command)
    first, *lines = shown.splitlines()
    assert first == f"{source} is mounted on {mountpoint}"
    assert lines == [*map(str, range(50)), "train", "val"]
    assert find_mount(mountpoint) is None


def test_trace_opens_tells_what_a_command_opened(
    programs: Programs, source: str, mountpoint: str
) -> None:
    for name, size in [("used", 5), ("unused", 6)]:
        with open(os.path.join(source, name), "wb") as file:
            file.write(bytes(size))
    shown = programs.run("trace_opens.py", source, mountpoint, "cat", f"{mountpoint}/used")
    assert "used: 5 bytes, " in shown
    assert "unused" not in shown
