"""Sessions as bytes: what is packed, what is not, and what unpacking believes."""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from pathlib import Path

import pytest

from orchestrator.redaction import Redaction
from workers.session_files import SessionLost, pack, put_back, signature, unpack

PATTERNS = ("cli/projects/*/{session_id}.jsonl", "cli/projects/*/{session_id}/**/*")
ID = "87c995af-16f8"
KEY = 'sk-0123456789-"quoted'
MOST = 2**20


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    write(folder / f"cli/projects/slug/{ID}.jsonl", '{"a": 1}\n{"b": 2}\n{"cut')
    write(folder / f"cli/projects/slug/{ID}/deep/er/tool.txt", "of a tool")
    write(folder / "cli/projects/slug/another.jsonl", '{"a": 1}\n')
    write(folder / "cli/auth.json", KEY)
    return folder


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def packed(folder: Path, *, secrets: tuple[str, ...] = (), most_bytes: int = MOST) -> bytes:
    return pack(folder, PATTERNS, ID, redaction=Redaction(secrets), most_bytes=most_bytes)


def test_a_session_comes_back_as_it_was_without_the_line_that_was_being_written(state: Path, tmp_path: Path) -> None:
    files = unpack(packed(state), PATTERNS, ID, most_bytes=MOST)
    assert files == {
        f"cli/projects/slug/{ID}.jsonl": b'{"a": 1}\n{"b": 2}\n',
        f"cli/projects/slug/{ID}/deep/er/tool.txt": b"of a tool",
    }
    put_back(files, tmp_path / "other")
    assert (tmp_path / f"other/cli/projects/slug/{ID}/deep/er/tool.txt").read_text() == "of a tool"


def test_the_same_files_are_the_same_bytes(state: Path) -> None:
    before = packed(state)
    for path in state.rglob("*.jsonl"):
        os.utime(path, (1, 1))
    assert packed(state) == before


def test_a_signature_changes_with_the_files(state: Path) -> None:
    before = signature(state, PATTERNS, ID)
    assert signature(state, PATTERNS, ID) == before
    with (state / f"cli/projects/slug/{ID}.jsonl").open("a") as file:
        file.write('": 3}\n')
    assert signature(state, PATTERNS, ID) != before


def test_keys_are_struck_out_also_as_json_writes_them(state: Path) -> None:
    write(state / f"cli/projects/slug/{ID}.jsonl", f'{{"said": "sk-0123456789-\\"quoted"}}\n{KEY}\n')
    (content, _) = unpack(packed(state, secrets=(KEY,)), PATTERNS, ID, most_bytes=MOST).values()
    assert content == b'{"said": "***"}\n***\n'


def test_what_is_no_text_and_holds_a_key_is_not_kept(state: Path) -> None:
    file = state / f"cli/projects/slug/{ID}/image"
    file.write_bytes(b"\xff\xfe")
    assert packed(state, secrets=("0123456789",))
    file.write_bytes(b"\xff\xfe0123456789")
    with pytest.raises(SessionLost, match="image is no text, and holds a key"):
        packed(state, secrets=("0123456789",))


def test_links_are_not_followed(state: Path, tmp_path: Path) -> None:
    write(tmp_path / "secret", "of the machine")
    write(tmp_path / "elsewhere" / f"{ID}.jsonl", "{}\n")
    (state / f"cli/projects/slug/{ID}/link").symlink_to(tmp_path / "secret")
    (state / "cli/projects/linked").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(state / f"cli/projects/slug/{ID}/pipe")
    assert len(unpack(packed(state), PATTERNS, ID, most_bytes=MOST)) == 2


def test_a_session_is_bounded_before_and_after_it_is_compressed(state: Path) -> None:
    with pytest.raises(SessionLost, match="max_session_bytes is 20"):
        packed(state, most_bytes=20)
    (state / f"cli/projects/slug/{ID}/zeros").write_bytes(bytes(9000))
    with pytest.raises(SessionLost, match="its files have more than"):
        packed(state, most_bytes=1000)


@pytest.mark.parametrize("session_id", ["", "../../etc", "*", "a/b", "--flag", "{0}", "a b"])
def test_an_id_that_is_no_name_finds_nothing(state: Path, session_id: str) -> None:
    with pytest.raises(SessionLost, match="its id is"):
        pack(state, PATTERNS, session_id, redaction=Redaction([]), most_bytes=MOST)
    with pytest.raises(SessionLost, match="its id is"):
        unpack(packed(state), PATTERNS, session_id, most_bytes=MOST)


def test_a_session_without_files_is_none(tmp_path: Path) -> None:
    with pytest.raises(SessionLost, match="has written none"):
        packed(tmp_path)


def archive(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as files:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        files.addfile(member)
    return zlib.compress(plain.getvalue())


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(b"rubbish", id="no zlib"),
        pytest.param(zlib.compress(b"rubbish" * 200), id="no tar"),
        pytest.param(archive("/etc/passwd"), id="absolute"),
        pytest.param(archive(f"cli/projects/../../../{ID}.jsonl"), id="upwards"),
        pytest.param(archive("cli/projects/slug/other.jsonl"), id="of another session"),
        pytest.param(archive(f"cli/projects/slug/{ID}.jsonl", tarfile.SYMTYPE), id="a link"),
        pytest.param(archive(f"cli/projects/slug/{ID}.jsonl", tarfile.LNKTYPE), id="a hard link"),
        pytest.param(zlib.compress(bytes(20 * 2**20)), id="a bomb"),
        pytest.param(archive(f"cli/projects/slug/{ID}.jsonl")[:-5], id="cut short"),
    ],
)
def test_what_pack_has_not_made_is_not_believed(stored: bytes) -> None:
    with pytest.raises(SessionLost, match="what is stored"):
        unpack(stored, PATTERNS, ID, most_bytes=MOST)
