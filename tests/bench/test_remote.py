"""The comparison of mounts of a bucket: the server, and a round of it."""

import urllib.request
from pathlib import Path

from tests.support import skip_unless
from zcfuse.bench.remote import ROWS, run_remote, serving

SIZE = 1 << 20


def test_the_bucket_is_listed_in_pages_and_counts_what_it_sends(tmp_path: Path):
    skip_unless("nginx")
    with serving(str(tmp_path), SIZE, 2, 1500) as bucket:

        def got(path: str, **headers: str) -> bytes:
            request = urllib.request.Request(f"{bucket.endpoint}/bucket{path}", headers=headers)
            with urllib.request.urlopen(request, timeout=20) as answer:
                body: bytes = answer.read()
            return body

        top = got("?list-type=2&delimiter=/")
        assert top.count(b"<Key>") == 5
        assert top.count(b"<CommonPrefixes>") == 1
        first = got("?list-type=2&prefix=many/")
        assert (first.count(b"<Key>"), first.count(b"<IsTruncated>true")) == (1000, 1)
        rest = got("?prefix=many/&marker=many/key-0000999")
        assert (rest.count(b"<Key>"), rest.count(b"<IsTruncated>false")) == (500, 1)
        assert got("/large", Range="bytes=10-19") == Path(bucket.path("large")).read_bytes()[10:20]
        assert bucket.sent() == 10


def test_a_round_measures_each_row_of_a_mount(tmp_path: Path):
    skip_unless("mounting", "nginx", "fsspec", "s3fs")
    with serving(str(tmp_path), SIZE, 2, 1500) as bucket:
        report = run_remote(bucket, SIZE, 1, peers=False, step=lambda _: None)
    assert report.unavailable == {}
    assert [row.name for row in report.rows if row.median("zcfuse")] == list(ROWS)
    assert report.targets == ["local disk", "bare client", "zcfuse"]
    fetched = next(row for row in report.rows if row.name == "fetched a byte read")
    assert 0 < fetched.median("zcfuse") <= 32  # 128 KiB for 4 KiB at most
