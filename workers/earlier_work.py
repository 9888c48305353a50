"""Putting the work of an attempt that was cut off into the checkout of the next one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from orchestrator.errors import GitError
from orchestrator.git import run_git
from orchestrator.state.checkpoints import SavedWork
from workers.checkouts import Source
from workers.handing_over import Side, hand_over

log = logging.getLogger(__name__)

FETCH_SECONDS: Final = 60.0
"""How long it may take to bring the work; after that the attempt starts anew."""


def take_up(work: SavedWork, source: Source, base_commit: str, checkout: Path, through: Path) -> bool:
    """Into a clean checkout of the base commit. `through` is the repository of ours that asks the remote. False, and
    nothing is changed, where the work can't be had.

    Its agent's commits are on the branch then, and what was not committed is staged, as if one attempt had done it all.
    Staged and not loose: what was added though it is ignored would be lost else.
    """
    fetch = ("fetch", "--quiet", "--no-write-fetch-head", "--no-recurse-submodules", "--no-tags", "--")
    try:
        run_git(*fetch, source.repo, work.ref, cwd=through, user_config=True, timeout_seconds=FETCH_SECONDS)
        run_git("cat-file", "-e", f"{work.commit}^{{commit}}", cwd=through)
        if through != checkout:
            target = Side(checkout, source.account)
            hand_over(work.commit, beyond=base_commit, source=Side(through, None), target=target)
    except GitError as error:
        log.info("Earlier work can't be taken up: %s", error, extra={"event": "workspace.work_not_found"})
        return False
    run_git("reset", "--quiet", "--hard", work.commit, cwd=checkout, account=source.account)
    run_git("reset", "--quiet", "--soft", work.head_commit, cwd=checkout, account=source.account)
    return True
