"""What agents wrote, as chunks of lines in the table `log_chunks`: written in batches, read by sequence number."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import BigInteger, Integer, LargeBinary, Text

LOGS_CHANNEL: Final = "orchestrator_logs"
"""NOTIFY here, with the job's id, wakes those who follow a job's logs."""

READ_LIMIT: Final = 200

_LEVEL: Final = 1
"""Of zlib: the fastest, for agents' lines wait meanwhile. It saves nearly as much on text."""


@dataclass(frozen=True)
class LogLine:
    """`seconds` since the attempt's start; `stream` is "stdout", "stderr", or "note" for a word of ours."""

    seconds: float
    stream: str
    text: str


@dataclass(frozen=True)
class LogChunk:
    """Some lines of one attempt. Its chunks count from 1; where a number is missing, lines were cut."""

    attempt_id: int
    sequence: int
    job_id: str
    subtask_id: int
    line_count: int
    content: bytes


def encode_chunk(lines: Iterable[bytes]) -> bytes:
    return zlib.compress(b"\n".join(lines), level=_LEVEL)


def encode_line(line: LogLine) -> bytes:
    return json.dumps([round(line.seconds, 3), line.stream, line.text], separators=(",", ":")).encode()


def decode_chunk(content: bytes) -> list[LogLine]:
    """The lines of a chunk, in the order in which they were written."""
    return [LogLine(*json.loads(line)) for line in zlib.decompress(content).split(b"\n")]


# A job may be deleted while its last agents still speak: chunks of an attempt that is gone are left out, for one of them
# would otherwise make the whole worker's batch fail for ever.
_INSERT: Final = text(
    """
    INSERT INTO log_chunks (attempt_id, sequence, job_id, subtask_id, line_count, content)
    SELECT new.* FROM unnest(:attempt_ids, :sequences, :job_ids, :subtask_ids, :line_counts, :contents)
        AS new (attempt_id, sequence, job_id, subtask_id, line_count, content)
    WHERE EXISTS (SELECT FROM attempts WHERE attempts.id = new.attempt_id)
    ON CONFLICT DO NOTHING
    """
).bindparams(
    bindparam("attempt_ids", type_=ARRAY(BigInteger)),
    bindparam("sequences", type_=ARRAY(Integer)),
    bindparam("job_ids", type_=ARRAY(Text)),
    bindparam("subtask_ids", type_=ARRAY(Integer)),
    bindparam("line_counts", type_=ARRAY(Integer)),
    bindparam("contents", type_=ARRAY(LargeBinary)),
)

_DELETE: Final = text(
    """
    DELETE FROM log_chunks USING unnest(:attempt_ids, :sequences) AS dropped (attempt_id, sequence)
    WHERE log_chunks.attempt_id = dropped.attempt_id AND log_chunks.sequence = dropped.sequence
    """
).bindparams(
    bindparam("attempt_ids", type_=ARRAY(BigInteger)),
    bindparam("sequences", type_=ARRAY(Integer)),
)

_NOTIFY: Final = text("SELECT pg_notify(:channel, job_id) FROM unnest(:job_ids) AS job_id").bindparams(
    bindparam("job_ids", type_=ARRAY(Text))
)


def write_log_chunks(connection: Connection, chunks: Sequence[LogChunk], drops: Sequence[tuple[int, int]] = ()) -> None:
    """Store `chunks`, delete the chunks named by `drops` (attempt id, sequence), and wake the followers at commit.

    In the caller's transaction. Writing a chunk twice is writing it once: a batch whose commit's reply was lost may be
    repeated.
    """
    if chunks:
        connection.execute(
            _INSERT,
            {
                "attempt_ids": [chunk.attempt_id for chunk in chunks],
                "sequences": [chunk.sequence for chunk in chunks],
                "job_ids": [chunk.job_id for chunk in chunks],
                "subtask_ids": [chunk.subtask_id for chunk in chunks],
                "line_counts": [chunk.line_count for chunk in chunks],
                "contents": [chunk.content for chunk in chunks],
            },
        )
        connection.execute(_NOTIFY, {"channel": LOGS_CHANNEL, "job_ids": sorted({chunk.job_id for chunk in chunks})})
    if drops:
        connection.execute(
            _DELETE, {"attempt_ids": [attempt for attempt, _ in drops], "sequences": [number for _, number in drops]}
        )


_READ: Final = text(
    """
    SELECT chunk.attempt_id, chunk.sequence, chunk.job_id, chunk.subtask_id, chunk.line_count, chunk.content
    FROM log_chunks AS chunk
    LEFT JOIN unnest(:attempt_ids, :sequences) AS seen (attempt_id, sequence) USING (attempt_id)
    WHERE chunk.job_id = :job_id
      AND (CAST(:subtask_id AS integer) IS NULL OR chunk.subtask_id = :subtask_id)
      AND chunk.sequence > coalesce(seen.sequence, 0)
    ORDER BY chunk.subtask_id, chunk.attempt_id, chunk.sequence
    LIMIT :limit
    """
).bindparams(
    bindparam("attempt_ids", type_=ARRAY(BigInteger)),
    bindparam("sequences", type_=ARRAY(Integer)),
)


def read_log_chunks(
    connection: Connection,
    job_id: str,
    subtask_id: int | None = None,
    *,
    after: Mapping[int, int] | None = None,
    limit: int = READ_LIMIT,
) -> list[LogChunk]:
    """Up to `limit` chunks of a job, or of one subtask, in the order of subtasks, attempts and sequence numbers.

    `after` says what the reader has, as the last sequence number by attempt id. A follower keeps it up to date with
    `seen[chunk.attempt_id] = chunk.sequence` and reads until nothing comes; no chunk is missed, for an attempt's chunks
    become visible in their order.
    """
    after = after or {}
    parameters: dict[str, Any] = {
        "job_id": job_id,
        "subtask_id": subtask_id,
        "attempt_ids": list(after.keys()),
        "sequences": list(after.values()),
        "limit": limit,
    }
    return [LogChunk(*row) for row in connection.execute(_READ, parameters)]
