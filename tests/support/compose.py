"""docker-compose.yml for tests: a Docker engine, images to build on, and a copy of the project with secrets of its own."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from tests.support.command_line import ROOT_OF_THE_PROJECT
from tests.support.waiting import wait_until

COMPOSE_FILE: Final = ROOT_OF_THE_PROJECT / "docker-compose.yml"
PARTS: Final = (
    *("docker-compose.yml", ".dockerignore", "Makefile", "pyproject.toml", "README.md"),
    *("deploy", "orchestrator", "workers"),
)
"""What a user needs of the project to build and start the fleet."""
PULL_SECONDS: Final = 180
SLOTS: Final = 2
"""Of each worker."""
NOT_INHERITED: Final = ("ORCHESTRATOR_", "COMPOSE_", "REDIS_", "POSTGRES_", "FLOWER_")
"""What the user's shell says about a fleet of his own; docker-compose believes it before it believes .env."""


class Unavailable(Exception):  # noqa: N818 - a word for a skip, not an error
    """Something of this machine is missing; the message is a sentence for the skip."""


def compose_program() -> list[str]:
    """`COMPOSE` where it is set, else what is installed. Raises `Unavailable`."""
    if named := os.environ.get("COMPOSE"):
        return shlex.split(named)
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]) and _succeeds(*words, "version"):
            return words
    raise Unavailable("docker-compose is not installed")


@contextmanager
def docker_engine() -> Iterator[None]:
    """An engine that answers: the one that runs, else one that root starts for as long as the block takes."""
    if shutil.which("docker") is None:
        raise Unavailable("docker is not installed")
    with ExitStack() as stack:
        if not _succeeds("docker", "info"):
            if os.geteuid() != 0 or shutil.which("dockerd") is None:
                raise Unavailable("no Docker engine answers, and none can be started")
            stack.enter_context(_started_engine())
        yield


@contextmanager
def _started_engine() -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        engine = subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            try:
                wait_until(lambda: engine.poll() is not None or _succeeds("docker", "info"), "dockerd answers or ends")
            except AssertionError as error:
                raise Unavailable("dockerd was started, and does not answer") from error
            if engine.poll() is not None:
                raise Unavailable(f"dockerd could not be started: exit code {engine.returncode}")
            yield
        finally:
            engine.terminate()
            engine.wait(timeout=60)


def base_images() -> dict[str, str]:
    """The image of each variable: what the variable says, else the public one where it is here, else a local one named
    `standin/python`, `standin/redis` or `standin/postgres`, for machines that pull none, else the public one, pulled.
    Raises `Unavailable`."""
    chosen = {}
    for variable, public in default_images().items():
        local = f"standin/{variable.removesuffix('_IMAGE').lower()}"
        named = os.environ.get(variable)
        known = (name for name in (public, local) if _succeeds("docker", "image", "inspect", name))
        image = named or next(known, None)
        if image is None and _succeeds("docker", "pull", "--quiet", public, timeout_seconds=PULL_SECONDS):
            image = public
        if image is None:
            raise Unavailable(f"{public} can't be pulled: name a local image in {variable}")
        chosen[variable] = image
    return chosen


