"""Logs of workers and dispatchers: a sentence, a stable `event` name and ids; JSON lines in a fleet."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and whatever was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """For people: the sentence, then the ids as `key=value`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        extra = " ".join(f"{key}={value}" for key, value in _extra(record).items() if key != "event")
        line = super().formatMessage(record)
        return f"{line}  [{extra}]" if extra else line


def configure_logging(log_format: str, level: int | str = logging.INFO) -> None:
    """Send everything to standard error in this form; libraries speak from WARNING up."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.WARNING)
    for name in ("orchestrator", "workers", "celery.worker", "celery.apps.worker"):
        logging.getLogger(name).setLevel(level)
    # A line a message is too much beside the events that we log ourselves.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    # Celery hands its own `data` of a task to some records; it is no id.
    return {key: value for key, value in vars(record).items() if key not in _STANDARD and key != "data"}
