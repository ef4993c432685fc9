"""Nodes cost no descriptor and little memory: 100,000 files walked and read under a low limit."""

import os
import tempfile

PROGRAM = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from zcfuse.fuse._nodes import NodeTable
from zcfuse.tree import Mirror
source, directories, files = sys.argv[1], 100, 1000
for number in range(directories):
    os.mkdir(f"{source}/{number}")
    directory = os.open(f"{source}/{number}", os.O_RDONLY)
    for file in range(files):
        fd = os.open(str(file), os.O_CREAT | os.O_WRONLY, dir_fd=directory)
        if file % 100 == 0:
            os.write(fd, b"%d/%d" % (number, file))
        os.close(fd)
    os.close(directory)

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

mirror = Mirror(source)
table = NodeTable(mirror.root)
before = resident()
def walk(nodeid):
    for _, name, node, attributes in mirror.listing(table.node(nodeid)).entries(2):
        child, new = table.count_lookup(node)
        assert new
        if attributes.mode & 0o040000:
            walk(child)
walk(1)
assert len(table) == directories * (files + 1) + 1
print("bytes a node", (resident() - before) // len(table))
for nodeid in range(2, len(table) + 1):
    node = table.node(nodeid)
    if mirror.attributes(node).mode & 0o040000:
        continue
    backing = mirror.open(node)
    backing.pread(20, 0)
    backing.close()
assert len(os.listdir("/proc/self/fd")) < 20
for nodeid in range(2, len(table) + 1):
    assert table.forget(nodeid, 1)
assert len(table) == 1
"""

BYTES_A_NODE = 1000
LONGEST_SECONDS = 110


def test_a_hundred_thousand_nodes_need_no_descriptors_and_little_memory(child):
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="zcfuse-nodes-", dir=memory) as source:
        bytes_a_node = int(child(PROGRAM, source, seconds=LONGEST_SECONDS).split()[-1])
    assert 0 < bytes_a_node < BYTES_A_NODE
