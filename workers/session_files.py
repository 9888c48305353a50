"""An agent's session as bytes: the files that its program has written, packed for another attempt to unpack.

A tar compressed with zlib, the same bytes for the same files: names below the attempt's state folder, nothing of owners
and times. What is packed was redacted; what is unpacked is a set of plain files that the adapter's patterns name.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

from orchestrator.redaction import Redaction

_LEVEL: Final = 3
"""Of zlib. A session is text: more would cost twice the time for a tenth of the size."""
_LARGEST_RATIO: Final = 8
"""How much larger than its bound a session may be before it is compressed."""

Signature = tuple[tuple[str, int, int], ...]


class SessionLost(Exception):  # noqa: N818 - an answer, caught where it is asked for
    """Why this session can't be kept, or can't be taken up again: a clause in words. The next attempt starts anew."""


def signature(state_dir: Path, patterns: Sequence[str], session_id: str) -> Signature:
    """Names, sizes and times of the session's files: equal as long as nobody has written to them."""
    found = ((name, path.stat()) for name, path in _files(state_dir, patterns, session_id))
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in found)


def pack(state_dir: Path, patterns: Sequence[str], session_id: str, *, redaction: Redaction, most_bytes: int) -> bytes:
    """The session's files as they are now; the program may be writing to them. Raises `SessionLost`."""
    files: dict[str, bytes] = {}
    left = most_bytes * _LARGEST_RATIO
    for name, path in _files(state_dir, patterns, session_id):
        content = _read(path, left)
        left -= len(content)
        files[name] = _redacted(name, content, redaction)
    if not files:
        raise SessionLost("its program has written none")
    packed = zlib.compress(_tar(files), _LEVEL)
    if len(packed) > most_bytes:
        raise SessionLost(f"it has {len(packed)} bytes, max_session_bytes is {most_bytes}")
    return packed


def unpack(packed: bytes, patterns: Sequence[str], session_id: str, *, most_bytes: int) -> Mapping[str, bytes]:
    """Names and contents. Raises `SessionLost` for bytes that `pack` has not made with the same patterns."""
    _require_plain(session_id)
    inflate = zlib.decompressobj()
    try:
        plain = inflate.decompress(packed, most_bytes * _LARGEST_RATIO + 2**20)
        if not inflate.eof:
            raise SessionLost("what is stored is cut short, or larger than it may be")
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            return {member.name: _content(archive, member, patterns, session_id) for member in archive}
    except (zlib.error, tarfile.TarError) as error:
        raise SessionLost(f"what is stored can't be read: {error}") from error


def put_back(files: Mapping[str, bytes], state_dir: Path) -> None:
    """Write the files below `state_dir`, in which there is nothing of these names yet."""
    for name, content in files.items():
        path = state_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(content)


def _files(state_dir: Path, patterns: Sequence[str], session_id: str) -> Iterator[tuple[str, Path]]:
    """Plain files in the folder itself: a link could lead the pack to any file of this machine."""
    _require_plain(session_id)
    here = state_dir.resolve()
    found = {path for pattern in patterns for path in here.glob(pattern.format(session_id=session_id))}
    for path in sorted(found):
        if path.is_file() and path.resolve() == path:
            yield path.relative_to(here).as_posix(), path


def _require_plain(session_id: str) -> None:
    """It must stand for itself in a pattern and in a path: programs tell it, and it becomes an argument of theirs."""
    if not session_id.replace("-", "").replace("_", "").isalnum() or session_id.startswith("-"):
        raise SessionLost(f"its id is {session_id!r}")


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SessionLost(f"{path.name} can't be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SessionLost(f"{path.name} is no plain file")
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise SessionLost(f"its files have more than {most_bytes} bytes")
    return content


def _redacted(name: str, content: bytes, redaction: Redaction) -> bytes:
    if name.endswith(".jsonl"):
        content = content[: content.rfind(b"\n") + 1]  # the program may be in the midst of a line
    try:
        return redaction.hide(content.decode()).encode()
    except UnicodeDecodeError:
        shown = content.decode("latin-1")
        if redaction.hide(shown) != shown:
            raise SessionLost(f"{name} is no text, and holds a key") from None
        return content


def _tar(files: Mapping[str, bytes]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return plain.getvalue()


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, patterns: Sequence[str], session_id: str) -> bytes:
    name = PurePosixPath(member.name)
    named = any(fnmatchcase(member.name, pattern.format(session_id=session_id)) for pattern in patterns)
    file = archive.extractfile(member) if member.isreg() else None
    if file is None or name.is_absolute() or ".." in name.parts or not named:
        raise SessionLost(f"what is stored holds {member.name!r}, which is no file of such a session")
    return file.read()
