"""What git needs on a machine's disk: a bare cache a repository, from which other repositories borrow (`borrowing`).

    <root>/<name>-<hash>.git     the cache: `clone --bare`, then fetched into refs/remotes/origin/*
    <root>/<name>-<hash>.lock    held by the one process and thread that writes it

Nothing ever collects garbage in a cache: workspaces borrow its objects, and what no ref of the cache names may be the
base of an agent at work.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.claimed_folders import CLAIMS, claim_now, live_and_dead, locked
from orchestrator.errors import GitError, RepositoryError
from orchestrator.git import NETWORK_TIMEOUT_SECONDS, raise_if_stopped, run_git
from orchestrator.loose_objects import pack_loose_objects
from orchestrator.redaction import redact_url

log = logging.getLogger(__name__)

BRANCHES: Final = "+refs/heads/*:refs/remotes/origin/*"
FETCH: Final = (
    "fetch",
    "--quiet",
    "--prune",  # a branch `a` that became `a/b` would stop every later fetch; its commits stay
    "--no-write-fetch-head",
    "--no-recurse-submodules",
    "--update-shallow",
)
BORROWED: Final = "GIT_ALTERNATE_OBJECT_DIRECTORIES"
PACK_REFS: Final = ("pack-refs", "--all")
"""After each fetch: `borrowing.refs_for_agents` reads one file."""
LOCK_POLL_SECONDS: Final = 0.1
HALF_A_PACK_SECONDS: Final = 3600.0
"""A pack that nobody has written to for so long is nobody's any more."""


@dataclass(frozen=True)
class Lenders:
    """Where the objects of some commits are: in the `objects` folders of the `cache`, and of others beside it. `cached`
    are those commits that the cache has."""

    cache: Path
    objects: tuple[Path, ...]
    cached: tuple[str, ...]


