"""Task events go out together.

Celery publishes the events that Flower watches at each turn of its loop, which with short agents means one by one: that
was a quarter of what the loop did. This step lets them wait for a tenth of a second, or until there are many.
"""

from __future__ import annotations

from typing import Any, Final

from celery import bootsteps

WAIT_SECONDS: Final = 0.1
MOST_IN_A_BATCH: Final = 240
"""A message of some 50 KB."""


class SendEventsTogether(bootsteps.StartStopStep):
    """A consumer step: each reconnect makes a new dispatcher of events, and this is started again."""

    requires = ("celery.worker.consumer.events:Events",)

    def start(self, consumer: Any) -> None:
        dispatcher, hub = consumer.event_dispatcher, consumer.hub
        if dispatcher is None or hub is None:
            return
        waiting = False

        def arrange() -> None:
            """From any thread. Two that come at the same time arrange two turns; the second finds nothing to send."""
            nonlocal waiting
            if not waiting:
                waiting = True
                hub.call_soon(hub.call_later, WAIT_SECONDS, send)

        def send() -> None:
            nonlocal waiting
            waiting = False
            # Its own turn handles a connection that has gone.
            consumer.on_send_event_buffered()

        dispatcher.buffer_limit = MOST_IN_A_BATCH
        dispatcher.on_send_buffered = arrange
