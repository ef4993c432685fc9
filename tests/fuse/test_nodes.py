"""The node table against a plain model: one count per identity."""

import errno

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from zcfuse.fuse._nodes import ROOT_NODEID, NodeTable
from zcfuse.tree import Node


class Numbered(Node):
    __slots__ = ("identity", "merged")

    def __init__(self, identity):
        self.identity = identity
        self.merged = 0

    def merge(self, other):
        assert other.identity == self.identity
        self.merged += 1


class NodeTableAgainstModel(RuleBasedStateMachine):
    nodeids = Bundle("nodeids")

    def __init__(self):
        super().__init__()
        self.root = Numbered("root")
        self.table = NodeTable(self.root)
        self.lookups = {}  # identity: (nodeid, lookups)
        self.given_out = {ROOT_NODEID}

    @rule(target=nodeids, identity=st.integers(0, 6))
    def look_up(self, identity):
        nodeid, new = self.table.count_lookup(Numbered(identity))
        known, count = self.lookups.get(identity, (None, 0))
        assert new == (known is None)
        if new:
            assert nodeid not in self.given_out
            self.given_out.add(nodeid)
        else:
            assert nodeid == known
        self.lookups[identity] = (nodeid, count + 1)
        return nodeid

    @rule()
    def look_the_root_up(self):
        assert self.table.count_lookup(Numbered("root")) == (ROOT_NODEID, False)

    @rule(lookups=st.integers(1, 5))
    def forget_the_root(self, lookups):
        assert not self.table.forget(ROOT_NODEID, lookups)

    @rule(nodeid=nodeids, lookups=st.integers(1, 3))
    def forget(self, nodeid, lookups):
        known = [(i, count) for i, (n, count) in self.lookups.items() if n == nodeid]
        gone = self.table.forget(nodeid, lookups)
        if not known:
            assert not gone
            return
        identity, count = known[0]
        assert gone == (count <= lookups)
        if gone:
            del self.lookups[identity]
        else:
            self.lookups[identity] = (nodeid, count - lookups)

    @invariant()
    def knows_what_the_model_knows(self):
        assert len(self.table) == len(self.lookups) + 1
        assert self.table.node(ROOT_NODEID) is self.root
        for identity, (nodeid, _) in self.lookups.items():
            assert self.table.node(nodeid).identity == identity
            assert self.table.nodeid(Numbered(identity)) == nodeid


NodeTableAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestNodeTable = NodeTableAgainstModel.TestCase


def test_a_forgotten_nodeid_is_estale():
    table = NodeTable(Numbered("root"))
    nodeid, _ = table.count_lookup(Numbered("a"))
    table.forget(nodeid, 1)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        table.node(nodeid)
    assert caught.value.errno == errno.ESTALE


def test_a_second_name_of_a_node_is_merged_into_the_first():
    table = NodeTable(Numbered("root"))
    first = Numbered("a")
    nodeid, _ = table.count_lookup(first)
    table.count_lookup(first)
    table.count_lookup(Numbered("a"))
    assert table.node(nodeid) is first
    assert first.merged == 1


def test_an_open_is_unchanged_only_if_size_and_mtime_are_as_at_the_last():
    table = NodeTable(Numbered("root"))
    seen = [(1, 1), (1, 1), (2, 1), (2, 1), (2, 3), (2, 3)]
    kept = [table.reopened_unchanged(ROOT_NODEID, *pair) for pair in seen]
    assert kept == [False, True, False, True, False, True]
    table.forget_opened(ROOT_NODEID)
    assert not table.reopened_unchanged(ROOT_NODEID, 2, 3)


def test_a_node_has_the_path_that_it_was_found_by_last():
    table = NodeTable(Numbered("root"))
    directory, _ = table.count_lookup(Numbered("d"), ROOT_NODEID, b"dir")
    file, _ = table.count_lookup(Numbered("f"), directory, b"old")
    table.count_lookup(Numbered("f"), directory, b"new")
    assert table.path_of(ROOT_NODEID) == b""
    assert table.path_of(file) == b"dir/new"
    table.forget(directory, 1)
    assert table.path_of(file) is None
    assert table.path_of(99) is None


def test_directories_that_were_moved_into_one_another_have_no_path():
    table = NodeTable(Numbered("root"))
    one, _ = table.count_lookup(Numbered("1"), ROOT_NODEID, b"1")
    other, _ = table.count_lookup(Numbered("2"), one, b"2")
    table.count_lookup(Numbered("1"), other, b"1")
    assert table.path_of(one) is None
