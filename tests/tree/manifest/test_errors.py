"""A bad manifest gets one line: the file, the line, the field and the reason."""

import os

import pytest

from zcfuse.tree.manifest import ManifestError, load_manifest
from zcfuse.tree.manifest._toml_lines import line_of

LONG = "x" * 256

# A node on line 3 of a manifest, and the error.
BAD_NODES = [
    ({"path": "a"}, "line 3: has no content: give one of file, text, base64, "
     "zeros, symlink, parts, mirror, remote, dir"),
    ({"zeros": 1}, "line 3: path: is missing"),
    ({"path": "", "zeros": 1}, "line 3: path: is empty"),
    ({"path": "/a", "zeros": 1}, "line 3: path: /a is absolute: paths begin at the mount point, "
     "without a slash"),
    ({"path": "/a/b", "zeros": 1}, "line 3: path: /a/b is absolute: paths begin at the mount "
     "point, without a slash"),
    ({"path": "a/../b", "zeros": 1}, "line 3: path: a/../b has '..' in it: write it without"),
    ({"path": "..", "zeros": 1}, "line 3: path: .. has '..' in it: write it without"),
    ({"path": "./a", "zeros": 1}, "line 3: path: ./a has '.' in it: write it without"),
    ({"path": ".", "dir": True}, "line 3: path: . has '.' in it: write it without"),
    ({"path": "a//b", "zeros": 1}, "line 3: path: a//b has an empty name in it"),
    ({"path": "a/", "zeros": 1}, "line 3: path: a/ ends in a slash"),
    ({"path": "", "dir": True}, "line 3: path: is empty"),
    ({"path": "/", "dir": True}, "line 3: path: / is absolute: paths begin at the mount point, "
     "without a slash"),
    ({"path": "a\0b", "zeros": 1}, "line 3: path: 'a\\x00b' has a NUL in it"),
    ({"path": LONG, "zeros": 1}, f"line 3: path: the name {LONG[:40]}... is longer than 255 bytes"),
    ({"path": "é" * 128 + "/b", "zeros": 1},
     f"line 3: path: the name {'é' * 40}... is longer than 255 bytes"),
    ({"path": "x/" * 2049 + "b", "zeros": 1},
     "line 3: path: the directory's path is longer than 4095 bytes"),
    ({"path": "ok", "zeros": 1}, "line 3: path: ok is given twice (line 1)"),
    ({"path": "d", "dir": True}, "line 3: path: d is given twice (line 2)"),
    ({"path": "d", "zeros": 1}, "line 3: path: d is a directory already (line 2)"),
    ({"path": "ok/a/b", "zeros": 1},
     "line 3: path: ok must be a directory, but is not (line 1)"),
    ({"path": "a", "file": "ten", "offset": -1}, "line 3: offset: must be 0 or more"),
    ({"path": "a", "file": "ten", "length": 2**63},
     "line 3: length: must be 9223372036854775807 or less"),
    ({"path": "a", "file": "ten", "offset": 11},
     "line 3: offset: 11 lies beyond the 10 bytes of ten"),
    ({"path": "a", "file": "ten", "offset": 4, "length": 7},
     "line 3: length: 4 + 7 = 11, beyond the 10 bytes of ten"),
    ({"path": "a", "parts": [{"zeros": 2**62}, {"zeros": 2**62}]},
     "line 3: parts: are together longer than a file can be, 2^63 - 1 bytes"),
    ({"path": "a", "file": "gone"}, "line 3: file: gone does not exist"),
    ({"path": "a", "file": ""}, "line 3: file: is empty"),
    ({"path": "a", "file": "x\0"}, "line 3: file: has a NUL in it"),
    ({"path": "a", "file": "ten/x"}, "line 3: file: ten/x: Not a directory"),
    ({"path": "a", "file": "below"}, "line 3: file: below is a directory: show it by mirror"),
    ({"path": "a", "file": "fifo"}, "line 3: file: fifo is not a regular file"),
    ({"path": "a", "mirror": "ten"}, "line 3: mirror: ten is not a directory"),
    ({"path": "a", "remote": "s3://bucket"},
     "line 3: remote: only a mount shows a URL; load_manifest needs remote=zcfuse.Remote"),
    ({"path": "a", "mirror": "gone"}, "line 3: mirror: gone does not exist"),
    ({"path": "a", "mirror": "below", "coherence": "strange"},
     "line 3: coherence: must be ttl, push or strict"),
    ({"path": "a", "zeros": 1, "coherence": "push"}, "line 3: coherence: goes with mirror only"),
    ({"path": "a", "mirror": "below", "mode": "0700"},
     "line 3: mode: a mirror has that of its directory"),
    ({"path": "a", "mirror": "below", "mtime": 1},
     "line 3: mtime: a mirror has that of its directory"),
    ({"path": "a", "base64": "AA=A"}, "line 3: base64: is none: "),
    ({"path": "a", "base64": "é"}, "line 3: base64: is none: "),
    ({"path": "a", "symlink": ""}, "line 3: symlink: is empty"),
    ({"path": "a", "symlink": "x" * 4096}, "line 3: symlink: is longer than 4095 bytes"),
    ({"path": "a", "zeros": 1, "text": ""}, "line 3: zeros: there is text already: give one"),
    ({"path": "a", "zeros": 1, "dir": True}, "line 3: dir: there is zeros already: give one"),
    ({"path": "a", "zeros": 1, "offset": 1}, "line 3: offset: goes with file only"),
    ({"path": "a", "dir": True, "length": 1}, "line 3: length: goes with file only"),
    ({"path": "a", "zeros": "4K"}, "line 3: zeros: must be a whole number, not text"),
    ({"path": "a", "zeros": 1.5}, "line 3: zeros: must be a whole number, not a number with a"),
    ({"path": "a", "dir": 1}, "line 3: dir: must be true or false, not a whole number"),
    ({"path": "a", "fil": "ten"}, "line 3: fil: there is no such field, did you mean file?"),
    ({"path": "a", "ofset": 3}, "line 3: ofset: there is no such field, did you mean offset?"),
    ({"path": "a", "bytes": "x"}, "line 3: bytes: there is no such field, did you mean text, or"),
    ({"path": "a", "qqqq": "x"}, "line 3: qqqq: there is no such field: there are file, offset,"),
    ({"path": "a", "zeros": 1, "mode": 420},
     'line 3: mode: must be text, in octal, such as "0644"'),
    ({"path": "a", "zeros": 1, "mode": "rw-"},
     "line 3: mode: 'rw-' are no permission bits in octal, such as \"0644\""),
    ({"path": "a", "zeros": 1, "mode": "100644"},
     "line 3: mode: '100644' are no permission bits in octal, such as \"0644\""),
    ({"path": "a", "zeros": 1, "uid": 2**32 - 1}, "line 3: uid: must be 4294967294 or less"),
    ({"path": "a", "zeros": 1, "mtime": -1}, "line 3: mtime: must lie from 1970 on and before"),
    ({"path": "a", "zeros": 1, "mtime": 1e300}, "line 3: mtime: must lie from 1970 on and before"),
    ({"path": "a", "zeros": 1, "serve": "slice"},
     "line 3: serve: there is no path 'slice', did you mean splice?"),
    ({"path": "a", "symlink": "b", "serve": "pool"},
     "line 3: serve: a link has no bytes to serve"),
    ({"path": "a", "dir": True, "serve": "pool"},
     "line 3: serve: a directory has no bytes to serve"),
    ({"path": "a", "parts": "ten"}, "line 3: parts: must be a list, not text"),
    ({"path": "a", "parts": [{"zeros": 1}, {"fil": "ten"}]},
     "line 3: parts[1].fil: there is no such field, did you mean file?"),
    ({"path": "a", "parts": [{"zeros": 1}, {"symlink": "ten"}]},
     "line 3: parts[1].symlink: a part has no such field: it has file, offset, length, text,"),
    ({"path": "a", "parts": [{"zeros": 1}, {"file": "ten", "offset": 11}]},
     "line 3: parts[1].offset: 11 lies beyond the 10 bytes of ten"),
    ({"path": "a", "parts": [{}]}, "line 3: parts[0]: has no content: give one of"),
    ({"path": "a", "parts": [{"zeros": 1, "length": 1}]},
     "line 3: parts[0].length: goes with file only"),
]  # fmt: skip

