"""The embedded stack: shared by all who need it, gone when nobody does, whatever happens.

As root every test of what is left behind runs twice: for root and for a plain user.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from orchestrator.accounts import Account
from tests.support import stack_client, stand_in_worker
from tests.support.accounts import becoming, plain_account
from tests.support.processes import process_named, processes_of
from tests.support.services import open_temporary_folder
from tests.support.waiting import wait_until

pytestmark = pytest.mark.stack

ROOT_OF_THE_PROJECT = Path(__file__).parents[2]
DISPATCHER = ["dispatcher", "services answer"]
WORKER = ["worker 1", "services answer"]


@dataclass
class Client:
    """One command that uses the stack."""

    process: subprocess.Popen[str]
    settings: dict[str, str] = field(default_factory=dict)

    def wait_until_ready(self) -> Client:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("{"), line
        self.settings = json.loads(line)
        return self

    @property
    def database_url(self) -> str:
        return self.settings["database_url"]

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(timeout=60)

    def signal(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@dataclass
class House:
    """A state folder of one account, the clients that were started on it, and the journals of the stand-ins."""

    folder: Path
    account: Account
    clients: list[Client] = field(default_factory=list)

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    @property
    def journals(self) -> Path:
        return self.folder / "journals"

    def start(self, need: str = "SERVICES", *, slots: int = 1, behaviour: str = "good") -> Client:
        """A client that is under way; `wait_until_ready` is the caller's."""
        worker = [sys.executable, stand_in_worker.__file__, str(self.journals), behaviour]
        client = Client(
            subprocess.Popen(
                [
                    *becoming(self.account),
                    sys.executable,
                    stack_client.__file__,
                    str(self.state_dir),
                    need,
                    str(slots),
                    *worker,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=self.folder,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(ROOT_OF_THE_PROJECT),
                    "PYTHONDONTWRITEBYTECODE": "1",
                },
                start_new_session=True,
            )
        )
        self.clients.append(client)
        return client

    def open(self, need: str = "SERVICES", *, slots: int = 1, behaviour: str = "good") -> Client:
        return self.start(need, slots=slots, behaviour=behaviour).wait_until_ready()

    @property
    def keeper(self) -> psutil.Process:
        return self.one("orchestrator.local.keeper")

    def one(self, word: str) -> psutil.Process:
        """The process of this folder with `word` in its command, waited for."""
        return wait_until(lambda: process_named(self.folder, word), f"there is a process {word}")

    def journal(self) -> list[list[str]]:
        return sorted(path.read_text().splitlines() for path in self.journals.iterdir())

    def nodes(self) -> list[psutil.Process]:
        """Dispatchers and workers that have written a journal and are alive."""
        pids = [int(path.name) for path in self.journals.iterdir()]
        return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]

    def wait_until_empty(self) -> None:
        wait_until(lambda: not processes_of(self.folder), "no process is left")

    def log(self) -> str:
        return (self.state_dir / "log" / "keeper.log").read_text()


@pytest.fixture
def houses() -> Iterator[Callable[[Account], House]]:
    made: list[House] = []

    def make(account: Account) -> House:
        folder = open_temporary_folder()
        house = House(folder, account)
        made.append(house)
        house.journals.mkdir()
        for path in (folder, house.journals):
            os.chown(path, account.uid, account.gid)
        return house

    yield make
    for house in made:
        for client in house.clients:
            client.process.kill()
            client.process.wait(timeout=60)
            for pipe in (client.process.stdin, client.process.stdout):
                assert pipe is not None
                pipe.close()
        try:
            house.wait_until_empty()
        finally:
            kill_all_of(house)
            shutil.rmtree(house.folder, ignore_errors=True)


def kill_all_of(house: House) -> None:
    for process in processes_of(house.folder):
        with suppress(psutil.NoSuchProcess):  # a server ends by itself when its keeper was killed a moment ago
            process.kill()


def myself() -> Account:
    return Account("", os.geteuid(), os.getegid())


def plain_user() -> Account:
    if os.geteuid() != 0:
        pytest.skip("this is a plain user already")
    return plain_account()


@pytest.fixture
def house(houses: Callable[[Account], House]) -> House:
    return houses(myself())


@pytest.fixture(params=[myself, plain_user])
def each_house(request: pytest.FixtureRequest, houses: Callable[[Account], House]) -> House:
    return houses(request.param())


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, None])
def test_the_end_of_the_only_client_leaves_no_process(each_house: House, end: int | None) -> None:
    client = each_house.open("WORKERS")
    names = {process.name() for process in processes_of(each_house.folder)}
    assert {"postgres", "valkey-server"} <= names or {"postgres", "redis-server"} <= names
    if end is None:
        assert client.end() == 0
    else:
        client.signal(end)
    each_house.wait_until_empty()
    assert not each_house.state_dir.joinpath("leftovers.json").exists()


