"""A job as one JSON document to keep; docs/json.md promises its form.

It is given out in pieces, so that a job's logs never are in memory all at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from orchestrator.cli.render import JSON_FORMAT, instant
from orchestrator.redaction import redact_url
from orchestrator.state.history import job_archive
from orchestrator.state.log_chunks import LogChunk, decode_chunk, read_log_chunks

CUT = "… lines were cut here …"


def archive_pieces(engine: Engine, job_id: str, *, with_logs: bool) -> Iterator[str]:
    """The document `{"format": 1, "exported_job": …}`. Raises `UnknownJob` where the job is gone."""
    archive = job_archive(engine, job_id)
    document = {"format": JSON_FORMAT, "exported_job": job_id, **archive}
    text = _json(document)
    if not with_logs:
        yield text + "\n"
        return
    yield text.removesuffix("\n}") + ',\n  "logs": ['
    separator = "\n"
    for log in _logs(engine, job_id, archive["attempts"]):
        yield separator + _json(log)
        separator = ",\n"
    yield "\n  ]\n}\n"


def _logs(engine: Engine, job_id: str, attempts: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each attempt's log, in the order of subtasks and attempts; one subtask's logs are read at a time."""
    by_subtask: dict[int, list[dict[str, Any]]] = {}
    for attempt in attempts:
        by_subtask.setdefault(attempt["subtask_id"], []).append(attempt)
    for subtask_id, of_subtask in sorted(by_subtask.items()):
        chunks: dict[int, list[LogChunk]] = {}
        seen: dict[int, int] = {}
        with engine.connect() as connection:
            while found := read_log_chunks(connection, job_id, subtask_id, after=seen):
                for chunk in found:
                    chunks.setdefault(chunk.attempt_id, []).append(chunk)
                    seen[chunk.attempt_id] = chunk.sequence
        for attempt in of_subtask:
            if attempt["id"] in chunks:
                lines, is_cut = _lines(chunks[attempt["id"]])
                yield {"subtask_id": subtask_id, "attempt": attempt["number"], "is_cut": is_cut, "text": lines}


def _lines(chunks: list[LogChunk]) -> tuple[str, bool]:
    """What the chunks say as text, and whether a part of it was cut: a gap in their numbers."""
    lines: list[str] = []
    is_cut = False
    expected = 1
    for chunk in chunks:
        if chunk.sequence != expected:
            is_cut = True
            lines.append(CUT)
        lines += [said.text for said in decode_chunk(chunk.content)]
        expected = chunk.sequence + 1
    return "".join(f"{line}\n" for line in lines), is_cut


def _json(document: dict[str, Any]) -> str:
    return json.dumps(_presentable(document), indent=2, ensure_ascii=False)


def _presentable(value: Any) -> Any:
    """Times as ISO 8601 in UTC, no password in any text."""
    if isinstance(value, str):
        return redact_url(value) if "://" in value else value
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, dict):
        return {name: _presentable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_presentable(inner) for inner in value]
    return value
