"""Leases of merged directories, over a socket pair."""

import errno
import os
import resource
import stat
import struct
import threading
import time
from contextlib import suppress

import pytest

from tests.datapath.kernel import (
    GETATTR,
    GETXATTR,
    LISTXATTR,
    LOOKUP,
    OPEN,
    OPENDIR,
    READDIR,
    READDIRPLUS,
    RELEASEDIR,
    ROOT,
)
from tests.support import let_pass, requires
from zcfuse.datapath import arm_faults

OWN = 1 << 62
PASS_S = 0.06  # a short cache timeout, and how long to wait for its end


@pytest.fixture
def layers(tmp_path):
    """Three layers, the topmost first, each with a file in a common directory."""
    made = [tmp_path / name for name in ("top", "middle", "bottom")]
    for layer in made:
        (layer / "d").mkdir(parents=True)
        (layer / "d" / layer.name).write_text(layer.name)
        (layer / "d" / "same").write_text(layer.name)
    return made


@pytest.fixture
def union(kernel, layers):
    """Make a data path that shows the layers from the root."""

    def make(*, sees_trusted=True, **settings):
        fake = kernel(**{"path": "pool", "cache_timeout": 1000, **settings})
        fds = [os.open(layer, os.O_PATH | os.O_DIRECTORY) for layer in layers]
        fake.path.lease_union(ROOT, fds, sees_trusted)
        for fd in fds:
            os.close(fd)
        return fake

    return make


def content(fake, path):
    node = fake.walk(path).nodeid
    handle, _ = fake.open(node)
    body = fake.read(node, 0, 100).body
    fake.release(node, handle)
    return body


def names(fake, node, **how):
    return sorted(set(fake.list(node, **how)) - {b".", b".."})


def test_names_of_all_layers_are_found_and_the_topmost_wins(union):
    fake = union()
    for layer in (b"top", b"middle", b"bottom"):
        assert content(fake, b"d/" + layer) == layer
    assert content(fake, b"d/same") == b"top"
    assert fake.look(fake.walk(b"d").nodeid, b"missing").nodeid == 0
    assert fake.statistics().upcalls == {}


@pytest.mark.parametrize("opcode", [READDIRPLUS, READDIR])
@pytest.mark.parametrize("size", [300, 4096])
def test_a_merged_directory_is_listed_once_and_completely(union, layers, opcode, size):
    for number in range(60):
        (layers[number % 3] / "d" / f"n{number}").touch()
        (layers[2] / "d" / f"n{number}").touch()
    fake = union()
    expected = {f"n{number}".encode() for number in range(60)}
    found = fake.list(fake.look(ROOT, b"d").nodeid, size, opcode)
    assert set(found) == expected | {b".", b"..", b"same", b"top", b"middle", b"bottom"}


def test_a_merged_listing_can_be_rewound_and_gone_on_with_from_anywhere(union, layers):
    fake = union()
    node = fake.look(ROOT, b"d").nodeid
    handle, _ = fake.open(node, opcode=OPENDIR)
    whole = [one[:2] for one in fake.some(node, handle, 0)]
    for at, (_, offset) in enumerate(whole, 1):
        assert [one[:2] for one in fake.some(node, handle, offset)] == whole[at:]
    (layers[1] / "d" / "new").touch()
    assert b"new" in {one[0] for one in fake.some(node, handle, 0)}
    fake.release(node, handle, RELEASEDIR)


def test_a_listing_tells_what_a_lookup_tells(union):
    fake = union()
    node = fake.look(ROOT, b"d").nodeid
    for name, entry in fake.list(node).items():
        if name not in (b".", b".."):
            assert fake.look(node, name) == entry


def test_a_merged_directory_shows_one_link_and_a_plain_one_its_own(union, layers):
    (layers[1] / "plain" / "sub").mkdir(parents=True)
    fake = union()
    assert fake.walk(b"d").nlink == 1
    assert fake.walk(b"plain").nlink == os.stat(layers[1] / "plain").st_nlink
    assert fake.list(ROOT)[b"d"].nlink == 1


def hide_by_device(layer, name):
    os.mknod(layer / "d" / name, stat.S_IFCHR, os.makedev(0, 0))


def hide_by_attribute(layer, name):
    (layer / "d" / name).touch()
    os.setxattr(layer / "d" / name, "user.overlay.whiteout", b"")


def hide_by_name(layer, name):
    (layer / "d" / f".wh.{name}").touch()


HIDERS = [
    pytest.param(hide_by_device, marks=requires("root")),
    pytest.param(hide_by_attribute, marks=requires("xattr")),
    hide_by_name,
]