# Errors of one format only.
BAD_LINES = [
    ('{"path": "a", "zeros": 1', "line 2: not a JSON object: input data was truncated"),
    ('{"path": "a", "zeros": 1} x', "line 2: not a JSON object: trailing"),
    ('{"path": "a", "zeros": 1} {"path": "b", "zeros": 1}', "line 2: not a JSON object: "),
    ("[1]", "line 2: must be a table, not a list"),
    ('{"path": "\\udc80", "zeros": 1}', "line 2: not a JSON object: invalid utf"),
    ('{"path": "a", "zeros": 1, "mtime": "2024"}', "line 2: mtime: invalid RFC3339 encoded"),
    ('{"path": "a", "zeros": 1, "mtime": "2024-01-01T00:00:00"}', "line 2: mtime: is a date with"),
    ('{"path": "a", "x": ' + "[" * 100_000, "line 2: x: there is no such field: "),
]  # fmt: skip

BAD_TOML = [
    ("[[node]]\npath = ", "line 2: not TOML: Invalid value"),
    ("[[node]]\npath = 1\npath = 2\n", "line 3: not TOML: Cannot overwrite a value"),
    ('\n[[nodes]]\npath = "a"\n', "line 2: nodes: there is no such table, did you mean node?"),
    ('[[node]]\npath = "a"\nzeros = 1\n[zzz]\n', "line 4: zzz: there is no such table: there is"),
    ('\n[node]\npath = "a"\nzeros = 1\n', "line 2: node: must be written [[node]], once for each"),
    ("node = [1]", "line 1: must be a table, not a whole number"),
    ("x = " + "[" * 20_000 + "]" * 20_000, "not usable: nested too deeply"),
    # The line of the field, whatever precedes it.
    ('[[node]]\npath = "a"\n\n# offset = 1\noffset = -1\nfile = "ten"\n', "line 5: offset: must"),
    ('[[node]]\npath = "a"\ntext = """\n[[node]]\noffset = 1\n"""\n[[node]]\npath = "b"\n\n'
     "zeros = -1\n", "line 10: zeros: must be 0 or more"),
    ("[[node]]\npath = 'a'\ntext = '''\n[[node]]\n'''''\nqq = 1\n", "line 6: qq: there is no such"),
    ('[[node]]\npath = "a"\n"text" = "x"\nmtime = 2024-01-01\n', "line 4: mtime: must be a whole "
     "number or a number with a fraction or a date with time and zone, not a date"),
    ('[[node]]\npath = "a"\nzeros = 1\nmtime = nan\n', "line 4: mtime: must lie from 1970 on"),
    ('[[node]]\npath = "a"\nparts = [\n  { zeros = 1 },\n  { file = "ten" },\n  { zeros = -1 }]\n',
     "line 6: parts[2].zeros: must be 0 or more"),
    ('[[node]]\npath = "a"\n[[node.parts]]\nzeros = 1\n[[node.parts]]\nzeros = 1\ntext = ""\n',
     "line 6: parts[1].zeros: there is text already"),
    ('node = [\n  { path = "a", zeros = 1 },\n  { path = "b", zeros = -1 },\n]\n',
     "line 3: zeros: must be 0 or more"),
    ('[[node]]\npath = "a"\nzeros = 1\n\n[[node]]\nzeros = 1\npath = "a"\n',
     "line 7: path: a is given twice (line 1)"),
    ('[[node]]\npath = "a"\nx.y = 1\n', "line 3: x: there is no such field"),
    ("\n\n[[node]]\n", "line 3: path: is missing"),
]  # fmt: skip


