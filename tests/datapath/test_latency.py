"""Histograms and hot files of the data path, over the socket pairs, and their arithmetic."""

import errno
import os
import struct

import pytest

from tests.datapath.kernel import FORGET, GETATTR, OPEN, READ, ROOT
from zcfuse.datapath import WHOLE_FILE, Latency, arm_faults

NODE, OTHER = 5, 6
PAGE = 4096
READ_IN = struct.Struct("=QQIIQII")

buckets = pytest.mark.parametrize("share", [0.0, 0.5, 0.99, 1.0])


def totals(fake):
    """Requests by operation, and the sums of their histograms."""
    statistics = fake.statistics()
    counted = {name: latency.count for name, latency in statistics.latency.operations.items()}
    return dict(statistics.requests), counted


def test_the_histograms_hold_each_request_once(leased, tree):
    fake = leased()
    node = fake.look(ROOT, b"file").nodeid
    for _ in range(3):
        handle, _ = fake.open(node)
        assert fake.read(node, 0, PAGE).body == b"some bytes"
        fake.release(node, handle)
    fake.look(ROOT, b"missing")
    fake.list(ROOT)
    fake.forget(node)
    fake.look(ROOT, b"file")
    requests, counted = totals(fake)
    assert counted == requests
    assert counted["READ"] == counted["OPEN"] == 3


def test_requests_that_fail_are_in_the_histograms_too(kernel):
    fake = kernel(path="pool")
    directory = os.open("/", os.O_RDONLY)
    fake.path.install(NODE, [(directory, 0, WHOLE_FILE)])
    os.close(directory)
    assert fake.read(NODE, 0, PAGE).errorname == "EISDIR"
    fake.send(READ, NODE, b"short")
    assert fake.reply().errorname == "EINVAL"
    requests, counted = totals(fake)
    assert counted == requests == {"READ": 2}


@pytest.mark.parametrize("path", ["pool", "mmap", "splice"])
def test_reads_are_told_apart_by_serving_path(kernel, backing, path):
    fd, data = backing
    fake = kernel(path=path)
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    for number in range(10):
        assert fake.read(NODE, number * PAGE, PAGE).body == data[number * PAGE :][:PAGE]
    latency = fake.statistics().latency
    assert {name: one.count for name, one in latency.paths.items()} == {path: 10}
    assert latency.paths[path] == latency.operations["READ"]
    assert latency.upcalls == {}


def test_upcalls_are_in_the_histograms_once_they_are_answered(kernel):
    fake = kernel()
    getattr_, read = fake.ask(GETATTR, NODE, bytes(16)), fake.ask(READ, NODE, bytes(40))
    assert totals(fake) == ({"GETATTR": 1, "READ": 1}, {})
    fake.answer(getattr_, error=errno.ENOENT)
    fake.reply()
    fake.answer(read, b"abc")
    fake.reply()
    statistics = fake.statistics()
    assert statistics.latency.upcalls == statistics.latency.operations
    assert statistics.latency.paths["upcall"].count == 1
    assert totals(fake)[1] == {"GETATTR": 1, "READ": 1}


def test_an_upcall_that_cannot_be_sent_is_in_the_histograms(kernel):
    fake = kernel()
    assert arm_faults("send:EIO:count=1")
    fake.send(GETATTR, NODE, bytes(16))
    assert fake.reply().errorname == "EIO"
    assert totals(fake)[1] == {"GETATTR": 1}


def test_an_upcall_that_nobody_answers_is_in_the_histograms_once_it_is_given_up(kernel):
    fake = kernel(upcall_timeout=0)
    fake.ask(GETATTR, NODE, bytes(16))
    assert fake.reply().errorname == "EIO"
    assert fake.statistics().upcalls_given_up == 1
    assert fake.statistics().latency.upcalls["GETATTR"].count == 1


def test_what_wants_no_reply_is_in_the_histograms(kernel):
    fake = kernel()
    fake.send(FORGET, NODE, struct.pack("=Q", 1))
    fake.upcall()
    assert totals(fake)[1] == {"FORGET": 1}


def test_hot_files_are_counted_by_opens_reads_and_bytes(kernel, backing):
    fd, _ = backing
    fake = kernel(path="pool")
    for node in (NODE, OTHER):
        fake.path.install(node, [(fd, 0, WHOLE_FILE)])
    for _ in range(4):
        fake.read(NODE, 0, PAGE)
    fake.read(OTHER, 0, 1 << 20)
    fake.ask(OPEN, OTHER, struct.pack("=II", 0, 0))
    hot = {file[0]: file[1:4] for file in fake.path.hot_files(5)}
    assert hot == {NODE: (0, 4, 4 * PAGE), OTHER: (1, 1, 1 << 20)}


def test_a_hot_file_below_a_leased_directory_has_its_path_from_there(leased):
    fake = leased()
    node = fake.walk(b"dir/inner").nodeid
    fake.open(node)
    fake.read(node, 0, PAGE)
    assert fake.path.hot_files(5) == [(node, 1, 1, 11, ROOT, b"dir/inner")]


def test_a_hot_file_that_the_kernel_has_forgotten_has_no_path(leased):
    fake = leased()
    node = fake.look(ROOT, b"file").nodeid
    handle, _ = fake.open(node)
    fake.release(node, handle)
    fake.forget(node)
    fake.look(ROOT, b"missing")
    assert fake.path.hot_files(5) == [(node, 1, 0, 0, 0, b"")]


def latency_of(*buckets):
    count = sum(n for *_, n in buckets)
    return Latency(count, 0, buckets[-1][1] - 1 if buckets else 0, buckets)


@buckets
def test_a_quantile_lies_within_its_bucket(share):
    latency = latency_of((100, 200, 50), (200, 300, 49), (1000, 1200, 1))
    first, end = {0.0: (100, 200), 0.5: (100, 200), 0.99: (200, 300), 1.0: (1000, 1200)}[share]
    assert first <= latency.quantile(share) <= end


@buckets
def test_no_request_took_no_time(share):
    assert Latency().quantile(share) == 0


def test_no_quantile_is_longer_than_the_longest():
    assert Latency(1, 130, 130, ((100, 200, 1),)).quantile(1.0) == 130


def test_the_difference_of_two_histograms_is_what_came_between():
    earlier = latency_of((100, 200, 5), (400, 500, 1))
    later = latency_of((100, 200, 5), (200, 300, 2), (400, 500, 4))
    between = later.since(earlier)
    assert (between.count, between.buckets) == (5, ((200, 300, 2), (400, 500, 3)))
    assert later.since(later).quantile(0.99) == 0


def test_the_sum_of_two_histograms_has_the_buckets_of_both_in_order():
    summed = latency_of((100, 200, 1), (400, 500, 1)).plus(latency_of((200, 300, 2)))
    assert summed.buckets == ((100, 200, 1), (200, 300, 2), (400, 500, 1))
    assert (summed.count, summed.max_ns) == (4, 499)
