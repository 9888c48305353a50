"""Reports as HTML and as Markdown: complete, self-contained, and only text whatever a job holds."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from orchestrator.cli.report_html import html_report
from orchestrator.cli.report_markdown import markdown_report
from orchestrator.state.history import JobHistory
from orchestrator.state.views import EventView
from tests.support.job_views import a_group, a_history, a_job, a_record, a_run, a_subtask, ago, an_attempt

HOSTILE = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e|`x`[y](z)\x1b[2J"
VOID = {"meta"}


class Page(HTMLParser):
    """The elements and attributes of a page; a tag that is not closed in its order fails the test."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def count(self, tag: str, **attributes: str) -> int:
        return sum(
            1
            for name, found in self.elements
            if name == tag and all(found.get(key.rstrip("_")) == value for key, value in attributes.items())
        )


def hostile_history() -> JobHistory:
    conflict: dict[str, Any] = {
        "subtask_id": 2,
        "other_subtask_ids": [1],
        "files": [{"path": HOSTILE, "kind": "content"}],
    }
    group = a_group(
        1,
        "failed",
        a_subtask(1, "completed", title=HOSTILE, agent=HOSTILE, attempt=an_attempt(files_changed=(HOSTILE,))),
        a_subtask(2, "failed", outcome="conflict", error=HOSTILE * 9),
        runs=(a_run(success=False, failure_reason=HOSTILE, conflicts=[conflict]),),
        error=HOSTILE,
    )
    job = a_job(
        group,
        title=HOSTILE,
        status="failed",
        error=HOSTILE,
        repo="https://user:secret@example.org/a.git",
        base=HOSTILE,
        branch="orchestrator/3f2a9c1b04d7",
        head_commit="e" * 40,
        finished_at=ago(1),
    )
    events = (EventView(1, ago(8), "attempt.started", 1, 1, 1, {"worker": HOSTILE}),)
    attempts = (a_record(1, worker=HOSTILE), a_record(2, status="failed", error=HOSTILE))
    return a_history(job, *attempts, events=events)


def test_nothing_that_a_job_holds_becomes_markup() -> None:
    text = html_report(hostile_history())
    page = Page(text)
    assert {"script", "img", "link", "iframe"}.isdisjoint(tag for tag, _ in page.elements)
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "secret" not in text
    assert "<script>alert(1)</script>" in "".join(page.words), "it is shown as text"


def test_a_page_fetches_nothing() -> None:
    text = html_report(hostile_history())
    page = Page(text)
    assert page.count("meta", content="default-src 'none'; style-src 'unsafe-inline'") == 1
    targets = [value or "" for _, found in page.elements for name, value in found.items() if name in ("href", "src")]
    assert targets
    assert all(target.startswith("#subtask-") for target in targets)
    assert "url(" not in text
    assert "@import" not in text


def test_the_timeline_has_a_bar_for_each_attempt_and_each_run() -> None:
    text = html_report(
        a_history(
            a_job(
                a_group(1, "running", a_subtask(1, "in_progress"), a_subtask(2, "completed"), runs=(a_run(end=None),)),
                a_group(2, "pending", a_subtask(3)),
            ),
            a_record(1, 1, status="idle_timeout"),
            a_record(1, 2, start=2, end=None),
            a_record(2, worker="worker-2@host"),
        )
    )
    page = Page(text)
    bars = [found["class"] for tag, found in page.elements if tag == "rect"]
    assert sorted(str(bar) for bar in bars) == sorted(
        ["run live", "whole late", "agent late", "whole live", "whole good", "agent good"]
    )
    assert [(found.get("id")) for tag, found in page.elements if tag == "tr" and found.get("id")] == [
        "subtask-1",
        "subtask-2",
        "subtask-3",
    ]
    assert "waits for group 1" in text


def test_the_time_of_a_job_that_was_retried_begins_with_its_first_group_run() -> None:
    runs = (a_run(1, start=8, end=6, success=False), a_run(2, start=2))
    group = a_group(1, "completed", a_subtask(1, "completed"), runs=runs)
    job = a_job(group, status="completed", started_at=ago(2), finished_at=ago(1))
    page = html_report(a_history(job, a_record(1, start=7.9, end=6.1), a_record(1, 2, start=1.9, end=1.1)))
    assert '">0 s</text>' in page
    assert "-0 s" not in page


def test_no_speed_up_reads_zero_times() -> None:
    group = a_group(1, "completed", a_subtask(1, "completed"), runs=(a_run(speedup_factor=0.01),))
    history = a_history(a_job(group, status="completed", finished_at=ago(1)), a_record(1, agent_duration_seconds=0.01))
    for text in (html_report(history), markdown_report(history)):
        assert "0.0 ×" not in text


def test_a_job_in_which_nothing_ran_has_a_page_too() -> None:
    job = a_job(a_group(1, "cancelled", a_subtask(1, "cancelled")), status="cancelled", started_at=None)
    assert "No agent has run." in html_report(a_history(job))


def test_a_long_job_folds_its_long_tables() -> None:
    subtasks = [a_subtask(number, "completed") for number in range(1, 301)]
    records = [a_record(number, worker=f"worker-{number % 5}@host") for number in range(1, 301)]
    page = Page(html_report(a_history(a_job(a_group(1, "completed", *subtasks, runs=(a_run(),))), *records)))
    folded = [found for tag, found in page.elements if tag == "details" and "open" not in found]
    assert len([found for found in folded if not found]) >= 1
    assert page.count("rect", class_="whole good") == 300


def test_markdown_keeps_its_tables_whatever_a_job_holds() -> None:
    text = markdown_report(hostile_history())
    rows = [line for line in text.splitlines() if line.startswith("| 1 |")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [9, 11, 11]
    unescaped = re.sub(r"\\.", "", text)
    assert "<" not in unescaped
    assert "](" not in unescaped
    assert "secret" not in text
    assert "## Conflicts and failures" in text