@dataclass
class ComposeProject:
    """A copy of the project in `folder`, with images, ports, secrets and a name of its own."""

    folder: Path
    program: Sequence[str]
    images: Mapping[str, str]
    name: str = field(default_factory=lambda: f"orchestrator-test-{uuid.uuid4().hex[:8]}")
    image: str = "orchestrator-compose-test"

    def __post_init__(self) -> None:
        kept_out = shutil.ignore_patterns("__pycache__", "*.whl", "fleet.toml")
        for part in PARTS:
            source = ROOT_OF_THE_PROJECT / part
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            more = {"ignore": kept_out} if source.is_dir() else {}
            copy(source, self.folder / part, **more)  # type: ignore[operator]
        self.repositories = self.folder / "repositories"
        self.repositories.mkdir()

    @property
    def uid(self) -> int:
        """Who the containers' processes run as: the owner of the repositories, who can't be root."""
        return os.geteuid() or 10001

    @property
    def variables(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        return inherited | dict(self.images) | {
            "COMPOSE_PROJECT_NAME": self.name,
            "ORCHESTRATOR_IMAGE": self.image,
            "ORCHESTRATOR_UID": str(self.uid),
            "ORCHESTRATOR_SLOTS": str(SLOTS),
            "REPOSITORIES": str(self.repositories),
        }  # fmt: skip

    def run(self, *command: str | Path, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env=self.variables | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert not check or done.returncode == 0, (
            f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )
        return done

    def compose(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(*self.program, *words, check=check)

    def docker(self, *words: str) -> str:
        return self.run("docker", *words).stdout.strip()

    def orchestrator(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command on this machine, outside of the containers, as `make secrets` has told the user to call it."""
        trust = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
        config = {"ORCHESTRATOR_CONFIG": str(self.folder / "deploy" / "fleet.toml")}
        own = {"ORCHESTRATOR_STATE_DIR": str(self.folder / "state")}
        return self.run(sys.executable, "-m", "orchestrator", *words, check=check, **trust, **config, **own)

    def make_secrets(self) -> None:
        """With ports that are free, so that other fleets of this machine are not in the way."""
        ports = dict(zip(("REDIS_PORT", "POSTGRES_PORT", "FLOWER_PORT"), map(str, _free_ports(3)), strict=True))
        self.run("make", "secrets", **ports)

    @property
    def secrets(self) -> dict[str, str]:
        """What is in .env: passwords and ports."""
        lines = (self.folder / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def provide_wheels(self) -> None:
        """Fill the folder of wheels, for builds that reach no registry. They are kept from one run to the next."""
        program = "import sys; print('%d.%d' % sys.version_info[:2])"
        python = self.docker("run", "--rm", self.images["PYTHON_IMAGE"], "python", "-c", program)
        needs = hashlib.sha256((ROOT_OF_THE_PROJECT / "pyproject.toml").read_bytes()).hexdigest()[:12]
        kept = ROOT_OF_THE_PROJECT / "build" / "wheels" / f"{python}-{needs}"
        if not kept.exists():
            new = Path(tempfile.mkdtemp(dir=self.folder))
            subprocess.run(
                ["make", "wheels", f"IMAGE_PYTHON={python}", f"WHEELS={new}"],
                cwd=ROOT_OF_THE_PROJECT,
                check=True,
                timeout=600,
            )
            shutil.copytree(new, kept.with_suffix(".new"), dirs_exist_ok=True)
            kept.with_suffix(".new").rename(kept)
        shutil.copytree(kept, self.folder / "deploy" / "wheels", dirs_exist_ok=True)

    def build(self) -> None:
        """Build the image. It stays, so that the next run finds its layers; an older one of its name goes."""
        before = self._image_id()
        self.compose("build", "migrate")
        if before and before != self._image_id():
            self.run("docker", "image", "rm", before, check=False)

    def scale_workers(self, count: int) -> None:
        """As docs/deploy.md says it: who works is left alone."""
        self.compose("up", "--detach", "--no-recreate", "--no-deps", "--scale", f"worker={count}", "worker")

    def container(self, service: str) -> str:
        """The id of a service's one container."""
        (found,) = self.containers(service)
        return found

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service).stdout.split()

    def left(self) -> dict[str, list[str]]:
        """What the engine still has of this project."""
        label = ("--filter", f"label=com.docker.compose.project={self.name}", "--quiet")
        return {
            "containers": self.docker("ps", "--all", *label).split(),
            "volumes": self.docker("volume", "ls", *label).split(),
            "networks": self.docker("network", "ls", *label).split(),
        }

    def down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "20")

    def _image_id(self) -> str:
        return self.run("docker", "image", "inspect", "--format", "{{.Id}}", self.image, check=False).stdout.strip()


def default_images() -> dict[str, str]:
    """The image variables of docker-compose.yml with their defaults."""
    services = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    words = [
        services["migrate"]["build"]["args"]["PYTHON_IMAGE"],
        services["redis"]["image"],
        services["postgres"]["image"],
    ]
    pairs = (word.removeprefix("${").removesuffix("}").split(":-", 1) for word in words)
    return {variable: default for variable, default in pairs}  # noqa: C416 - split() gives lists


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _succeeds(*command: str, timeout_seconds: float = 60) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
