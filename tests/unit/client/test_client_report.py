"""Reports: what they say, and that a page needs nothing from anywhere."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rankserve.client.evaluation import FORMATS, build_report, write_report
from rankserve.client.evaluation.tables import number
from rankserve.records.results import ResultRecord, Run

MakeRun = Callable[..., Run]


@pytest.fixture
def runs(make_run: MakeRun) -> list[Run]:
    return [make_run("ranking", [1, 2, 10]), make_run("fcfs", [10, 2, 1]), make_run("fcfs", [10, 1, 2])]


class Page(HTMLParser):
    """Collects ids, references and whether tags are balanced."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: set[str] = set()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("href", "xlink:href") and value:
                self.references.add(value)
            self.references.update(re.findall(r"url\(([^)]*)\)", value or ""))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_self_contained(runs: list[Run], tmp_path: Path) -> None:
    write_report(tmp_path / "deep" / "report.html", runs)
    text = (tmp_path / "deep" / "report.html").read_text()
    assert text.count("<svg") == 3
    assert "http" not in text
    assert "<script" not in text
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert page.references
    assert {reference.lstrip("#") for reference in page.references} <= set(page.ids)


def test_the_first_fcfs_run_is_the_baseline(runs: list[Run]) -> None:
    report = build_report(runs)
    assert report.baseline == "fcfs #1"
    assert [column.label for column in report.columns] == ["ranking", "fcfs #1", "fcfs #2"]
    first, baseline, second = report.columns
    assert baseline.comparison is None
    assert first.comparison is not None
    assert second.comparison is not None
    assert first.comparison.improvement_ratio == pytest.approx(35 / 17)
    assert second.comparison.improvement_ratio == pytest.approx(35 / 34)
    assert report.warnings == ()


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_every_format_says_the_ratio_and_tau(runs: list[Run], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"report{suffix}"
    write_report(path, runs)
    text = path.read_text()
    assert "2.06" in text or "2.0588" in text
    assert "ranking" in text
    assert "1.0" in text


def test_the_json_report_has_the_figures_at_hand(runs: list[Run], tmp_path: Path) -> None:
    write_report(tmp_path / "report.json", runs)
    report = json.loads((tmp_path / "report.json").read_text())
    ranking, fcfs, _ = report["runs"]
    assert report["baseline"] == "fcfs #1"
    assert ranking["improvement_ratio"] == pytest.approx(35 / 17)
    assert ranking["kendall_tau"] == pytest.approx(1.0)
    assert ranking["kendall_tau_ceiling"] == pytest.approx(1.0)
    assert ranking["e2e_s"]["p99"] > ranking["e2e_s"]["mean"]
    assert ranking["header"]["engine"] == "one slot"
    assert "improvement_ratio" not in fcfs


def test_markdown_tables_have_even_rows(runs: list[Run], tmp_path: Path) -> None:
    write_report(tmp_path / "report.md", runs)
    tables = re.findall(r"(?:^\|.*\|\n)+", (tmp_path / "report.md").read_text() + "\n", flags=re.MULTILINE)
    assert len(tables) == 3
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_failures_lag_and_lateness_are_said_first(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(
        "fcfs", [10, 2, 1], engine_lag=0.12, arrivals={"process": "burst", "sender_lateness_p99_s": 3.0}
    )
    failed = ResultRecord("x", "unavailable", sent_s=0.0, end_s=1.0, error="gone")
    report = write_report(tmp_path / "report.html", [Run(run.header, (*run.results, failed))])
    failures, lag, lateness = report.warnings
    assert failures.startswith("fcfs: 1 of 4 requests did not finish (1 unavailable)")
    assert "12%" in lag
    assert "3 s late" in lateness
    assert "did not finish" in (tmp_path / "report.html").read_text()


def test_runs_that_are_not_like_for_like_are_named(make_run: MakeRun) -> None:
    fcfs = make_run("fcfs", [10, 2, 1], max_sequences=8, arrivals={"process": "poisson", "rate": 2.0})
    other = make_run("ranking", [1, 2], max_sequences=16, arrivals={"process": "poisson", "rate": 4.0})
    warnings = " ".join(build_report([fcfs, other]).warnings)
    assert "max sequences differs: 8 (fcfs), 16 (ranking)" in warnings
    assert "arrivals differs: poisson, rate 2/s (fcfs), poisson, rate 4/s (ranking)" in warnings
    assert "did not send the same requests" in warnings


def test_without_fcfs_there_are_no_ratios(make_run: MakeRun, tmp_path: Path) -> None:
    report = write_report(tmp_path / "report.html", [make_run("ranking", [1, 2, 10])])
    assert report.baseline is None
    assert report.columns[0].comparison is None
    assert "No run is FCFS" in " ".join(report.warnings)


def test_a_run_without_anything_finished_still_has_a_report(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("fcfs", [10, 2, 1], queue_depth=())
    lost = tuple(replace(result, outcome="unavailable", score=None) for result in run.results)
    for suffix in FORMATS:
        write_report(tmp_path / f"report{suffix}", [Run(run.header, lost)])
    assert "<svg" not in (tmp_path / "report.html").read_text()


def test_text_from_outside_is_escaped(make_run: MakeRun, tmp_path: Path) -> None:
    """In the page and in the plots, which matplotlib would else read as mathematics."""
    runs = [make_run(r"<b>$\nonsense$</b>", [1, 2, 10], workload="<script>alert(1)</script>")]
    write_report(tmp_path / "report.html", runs)
    text = (tmp_path / "report.html").read_text()
    assert "<script" not in text
    assert "<b>$" not in text
    assert r"&lt;b&gt;$\nonsense$&lt;/b&gt;" in text
    assert Page(text).open == []


def test_other_suffixes_and_no_runs_are_refused(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.html, \.md, \.json, \.txt"):
        write_report(tmp_path / "report.pdf", runs)
    with pytest.raises(ValueError, match="at least one run"):
        build_report([])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (0.0, "0"),
        (1234.5, "1,234"),
        (123.4, "123"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (0.1234, "0.123"),
        (0.01234, "0.0123"),
        (0.001234, "0.0012"),
        (-0.5, "-0.500"),
    ],
)
def test_numbers_have_three_significant_digits(value: float | None, expected: str) -> None:
    assert number(value) == expected


def test_a_ranker_that_holds_requests_up_is_said(make_run: MakeRun) -> None:
    run = make_run("fcfs", [10, 2, 1])
    slow = replace(run, results=tuple(replace(r, server_queued_s=0.5 * r.end_s) for r in run.results))
    assert build_report([run]).warnings == ()
    (warning,) = build_report([slow]).warnings
    assert "the ranker is the bottleneck" in warning
