"""Real servers for tests, on private sockets: started, stopped, killed and restarted at will.

They are the embedded stack's own servers (`orchestrator.local`), so they need nothing but the wheels, and they end by
themselves when the test process ends, however it ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from orchestrator.local.folders import Folders, open_folders
from orchestrator.local.postgres import SUPERUSER, Postgres, environment, prepare_postgres
from orchestrator.local.valkey import Valkey, find_program, prepare_valkey
from orchestrator.state import migrate
from tests.support.waiting import wait_until

TEMPLATE: Final = "migrated_template"
SPAWNER: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")
"""The servers end with the thread that started them, so that is one which lives as long as this process."""


def open_temporary_folder(prefix: str = "orchestrator-tests-") -> Path:
    """A folder with a short path that every account may enter; pytest's own are closed to PostgreSQL's account."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    folder.chmod(0o711)
    return folder


class Service:
    """A server process. `stop` is orderly, `kill` is `kill -9`, `start` waits until it answers."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        self.process = self._spawn()
        wait_until(self._answers, f"{type(self).__name__} answers", timeout_seconds=60)

    def stop(self) -> None:
        self._end(self._stop_signal())

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Let it stand still (SIGSTOP): connections stay, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _end(self, signal_number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal_number)
            self.process.wait(timeout=60)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the server ended with {self.process.returncode}, see {self._log()}"
        return self._is_ready()

    def _spawn(self) -> subprocess.Popen[bytes]:
        return SPAWNER.submit(self._spawn_here).result()

    def _spawn_here(self) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def _stop_signal(self) -> int:
        raise NotImplementedError

    def _log(self) -> Path:
        raise NotImplementedError


class PostgresService(Service):
    """PostgreSQL. `url` is its own database, `new_database()` a fresh one with all tables."""

    def __init__(self, folders: Folders) -> None:
        super().__init__()
        self.server: Postgres = prepare_postgres(folders, folders.make_run())
        self.server.initialise()
        self.variables: dict[str, str] = {}
        """What the server itself sees at its next start, and not whoever starts it under its account."""

    @property
    def url(self) -> str:
        return self.server.url

    def url_of(self, database: str) -> str:
        return f"postgresql://{SUPERUSER}:{self.server.password}@/{database}?host={self.server.sockets}"

    def new_database(self) -> str:
        """The URL of a fresh database at the newest revision; a copy of a template, so it takes some 50 ms."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            # Another session may not look at the template while it is copied: they come one by one.
            connection.execute("SELECT pg_advisory_lock(1)")
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (TEMPLATE,)).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
                migrate.upgrade(self.url_of(TEMPLATE))
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(TEMPLATE))
            )
        return self.url_of(name)

    def new_empty_database(self, *, encoding: str = "UTF8") -> str:
        """The URL of a fresh database without any table."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE 'C'")
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.format(sql.Identifier(name), encoding))
        return self.url_of(name)

    def drop_database(self, url: str) -> None:
        name = url.split("@/", 1)[1].split("?", 1)[0]
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _spawn_here(self) -> subprocess.Popen[bytes]:
        with self._log().open("ab") as log:
            return subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                cwd=self.server.folder,
                start_new_session=True,
            )

    def _command(self) -> list[str]:
        command = self.server.command()
        place = command.index(str(self.server.programs / "postgres"))
        said = [f"{name}={value}" for name, value in self.variables.items()]
        return [*command[:place], *(["/usr/bin/env", *said] if said else []), *command[place:]]

    def _is_ready(self) -> bool:
        return self.server.is_ready(self.pid)

    def _stop_signal(self) -> int:
        return signal.SIGINT

    def _log(self) -> Path:
        return self.server.log


class RedisService(Service):
    """Redis from the PATH where there is one, else Valkey from the wheel. `flush()` empties it."""

    def __init__(self, folders: Folders) -> None:
        super().__init__()
        self.server: Valkey = prepare_valkey(folders, folders.make_run())
        self.program = Path(shutil.which("redis-server") or find_program())

    @property
    def url(self) -> str:
        """Celery's form, for broker and result backend."""
        return self.server.url

    @property
    def client_url(self) -> str:
        """redis-py's form."""
        return f"unix://:{self.server.password}@{self.server.socket}?db=0"

    def flush(self) -> None:
        import redis

        with redis.Redis.from_url(self.client_url) as client:
            client.flushall()

    def _spawn_here(self) -> subprocess.Popen[bytes]:
        command = [str(self.program) if word == str(self.server.program) else word for word in self.server.command()]
        with self._log().open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.server.folder,
                start_new_session=True,
            )

    def _is_ready(self) -> bool:
        return self.server.is_ready()

    def _stop_signal(self) -> int:
        return signal.SIGTERM

    def _log(self) -> Path:
        return self.server.log


class Services:
    """Both servers in one temporary folder; each starts when it is asked for first."""

    def __init__(self) -> None:
        self.folder = open_temporary_folder()
        self._folders = open_folders(self.folder)
        self._postgres: PostgresService | None = None
        self._redis: RedisService | None = None

    @property
    def postgres(self) -> PostgresService:
        if self._postgres is None:
            self._postgres = PostgresService(self._folders)
            self._postgres.start()
        return self._postgres

    @property
    def redis(self) -> RedisService:
        if self._redis is None:
            self._redis = RedisService(self._folders)
            self._redis.start()
        return self._redis

    def close(self) -> None:
        for service in (self._postgres, self._redis):
            if service is not None:
                service.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
