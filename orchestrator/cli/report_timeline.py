"""The timeline of a report: groups above, below them each worker's attempts, as one inline SVG.

Colours and fonts come from the page's style sheet, so that it is right in light and in dark.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from orchestrator.cli.render import shortened
from orchestrator.cli.report_figures import (
    TimeScale,
    busy_spans,
    lanes_by_worker,
    seconds_since,
    shortened_pauses,
    time_scale,
)
from orchestrator.state.history import AttemptRecord, JobHistory
from orchestrator.state.views import GroupRunView, GroupView
from orchestrator.text import duration, in_one_line, plural

WIDTH: Final = 1160
NAMES_WIDTH: Final = 150
AXIS_HEIGHT: Final = 22
GROUPS_HEIGHT: Final = 24
WORKER_GAP: Final = 10
FEW_LANES: Final = 24
LETTER_WIDTH: Final = 6.6
"""Of the timeline's font, at most: a label is drawn only where it fits."""
TICKS: Final = 9
STEPS: Final = (
    *(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(minutes * 60 for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * 3600 for hours in (1, 2, 4, 6, 12, 24, 48, 168)),
)

TONES: Final = {
    "completed": "good",
    "running": "live",
    "in_progress": "live",
    "merging": "live",
    "timeout": "late",
    "idle_timeout": "late",
    "rate_limited": "wait",
    "provider_unavailable": "wait",
    "worker_lost": "lost",
    "interrupted": "lost",
    "cancelled": "none",
    "skipped": "none",
    "pending": "none",
}


def tone(status: str | None) -> str:
    """The colour of a status or an outcome, as a class of the style sheet; what is not named is a failure."""
    return TONES.get(status or "pending", "bad")


def timeline(history: JobHistory) -> str:
    """The SVG; a sentence where nothing has run."""
    spans = busy_spans(history)
    if not history.attempts or not spans:
        return '<p class="quiet">No agent has run.</p>'
    return _Timeline(history, spans).svg()


class _Timeline:
    def __init__(self, history: JobHistory, spans: list[tuple[float, float]]) -> None:
        self._history = history
        self._spans = spans
        self._scale: TimeScale = time_scale(spans)
        self._workers = lanes_by_worker(history.attempts)
        lanes = sum(len(lanes) for lanes in self._workers.values())
        self._lane_height = 22 if lanes <= FEW_LANES else 15
        gaps = WORKER_GAP * len(self._workers)
        self._height = AXIS_HEIGHT + GROUPS_HEIGHT + gaps + lanes * self._lane_height + 4

    def svg(self) -> str:
        parts = [
            f'<svg class="timeline" viewBox="0 0 {WIDTH} {self._height}" width="{WIDTH}" height="{self._height}"'
            ' role="img" aria-label="Who worked when">',
            *self._axis(),
            *self._pauses(),
            *(part for group in self._history.job.groups for run in group.runs for part in self._run(group, run)),
            *self._lanes(),
            "</svg>",
        ]
        return "\n".join(parts)

    def _x(self, seconds: float) -> float:
        return round(NAMES_WIDTH + self._scale(seconds) * (WIDTH - NAMES_WIDTH - 2), 1)

    def _axis(self) -> Iterator[str]:
        """Time since the job's start. Ticks stand at round numbers, and where they have room for their words."""
        shown = sum(end - start for start, end in self._spans)
        step = next((step for step in STEPS if shown / step <= TICKS), shown / TICKS)
        free_from = 0.0
        for start, end in self._spans:
            tick = -(-start // step) * step
            while tick <= end:
                x = self._x(tick)
                words = _clock(tick)
                if x >= free_from and x + len(words) * LETTER_WIDTH <= WIDTH:
                    yield f'<line class="grid" x1="{x}" y1="{AXIS_HEIGHT - 6}" x2="{x}" y2="{self._height}"/>'
                    yield f'<text class="tick" x="{x + 3}" y="{AXIS_HEIGHT - 9}">{words}</text>'
                    free_from = x + (len(words) + 2) * LETTER_WIDTH
                tick += step

    def _pauses(self) -> Iterator[str]:
        for start, end in shortened_pauses(self._spans):
            left, right = self._x(start), self._x(end)
            yield (
                f'<rect class="pause" x="{left}" y="{AXIS_HEIGHT}" width="{right - left:.1f}"'
                f' height="{self._height - AXIS_HEIGHT}"><title>nothing ran for {duration(end - start)}</title></rect>'
            )

    def _run(self, group: GroupView, run: GroupRunView) -> Iterator[str]:
        """A group's run as a band over its attempts: what is left of it after the last of them is the merge."""
        start = seconds_since(self._history, run.started_at)
        end = seconds_since(self._history, run.completed_at or self._history.job.finished_at)
        left, right = self._x(start), self._x(end)
        words = f"group {group.number}" + (f", run {run.number}" if len(group.runs) > 1 else "")
        status = "running" if run.success is None and group.finished_at is None else "completed"
        if run.success is False or (run.success is None and group.finished_at is not None):
            status = "failed"
        told = f"{words} · {duration(end - start)}" + (f" · {run.failure_reason}" if run.failure_reason else "")
        yield (
            f'<rect class="run {tone(status)}" x="{left}" y="{AXIS_HEIGHT}" width="{max(right - left - 1, 1):.1f}"'
            f' height="{GROUPS_HEIGHT - 6}" rx="3"><title>{_safe(told)}</title></rect>'
        )
        yield from self._label(words, left, right, AXIS_HEIGHT + 13)

    def _lanes(self) -> Iterator[str]:
        y = AXIS_HEIGHT + GROUPS_HEIGHT
        for worker, lanes in self._workers.items():
            y += WORKER_GAP
            yield f'<line class="rule" x1="0" y1="{y - 5}" x2="{WIDTH}" y2="{y - 5}"/>'
            name = _safe(shortened(in_one_line(worker), int((NAMES_WIDTH - 10) / LETTER_WIDTH)))
            count = sum(len(lane) for lane in lanes)
            told = _safe(f"{worker}: {plural(count, 'attempt')}")
            yield f'<text class="worker" x="0" y="{y + self._lane_height * 0.7:.0f}">{name}<title>{told}</title></text>'
            for lane in lanes:
                for attempt in lane:
                    yield from self._attempt(attempt, y)
                y += self._lane_height

    def _attempt(self, attempt: AttemptRecord, y: int) -> Iterator[str]:
        """A pale bar from claim to record, and in it the agent's own time."""
        start, end = seconds_since(self._history, attempt.started_at), seconds_since(self._history, attempt.finished_at)
        left, right, high = self._x(start), self._x(end), self._lane_height - 4
        again = f"·{attempt.number}" if attempt.number > 1 else ""
        title = in_one_line(self._history.job.titles.get(attempt.subtask_id))
        told = f"#{attempt.subtask_id} {title}, attempt {attempt.number} · {attempt.status} · {duration(end - start)}"
        told += f" · {shortened(in_one_line(attempt.error), 200)}" if attempt.error else ""
        yield f'<a href="#subtask-{attempt.subtask_id}"><title>{_safe(told)}</title>'
        yield self._bar(f"whole {tone(attempt.status)}", left, right, y, high)
        if attempt.agent_started_at is not None and attempt.agent_duration_seconds is not None:
            begun = seconds_since(self._history, attempt.agent_started_at)
            inner = (max(self._x(begun), left), min(self._x(begun + attempt.agent_duration_seconds), right))
            yield self._bar(f"agent {tone(attempt.status)}", *inner, y, high)
        yield from self._label(f"#{attempt.subtask_id}{again}", left, right, y + high * 0.5 + 4)
        yield "</a>"

    def _bar(self, kind: str, left: float, right: float, y: int, high: int) -> str:
        return f'<rect class="{kind}" x="{left}" y="{y}" width="{max(right - left - 0.5, 1.5):.1f}" height="{high}" rx="2"/>'

    def _label(self, words: str, left: float, right: float, y: float) -> Iterator[str]:
        if len(words) * LETTER_WIDTH + 8 <= right - left:
            yield f'<text class="label" x="{left + 4}" y="{y:.0f}">{_safe(words)}</text>'


def _clock(seconds: float) -> str:
    """`0`, `0.5 s`, `1:30`, `2:00:00`: time since the start, short enough for an axis."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _safe(text: str) -> str:
    return escape(in_one_line(text))
