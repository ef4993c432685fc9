"""The page and the plots of an invented report: what they contain, and what they omit."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from zcfuse.bench.transfer import (
    LatencyCell,
    LatencySample,
    Plan,
    Sample,
    Side,
    TransferCell,
    TransferReport,
    describe_machine,
)

GB = 10**9
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def _side(cpu_ns: int) -> Side:
    return Side(
        cpu_ns=cpu_ns,
        copied_in=0,
        copied_out=GB,
        voluntary_switches=3,
        involuntary_switches=4,
        minor_faults=5,
        major_faults=0,
        rchar=0,
        wchar=GB,
        resident_before=0,
        resident_peak=7 << 20,
    )


def _cell(column: str, **changes: object) -> TransferCell:
    samples = tuple(
        Sample(ns, GB, 1000, _side(ns // 2), None if column == "backing" else _side(ns // 4))
        for ns in (GB, 2 * GB, 4 * GB)
    )
    values = {"method": "sendfile", "column": column, "sink": "tcp", "cache": "warm"}
    return TransferCell(**{**values, "samples": samples, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report() -> TransferReport:
    plan = Plan(("sendfile", "splice"), ("tcp",), ("backing", "pool"), ("warm",), 3, 1 << 20)
    sample = LatencySample(1000, 700, 1400, 9000, 80_000, 12, 0)
    return TransferReport(
        source="/data/<file>",
        size=GB,
        plan=plan,
        machine=describe_machine("/"),
        commands={"pool": "zcfuse mount --path pool"},
        unavailable={"passthrough": "no & reason"},
        cells=(
            _cell("backing"),
            _cell("pool"),
            _cell("backing", method="splice", samples=(), reason="EINVAL: splice", errno=22),
            _cell("pool", method="splice", notes=("as <noted>",)),
        ),
        latency=(LatencyCell("pool", "read", True, (sample,)),),
    )


@pytest.fixture(scope="module")
def page(report: TransferReport) -> str:
    from zcfuse.bench.transfer._html import html_of  # here, because it loads matplotlib

    return html_of(report)


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        named = ("src", "href", "xlink:href", "srcset", "data", "action")
        self.found += [value or "" for name, value in attrs if name in named]


def test_the_page_refers_to_nothing_outside_of_itself(page: str):
    parser = _References()
    parser.feed(page)
    assert all(reference.startswith("#") for reference in parser.found)
    assert parser.tags.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert "svg" in parser.tags
    assert "@import" not in page
    assert all(inside.startswith("#") for inside in re.findall(r"url\(([^)]*)\)", page))


def test_the_page_describes_the_machine_and_the_run(report: TransferReport, page: str):
    machine = report.machine
    for text in (machine.kernel, machine.filesystem, machine.cpu, machine.versions["Python"]):
        assert text in page
    assert "zcfuse mount --path pool" in page
    assert "/data/&lt;file&gt;" in page


def test_the_page_shows_medians_with_their_spread_and_reasons(page: str):
    assert '<b>0.50</b> GB/s <span class="spread">0.25\u20131.00</span>' in page
    assert "EINVAL" in page
    assert "no &amp; reason" in page
    assert "as &lt;noted&gt;" in page


def test_the_page_begins_with_its_title_and_the_fastest_method_of_each_path(page: str):
    assert "<title>Ways to move the bytes of &lt;file&gt;</title>" in page
    summary = re.search(r"<p>The fastest .*?</table>", page[: page.index("<svg")], re.DOTALL)
    assert summary is not None
    assert "<b>0.50</b> GB/s<br>sendfile" in summary[0]
    assert page.index(summary[0]) < page.index("<th>kernel</th>")


def test_every_plot_is_there_for_a_phone_too_and_narrow(page: str):
    shown = re.findall(r'<div class="(desk|phone)"><svg[^>]*?viewBox="0 0 ([\d.]+)', page)
    assert [kind for kind, _ in shown] == ["desk", "phone"] * 3
    assert all(float(width) < 400 for kind, width in shown if kind == "phone")
    assert "@media (max-width: 46rem)" in page


def test_the_plots_take_the_colours_of_the_page_in_light_and_dark(page: str):
    assert "prefers-color-scheme: dark" in page
    assert "currentColor" in page
    assert "var(--grid)" in page
    assert "#010203" not in page


def test_two_plots_of_a_page_share_no_clip_path(page: str):
    names = re.findall(r'<clipPath id="([^"]*)"', page)
    assert len(names) == len(set(names)) > 1


def test_every_plot_is_a_png_in_light_and_in_dark(report: TransferReport):
    from zcfuse.bench.transfer import DARK, LIGHT, plots_of, png

    plots = list(plots_of(report))
    assert [plot.name for plot in plots] == ["speed-tcp", "cpu-tcp-warm", "latency"]
    light, dark = png(plots[0], LIGHT), png(plots[0], DARK)
    assert light.startswith(PNG_MAGIC)
    assert dark.startswith(PNG_MAGIC)
    assert light != dark