@pytest.mark.parametrize("hide", HIDERS)
@pytest.mark.parametrize("others", ["merged", "alone"])
def test_a_whiteout_hides_the_name_below_and_is_not_shown(union, layers, hide, others):
    if others == "alone":
        for layer in layers[:2]:
            for file in (layer / "d").iterdir():
                file.unlink()
            (layer / "d").rmdir()
        hide(layers[2], "gone")
    else:
        hide(layers[1], "bottom")
    fake = union()
    node = fake.look(ROOT, b"d").nodeid
    shown = [b"bottom", b"same"] if others == "alone" else [b"middle", b"same", b"top"]
    assert names(fake, node) == shown
    for name in (b"gone", b".wh.gone", b".wh.bottom"):
        assert fake.look(node, name).nodeid == 0
    assert (fake.look(node, b"bottom").nodeid != 0) == (others == "alone")


@pytest.mark.parametrize("mark", ["opaque", "image", "covered"])
def test_an_opaque_directory_hides_the_layers_below(union, layers, mark):
    if mark == "opaque":
        os.setxattr(layers[1] / "d", "user.overlay.opaque", b"y")
    elif mark == "image":
        (layers[1] / "d" / ".wh..wh..opq").touch()
    else:
        (layers[1] / ".wh.d").touch()
    fake = union()
    node = fake.look(ROOT, b"d").nodeid
    assert names(fake, node) == [b"middle", b"same", b"top"]
    assert fake.look(node, b"bottom").nodeid == 0


@requires("root")
@pytest.mark.parametrize(
    ("mark", "value"),
    [
        ("trusted.overlay.metacopy", b""),  # nothing below
        ("user.overlay.metacopy", b""),
        ("user.overlay.redirect", b"d"),
        ("trusted.overlay.redirect", b"../d"),
    ],
)
def test_what_must_not_be_followed_goes_up(union, layers, mark, value):
    path = layers[1] / "d" / ("middle" if mark.endswith("metacopy") else "sub")
    if mark.endswith("redirect"):
        path.mkdir()
    os.setxattr(path, mark, value)
    fake = union()
    node = fake.look(ROOT, b"d").nodeid
    name = os.fsencode(path.name)
    fake.ask(LOOKUP, node, name + b"\0")
    assert fake.list(node)[name].nodeid == 0
    assert fake.look(node, b"same").nodeid & OWN


@requires("root")
@pytest.mark.parametrize("target", [b"elsewhere", b"/far/away"])
def test_a_redirect_leads_to_another_name_or_path_without_an_upcall(union, layers, target):
    moved = layers[2] / os.fsdecode(target).lstrip("/")
    moved.mkdir(parents=True)
    (moved / "inner").write_text("moved")
    os.setxattr(layers[1] / "d", "trusted.overlay.redirect", target)
    fake = union()
    assert names(fake, fake.walk(b"d").nodeid) == [b"inner", b"middle", b"same", b"top"]
    assert content(fake, b"d/inner") == b"moved"
    assert fake.statistics().upcalls == {}


@requires("root")
def test_redirects_of_a_path_and_of_a_name_in_it_are_both_followed(union, layers):
    (layers[0] / "d" / "sub").mkdir()
    os.setxattr(layers[0] / "d", "trusted.overlay.redirect", b"/one")
    (layers[1] / "one" / "sub").mkdir(parents=True)
    os.setxattr(layers[1] / "one", "trusted.overlay.redirect", b"/far/away")
    os.setxattr(layers[1] / "one" / "sub", "trusted.overlay.redirect", b"other")
    (layers[2] / "far" / "away" / "other").mkdir(parents=True)
    (layers[2] / "far" / "away" / "other" / "inner").write_text("found")
    fake = union()
    assert content(fake, b"d/sub/inner") == b"found"
    assert fake.statistics().upcalls == {}


@requires("root")
def test_a_metacopy_shows_its_own_attributes_and_the_bytes_below(union, layers):
    top = layers[0] / "copy"
    with open(top, "wb") as file:
        file.truncate(6)
    top.chmod(0o640)
    os.setxattr(top, "trusted.overlay.metacopy", b"")
    os.setxattr(top, "trusted.overlay.redirect", b"/d/bottom")
    fake = union()
    found = fake.look(ROOT, b"copy")
    assert (stat.S_IMODE(found.mode), found.ino) == (0o640, top.stat().st_ino)
    assert content(fake, b"copy") == b"bottom"
    handle, _ = fake.open(found.nodeid)
    top.chmod(0o600)
    assert fake.request(GETATTR, found.nodeid, bytes(16)).error == 0
    fake.release(found.nodeid, handle)
    assert fake.statistics().upcalls == {}


