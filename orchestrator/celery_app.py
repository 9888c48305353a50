"""The Celery application: one configuration for clients, dispatchers and workers.

What stands here is the cure for something measured; `docs/decisions/0002-celery-as-a-wake-up.md` says what.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from orchestrator.errors import BrokerUnavailable, ConfigurationError
from orchestrator.redaction import redact_url
from orchestrator.settings import Settings
from orchestrator.task_names import AGENTS_QUEUE, CONTROL_QUEUE, MERGE_GROUP, RUN_AGENT, START_JOB

SOCKET_SECONDS: Final = 10
CHECK_SECONDS: Final = 3
REDIS_SCHEMES: Final = {"redis", "rediss", "redis+socket"}
CHORD_SECONDS: Final = 30 * 24 * 3600
"""Longer than any header: a shorter expiry and the chord's callback never runs."""


def create_app(settings: Settings) -> Celery:
    """The application for these settings. Raises `ConfigurationError` where no broker, or no Redis, is named."""
    if settings.broker_url is None:
        raise ConfigurationError("No broker is configured.", recovery="Set ORCHESTRATOR_BROKER_URL to a Redis URL.")
    _refuse_other_than_redis(settings.broker_url)
    app = Celery("orchestrator", broker=settings.broker_url, backend=settings.broker_url, set_as_current=True)
    app.loader.override_backends = dict.fromkeys(("redis", "rediss"), "orchestrator.patient_backend:PatientBackend")
    app.conf.update(_configuration(keepalive=not settings.broker_url.startswith("redis+socket")))
    return app


def _refuse_other_than_redis(url: str) -> None:
    """Celery knows other transports, and would answer a word that it doesn't know with a KeyError."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in REDIS_SCHEMES and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is no number
        sound = False
    if not sound:
        raise ConfigurationError(
            f"The broker's URL {redact_url(url)} is none of Redis.",
            recovery="Set ORCHESTRATOR_BROKER_URL, such as redis://:password@host:6379/0.",
        )


def _configuration(*, keepalive: bool) -> dict[str, Any]:
    transport: dict[str, Any] = {
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": SOCKET_SECONDS,
        # A Unix socket knows no keepalive, and its client refuses the word.
        **({"socket_keepalive": True} if keepalive else {}),
        "health_check_interval": 10,
        # A message is a wake-up, owed by its outbox row: none is noted in Redis as taken, so none is redelivered by time.
        "ack_emulation": False,
    }
    return {
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_serializer": "json",
        "task_default_queue": CONTROL_QUEUE,
        "task_create_missing_queues": True,
        "task_routes": {
            START_JOB: {"queue": CONTROL_QUEUE},
            MERGE_GROUP: {"queue": CONTROL_QUEUE},
            RUN_AGENT: {"queue": AGENTS_QUEUE},
        },
        # Early acknowledgement: a message is a wake-up, the lease in SQL says who works.
        "task_acks_late": False,
        "worker_disable_prefetch": True,
        # Leases, logs and stop signals live in threads of one process; a slot costs almost nothing.
        "worker_pool": "threads",
        "worker_prefetch_multiplier": 1,
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "worker_hijack_root_logger": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": transport,
        "result_backend_transport_options": {"retry_policy": {"timeout": 5.0}},
        "redis_socket_timeout": SOCKET_SECONDS,
        "redis_socket_connect_timeout": SOCKET_SECONDS,
        "redis_socket_keepalive": keepalive,
        "redis_backend_health_check_interval": 10,
        # A header that ends while Redis is away is counted when Redis is back; see also `patient_backend`.
        "result_backend_always_retry": True,
        "result_chord_expires": CHORD_SECONDS,
        "result_expires": CHORD_SECONDS,
        "task_ignore_result": True,
    }


def check_broker(settings: Settings) -> None:
    """Raise `BrokerUnavailable` unless the broker answers now."""
    app = create_app(settings)
    try:
        with app.connection_for_write(connect_timeout=CHECK_SECONDS) as connection:
            connection.ensure_connection(max_retries=1, timeout=CHECK_SECONDS)
            redis: Any = connection.default_channel
            redis.client.ping()
    except (OperationalError, RedisError, OSError) as error:
        raise BrokerUnavailable(
            f"Redis at {redact_url(settings.broker_url or '')} can't be reached: {str(error).rstrip('.')}.",
            context={"broker_url": redact_url(settings.broker_url or "")},
            recovery="Start it, or mend ORCHESTRATOR_BROKER_URL.",
        ) from error
