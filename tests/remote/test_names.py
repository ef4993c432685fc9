"""The packed facts of names, compared with the facts that went in."""

from hypothesis import given
from hypothesis import strategies as st

from zcfuse.remote._messages import Info
from zcfuse.remote._names import NameTable

_SIZES = st.none() | st.integers(0, 2**63 - 1)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_ABOVE = st.sampled_from(["bucket/prefix/", "http://host/d/", ""])


@st.composite
def infos(draw: st.DrawFn) -> Info:
    name = draw(st.binary(min_size=1, max_size=6))
    size = draw(_SIZES)
    text = name.decode("utf-8", "surrogateescape")
    same = text if text.isprintable() else "%s"
    path = draw(_ABOVE) + draw(st.sampled_from([same, "quoted%20"]) | _TEXTS)
    version = draw(st.sampled_from([f"{size} ", ""])) + draw(_TEXTS)
    return Info(name, path, draw(st.booleans()), size, draw(st.integers(0, 2**62)), version)


@given(st.lists(infos(), max_size=20))
def test_a_table_returns_the_facts_that_it_got_in_the_order_of_their_names(given_infos: list[Info]):
    table = NameTable(given_infos)
    expected = {info.name: info for info in given_infos}
    assert list(table) == list(expected)
    assert [table.get(name) for name in table] == list(expected.values())
    assert len(table) == len(expected)


def test_a_name_that_was_removed_is_missing():
    table = NameTable([Info(b"a", "x/a", False, 1, 2, '1 "t"'), Info(b"b", "x/b", True, 0, 0, "")])
    table.remove(b"a")
    table.remove(b"c")
    assert table.get(b"a") is None
    assert (list(table), b"b" in table) == ([b"b"], True)