@requires("root")
def test_a_metacopy_is_another_file_once_the_bytes_lie_in_it(union, layers):
    top = layers[0] / "d" / "bottom"
    with open(top, "wb") as file:
        file.truncate(6)
    os.setxattr(top, "trusted.overlay.metacopy", b"")
    fake = union(cache_timeout=0)
    node = fake.walk(b"d/bottom").nodeid
    top.write_text("copied")
    os.removexattr(top, "trusted.overlay.metacopy")
    assert fake.request(GETATTR, node, bytes(16)).error == errno.ESTALE
    assert fake.walk(b"d/bottom").nodeid != node
    assert content(fake, b"d/bottom") == b"copied"


@requires("root")
def test_a_directory_whose_redirect_is_refused_later_goes_up_with_all_below(union, layers):
    fake = union(cache_timeout=50)
    node = fake.look(ROOT, b"d").nodeid
    inner = fake.look(node, b"bottom").nodeid
    os.setxattr(layers[0] / "d", "user.overlay.redirect", b"elsewhere")
    let_pass(PASS_S)
    for opcode, at in ((LOOKUP, node), (OPENDIR, node), (OPEN, inner)):
        fake.ask(opcode, at, bytes(16) + b"name\0")


def test_without_sight_of_trusted_marks_the_open_of_a_hole_goes_up(union, layers):
    with open(layers[0] / "hole", "wb") as file:
        file.truncate(100)
    fake = union(sees_trusted=False)
    fake.ask(OPEN, fake.look(ROOT, b"hole").nodeid, struct.pack("=II", os.O_RDONLY, 0))
    assert content(fake, b"d/top") == b"top"


@requires("xattr")
def test_marks_are_no_attributes_and_those_of_an_inner_overlay_lose_their_escape(union, layers):
    path = layers[0] / "d"
    for name in ("user.note", "user.overlay.origin", "user.overlay.overlay.opaque"):
        os.setxattr(path, name, name.encode())
    fake = union()
    node = fake.look(ROOT, b"d").nodeid
    listed = fake.request(LISTXATTR, node, struct.pack("=II", 4096, 0)).body
    assert sorted(listed.split(b"\0")[:-1]) == [b"user.note", b"user.overlay.opaque"]

    def get(name):
        return fake.request(GETXATTR, node, struct.pack("=II", 4096, 0) + name + b"\0")

    assert get(b"user.overlay.opaque").body == b"user.overlay.overlay.opaque"
    assert get(b"user.overlay.origin").error == errno.ENODATA


def test_who_a_node_is_names_its_layer(union, layers):
    fake = union()
    chain = fake.path.describe(fake.walk(b"d/bottom").nodeid)
    assert [(one[1], one[6]) for one in chain] == [(b"", 0), (b"d", 0), (b"bottom", 2)]
    assert chain[-1][3] == os.stat(layers[2] / "d" / "bottom").st_ino


def test_a_revoke_hands_up_what_is_below(union, layers):
    (layers[1] / "d" / ".wh.bottom").touch()
    fake = union()
    node = fake.look(ROOT, b"d").nodeid
    handle, _ = fake.open(node, opcode=OPENDIR)
    fake.path.revoke_directory(ROOT)
    fake.notices()
    fake.ask(LOOKUP, node, b"top\0")
    found = fake.some(node, handle, 0)
    assert {name for name, _, _ in found} == {b".", b"..", b"top", b"middle", b"same"}
    assert {entry.nodeid for _, _, entry in found} == {0}
    fake.release(node, handle, RELEASEDIR)


def test_a_layer_that_begins_to_have_a_part_shows_after_the_cache_timeout(union, layers):
    (layers[0] / "new").mkdir()
    fake = union(cache_timeout=50)
    node = fake.look(ROOT, b"new").nodeid
    assert names(fake, node) == []
    (layers[2] / "new").mkdir()
    (layers[2] / "new" / "file").touch()
    let_pass(PASS_S)
    assert names(fake, node) == [b"file"]
    assert fake.look(ROOT, b"new").nodeid == node


