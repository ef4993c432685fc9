"""Control's questions to the data path: its plan for a file, its counts, its locks."""

from zcfuse.datapath import WHOLE_FILE

NODE = 5
EXTENTS = "passthrough_extents"


def test_what_would_be_done_is_what_an_install_does_and_is_not_counted(kernel, backing):
    fd, _ = backing
    for extents, path in (
        ([(fd, 0, WHOLE_FILE)], ""),
        ([(fd, 4096, 8192)], ""),
        ([(fd, 0, WHOLE_FILE), (-1, 0, 10)], "splice"),
        ([(fd, 0, WHOLE_FILE)], "pool"),
        ([(fd, 0, WHOLE_FILE)], "upcall"),
    ):
        fake = kernel(path="auto")
        told = fake.path.would_serve(extents, path)
        assert fake.statistics().opens == fake.statistics().fallbacks == {}
        assert told == fake.path.install(NODE, extents, path)


def test_a_part_of_a_file_would_be_cached_for_a_reason(kernel, backing):
    fd, _ = backing
    assert kernel(path="auto").path.would_serve([(fd, 4096, 8192)]) == ("cached", EXTENTS)
    assert kernel(path="upcall").path.would_serve([(fd, 0, WHOLE_FILE)]) == ("upcall", "")


def test_how_a_node_is_served_is_told_for_as_long_as_it_is(kernel, backing):
    fd, _ = backing
    fake = kernel(path="splice")
    assert fake.path.serves(NODE) == ""
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    assert fake.path.serves(NODE) == "cached"
    fake.path.revoke(NODE)
    assert fake.path.serves(NODE) == ""


def test_the_lock_budget_is_taken_whole_or_not_at_all(kernel):
    fake = kernel(path="pool", lock_budget=64 << 20)
    used, limit = fake.statistics().lock_budget
    left = limit - used
    assert not fake.path.take_lock_budget(left + 1)
    assert fake.path.take_lock_budget(left)
    assert fake.statistics().lock_budget == (limit, limit)
    assert not fake.path.take_lock_budget(1)
    fake.path.give_lock_budget(left)
    assert fake.statistics().lock_budget == (used, limit)
