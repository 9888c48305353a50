"""What a plan's repository is when it is submitted, and whatever would stop its job later."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from orchestrator.errors import GitError, RepositoryError
from orchestrator.git import FULL_ID, last_line, object_format, run_git
from orchestrator.redaction import redact_url


@dataclass(frozen=True)
class RepositoryAtSubmission:
    """What a plan's `repo` and `base` meant when it was submitted; `notes` are sentences that the user should see."""

    repo: str
    """Absolute path of the top level or of the bare repository, or the URL as written."""
    base: str
    base_commit: str
    notes: tuple[str, ...] = ()


def resolve_repository(repo: str, base: str | None, *, job_branch: str | None) -> RepositoryAtSubmission:
    """What a plan's `repo` (a path or any git URL) and `base` mean now; None: the branch that HEAD names.

    `job_branch` is the integration branch to be, `orchestrator/<job>`. Nothing is written anywhere. Raises
    `RepositoryError` for whatever would stop the job later: no repository, no commit, no such base, a branch in the way.
    """
    path = Path(repo).expanduser()
    if not os.path.lexists(path) and is_url(repo):
        return _resolve_url(repo, base, job_branch)
    return _resolve_path(path, base, job_branch)


def is_url(repo: str) -> bool:
    """Whether git takes this for a remote: `scheme://…`, or `host:path` as ssh writes it."""
    return "://" in repo or re.match(r"[^/:-][^/:]*:", repo) is not None


def _resolve_path(path: Path, base: str | None, job_branch: str | None) -> RepositoryAtSubmission:
    top, is_bare = _top_level(path)
    _refuse_read_only(top)
    notes = []
    if not is_bare and top != path.resolve():
        notes.append(f"The repository is {top}: {path} is a folder in it.")
    refs = run_git("for-each-ref", "--format=%(refname)", cwd=top, user_config=True).text.splitlines()
    branches = [ref.removeprefix("refs/heads/") for ref in refs if ref.startswith("refs/heads/")]
    _refuse_branch_in_the_way(str(top), branches, job_branch, checked_out=_checked_out_branches(top))
    if base is None:
        head = run_git("symbolic-ref", "--quiet", "--short", "HEAD", cwd=top, check=False, user_config=True)
        name = head.text if head.exit_code == 0 else "HEAD"
    else:
        name = base
    commit = _commit_named(top, name)
    if commit is None:
        _refuse_base(str(top), name, branches, is_empty=not refs and _commit_named(top, "HEAD") is None)
    if name == "HEAD" and base is None:
        name = commit
        notes.append(f"HEAD is on no branch: the work starts from commit {commit[:12]}.")
    if not is_bare and run_git("status", "--porcelain", cwd=top, user_config=True).stdout:
        notes.append(f"{top} has uncommitted changes: agents see committed work only, and the changes stay untouched.")
    return RepositoryAtSubmission(str(top), name, commit, tuple(notes))


def _top_level(path: Path) -> tuple[Path, bool]:
    """The folder that stands for the repository, and whether it is bare."""
    if not path.exists():
        raise RepositoryError(
            f"There is no repository at {path}.",
            context={"repo": str(path)},
            recovery="Write a folder that exists or a git URL as `repo`.",
        )
    if not path.is_dir() or not os.access(path, os.R_OK | os.X_OK):
        why = "can't be read by this user" if path.is_dir() else "is not a folder"
        raise RepositoryError(f"{path} {why}.", context={"repo": str(path)})
    path = path.resolve()
    bare = run_git("rev-parse", "--is-bare-repository", cwd=path, check=False, user_config=True)
    if bare.exit_code != 0:
        _refuse_repository(str(path), bare.stderr)
    asked = "--absolute-git-dir" if bare.text == "true" else "--show-toplevel"
    top = run_git("rev-parse", asked, cwd=path, check=False, user_config=True)
    if top.exit_code != 0:
        raise RepositoryError(
            f"{path} lies inside a .git folder.", context={"repo": str(path)}, recovery="Name the checkout itself."
        )
    return Path(os.fsdecode(top.stdout.removesuffix(b"\n"))), bare.text == "true"


def _refuse_read_only(top: Path) -> None:
    """Workers push into it: that it can't be written would show only after the first agent has done its work."""
    common = run_git("rev-parse", "--path-format=absolute", "--git-common-dir", cwd=top, user_config=True).stdout
    git_folder = Path(os.fsdecode(common.removesuffix(b"\n")))
    for folder in (git_folder / "objects", git_folder / "refs"):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise RepositoryError(
                f"The repository {top} can't be written by this user, and the work is pushed to it.",
                context={"repo": str(top), "folder": str(folder)},
                recovery=f"Mend the permissions of {folder}, or name a copy of the repository: git clone.",
            )


def _commit_named(top: Path, name: str) -> str | None:
    found = run_git(
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        f"{name}^{{commit}}",
        cwd=top,
        check=False,
        user_config=True,
    )
    return found.text if found.exit_code == 0 else None