def test_a_directory_of_a_lower_layer_that_becomes_a_link_leads_nowhere(union, layers, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    fake = union(cache_timeout=0)
    node = fake.look(ROOT, b"d").nodeid
    (layers[2] / "d").rename(tmp_path / "moved")
    (layers[2] / "d").symlink_to(tmp_path / "outside")
    assert fake.look(node, b"secret").nodeid == 0
    assert names(fake, node) == [b"middle", b"same", b"top"]


def test_a_file_that_another_layer_has_now_is_stale_only_once_it_is_gone(union, layers):
    fake = union(cache_timeout=0)
    node = fake.walk(b"d/bottom").nodeid
    (layers[0] / "d" / "bottom").write_text("newer")
    assert fake.request(GETATTR, node, bytes(16)).error == 0
    (layers[2] / "d" / "bottom").unlink()
    assert fake.request(GETATTR, node, bytes(16)).error == errno.ESTALE
    assert content(fake, b"d/bottom") == b"newer"


@pytest.mark.parametrize("call", ["open", "statx", "getdents"])
def test_a_failing_call_is_that_errno_and_the_next_request_is_answered(union, call):
    fake = union(cache_timeout=0)
    node = fake.look(ROOT, b"d").nodeid
    handle, _ = fake.open(node, opcode=OPENDIR)
    body = struct.pack("=QQIIQII", handle, 0, 4096, 0, 0, 0, 0)
    arm_faults(f"{call}:EIO")
    reply = fake.request(READDIRPLUS, node, body)
    arm_faults("")
    assert reply.error in (0, errno.EIO)
    assert len(fake.some(node, handle, 0)) == 6
    fake.release(node, handle, RELEASEDIR)


def test_few_descriptors_suffice_for_many_merged_directories(union, layers):
    for number in range(60):
        for layer in layers:
            (layer / f"d{number}" / "deep").mkdir(parents=True)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
    try:
        fake = union(cache_timeout=60_000)
        nodes = [fake.walk(b"d%d" % number).nodeid for number in range(60)]
        assert all(fake.look(node, b"deep").nlink == 1 for node in nodes)
        used = [os.open("/dev/null", os.O_RDONLY) for _ in range(100 - _descriptors() - 4)]
        assert all(fake.look(node, b"deep").nodeid for node in nodes)
        assert names(fake, nodes[0]) == [b"deep"]
        for fd in used:
            os.close(fd)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def _descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_layers_that_are_none_are_refused(kernel):
    fake = kernel(path="pool")
    with pytest.raises(OSError, match="leasing"):
        fake.path.lease_union(ROOT, [], True)
    with open("/dev/null", "rb") as file, pytest.raises(OSError, match="leasing"):
        fake.path.lease_union(ROOT, [file.fileno()], True)


def test_outsiders_race_with_requests_and_no_answer_is_from_elsewhere(union, layers, tmp_path):
    """Directories of every layer appear, vanish and become links; only a race's errors occur."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    fake = union(cache_timeout=0)
    stop = threading.Event()

    def disturb(layer):
        directory, away = layer / "d", layer / "away"
        while not stop.is_set():
            with suppress(OSError):
                directory.rename(away)
                directory.symlink_to(outside)
                directory.unlink()
                away.rename(directory)

    outsiders = [threading.Thread(target=disturb, args=(layer,)) for layer in layers]
    for one in outsiders:
        one.start()
    try:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            look(fake)
    finally:
        stop.set()
        for one in outsiders:
            one.join(10)


def look(fake):
    """One round of lookups; everything found must belong to a layer."""
    gone = {0, errno.ESTALE, errno.ENOENT, errno.ENOTDIR}
    reply = fake.request(LOOKUP, ROOT, b"d\0")
    assert reply.error in gone
    node = 0 if reply.error else struct.unpack_from("=Q", reply.body)[0]
    if not node:
        return
    assert fake.request(LOOKUP, node, b"secret\0").body[:8] in (b"", bytes(8))
    reply = fake.request(OPENDIR, node, struct.pack("=II", os.O_RDONLY, 0))
    assert reply.error in gone
    if reply.error == 0:
        handle = struct.unpack_from("=Q", reply.body)[0]
        found = {name for name, _, _ in fake.some(node, handle, 0)}
        assert found <= {b".", b"..", b"same", b"top", b"middle", b"bottom"}
        fake.release(node, handle, RELEASEDIR)


LARGE = 4000  # names, more than a serving thread reads by itself
LISTER = 1000  # an ordinary user


@pytest.fixture
def large(union, layers):
    """A data path with a large merged directory, and the node of that."""
    for number in range(LARGE):
        (layers[number % 3] / "d" / f"{number:0200}").touch()
    fake = union()
    return fake, fake.look(ROOT, b"d").nodeid


def half_read(fake, node, uid=0):
    """A handle of which one reply was read, and the errno of that."""
    handle, _ = fake.open(node, opcode=OPENDIR)
    body = struct.pack("=QQIIQII", handle, 0, 4096, 0, 0, 0, 0)
    return handle, fake.request(READDIR, node, body, uid=uid).errorname


def rest(fake, node, handle, offset=0):
    found = []
    while some := fake.some(node, handle, offset, 1 << 16, READDIR):
        found += [name for name, *_ in some]
        offset = some[-1][1]
    return found


def share_one(fake, node, listings):
    """Half-read listings that share one snapshot: its changes have settled by then."""
    for _ in range(1000):
        handles = [half_read(fake, node)[0] for _ in range(listings)]
        if fake.statistics().directories.snapshots == 1:
            return handles
        for handle in handles:
            fake.release(node, handle, RELEASEDIR)
    raise AssertionError("the listings share nothing")


def test_listings_of_a_directory_share_one_snapshot_until_the_last_is_closed(large):
    fake, node = large
    handles = share_one(fake, node, 20)
    found = fake.statistics().directories
    assert 200 * LARGE < found.snapshot_bytes < 300 * LARGE
    lists = [rest(fake, node, handle) for handle in handles[:3]]
    assert lists[0] == lists[1] == lists[2]
    assert len(set(lists[0])) == len(lists[0]) == LARGE + 2 + 4
    for handle in handles:
        assert fake.statistics().directories.snapshots > 0
        fake.release(node, handle, RELEASEDIR)
    found = fake.statistics().directories
    assert (found.snapshots, found.snapshot_bytes) == (0, 0)
    assert found.listings_waited > 0


def test_half_read_listings_keep_no_descriptors(large):
    fake, node = large
    before = _descriptors()
    share_one(fake, node, 20)
    assert _descriptors() < before + 10


def test_a_change_is_in_the_next_listing_and_leaves_those_under_way_alone(large, union, layers):
    fake, node = large
    for number in range(6):
        (old,) = share_one(fake, node, 1)
        first = fake.some(node, old, 0, 4096, READDIR)
        before = [name for name, *_ in first] + rest(fake, node, old, first[-1][1])
        (layers[number % 3] / "d" / f"new{number}").touch()
        (layers[(number + 1) % 3] / "d" / f"{number:0200}").unlink(missing_ok=True)
        if number % 2:
            hide_by_name(layers[0], f"{number + 100:0200}")
        new, _ = fake.open(node, opcode=OPENDIR)
        # As a data path that has never listed it does.
        other = union()
        separate = other.list(other.look(ROOT, b"d").nodeid, 1 << 16, READDIR)
        assert rest(fake, node, new) == list(separate)
        assert f"new{number}".encode() in separate
        # The kernel may go on in the middle of a reply.
        for at in (0, len(first) // 2, len(first) - 1):
            assert rest(fake, node, old, first[at][1]) == before[at + 1 :]
        fake.release(node, old, RELEASEDIR)
        fake.release(node, new, RELEASEDIR)


def test_who_keeps_too_many_snapshots_is_refused_and_others_are_not(large, layers):
    fake, node = large
    handles = []
    for number in range(1000):
        (layers[0] / "d" / f"changed{number % 2}").touch()
        os.utime(layers[0] / "d")  # another version, so that nothing is shared
        handle, error = half_read(fake, node, LISTER)
        handles.append(handle)
        if error != "OK":
            break
    found = fake.statistics().directories
    assert (error, found.snapshots_refused) == ("ENOMEM", 1)
    assert 64 << 20 < found.snapshot_bytes < (64 << 20) + 600 * LARGE
    others = [half_read(fake, node, uid) for uid in (0, LISTER + 1)]
    assert [error for _, error in others] == ["OK", "OK"]
    for handle in handles:
        fake.release(node, handle, RELEASEDIR)
    assert half_read(fake, node, LISTER)[1] == "OK"


def test_a_snapshot_counts_for_those_who_still_use_it_and_for_nobody_else(large, layers):
    fake, node = large
    maker, holder = LISTER, LISTER + 1
    held = []
    for _ in range(200):
        os.utime(layers[0] / "d")  # another version
        let_pass(PASS_S)  # a listing can be shared from then on
        made, error = half_read(fake, node, maker)
        assert error == "OK"
        handle, error = half_read(fake, node, holder)
        held.append(handle)
        fake.release(node, made, RELEASEDIR)
        if error != "OK":
            break
    # Who made all of them and closed them may list, and who holds them may not.
    assert error == "ENOMEM"
    assert fake.statistics().directories.snapshot_bytes > 64 << 20
    assert fake.statistics().directories.snapshots_shared > 0
    for handle in held:
        fake.release(node, handle, RELEASEDIR)
    found = fake.statistics().directories
    assert (found.snapshots, found.snapshot_bytes) == (0, 0)
    assert half_read(fake, node, holder)[1] == "OK"
