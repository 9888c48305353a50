"""This worker's part in the limits of its agents' providers: whose account an agent uses here, whether it may start now,
and what its end says of the account. Agents without a provider pay for none of it.

    claim      refused where the account is closed or has as many at work as it takes; the subtask then waits without a
               place, and no attempt is spent
    start      the account may have been closed while the workspace was made
    end        a throttle closes the account for the whole fleet; an agent that got its answers widens it
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

from sqlalchemy import text

from orchestrator.dispatch.fleet import Fleet
from orchestrator.errors import ConfigurationError, DatabaseUnavailable
from orchestrator.outcomes import Outcome
from orchestrator.provider_account import Account, account_of, hash_of_key
from orchestrator.rate_limit import ANSWERED, is_throttle, wish
from orchestrator.retry_policy import RetryPolicy
from orchestrator.state import outbox, provider_limits
from orchestrator.state.engine import translated
from orchestrator.state.provider_limits import Throttled
from orchestrator.state.transitions import claims, jobs
from orchestrator.state.transitions.claims import Claim, Wanted
from orchestrator.state.transitions.ends import AttemptEnd
from orchestrator.state.transitions.waits import hold
from workers.agents.registry import agent_class

log = logging.getLogger(__name__)


class Governor:
    """One a worker, for all its threads."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._hash_key = cache(self._hash_key_with_salt)
        self._hearing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="governor")
        self.plain_agents: frozenset[str] = frozenset()
        """Agents that were found to have no provider: their claims are not asked for an account any more."""

    def claim(self, worker: str, job_id: str, wanted: Wanted) -> Claim | None:
        """A claim that was not given in the first place: once more, now with the agent's account in this worker.

        None as from `claims.claim`, and where the account takes no more: the subtask is held then.
        """
        found = self._agent_of(job_id, wanted.subtask_id)
        if found is None:
            return None
        account = self._account(*found)
        asked = replace(wanted, account=account.name if account else "")
        claim = claims.claim(
            self._fleet.engine, job_id, [asked], worker=worker, lease_seconds=self._fleet.settings.lease_seconds
        )[0]
        if claim is None and account is not None:
            self._hold(job_id, wanted.subtask_id, account)
        return claim

    def closed_before_start(self, claim: Claim) -> AttemptEnd | None:
        """The end of an attempt whose account was closed while its workspace was made; None: it may start. Raises
        `DatabaseUnavailable`."""
        if claim.account is None:
            return None
        with translated(), self._fleet.engine.connect() as connection:
            seconds = provider_limits.seconds_closed(connection, claim.account)
        if not seconds:
            return None
        words = f"{Account.of_name(claim.account).words} was closed before the agent had started"
        return AttemptEnd(Outcome.RATE_LIMITED, error=words, retry_after_seconds=seconds, waits_for=claim.account)

    def heard(self, claim: Claim, end: AttemptEnd) -> AttemptEnd:
        """Tell the fleet what the end of an attempt says of its account. Where that is closed now, the end says for how
        long, and what a retry waits for. While the database is away nothing is told, and the retry has its own back-off."""
        if claim.account is None or end.agent_started_at is None:
            return end
        try:
            if is_throttle(end.outcome, end.retry_after_seconds):
                seconds = self.throttled(claim, end.retry_after_seconds)
                return replace(end, retry_after_seconds=seconds, waits_for=claim.account)
            if end.outcome in ANSWERED:
                with translated(), self._fleet.engine.begin() as connection:
                    provider_limits.note_answers(connection, claim.account, claim.attempt_id)
        except DatabaseUnavailable as error:
            log.warning("A provider's word was lost: %s", error.message, extra={"event": "provider.word_lost"})
        return end

    def hear_soon(self, claim: Claim, retry_after_seconds: float | None) -> None:
        """A program was turned away, and goes on by itself. Its output must not wait for the database."""
        if claim.account is not None:
            self._hearing.submit(self._hear, claim, retry_after_seconds)

    def close(self) -> None:
        """After the last attempt was recorded."""
        self._hearing.shutdown(cancel_futures=True)

    def _hear(self, claim: Claim, retry_after_seconds: float | None) -> None:
        try:
            self.throttled(claim, retry_after_seconds)
        except Exception as error:
            # The attempt's own end will tell it again, if it matters still.
            log.warning("A provider's word was lost: %s", error, extra={"event": "provider.word_lost"})

    def throttled(self, claim: Claim, retry_after_seconds: float | None) -> float:
        """Close the attempt's account for the whole fleet. Returns for how long it is closed, in seconds. Raises
        `DatabaseUnavailable`."""
        assert claim.account is not None, "only agents with a provider are throttled"
        settings = self._fleet.settings
        policy = RetryPolicy(initial_seconds=settings.retry_initial_seconds, max_seconds=settings.retry_max_seconds)
        told = Throttled(claim.account, claim.job_id, claim.subtask_id, claim.attempt_id, wish(retry_after_seconds))
        with translated(), self._fleet.engine.begin() as connection:
            seconds = provider_limits.note_throttle(
                connection,
                told,
                policy,
                jitter=random.random(),  # noqa: S311 - it spreads load, it guards nothing
            )
        log.warning(
            "%s has enough: nothing of it starts for %.1f s.",
            Account.of_name(claim.account).words,
            seconds,
            extra={"event": "provider.throttled", "account": claim.account, "job_id": claim.job_id},
        )
        return seconds

    def _agent_of(self, job_id: str, subtask_id: int) -> tuple[str, Mapping[str, Any]] | None:
        """The agent of a subtask that waits for a worker, with its configuration."""
        with translated(), self._fleet.engine.connect() as connection:
            row = connection.execute(
                text(
                    "SELECT agent, spec->'agent'->'config' AS config FROM subtasks WHERE job_id = :job_id"
                    " AND subtask_id = :subtask_id AND status = 'pending' AND released_at IS NOT NULL"
                ),
                {"job_id": job_id, "subtask_id": subtask_id},
            ).one_or_none()
        return None if row is None else (row.agent, row.config or {})

    def _account(self, agent: str, config: Mapping[str, Any]) -> Account | None:
        try:
            found = agent_class(agent, self._fleet.settings)
        except ConfigurationError:
            return None  # the attempt will say that this worker does not know it
        if not found.providers:
            self.plain_agents |= {agent}
        model = config.get("model")
        return account_of(
            found.providers_of(config), model if isinstance(model, str) else None, os.environ, self._hash_key
        )

    def _hash_key_with_salt(self, key: str) -> str:
        with translated(), self._fleet.engine.begin() as connection:
            salt = provider_limits.salt_of_fleet(connection)
        return hash_of_key(key, salt)

    def _hold(self, job_id: str, subtask_id: int, account: Account) -> None:
        with translated(), self._fleet.engine.begin() as connection:
            if jobs.lock_job(connection, job_id) is None:
                return
            held = hold(connection, job_id, subtask_id, account.name)
            if not held:
                # The account has room again: this message is used up, so it is sent once more.
                outbox.hand_back(connection, job_id, subtask_id)
            messages = jobs.release(connection, job_id)
        self._fleet.publish(messages)
        if held:
            log.info(
                "%d subtasks wait for %s.",
                len(held),
                account.words,
                extra={"event": "subtasks.held", "job_id": job_id, "account": account.name},
            )
