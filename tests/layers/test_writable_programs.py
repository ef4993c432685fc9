"""Programs work on a union whose files lie in a lower layer."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.layers import writable
from tests.support import Daemon, requires

pytestmark = requires("mounting", "root")

Shell = Callable[[str], str]
INSERTS = """
import sqlite3, sys
database = sqlite3.connect("rows.db", timeout=60)
assert database.execute("pragma journal_mode").fetchone() == ("wal",)
for number in range(100):
    with database:
        database.execute("insert into rows values (?, ?)", (sys.argv[1], number))
"""
GIT = "git -c user.name=a -c user.email=a@b"
MAKEFILE = "program: main.o add.o\n\tcc -o program main.o add.o\nclean:\n\trm -f *.o program\n"


def run(script: str, cwd: Path | str) -> str:
    """Run a shell script that must succeed; returns its output."""
    command = ["sh", "-ec", script]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=["union", "mirror"])
def shell(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shell]:
    """Runs a script in the union, or in a mirror of its lower layer."""
    for number in range(30):
        writable.write(tmp_path / "low" / "repository" / f"file{number}", b"%d\n" % number)
    writable.write(tmp_path / "low" / "c" / "main.c", b"int add(int, int);\n#include <stdio.h>\n")
    with (tmp_path / "low" / "c" / "main.c").open("a") as file:
        file.write('int main(void) { printf("%d\\n", add(1, 2)); }\n')
    writable.write(tmp_path / "low" / "c" / "add.c", b"int add(int a, int b) { return a + b; }\n")
    writable.write(tmp_path / "low" / "c" / "Makefile", MAKEFILE.encode())
    if shutil.which("git"):
        commit = f"git init -q && git add . && {GIT} commit -qm one"
        run(commit, tmp_path / "low" / "repository")
    with sqlite3.connect(tmp_path / "low" / "rows.db") as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table rows (who text, number int)")
    database.close()
    (tmp_path / "up").mkdir()
    if request.param == "mirror":
        (tmp_path / "mnt").mkdir()
        places, log = (str(tmp_path / "low"), str(tmp_path / "mnt")), str(tmp_path / "log")
        mirror = Daemon(*places, "--rw", log=log)
        try:
            yield lambda script: run(script, mirror.mountpoint)
        finally:
            mirror.unmount()
        return
    with writable.union(tmp_path, ["low"], "up", "mnt") as daemon:
        yield lambda script: run(script, daemon.mountpoint)
    assert os.listdir(tmp_path / "up.work" / "work") == []


@requires("git")
def test_git_clones_from_a_lower_layer_and_commits_there(shell: Shell) -> None:
    shell("git clone -q repository clone")
    for repository in ("clone", "repository"):
        change = f"echo more >> file1; git rm -q file2; git mv file3 moved; {GIT} commit -qam two"
        shell(f"cd {repository}; {change}; git fsck --full --strict; git gc -q")
        assert shell(f"cd {repository}; git status --short; git log --format=%s") == "two\none\n"


def test_tar_packs_a_union_and_unpacks_the_same(shell: Shell) -> None:
    shell("echo more >> repository/file1; rm repository/file2")
    shell("tar cf t.tar repository; mkdir back; tar xf t.tar -C back; diff -r repository back/*")
    shell("rm -r repository; tar xf t.tar; diff -r repository back/repository; rm -r back")


@requires("make", "cc")
def test_make_builds_a_program_twice(shell: Shell) -> None:
    for _ in range(2):
        assert shell("cd c; make -s -j2; ./program") == "3\n"
        shell("cd c; make -s clean; touch add.c")


def test_an_editor_saves_by_a_rename(shell: Shell) -> None:
    save = "cd c; cp -p add.c .add.c.new; echo '/* */' >> .add.c.new; mv add.c add.c~"
    shell(f"{save}; mv .add.c.new add.c")
    assert shell("cd c; tail -n1 add.c; ls -A") == "/* */\nMakefile\nadd.c\nadd.c~\nmain.c\n"


def test_two_processes_write_one_database_in_wal_mode(shell: Shell) -> None:
    insert = shlex.join([sys.executable, "-c", INSERTS])
    shell(f"{insert} a & first=$!; {insert} b; wait $first")
    look = "import sqlite3; database = sqlite3.connect('rows.db')\n"
    look += "print(database.execute('select count(*), count(distinct who) from rows').fetchone(),"
    look += " *database.execute('pragma integrity_check').fetchone())"
    assert shell(shlex.join([sys.executable, "-c", look])) == "(200, 2) ok\n"


@requires("rsync")
def test_rsync_copies_a_tree_to_the_mount_and_back(shell: Shell, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    writable.write(tree / "d" / "file", b"bytes", 0o640)
    os.link(tree / "d" / "file", tree / "d" / "link")
    os.symlink("file", tree / "d" / "symlink")
    os.setxattr(tree / "d" / "file", "user.a", b"b")
    os.truncate(tree / "d" / "file", 1 << 20)
    os.chown(tree / "d" / "file", 7, 8)
    shell(f"rsync -aHAX {tree}/ copy/; rsync -aHAX copy/ {tree}.back/")
    difference = shell(f"rsync -aHAXc --delete --itemize-changes --dry-run {tree}/ {tree}.back/")
    assert difference == ""
    assert shell(f"rsync -aHAXc --itemize-changes --dry-run {tree}/ copy/") == ""
