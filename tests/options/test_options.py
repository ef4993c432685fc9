"""Options as text and as values."""

import ast
from pathlib import Path

import pytest

from zcfuse import MountError, MountOptions
from zcfuse.datapath import MOST_THREADS, Config
from zcfuse.options import MOUNT_OPTIONS, parse_options, parse_size, split_options


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("64K", 64 << 10),
        ("64k", 64 << 10),
        ("64M", 64 << 20),
        ("64MiB", 64 << 20),
        ("64MB", 64 << 20),
        ("1.5G", 3 << 29),
        ("2T", 2 << 40),
        (" 8M ", 8 << 20),
        ("16B", 16),
    ],
)
def test_a_size_is_read_with_its_unit(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1X", "1 M B", "0x10", "1e3", "64MM", "∞"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


def parsed(text):
    """The values that the text of ``-o`` gives."""
    return parse_options(text, MOUNT_OPTIONS)


def test_mount_options_are_split_and_converted():
    assert parsed("allow_other,,path=mmap,lock_budget=1M,no_prefault") == {
        "allow_other": True,
        "path": "mmap",
        "lock_budget": 1 << 20,
        "prefault": False,
    }


@pytest.mark.parametrize("text", ["rw", "writable", "ro,rw"])
def test_a_mount_is_writable_where_that_is_said_last(text):
    assert parsed(text) == {"rw": True}
    assert parsed(f"{text},ro") == {"rw": False}


def test_the_last_of_a_repeated_option_counts():
    assert parsed("threads=1,threads=2") == {"threads": 2}


@pytest.mark.parametrize("text", ["suid", "dev", "threads=1.5", "cache_timeout=soon", "=1"])
def test_a_wrong_mount_option_is_a_usage_error_that_names_it(text):
    with pytest.raises(MountError, match=r"^-o ") as caught:
        parsed(text)
    assert caught.value.usage
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"path": "fast"},
        {"cache_timeout": -0.1},
        {"cache_timeout": float("inf")},
        {"threads": -1},
        {"threads": MOST_THREADS + 1},
        {"lock_budget": -1},
        {"stack_depth": 0},
        {"unmount_wait": float("nan")},
        {"path": "naive", "immutable": True},
        {"path": "passthrough", "immutable": True},
        {"cache_timeout": 5, "immutable": True},
        {"directory_lease": False, "coherence": "push"},
    ],
)
def test_a_value_outside_its_range_is_a_usage_error_that_names_it(values):
    with pytest.raises(MountError, match=next(iter(values))) as caught:
        MountOptions(**values)
    assert caught.value.usage


def test_an_immutable_tree_is_cached_without_limit():
    assert MountOptions(cache_timeout=3).effective_cache_timeout == 3
    assert MountOptions(immutable=True).effective_cache_timeout > 100 * 365 * 86400
    assert parsed("immutable") == {"immutable": True}


def test_commas_in_double_quotes_do_not_separate():
    assert split_options('ro, a="b,c",,d="",e="f') == ["ro", "a=b,c", "d=", "e=f"]
    assert split_options("") == []


def test_noexec_and_its_opposite():
    assert parsed("noexec") == {"noexec": True}
    assert parsed("noexec,exec") == {"noexec": False}


def test_as_many_threads_as_the_data_path_runs_may_be_chosen():
    assert MountOptions(threads=MOST_THREADS).threads == MOST_THREADS


def test_every_option_is_a_field_and_can_be_given_as_text_or_only_in_python():
    for option in MOUNT_OPTIONS:
        assert getattr(MountOptions(), option.name) == option.default
        assert option.spellings or not option.declaration
        for word, value in option.words.items():
            assert parsed(word) == {option.name: value}
        for choice in option.choices:
            assert parsed(f"{option.name}={choice}") == {option.name: choice}
        assert f" {option.name}: {option.help}" in MountOptions.__doc__


@pytest.mark.parametrize("option", [one for one in MOUNT_OPTIONS if hasattr(Config(), one.name)])
def test_the_data_path_takes_each_value_of_an_option(option):
    config = Config()
    for value in option.choices or (option.default,):
        given = 1000 if isinstance(value, float) or value is None else value
        setattr(config, option.name, given)
        assert getattr(config, option.name) == given


def test_the_default_number_of_hot_files_is_the_sketchs() -> None:
    assert Config().hot_files == MountOptions().hot_files


def test_the_stub_of_the_data_path_declares_each_field_of_its_configuration():
    stub = Path(__file__).parents[2] / "zcfuse" / "datapath" / "_native.pyi"
    classes = [node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ClassDef)]
    declared = {
        line.target.id: line.annotation.id
        for line in next(one for one in classes if one.name == "Config").body
        if isinstance(line, ast.AnnAssign)
    }
    config = Config()
    fields = [name for name in dir(config) if not name.startswith("_")]
    assert declared == {name: type(getattr(config, name)).__name__ for name in fields}
