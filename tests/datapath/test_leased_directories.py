"""Directory leases over a socket pair: every operation answers as the backing tree does."""

import errno
import os
import resource
import shutil
import stat
import struct
import subprocess
import threading
from contextlib import suppress

import pytest

from tests.datapath.kernel import (
    ACCESS,
    ATTR,
    BATCH_FORGET,
    CACHE_DIR,
    GETATTR,
    GETXATTR,
    IOCTL,
    KEEP_CACHE,
    LISTXATTR,
    LOOKUP,
    OPEN,
    OPENDIR,
    READDIR,
    READDIRPLUS,
    READLINK,
    RELEASE,
    ROOT,
    STATFS,
    STATX,
    Entry,
    settle,
)
from tests.support import eventually, let_pass
from zcfuse.datapath import arm_faults

OWN = 1 << 62


# A share of the limit on descriptors, and never more than 256.
MOST_LISTINGS = max(16, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8, 256))


def attributes(fake, nodeid):
    reply = fake.request(GETATTR, nodeid, struct.pack("=IIQ", 0, 0, 0))
    return reply.errorname if reply.error else ATTR.unpack_from(reply.body, 16)


def expected(path):
    s = os.lstat(path)
    nano = 1_000_000_000
    times = [s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns]
    return (
        *(s.st_ino, s.st_size, s.st_blocks, *(t // nano for t in times)),
        *(*(t % nano for t in times), s.st_mode, s.st_nlink, s.st_uid, s.st_gid),
        *(s.st_rdev, s.st_blksize, 0),
    )


@pytest.mark.parametrize("name", ["file", "dir", "symlink", "fifo", "dir/inner", "dir/link"])
def test_a_name_and_its_attributes_are_those_of_the_backing_tree(leased, tree, name):
    fake = leased()
    entry = fake.walk(name.encode())
    found = os.lstat(tree / name)
    assert (entry.ino, entry.size, entry.mode) == (found.st_ino, found.st_size, found.st_mode)
    assert (entry.valid_ms, entry.nodeid & OWN) == (1000, OWN)
    assert attributes(fake, entry.nodeid) == expected(tree / name)
    assert fake.statistics().upcalls == {}


def test_the_leased_directory_itself_is_answered_for(leased, tree):
    assert attributes(leased(), ROOT) == expected(tree)


def test_a_missing_name_may_be_cached(leased):
    entry = leased().look(ROOT, b"missing")
    assert (entry.nodeid, entry.valid_ms) == (0, 1000)


@pytest.mark.parametrize("name", [b"x" * 256, b"\xff\xfe\n", b"a" * 255])
def test_names_of_any_bytes_give_what_the_backing_tree_gives(leased, tree, name):
    fake = leased()
    with suppress(OSError):
        (tree / os.fsdecode(name)).write_bytes(b"!")
    try:
        found = os.lstat(tree / os.fsdecode(name)).st_size
    except OSError as error:
        found = error.errno
    reply = fake.request(LOOKUP, ROOT, name + b"\0")
    assert (reply.error or Entry.of(reply.body).size) == found


@pytest.mark.parametrize("name", [b".", b"..", b"dir/inner", b""])
def test_names_that_are_none_go_up(leased, name):
    fake = leased()
    fake.ask(LOOKUP, ROOT, name + b"\0")


def test_what_is_below_no_lease_goes_up(leased):
    fake = leased()
    for opcode in (LOOKUP, GETATTR, READLINK, OPEN, OPENDIR, STATFS, GETXATTR, LISTXATTR):
        fake.ask(opcode, 77, bytes(40) + b"name\0")


def test_hard_links_share_a_node_and_another_file_has_another(leased):
    fake = leased()
    nodes = [fake.walk(path).nodeid for path in (b"file", b"dir/link", b"dir/inner", b"file")]
    assert nodes[0] == nodes[1] == nodes[3] != nodes[2]


def test_a_node_lives_until_its_last_lookup_is_forgotten(leased):
    fake = leased()
    node = fake.look(ROOT, b"file").nodeid
    assert fake.look(ROOT, b"file").nodeid == node
    fake.forget(node)
    assert attributes(fake, node) != "ESTALE"
    before = fake.statistics().directories.nodes
    fake.forget(node)
    again = fake.look(ROOT, b"file").nodeid  # answered after the FORGET or beside it
    assert fake.statistics().directories.nodes == before
    assert again != node or attributes(fake, again) == attributes(fake, node)


def test_of_a_batch_control_hears_of_its_own_nodes_alone(leased):
    fake = leased()
    ours = [fake.look(ROOT, name).nodeid for name in (b"file", b"dir")]
    pairs = [(ours[0], 1), (7, 2), (ours[1], 1), (9, 1)]
    fake.send(
        BATCH_FORGET, 0, struct.pack("=II", 4, 0) + b"".join(struct.pack("=QQ", *p) for p in pairs)
    )
    opcode, _, _, body = fake.upcall()
    assert (opcode, body) == (BATCH_FORGET, struct.pack("=IIQQQQ", 2, 0, 7, 2, 9, 1))
    assert fake.statistics().directories.nodes == 1


def test_a_link_is_read(leased):
    fake = leased()
    assert fake.request(READLINK, fake.look(ROOT, b"symlink").nodeid).body == b"dir/inner"


def test_the_time_of_birth_is_told(leased, tree):
    fake = leased()
    node = fake.look(ROOT, b"file").nodeid
    reply = fake.request(STATX, node, struct.pack("=IIQII", 0, 0, 0, 0, 0xFFF))
    mask, _, _, nlink, _, _, mode, _, ino, size = struct.unpack_from("=IIQIIIHHQQ", reply.body, 32)
    found = os.lstat(tree / "file")
    assert (nlink, mode, ino, size) == (found.st_nlink, found.st_mode, found.st_ino, found.st_size)
    assert mask & 0xFFF == 0xFFF


def test_a_statx_of_a_node_that_is_not_leased_is_a_getattr_to_control(leased):
    fake = leased()
    unique = fake.send(STATX, 77, struct.pack("=IIQII", 1, 0, 5, 0, 0xFFF))
    assert fake.upcall() == (GETATTR, unique, 77, struct.pack("=IIQ", 1, 0, 5))
    attr = (4, 6, 8, 10, 11, 12, 1, 2, 3, 0o100644, 1, 1000, 1001, 0x801, 4096, 0)
    fake.answer(unique, struct.pack("=QII", 1, 0, 0) + ATTR.pack(*attr))
    reply = fake.reply()
    found = struct.unpack_from("=IIQIIIHHQQ", reply.body, 32)
    assert (reply.error, len(reply.body), found) == (
        0,
        288,
        (0x7FF, 4096, 0, 1, 1000, 1001, 0o100644, 0, 77, 6),
    )


def test_the_filesystem_is_the_backing_one(leased, tree):
    fake = leased()
    found = os.statvfs(tree)
    reply = struct.unpack_from("=5QIII", fake.request(STATFS, ROOT).body)
    assert (reply[0], reply[3]) == (found.f_blocks, found.f_files)
    assert reply[5:] == (found.f_bsize, found.f_namemax, found.f_frsize)


@pytest.mark.parametrize(
    ("mode", "uid", "mask", "error"),
    [
        (0o644, 0, os.R_OK, 0),
        (0o644, 0, os.X_OK, errno.EACCES),
        (0o644, 0, os.W_OK, errno.EACCES),
        (0o604, 1234, os.R_OK, None),
        (0o644, 1234, os.R_OK, 0),
        (0o600, 1234, os.R_OK, errno.EACCES),
    ],
)
def test_access_is_decided_by_the_mode_and_by_control_where_groups_count(
    leased, tree, mode, uid, mask, error
):
    fake = leased()
    (tree / "file").chmod(mode)
    node = fake.look(ROOT, b"file").nodeid
    unique = fake.send(ACCESS, node, struct.pack("=II", mask, 0), uid=uid)
    if error is None:
        assert fake.upcall()[:2] == (ACCESS, unique)
    else:
        assert fake.reply().error == error


def test_attributes_with_names_are_those_of_the_file(leased, tree):
    os.setxattr(tree / "file", "user.colour", b"blue")
    fake = leased()
    node = fake.look(ROOT, b"file").nodeid
    for size, body in ((100, b"blue"), (4, b"blue"), (0, struct.pack("=II", 4, 0))):
        reply = fake.request(GETXATTR, node, struct.pack("=II", size, 0) + b"user.colour\0")
        assert (reply.error, reply.body) == (0, body)
    small = fake.request(GETXATTR, node, struct.pack("=II", 3, 0) + b"user.colour\0")
    assert small.error == errno.ERANGE
    missing = fake.request(GETXATTR, node, struct.pack("=II", 9, 0) + b"user.none\0")
    assert missing.error == errno.ENODATA
    acl = fake.request(GETXATTR, node, struct.pack("=II", 9, 0) + b"system.posix_acl_access\0")
    assert acl.error == errno.ENODATA
    names = fake.request(LISTXATTR, node, struct.pack("=II", 1000, 0))
    assert names.body == b"user.colour\0"


@pytest.fixture
def powerless():
    """A root process without CAP_SYS_ADMIN."""
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    argv = ["setpriv", "--bounding-set=-sys_admin", "sh", "-c", "echo; exec sleep 60"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout.read(1) == b"\n"
        yield process.pid
        process.kill()


def test_trusted_names_are_listed_by_capability_and_not_by_user(leased, tree, powerless):
    try:
        os.setxattr(tree / "file", "trusted.secret", b"1")
    except PermissionError:
        pytest.skip("needs CAP_SYS_ADMIN")
    fake = leased()
    node = fake.look(ROOT, b"file").nodeid
    size = struct.pack("=II", 1000, 0)
    assert fake.request(LISTXATTR, node, size).body == b"trusted.secret\0"
    assert fake.request(LISTXATTR, node, size, uid=1234).body == b"trusted.secret\0"
    assert fake.request(LISTXATTR, node, size, pid=powerless).body == b""
    assert fake.request(LISTXATTR, node, size, pid=2**30).body == b""


@pytest.mark.parametrize("opcode", [READDIRPLUS, READDIR])
@pytest.mark.parametrize("size", [300, 4096, 65_536])
def test_a_directory_is_listed_once_and_completely(leased, tree, opcode, size):
    names = [f"entry-{n}" for n in range(3000 if size > 300 else 40)]
    for name in names:
        (tree / "dir" / "deep" / name).touch()
    fake = leased()
    found = fake.list(fake.walk(b"dir/deep").nodeid, size, opcode)
    assert set(found) == {b".", b"..", *(name.encode() for name in names)}
    if opcode == READDIRPLUS:
        for name in names[:50]:
            assert found[name.encode()].ino == os.lstat(tree / "dir/deep" / name).st_ino


def test_a_listing_tells_what_a_lookup_tells_and_counts_it(leased):
    fake = leased()
    found = fake.list(ROOT)
    assert found[b"."].nodeid == found[b".."].nodeid == 0
    for name in (b"file", b"dir", b"symlink", b"fifo"):
        assert found[name] == fake.look(ROOT, name)
        fake.forget(found[name].nodeid, 2)
    settle()
    assert fake.statistics().directories.nodes == 1


def test_open_directories_take_few_descriptors_and_are_listed_on(leased, tree):
    names = {f"n{n}".encode() for n in range(500)}
    for name in names:
        (tree / "dir" / os.fsdecode(name)).touch()
    fake = leased()
    node = fake.look(ROOT, b"dir").nodeid
    before = len(os.listdir("/proc/self/fd"))
    handles = [fake.open(node, opcode=OPENDIR)[0] for _ in range(600)]
    assert len(os.listdir("/proc/self/fd")) - before <= MOST_LISTINGS + 5
    listed = {handle: fake.some(node, handle, 0) for handle in handles[:2]}
    for handle in handles[2:]:
        fake.some(node, handle, 0)
    for handle, found in listed.items():
        entries = [entry[0] for entry in found]
        while found := fake.some(node, handle, found[-1][1]):
            entries += [entry[0] for entry in found]
        assert len(entries) == len(set(entries))
        assert names <= set(entries)
        assert [e[0] for e in fake.some(node, handle, 0)][:3] == entries[:3]
    assert len(os.listdir("/proc/self/fd")) - before <= MOST_LISTINGS + 5


def test_a_listing_can_be_rewound_and_gone_on_with_from_anywhere(leased, tree):
    for n in range(200):
        (tree / "dir" / f"n{n}").touch()
    fake = leased()
    node = fake.look(ROOT, b"dir").nodeid
    handle, _ = fake.open(node, opcode=OPENDIR)
    first = fake.some(node, handle, 0)
    second = fake.some(node, handle, first[-1][1])
    assert [e[:2] for e in fake.some(node, handle, 0)] == [e[:2] for e in first]
    assert [e[:2] for e in fake.some(node, handle, first[-1][1])] == [e[:2] for e in second]
    assert [e[:2] for e in fake.some(node, handle, first[3][1])][:3] == [e[:2] for e in first[4:7]]


def test_a_listing_may_be_cached_once_its_directory_has_settled(leased, tree):
    fake = leased(cache_timeout=100_000)
    (tree / "new").touch()
    young = fake.open(ROOT, opcode=OPENDIR)[1]
    settle()
    flags = [fake.open(ROOT, opcode=OPENDIR)[1] for _ in range(2)]
    assert [young, *flags] == [0, CACHE_DIR, CACHE_DIR | KEEP_CACHE]
    (tree / "newer").touch()
    assert fake.open(ROOT, opcode=OPENDIR)[1] == 0


def test_a_file_that_was_deleted_outside_is_stale_and_open_it_still_answers(leased, tree):
    fake = leased()
    file = fake.walk(b"dir/inner").nodeid
    other = fake.look(ROOT, b"symlink").nodeid
    fake.open(file)
    os.unlink(tree / "dir/inner")
    os.unlink(tree / "symlink")
    assert attributes(fake, file)[10] == 0  # nlink
    assert fake.request(READLINK, other).error == errno.ESTALE
    assert fake.walk(b"dir/inner").nodeid == 0


def test_a_file_is_found_by_the_link_that_is_left(leased, tree):
    fake = leased()
    node = fake.walk(b"dir/link").nodeid
    assert fake.look(ROOT, b"file").nodeid == node
    os.unlink(tree / "file")
    assert attributes(fake, node) == expected(tree / "dir/link")
    assert fake.open(node)


@pytest.mark.parametrize("operation", [OPEN, READLINK, GETATTR, STATX])
@pytest.mark.parametrize("swap", ["file", "symlink", "fifo", "directory"])
def test_what_took_a_files_name_is_never_taken_for_it(leased, tree, operation, swap):
    fake = leased()
    name = "symlink" if operation == READLINK else "dir/inner"
    node = fake.walk(name.encode()).nodeid
    os.rename(tree / name, tree.parent / "kept")
    if swap == "file":
        (tree / name).write_bytes(b"another")
    elif swap == "symlink":
        os.symlink("/etc/passwd", tree / name)
    elif swap == "fifo":
        os.mkfifo(tree / name)
    else:
        (tree / name).mkdir()
    assert fake.request(operation, node, bytes(24)).error == errno.ESTALE


def test_a_directory_swapped_for_a_link_leads_nowhere(leased, tree):
    fake = leased(cache_timeout=0)
    node = fake.look(ROOT, b"dir").nodeid
    inner = fake.look(node, b"inner").nodeid
    os.rename(tree / "dir", tree / "moved")
    os.symlink(tree / "moved", tree / "dir")
    assert fake.request(LOOKUP, node, b"inner\0").error == errno.ESTALE
    assert fake.request(OPEN, inner, bytes(8)).error == errno.ESTALE


def test_a_directory_moved_out_of_the_source_is_left_alone_after_the_cache_timeout(leased, tree):
    fake = leased(cache_timeout=200)
    deep = fake.walk(b"dir/deep").nodeid
    (tree / "dir" / "deep" / "secret").write_bytes(b"1")
    assert fake.look(deep, b"secret").nodeid
    os.rename(tree / "dir", tree.parent / "outside")
    let_pass(0.25)
    assert fake.request(LOOKUP, deep, b"secret\0").error == errno.ESTALE
    assert fake.request(OPENDIR, deep, bytes(8)).error == errno.ESTALE
    os.rename(tree.parent / "outside", tree / "dir")
    assert fake.look(deep, b"secret").nodeid


def test_a_directory_that_was_renamed_inside_is_found_where_a_lookup_found_it(leased, tree):
    fake = leased(cache_timeout=0)
    deep = fake.walk(b"dir/deep").nodeid
    os.rename(tree / "dir", tree / "renamed")
    assert fake.request(OPENDIR, deep, bytes(8)).error == errno.ESTALE
    assert fake.walk(b"renamed/deep").nodeid == deep
    assert fake.open(deep, opcode=OPENDIR)


def test_a_reused_inode_number_is_another_node(leased, tree):
    fake = leased()
    seen = {}
    for n in range(200):
        (tree / "again").write_bytes(b"%d" % n)
        entry = fake.look(ROOT, b"again")
        assert entry.nodeid not in seen.values()
        if entry.ino in seen:
            assert attributes(fake, seen[entry.ino]) == "ESTALE"
            return
        seen[entry.ino] = entry.nodeid
        os.unlink(tree / "again")
    pytest.skip("the filesystem gave no inode number out again")


def test_paths_longer_than_path_max_are_opened(leased, tree):
    fake = leased(cache_timeout=0)
    fd = os.open(tree, os.O_RDONLY)
    node, names = ROOT, ["d" * 250] * 40
    for name in names:
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
        node = fake.look(node, name.encode()).nodeid
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    assert fake.look(node, b"bottom").nodeid
    assert b"bottom" in fake.list(node)


@pytest.mark.parametrize("call", ["open", "statx"])
@pytest.mark.parametrize("fault", ["EIO", "EMFILE", "ENOMEM"])
def test_a_failing_call_is_that_errno_and_the_next_request_is_answered(leased, call, fault):
    fake = leased(cache_timeout=0)
    node = fake.walk(b"dir/inner").nodeid
    assert arm_faults(f"{call}:{fault}:count=50")
    reply = fake.request(OPEN, node, struct.pack("=II", 0, 0))
    assert reply.errorname == fault
    arm_faults("")
    assert fake.open(node)


def test_a_reply_that_the_kernel_refuses_counts_nothing(leased):
    fake = leased()
    assert arm_faults("writev:EIO:count=3")
    fake.send(LOOKUP, ROOT, b"file\0")
    fake.send(LOOKUP, ROOT, b"dir\0")
    fake.send(LOOKUP, ROOT, b"fifo\0")
    assert eventually(lambda: fake.statistics().requests.get("LOOKUP", 0) >= 3)
    settle()
    assert fake.statistics().directories.nodes == 1


def test_revokes_and_outsiders_race_with_requests(leased, tree):
    fake = leased(cache_timeout=0, threads=4)
    done = threading.Event()
    other = tree.parent / "elsewhere"
    other.mkdir()
    (other / "inner").write_bytes(b"not to be seen")

    def outsider() -> None:
        while not done.is_set():
            os.rename(tree / "dir", tree / "away")
            os.symlink(other, tree / "dir")
            os.unlink(tree / "dir")
            os.rename(tree / "away", tree / "dir")

    thread = threading.Thread(target=outsider)
    thread.start()
    try:
        errors = set()
        for _ in range(400):
            directory = fake.look(ROOT, b"dir")
            if stat.S_ISDIR(directory.mode):
                reply = fake.request(LOOKUP, directory.nodeid, b"inner\0")
                errors.add(reply.errorname)
                assert reply.error or struct.unpack_from("=Q", reply.body, 48)[0] == 11
    finally:
        done.set()
        thread.join()
    assert errors <= {"OK", "ESTALE"}
    assert fake.statistics().upcalls == {}


def test_no_file_is_a_terminal(leased):
    fake = leased()
    node = fake.look(ROOT, b"file").nodeid
    assert fake.request(IOCTL, node, bytes(32)).error == errno.ENOTTY


def test_a_release_of_controls_handle_goes_up(leased):
    fake = leased()
    node = fake.look(ROOT, b"file").nodeid
    fake.ask(RELEASE, node, struct.pack("=QIIQ", 3, 0, 0, 0))


def test_a_second_directory_is_leased_and_given_back_by_itself(leased, tree):
    fake = leased()
    other = tree.parent / "other"
    other.mkdir()
    (other / "file").write_bytes(b"another")
    fd = os.open(other, os.O_PATH)
    descriptors = len(os.listdir("/proc/self/fd"))
    fake.path.lease_directory(7, fd)
    assert fake.look(7, b"file").size == len(b"another")
    assert fake.look(ROOT, b"file").size == len(b"some bytes")
    below = fake.look(7, b"file").nodeid
    fake.path.drop_directory(7)
    fake.path.drop_directory(7)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    for nodeid, body in ((7, b"file\0"), (7, b"new\0")):
        fake.ask(LOOKUP, nodeid, body)
    fake.ask(GETATTR, below, struct.pack("=IIQ", 0, 0, 0))
    assert fake.request(GETATTR, ROOT, struct.pack("=IIQ", 0, 0, 0)).errorname == "OK"
    os.close(fd)