class RepositoryCache:
    """The caches of this machine. Processes and threads may share one `root`.

    Where agents have an account of their own, `for_account`, it can read the objects of a cache and not its configuration.
    """

    def __init__(self, root: Path, *, for_account: bool = False) -> None:
        self.root = root
        self._for_account = for_account
        self._asking = threading.Lock()
        self._seen: dict[tuple[Path, int, int], set[str]] = {}
        """Cache, as its path and its `config`, which is written when it is made → commits found in it; they stay."""

    def path_with(self, repo: str, commits: Sequence[str]) -> Path:
        """The bare cache of `repo`, with these commits in it, whatever ref or none names them on the remote.

        Fetches, one process at a time, only when a commit is missing. Raises `GitError` when the remote can't be read,
        `RepositoryError` when it does not have a commit.
        """
        path = self.root / f"{_cache_name(repo)}.git"
        with self._asking:  # whoever begins in the same moment wants the same, and finds it in what was seen
            if commits and self._seen_in(path).issuperset(commits):
                return path
            missing = _missing(path, commits)
            if not missing:
                self._see(path, commits)
                return path
        with ExitStack() as writing:
            waited = _wait_for(path.with_suffix(".lock"), writing)
            if not path.exists():
                _clone(repo, path)
                waited = True
            if waited:  # whoever held the lock, or the clone, may have brought them
                missing = _missing(path, commits)
            if missing:
                _clear_up(path)
                _fetch(path, repo, missing)
        self._see(path, commits)
        return path

    def lenders_of(self, repo: str, head: str, commits: Sequence[str]) -> Lenders:
        """Where `head` and the commits can be borrowed: `head` from the cache, and the commits from the repository itself
        where that is on this machine, so that nothing is fetched. Raises what `path_with` raises."""
        path = self.path_with(repo, [head])
        objects = _objects_on_this_machine(repo)
        if objects is not None and not _missing(path, commits, objects):
            return Lenders(path, (path / "objects", objects), (head,))
        self.path_with(repo, [head, *commits])
        return Lenders(path, (path / "objects",), (head, *commits))

    def lend(self, lenders: Lenders, new: str, objects: Path) -> None:
        """Give the cache what `new` has beyond its own commits, as one whole pack: a worker here then has its base without
        a fetch. `objects` is the folder that has it. Nothing depends on it: who lacks a commit fetches it."""
        if new in lenders.cached:
            return
        wanted = "".join(f"{commit}\n" for commit in [new, *(f"^{commit}" for commit in lenders.cached)])
        pack = ("pack-objects", "--quiet", "--revs", "objects/pack/pack")
        with suppress(GitError):
            run_git(*pack, cwd=lenders.cache, input=wanted.encode(), env={BORROWED: str(objects)})
            self._seen_in(lenders.cache).add(new)

    def look_again(self, repo: str) -> None:
        """Learn where the branches of a repository on this machine are now, as every fetch of a commit does; unless
        somebody is at it, or nobody answers. Nobody waits for it."""
        path = self.root / f"{_cache_name(repo)}.git"
        with suppress(GitError, OSError), ExitStack() as writing:
            if _objects_on_this_machine(repo) and path.exists() and claim_now(path.with_suffix(".lock"), writing):
                _clear_up(path)
                run_git(*FETCH, "--", repo, BRANCHES, cwd=path, user_config=True, nice=5)
                run_git(*PACK_REFS, cwd=path, nice=5)

    def _see(self, path: Path, commits: Sequence[str]) -> None:
        seen = self._seen_in(path)
        if self._for_account and not seen:
            _open_objects(path)
        seen.update(commits)

    def _seen_in(self, path: Path) -> set[str]:
        try:
            made = (path / "config").stat()
        except FileNotFoundError:
            return set()
        return self._seen.setdefault((path, made.st_ino, made.st_mtime_ns), set())

    def remove_unneeded(
        self, workspaces: Path, needed: Callable[[Sequence[str]], Sequence[str] | None], *, dry_run: bool = False
    ) -> list[str]:
        """Remove the caches of repositories that nobody needs, and return their names.

        `needed` is given the jobs that have a live folder under `workspaces`, and says which repositories are needed;
        None: all of them. Until the caches are out of the way nobody can claim a folder, so whoever begins later
        makes a cache of its own.
        """
        if not self.root.is_dir():
            return []
        with locked(workspaces / CLAIMS):
            live, _ = live_and_dead(workspaces)
            repositories = needed(sorted({name.partition("-")[0] for name in live}))
            if repositories is None:
                return []
            kept = {_cache_name(repo) for repo in repositories}
            unneeded = [path for path in sorted(self.root.glob("*.git")) if path.stem not in kept]
            if dry_run:
                return [path.name for path in unneeded]
            removed = [path.name for path in unneeded if _put_aside(path)]
        for path in self.root.glob("*.removing-*"):
            shutil.rmtree(path, ignore_errors=True)
        return removed


def _cache_name(repo: str) -> str:
    last = repo.rstrip("/").removesuffix(".git").rpartition("/")[2]
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.")[:40] or "repository"
    return f"{readable}-{hashlib.sha256(os.fsencode(repo)).hexdigest()[:12]}"


def _objects_on_this_machine(repo: str) -> Path | None:
    """The `objects` folder of a repository that is a folder here and has all that it names itself; else None."""
    top = Path(repo)
    git_dir = top / ".git" if (top / ".git").is_dir() else top
    objects = git_dir / "objects"
    if not top.is_absolute() or not (objects / "pack").is_dir() or (git_dir / "shallow").exists():
        return None
    is_partial = next(objects.glob("pack/*.promisor"), None) is not None
    return None if is_partial or (objects / "info" / "alternates").exists() else objects


def _missing(path: Path, commits: Sequence[str], more: Path | None = None) -> list[str]:
    """Which of the commits neither the cache nor `more` objects have. Needs no lock: objects arrive as one whole pack,
    never by halves, and those of a repository before the refs that name them."""
    if not path.exists():
        return list(commits) or [""]
    wanted = "".join(f"{commit}^{{commit}}\n" for commit in commits)
    env = None if more is None else {BORROWED: str(more)}
    answer = run_git("cat-file", "--batch-check=%(objectname)", cwd=path, input=wanted.encode(), env=env)
    lines = answer.stdout.decode().splitlines()
    return [commit for commit, line in zip(commits, lines, strict=True) if line.endswith(" missing")]