def _checked_out_branches(top: Path) -> dict[str, str]:
    """Branch → the worktree that has it checked out, linked worktrees included."""
    listing = run_git("worktree", "list", "--porcelain", "-z", cwd=top, user_config=True).stdout
    where, found = "", {}
    for line in os.fsdecode(listing).split("\0"):
        if line.startswith("worktree "):
            where = line.removeprefix("worktree ")
        elif line.startswith("branch refs/heads/"):
            found[line.removeprefix("branch refs/heads/")] = where
    return found


def _resolve_url(url: str, base: str | None, job_branch: str | None) -> RepositoryAtSubmission:
    shown = redact_url(url)
    try:
        listing = run_git("ls-remote", "--symref", "--", url, cwd=None, user_config=True, timeout_seconds=60.0)
    except GitError as error:
        _refuse_repository(shown, error.context.get("stderr", error.message))
    commits: dict[str, str] = {}
    head_branch = None
    for line in listing.text.splitlines():
        value, _, ref = line.partition("\t")
        if value.startswith("ref: ") and ref == "HEAD":
            head_branch = value.removeprefix("ref: refs/heads/")
        elif not value.startswith("ref: "):
            commits[ref] = value
    branches = [ref.removeprefix("refs/heads/") for ref in commits if ref.startswith("refs/heads/")]
    _refuse_branch_in_the_way(shown, branches, job_branch, checked_out={})
    name = base or head_branch or "HEAD"
    meanings = (f"refs/heads/{name}", f"refs/tags/{name}^{{}}", f"refs/tags/{name}", f"{name}^{{}}", name)
    commit = next((commits[ref] for ref in meanings if ref in commits), None)
    if commit is None and FULL_ID.fullmatch(name) and (name in commits.values() or _can_be_fetched(url, name)):
        commit = name
    if commit is None:
        _refuse_base(shown, name, branches, is_empty=not commits)
    return RepositoryAtSubmission(url, name if name != "HEAD" else commit, commit)


def _can_be_fetched(url: str, commit: str) -> bool:
    """Whether the remote gives out a commit by its id. Costs that one commit, and its files where no filter is known."""
    with tempfile.TemporaryDirectory(prefix="orchestrator-") as folder:
        format_ = f"--object-format={object_format(commit)}"
        run_git("init", "--quiet", "--bare", "--template=", format_, folder, cwd=None)
        fetch = ("fetch", "--quiet", "--depth=1", "--filter=tree:0", "--no-tags", "--", url, commit)
        return run_git(*fetch, cwd=Path(folder), check=False, user_config=True).exit_code == 0


def _refuse_repository(repo: str, stderr: str) -> NoReturn:
    if "dubious ownership" in stderr:
        message = f"The repository {repo} belongs to another user, so git refuses to read it."
        recovery = f"If you trust it: git config --global --add safe.directory {shlex.quote(repo)}"
    elif "not a git repository" in stderr and "://" not in repo:
        message = f"{repo} is not a git repository."
        recovery = "Run `git init` and commit there, or name another `repo`."
    else:
        message = f"The repository {repo} can't be read: {last_line(stderr)}."
        recovery = f"Try: git ls-remote {shlex.quote(repo)}"
    raise RepositoryError(message, context={"repo": repo, "stderr": stderr}, recovery=recovery)


def _refuse_base(repo: str, base: str, branches: Sequence[str], *, is_empty: bool) -> NoReturn:
    if is_empty:
        raise RepositoryError(
            f"The repository {repo} has no commit yet.", context={"repo": repo}, recovery="Commit something first."
        )
    shown = ", ".join(sorted(branches)[:10]) + (", …" if len(branches) > 10 else "")
    full_id = " or the full id of a commit" if re.fullmatch(r"[0-9a-f]{7,}", base) else ""
    raise RepositoryError(
        f"There is no commit {base} in {repo}." if full_id else f"There is no branch or tag {base} in {repo}.",
        context={"repo": repo, "base": base},
        recovery=f"Branches there: {shown or 'none'}; write one of them{full_id} as `base`.",
    )


def _refuse_branch_in_the_way(
    repo: str, branches: Sequence[str], job_branch: str | None, *, checked_out: Mapping[str, str]
) -> None:
    """A branch `a` forbids every branch `a/b`, and git refuses a push to a branch that is checked out."""
    if job_branch and job_branch in checked_out:
        raise RepositoryError(
            f"The branch {job_branch} is checked out in {checked_out[job_branch]}, where results must be merged to it.",
            context={"repo": repo, "branch": job_branch},
            recovery="Switch that checkout to another branch.",
        )
    folder = job_branch.rpartition("/")[0] if job_branch else "orchestrator"
    for branch in branches:
        if branch in {folder, job_branch} or (job_branch and branch.startswith(f"{job_branch}/")):
            raise RepositoryError(
                f"The branch {branch} of {repo} is in the way of {job_branch or 'orchestrator/<job>'}.",
                context={"repo": repo, "branch": branch},
                recovery=f"Rename it: git branch -m {shlex.quote(branch)} another-name",
            )
