"""Agents in git workspaces: (c) the step between groups with ten branches to merge, (d) a whole job against a plain script."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.stage import Result, Stage, median, stage
from tests.support.repositories import new_repository, shell

FILES, GROUPS, AGENTS = 2000, 3, 10

SCRIPT = """
set -eu
for group in $(seq {groups}); do
    seq {agents} | xargs -P {agents} -I % sh -c '
        tree={trees}/'$group'-%
        until git worktree add --quiet -B work-'$group'-% "$tree" result 2> {trees}/log; do sleep 0.02; done
        cd "$tree"; sleep 1; echo % > made-'$group'-%.txt
        git add --all; git commit --quiet --message "Agent %"'
    git checkout --quiet result
    for agent in $(seq {agents}); do git merge --quiet --no-edit work-$group-$agent; done
    for agent in $(seq {agents}); do git worktree remove {trees}/$group-$agent; done
done
"""
"""What an engineer would write for the evening: no time-outs, no retries, and a conflict ends it."""


def step_with_merge() -> list[Result]:
    """(c) From the last agent's end to the next group's first agent, ten branches merged between."""
    with stage() as here:
        repository = _repository(here.folder / "repository", files=100)
        here.start(slots=AGENTS)
        here.run(_plan(repository, groups=2, seconds=0.1))
        gaps = here.gaps_ms(here.run(_plan(repository, groups=6, seconds=0.3)))
    note = f"commit, push, merge of 10, push, workspace; the slowest of {len(gaps)}: {max(gaps):.0f} ms"
    what = "last end → next group's first start, 10 branches merged (median)"
    return [Result("c", what, median(gaps), "ms", 400, note=note)]


def against_a_script() -> list[Result]:
    """(d) Three groups of ten agents of 1 s in a repository of 2,000 files; the ideal is 3 s."""
    with stage() as here:
        repository = _repository(here.folder / "repository", files=FILES)
        here.start(slots=AGENTS)
        here.run(_plan(repository, groups=1, seconds=0.1))  # makes the cache, as any earlier job has
        ours, scripts = [], []
        for number in range(3):
            ours.append(here.seconds_of(here.run(_plan(repository, groups=GROUPS, seconds=1.0))))
            scripts.append(_script_seconds(here, number))
    took, script = median(ours), median(scripts)
    note = f"{took:.2f} s; the script {script:.2f} s"
    what = f"{GROUPS} groups × {AGENTS} agents of 1 s in {FILES:,} files"
    return [
        Result("d", f"{what}, ideal 3 s = 1", took / 3.0, "×", 1.3, note=note),
        Result("d", f"{what}, xargs + git worktree + git merge = 1", took / script, "×", 1.0, note=note),
    ]


def _plan(repository: Path, *, groups: int, seconds: float) -> dict[str, Any]:
    return {
        "title": f"{groups} groups of {AGENTS} in a repository",
        "repo": str(repository),
        "max_parallel_agents": AGENTS,
        "subtasks": [
            shell(group * AGENTS + n + 1, f"sleep {seconds}; echo {n} > made-{group}-{n}.txt", group=group + 1)
            for group in range(groups)
            for n in range(AGENTS)
        ],
    }


def _repository(folder: Path, *, files: int) -> Path:
    """A repository with so many files of 1 kB, forty to a folder."""
    return new_repository(folder, {f"part-{n // 40}/file-{n}.txt": f"line of {n}\n" * 70 for n in range(files)})


def _script_seconds(here: Stage, number: int) -> float:
    folder = _repository(here.folder / f"by-script-{number}", files=FILES)
    trees = here.folder / f"trees-{number}"
    trees.mkdir()
    for name, value in (("user.name", "Script"), ("user.email", "script@example.org"), ("gc.auto", "0")):
        subprocess.run(["git", "config", name, value], cwd=folder, check=True)
    subprocess.run(["git", "branch", "result"], cwd=folder, check=True)
    script = SCRIPT.format(groups=GROUPS, agents=AGENTS, trees=trees)
    began = time.monotonic()
    subprocess.run(["bash", "-c", script], cwd=folder, check=True, capture_output=True, timeout=120)
    took = time.monotonic() - began
    made = len(list(folder.glob("made-*.txt")))
    if made != GROUPS * AGENTS:
        raise AssertionError(f"the script has merged {made} files")
    return took
