"""Mounts inside the source. Each test runs in a child with a new mount namespace."""

PRELUDE = """
import ctypes, errno, os, subprocess, sys
from zcfuse.tree import Mirror
source = sys.argv[1]
os.mkdir(f"{source}/inner")
def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True, timeout=20)
def names(directory):
    return sorted(name for _, name, _, _ in mirror.listing(directory).entries(2))
def errno_of(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
"""

OTHER_FILESYSTEM = """
mount("-t", "tmpfs", "none", f"{source}/inner")
os.makedirs(f"{source}/inner/d")
with open(f"{source}/inner/d/f", "w") as file:
    file.write("beyond")
for openat2 in (True, False):
    mirror = Mirror(source, openat2=openat2)
    inner, shown = mirror.lookup(mirror.root, b"inner")
    directory, _ = mirror.lookup(inner, b"d")
    leaf, attributes = mirror.lookup(directory, b"f")
    backing = mirror.open(leaf)
    assert backing.pread(10, 0) == b"beyond"
    assert backing.attributes() == attributes == mirror.attributes(leaf)
    backing.close()
    assert names(directory) == [b"f"]
    real = os.stat(f"{source}/inner/d/f")
    assert (attributes.size, attributes.mtime_ns) == (real.st_size, real.st_mtime_ns)
    assert attributes.ino != real.st_ino and 0 < attributes.ino < 2**64
    listed = {n: a.ino for _, n, _, a in mirror.listing(mirror.root).entries(2)}
    assert listed[b"inner"] == shown.ino == Mirror(source).lookup(mirror.root, b"inner")[1].ino
    os.symlink("/", f"{source}/inner/link") if openat2 else None
    assert errno_of(mirror.lookup, mirror.lookup(inner, b"link")[0], b"etc") in (
        "ESTALE", "ENOTDIR")
print("done")
"""

BOUND_TWICE = """
os.mkdir(f"{source}/d")
open(f"{source}/d/f", "w").close()
mount("--bind", f"{source}/d", f"{source}/inner")
mirror = Mirror(source)
one, two = (mirror.lookup(mirror.root, name)[0] for name in (b"d", b"inner"))
assert one.identity != two.identity
one, two = (mirror.lookup(node, b"f") for node in (one, two))
assert one[0].identity != two[0].identity
assert one[1] == two[1]
mount("--bind", source, f"{source}/d")
assert mirror.lookup(mirror.root, b"d")[0].identity != mirror.root.identity
print("done")
"""

# This /dev/fuse has no reader: a request to its filesystem would wait forever.
SILENT_FUSE = """
fd = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd
mountpoint = f"{source}/inner"
os.mkdir(f"{mountpoint}/under")
open(f"{mountpoint}/under/f", "w").close()
open(f"{source}/bound", "w").close()
mirror = Mirror(source, openat2=sys.argv[2] == "openat2")
inner, _ = mirror.lookup(mirror.root, b"inner")
under, _ = mirror.lookup(inner, b"under")
leaf, _ = mirror.lookup(under, b"f")
assert libc.mount(b"silent", mountpoint.encode(), b"fuse.silent", 6, options) == 0
with open("/proc/self/mountinfo") as table:
    major, minor = next(line.split()[2] for line in table if mountpoint in line).split(":")
mirror.refuse_device(int(major), int(minor))
assert names(mirror.root) == [b"bound"], names(mirror.root)
assert errno_of(mirror.lookup, mirror.root, b"inner") == "ELOOP"
for call in (mirror.attributes, mirror.open, mirror.listing, mirror.listxattr):
    assert errno_of(call, leaf) == "ESTALE", call
    assert errno_of(call, inner) == "ESTALE", call
assert errno_of(mirror.lookup, under, b"f") == "ESTALE"
assert errno_of(mirror.lookup, inner, b"under") == "ESTALE"
assert mirror.attributes(mirror.root).mode
print("done")
sys.stdout.flush()
os._exit(0)
"""


def test_another_filesystem_inside_the_source_is_shown(source, child_with_mounts):
    assert child_with_mounts(PRELUDE + OTHER_FILESYSTEM, source) == "done\n"


def test_a_directory_bound_to_two_places_is_two_directories(source, child_with_mounts):
    assert child_with_mounts(PRELUDE + BOUND_TWICE, source) == "done\n"


def test_the_refused_device_is_never_sent_a_request(source, child_with_mounts):
    assert child_with_mounts(PRELUDE + SILENT_FUSE, source, "openat2") == "done\n"


def test_the_refused_device_is_never_sent_a_request_by_the_walk(source, child_with_mounts):
    assert child_with_mounts(PRELUDE + SILENT_FUSE, source, "walk") == "done\n"