def as_toml(record):
    lines = (f"{key} = {_value(value)}" for key, value in record.items())
    return "\n".join(("[[node]]", *lines))


def _value(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\0", "\\u0000") + '"'
    return repr(value)


@pytest.mark.parametrize(("record", "message"), BAD_NODES, ids=[text for _, text in BAD_NODES])
def test_a_bad_line_is_told_with_its_field_and_the_reason(manifests, tmp_path, record, message):
    os.mkfifo(tmp_path / "fifo")
    found = manifests.lines_error({"path": "ok", "zeros": 1}, {"path": "d", "dir": True}, record)
    assert found.startswith(message)


@pytest.mark.parametrize(("record", "message"), BAD_NODES, ids=[text for _, text in BAD_NODES])
def test_a_bad_table_is_told_like_a_bad_line(manifests, tmp_path, record, message):
    os.mkfifo(tmp_path / "fifo")
    good = '[[node]]\npath = "ok"\nzeros = 1\n[[node]]\npath = "d"\ndir = true\n'
    text = good + as_toml(record)
    found = manifests.toml_error(text).partition(": ")[2]
    wanted = message.partition(": ")[2]
    assert found.replace("(line 4)", "(line 2)").startswith(wanted)


@pytest.mark.parametrize(("line", "message"), BAD_LINES, ids=[text for _, text in BAD_LINES])
def test_what_is_no_json_is_told_with_its_line(manifests, line, message):
    assert manifests.lines_error({"path": "ok", "zeros": 1}, line).startswith(message)


@pytest.mark.parametrize(("text", "message"), BAD_TOML, ids=[text for _, text in BAD_TOML])
def test_what_is_wrong_in_toml_is_told_with_its_line(manifests, text, message):
    assert manifests.toml_error(text).startswith(message)


def test_bytes_that_are_no_text_are_told_with_their_line(manifests):
    assert manifests.toml_error(b'[[node]]\npath = "\xff"').startswith("line 2: not UTF-8: ")
    bad = manifests.directory / "bad.jsonl"
    bad.write_bytes(b'{"path": "a", "zeros": 1}\n{"path": "\xff", "zeros": 1}\n')
    with pytest.raises(ManifestError, match="line 2: not UTF-8: "):
        load_manifest(bad)


def test_the_first_of_several_contradictions_is_told(manifests):
    nodes = [{"path": path, "zeros": 1} for path in ("b/x", "a", "c", "a/y", "c", "b")]
    assert manifests.lines_error(*nodes).startswith("line 4: path: a must be a directory")


def test_an_error_says_what_it_is_about_in_parts_too(manifests, tmp_path):
    manifests.lines_error({"path": "a", "zeros": -1})
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path / "tree.jsonl")
    error = caught.value
    assert (error.manifest, error.line, error.field) == (str(tmp_path / "tree.jsonl"), 1, "zeros")
    assert error.reason == "must be 0 or more"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.toml", "No such file or directory"),
        ("directory.toml", "Is a directory"),
        ("tree.yaml", "of no known format: its name must end in .toml, .jsonl, .ndjson"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_told(tmp_path, name, message):
    (tmp_path / "directory.toml").mkdir()
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: {message}"


def test_a_line_feed_in_a_path_does_not_break_the_line(manifests):
    message = manifests.lines_error({"path": "a\nb/", "zeros": 1})
    assert message == r"line 1: path: a\nb/ ends in a slash"


def test_what_is_nested_too_deeply_to_be_found_has_no_line():
    assert line_of("x = " + "[" * 9999 + "]" * 9999, ("x",)) == 0