def _clone(repo: str, path: Path) -> None:
    """A clone that was interrupted stays in its temporary folder: `path` exists only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in path.parent.glob(f"{path.stem}.making-*"):  # we hold the lock, so nobody is making it
        shutil.rmtree(abandoned, ignore_errors=True)
    making = Path(tempfile.mkdtemp(prefix=f"{path.stem}.making-", dir=path.parent))
    try:
        clone = ("clone", "--quiet", "--bare", "--template=", "--", repo, making)
        run_git(*clone, cwd=None, user_config=True, timeout_seconds=NETWORK_TIMEOUT_SECONDS)
        # The URL may hold a password, and is given to each command anyway.
        run_git("config", "--remove-section", "remote.origin", cwd=making)
        run_git(*FETCH, "--", repo, BRANCHES, cwd=making, user_config=True, timeout_seconds=NETWORK_TIMEOUT_SECONDS)
        run_git(*PACK_REFS, cwd=making)
        pack_loose_objects(making)
        making.rename(path)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    log.info("Made the cache %s", path.name, extra={"event": "cache.made", "repo": redact_url(repo)})


def _clear_up(path: Path) -> None:
    """Remove what a git that was killed has left in the cache. We hold the lock, under which alone its refs are written;
    packs are written without it, so only old halves of them go."""
    for name in ("packed-refs.lock", "packed-refs.new"):
        (path / name).unlink(missing_ok=True)
    for half in (path / "objects" / "pack").glob("tmp_*"):
        with suppress(FileNotFoundError):
            if half.stat().st_mtime < time.time() - HALF_A_PACK_SECONDS:
                half.unlink()


def _fetch(path: Path, repo: str, commits: Sequence[str]) -> None:
    """Bring the branches and the commits, in one connection where the remote gives out commits by their ids."""
    branches = (*FETCH, "--", repo, BRANCHES)
    try:
        run_git(*branches, *commits, cwd=path, user_config=True, timeout_seconds=NETWORK_TIMEOUT_SECONDS)
    except GitError as error:
        run_git(*branches, cwd=path, user_config=True, timeout_seconds=NETWORK_TIMEOUT_SECONDS)
        if missing := _missing(path, commits):
            raise RepositoryError(
                f"The repository {redact_url(repo)} does not give out commit {', '.join(missing)}.",
                context={"repo": redact_url(repo), "commits": missing, **error.context},
                recovery="Push a branch that contains it, and start again.",
            ) from error
    run_git(*PACK_REFS, cwd=path)


def _open_objects(cache: Path) -> None:
    """Let other accounts read the objects of a cache, and neither its configuration nor a list of it. What comes later is
    made so (`prepare_for`)."""
    for folder, _, files in os.walk(cache / "objects"):
        Path(folder).chmod(0o755)
        for file in (Path(folder, name) for name in files):
            if file.stat().st_mode & 0o444 != 0o444:
                copy = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
                shutil.copyfile(file, copy)  # it may be one with that of the repository that was cloned
                copy.chmod(0o444)
                copy.replace(file)
    (cache / "config").chmod(0o600)
    cache.chmod(0o711)


def _put_aside(cache: Path) -> bool:
    """Take a cache out of everybody's sight at once, unless somebody writes it."""
    try:
        with locked(cache.with_suffix(".lock"), wait=False):
            cache.rename(cache.with_name(f"{cache.stem}.removing-{secrets.token_hex(4)}"))
    except BlockingIOError:
        return False
    return True


def _wait_for(lock: Path, claims: ExitStack) -> bool:
    """Take the lock; False: nobody held it."""
    if claim_now(lock, claims):
        return False
    while not claim_now(lock, claims):  # whoever holds it may be at a remote that does not answer
        raise_if_stopped()
        time.sleep(LOCK_POLL_SECONDS)
    return True
