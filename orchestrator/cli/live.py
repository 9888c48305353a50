"""A job's progress on a terminal: a tree of groups and agents, redrawn in place, never higher than the screen.

What is at work is shown before what waits; finished groups are one line each, and what finds no room is counted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from orchestrator.access.follow import Update
from orchestrator.cli.describe import group_words, spent_words, status_words, waits_for
from orchestrator.cli.render import STYLES, shortened
from orchestrator.state.views import GroupView, JobView, SubtaskView
from orchestrator.text import duration, first_line, in_one_line, plural

REDRAWS_PER_SECOND: Final = 4
SYMBOLS: Final = {"completed": "✓", "failed": "✗", "timeout": "✗", "in_progress": "●", "pending": "○"}
ORDER_OF_INTEREST: Final = ("in_progress", "failed", "timeout", "pending", "cancelled", "skipped", "completed")
BAR_CELLS: Final = 30
SHORTEST_TITLE: Final = 12


class LiveView:
    """Implements `plain.ProgressView` with Rich. The tree goes when the context is left: the summary follows it."""

    def __init__(self, console: Console) -> None:
        self._update = Update()
        self._read_at = time.monotonic()
        self._note = ""
        self._live = Live(
            self, console=console, refresh_per_second=REDRAWS_PER_SECOND, transient=True, vertical_overflow="crop"
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, update: Update) -> None:
        if update.problem is not None:
            self._update = Update(self._update.job, (), self._update.last_lines, update.problem)
            return
        self._update, self._read_at = update, time.monotonic()

    def note(self, text: str) -> None:
        self._note = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        remarks = [text for text in (self._note, self._update.problem) if text]
        if self._update.job is None:
            yield Text(" ".join(remarks) or "…")
            return
        height = console.size.height - 1 - len(remarks)
        since = time.monotonic() - self._read_at
        tree = Tree(self._update.job, self._update.last_lines, since, options.max_width)
        for line in [*tree.lines(height), *(Text(remark, style="yellow") for remark in remarks)]:
            line.truncate(options.max_width, overflow="ellipsis")
            yield line


@dataclass(frozen=True)
class Tree:
    """A job as lines. `seconds_since_read` keeps the clocks of what runs going between two readings."""

    job: JobView
    last_lines: Mapping[int, str]
    seconds_since_read: float
    width: int

    def lines(self, height: int) -> list[Text]:
        """At most `height` lines (three at least): the job, its groups, the agents at work, the total bar."""
        active = [group for group in self.job.groups if group.status in ("running", "merging")]
        ended = [group for group in self.job.groups if group.finished_at is not None]
        waiting = [group for group in self.job.groups if group.status == "pending"]
        room = max(height - 2, 1)
        # Groups at work get what the others leave, and those get no more than a quarter each.
        lines_of_ended = self._elided(ended, max(room // 4, 1), newest=True)
        lines_of_waiting = self._elided(waiting, max(room // 4, 1), newest=False)
        left = room - len(lines_of_ended) - len(lines_of_waiting)
        lines_of_active: list[Text] = []
        for number, group in enumerate(active):
            lines = self._active_group(group, left // (len(active) - number))
            lines_of_active += lines
            left -= len(lines)
        tree = [*lines_of_ended, *lines_of_active, *lines_of_waiting]
        return [self._head(), *tree[:room], self._total_bar()]

    def _head(self) -> Text:
        job = self.job
        status = status_words(job)
        # The title gives way: that a job is paused or ending must be seen.
        room = max(self.width - cell_len(f"{job.id} ·  · {status}"), SHORTEST_TITLE)
        head = Text.assemble((job.id, "bold"), f" · {shortened(first_line(job.title), room)} · ")
        return head.append(status, style=STYLES.get(job.status, ""))

    def _elided(self, groups: Sequence[GroupView], room: int, *, newest: bool) -> list[Text]:
        """One line a group; where they are too many, the ones next to the work and a line that counts the rest."""
        if len(groups) <= room:
            return [self._group_line(group) for group in groups]
        shown = room - 1
        hidden = plural(len(groups) - shown, "group")
        if newest:
            kept = groups[len(groups) - shown :]
            return [Text(f"… {hidden} ended before", style="dim"), *(self._group_line(group) for group in kept)]
        return [*(self._group_line(group) for group in groups[:shown]), Text(f"… {hidden} wait", style="dim")]

    def _group_line(self, group: GroupView) -> Text:
        words = group_words(self.job, group)
        done = sum(1 for subtask in group.subtasks if subtask.is_final)
        line = Text.assemble((f"group {group.number}", "bold"), " · ", (words, STYLES.get(group.status, "")))
        line.append(f" · {done} of {plural(len(group.subtasks), 'agent')} done")
        if group.wall_seconds is not None:
            line.append(f" · {duration(group.wall_seconds)}")
        if group.error and group.error != group.status:
            line.append(f" · {in_one_line(group.error)}", style="red")
        return line

    def _active_group(self, group: GroupView, room: int) -> list[Text]:
        ordered = sorted(
            group.subtasks, key=lambda subtask: (ORDER_OF_INTEREST.index(subtask.status), subtask.subtask_id)
        )
        fits = max(room - 1, 0)
        shown = ordered if len(ordered) <= fits else ordered[: max(fits - 1, 0)]
        hidden = ordered[len(shown) :]
        lines = [self._group_line(group), *(self._subtask_line(group, subtask) for subtask in shown)]
        if hidden and fits:
            counts = Counter(subtask.status.replace("_", " ") for subtask in hidden)
            rest = ", ".join(f"{count} {status}" for status, count in counts.most_common())
            lines.append(Text(f"   … and {len(hidden)} more: {rest}", style="dim"))
        return lines

    def _subtask_line(self, group: GroupView, subtask: SubtaskView) -> Text:
        name_cells = max(self.width * 2 // 5, 16)
        name = shortened(f"#{subtask.subtask_id} {first_line(subtask.title)} · {subtask.agent}", name_cells)
        style = STYLES.get(subtask.status, "")
        line = Text.assemble("   ", (SYMBOLS.get(subtask.status, "–"), style), " ")
        line.append(set_cell_size(name, name_cells))
        line.append(f" {self._elapsed(subtask):>9}  ")
        return line.append(
            self._note(group, subtask), style="red" if subtask.status in ("failed", "timeout") else "dim"
        )

    def _elapsed(self, subtask: SubtaskView) -> str:
        if subtask.attempt is None or subtask.status == "pending":
            return ""
        since = self.seconds_since_read if subtask.status == "in_progress" else 0.0
        return duration(subtask.attempt.duration_seconds + since)

    def _note(self, group: GroupView, subtask: SubtaskView) -> str:
        if subtask.status == "in_progress":
            note = self.last_lines.get(subtask.subtask_id, "")
        else:
            note = waits_for(self.job, group, subtask) or in_one_line(subtask.error)
        attempt = subtask.attempts + (subtask.status == "pending")
        return f"attempt {attempt} · {note}" if attempt > 1 and subtask.status != "completed" else note

    def _total_bar(self) -> Text:
        job = self.job
        counts = Counter(subtask.status for subtask in job.subtasks)
        total = sum(counts.values())
        done = sum(1 for subtask in job.subtasks if subtask.is_final)
        cells = min(BAR_CELLS, self.width // 4)
        filled = cells * done // total if total else 0
        failed = counts["failed"] + counts["timeout"]
        bar = Text.assemble(("━" * filled, "red" if failed else "green"), ("─" * (cells - filled), "dim"))
        bar.append(f" {done} of {total} done")
        for count, word in ((failed, "failed"), (counts["in_progress"], "running")):
            if count:
                bar.append(f" · {count} {word}")
        if job.duration_seconds is not None:
            bar.append(f" · {duration(job.duration_seconds + (0.0 if job.is_final else self.seconds_since_read))}")
        if spent := spent_words(job):
            bar.append(f" · {spent}")
        return bar