def test_an_orderly_end_returns_when_everything_has_stopped(house: House) -> None:
    client = house.open("WORKERS", behaviour="slow")
    keeper = house.keeper
    client.end()
    assert [process for process in processes_of(house.folder) if process != keeper] == []


def test_a_client_killed_while_the_stack_starts_leaves_no_process(each_house: House) -> None:
    client = each_house.start()
    wait_until(lambda: process_named(each_house.folder, "initdb"), "initdb runs")
    client.signal(signal.SIGKILL)
    each_house.wait_until_empty()
    each_house.open().end()


def test_two_clients_share_one_stack_and_the_second_outlives_the_first(each_house: House) -> None:
    first, second = each_house.open(), each_house.open()
    assert first.settings == second.settings
    server = each_house.one("postgres -D")
    first.signal(signal.SIGKILL)
    with psycopg.connect(second.database_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert each_house.one("postgres -D") == server
    second.end()
    each_house.wait_until_empty()


def test_five_first_starts_at_once_make_one_stack(each_house: House) -> None:
    clients = [each_house.start() for _ in range(5)]
    urls = {client.wait_until_ready().database_url for client in clients}
    assert len(urls) == 1
    assert each_house.log().count("The keeper serves") == 1
    assert [client.end() for client in clients] == [0] * 5
    each_house.wait_until_empty()


def test_what_was_written_stays_for_the_next_stack(each_house: House) -> None:
    client = each_house.open()
    with psycopg.connect(client.database_url) as connection:
        connection.execute("CREATE TABLE note AS SELECT 'here' AS word")
    redis_of(client).set("note", "here")
    client.end()
    client = each_house.open()
    with psycopg.connect(client.database_url) as connection:
        assert connection.execute("SELECT word FROM note").fetchone() == ("here",)
    assert redis_of(client).get("note") == b"here"


def test_the_servers_notice_that_the_keeper_was_killed_and_the_next_start_works(each_house: House) -> None:
    client = each_house.open("WORKERS")
    with psycopg.connect(client.database_url) as connection:
        connection.execute("CREATE TABLE note AS SELECT 'here' AS word")
    each_house.keeper.kill()
    client.signal(signal.SIGKILL)
    each_house.wait_until_empty()
    assert all(lines[-1] == "keeper gone" for lines in each_house.journal())
    with psycopg.connect(each_house.open().database_url) as connection:
        assert connection.execute("SELECT word FROM note").fetchone() == ("here",)


def test_what_a_killed_keeper_left_alive_is_ended_by_the_next_one(house: House) -> None:
    client = house.open("WORKERS", behaviour="stubborn")
    wait_until(lambda: len(house.journal()) == 2, "both stand-ins run")
    house.keeper.kill()
    client.signal(signal.SIGKILL)
    wait_until(lambda: len(processes_of(house.folder)) == 2, "only the stand-ins live on")
    house.open()
    assert process_named(house.folder, "stubborn") is None
    assert "of a keeper that was killed still runs" in house.log()


def test_a_process_that_took_over_the_id_of_a_leftover_is_spared(house: House) -> None:
    house.open().end()
    innocent = subprocess.Popen(["sleep", "600"])
    entry = {
        "name": "worker-1",
        "pid": innocent.pid,
        "started": psutil.Process(innocent.pid).create_time() - 100,
        "signal": 9,
    }
    (house.state_dir / "leftovers.json").write_text(json.dumps([entry]))
    house.open()
    assert innocent.poll() is None
    innocent.kill()
    innocent.wait()


def test_everything_killed_at_once_is_recovered_by_the_next_start(house: House) -> None:
    client = house.open()
    with psycopg.connect(client.database_url) as connection:
        connection.execute("CREATE TABLE note AS SELECT 'here' AS word")
    kill_all_of(house)
    house.wait_until_empty()
    with psycopg.connect(house.open().database_url) as connection:
        assert connection.execute("SELECT word FROM note").fetchone() == ("here",)


def test_the_id_of_a_killed_server_may_belong_to_somebody_else_by_now(house: House) -> None:
    house.open("DATABASE").end()
    data, sockets = house.state_dir / "postgres/data", house.state_dir / "run/postgres"
    owner = data.stat()
    # PostgreSQL itself takes any living process of its own account for the server.
    somebody = subprocess.Popen(["sleep", "600"], cwd="/", user=owner.st_uid, group=owner.st_gid)
    try:
        for pid_file in (data / "postmaster.pid", sockets / ".s.PGSQL.5432.lock"):
            pid_file.write_text(f"{somebody.pid}\n{data}\n0\n5432\n{sockets}\n\n0 0\nready\n")
            pid_file.chmod(0o600)
            os.chown(pid_file, owner.st_uid, owner.st_gid)
        house.open("DATABASE")
        assert somebody.poll() is None
    finally:
        somebody.kill()
        somebody.wait()


@pytest.mark.parametrize("word", ["postgres -D", "valkey.sock"])
def test_a_server_that_dies_is_started_again(house: House, word: str) -> None:
    client = house.open("WORKERS")
    victim = house.one(word)
    victim.kill()
    wait_until(lambda: house.one(word) != victim, "another one runs")

    def works() -> bool:
        try:
            with psycopg.connect(client.database_url, connect_timeout=1) as connection:
                connection.execute("SELECT 1")
            return bool(redis_of(client).ping())
        except (psycopg.Error, redis.RedisError):
            return False

    wait_until(works, "database and broker answer")
    wait_until(lambda: house.journal() == [DISPATCHER, WORKER], "dispatcher and worker were told so")


def test_a_worker_that_dies_is_started_again(house: House) -> None:
    house.open("WORKERS")
    wait_until(lambda: house.journal() == [DISPATCHER, WORKER], "dispatcher and worker were told so")
    [victim] = [process for process in house.nodes() if process.name() == "worker"]
    victim.kill()
    wait_until(lambda: house.journal() == [DISPATCHER, WORKER, WORKER], "so was the next worker")
    assert "The worker-1 ended by itself (signal 9)" in house.log()


def test_what_dispatcher_and_worker_are_forked_from_may_die(house: House) -> None:
    house.open("WORKERS")
    wait_until(lambda: house.journal() == [DISPATCHER, WORKER], "dispatcher and worker were told so")
    before = house.nodes()
    [server] = {process.parent() for process in before}
    assert server is not None
    server.kill()
    ended = [[*DISPATCHER, "keeper gone"], [*WORKER, "keeper gone"]]
    wait_until(lambda: house.journal() == sorted([*ended, DISPATCHER, WORKER]), "others have taken their places")
    wait_until(lambda: not set(before) & set(processes_of(house.folder)), "those that had no parent are gone")


def test_a_client_that_comes_while_the_stack_stops_gets_a_fresh_one(house: House) -> None:
    first = house.open("WORKERS", behaviour="slow")
    keeper = house.keeper
    first.process.kill()
    wait_until(lambda: not (house.state_dir / "run" / "keeper.sock").exists(), "the keeper is stopping")
    second = house.open()
    assert house.keeper != keeper
    with psycopg.connect(second.database_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_clients_that_come_and_go_always_get_a_stack(house: House) -> None:
    client = house.open()
    for _ in range(6):
        following = house.start()
        client.process.kill()
        client = following.wait_until_ready()
        with psycopg.connect(client.database_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_more_slots_bring_one_more_worker_with_the_difference(house: House) -> None:
    house.open("WORKERS", slots=2)
    house.open("WORKERS", slots=5)
    house.open("WORKERS", slots=4)
    expected = [["dispatcher", "services answer"], ["worker 2", "services answer"], ["worker 3", "services answer"]]
    wait_until(lambda: house.journal() == expected, "a dispatcher and two workers run")


def test_a_stack_for_the_database_alone_starts_nothing_else(house: House) -> None:
    client = house.open("DATABASE")
    assert client.settings["broker_url"] is None
    assert process_named(house.folder, "valkey") is None
    house.open("SERVICES")
    assert process_named(house.folder, "valkey") is not None


def test_ending_the_keeper_by_a_signal_stops_everything(house: House) -> None:
    client = house.open("WORKERS")
    house.keeper.send_signal(signal.SIGTERM)
    wait_until(
        lambda: [process.pid for process in processes_of(house.folder)] == [client.process.pid],
        "only the client is left",
    )


def test_no_password_is_visible_in_the_list_of_processes(house: House) -> None:
    house.open("WORKERS")
    commands = " ".join(word for process in processes_of(house.folder) for word in process.cmdline())
    for service in ("postgres", "valkey"):
        file = house.state_dir / f"{service}.password"
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.read_text() not in commands


def redis_of(client: Client) -> redis.Redis:
    password, path = (
        client.settings["broker_url"].removeprefix("redis+socket://:").removesuffix("?virtual_host=0").split("@")
    )
    return redis.Redis(unix_socket_path=path, password=password)


def test_a_users_own_folder_of_our_name_is_not_taken_for_ours(house: House) -> None:
    for name in ("orchestrator", "workers"):
        (house.folder / name).mkdir()
        (house.folder / name / "__init__.py").write_text("raise RuntimeError('this is somebody else')\n")
    assert house.open("DATABASE").end() == 0
