"""Celery's Redis backend, which counts a chord's header when Redis is back.

Celery repeats the storing of a result for as long as Redis is away (`result_backend_always_retry`), and not the count of a
header that stores none: its first word to Redis is the count, and an error there leaves the chord short for ever.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from celery.backends.redis import RedisBackend
from redis.exceptions import ConnectionError, OutOfMemoryError, TimeoutError  # noqa: A004

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0


class PatientBackend(RedisBackend):
    """What `orchestrator.celery_app` puts in the place of `redis`."""

    def on_chord_part_return(self, *args: Any, **kwargs: Any) -> None:
        """Count a header that has returned; one that was counted, and whose answer was lost, counts once. Its task waits
        here for a Redis that is away, in a slot that could get no message anyway; a worker that is asked to stop leaves the
        group to the reconciler."""
        while True:
            try:
                super().on_chord_part_return(*args, **kwargs)
            except (ConnectionError, TimeoutError, OutOfMemoryError) as error:
                from celery.worker import state  # noqa: PLC0415 - a client, which counts nothing, has no worker

                if state.should_stop is not None or state.should_terminate is not None:
                    raise
                log.warning("A header's count waits for Redis: %s", error, extra={"event": "chord.broker_away"})
                time.sleep(RETRY_SECONDS)
            else:
                return
