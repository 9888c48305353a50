"""Lets go what waits for a provider, a few at each look of the reconciler: the only way out of such a wait.

So it needs nobody to wake it at the right moment: a worker that dies, a broker that forgets, a fleet that was down while
the account opened are all the same to it. Several dispatchers may let go more than they should together; the claim counts
exactly, and holds the rest again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

from orchestrator.dispatch.fleet import Fleet
from orchestrator.rate_limit import to_admit
from orchestrator.state import provider_limits
from orchestrator.state.outbox import Message
from orchestrator.state.transitions import jobs
from orchestrator.state.views import AccountView

log = logging.getLogger(__name__)


def admit(fleet: Fleet) -> Iterator[list[Message]]:
    """Let go of what waits as many as each account takes now. Gives the messages to publish, as they are committed."""
    with fleet.engine.begin() as connection:
        provider_limits.forget_old_limits(connection)
        views = provider_limits.accounts(connection)
    for view in views:
        if view.waiting:
            yield from _admit(fleet, view)


def _admit(fleet: Fleet, view: AccountView) -> Iterator[list[Message]]:
    """The places are shared out evenly among the jobs, in each the longest estimate first."""
    account = view.account.name
    left = to_admit(view.limit, now=view.now, busy=view.running + view.on_their_way, waiting=view.waiting)
    if not left:
        return
    with fleet.engine.connect() as connection:
        job_ids = provider_limits.jobs_waiting(connection, account)
    for number, job_id in enumerate(job_ids):
        share = math.ceil(left / (len(job_ids) - number))
        with fleet.engine.begin() as connection:
            if jobs.lock_job(connection, job_id) is None:
                continue
            messages = jobs.release(connection, job_id, account=account, most=share)
        yield messages
        left -= len(messages)
    log.info("Some of what waits for %s may start.", view.account.words, extra={"event": "provider.admitted"})
