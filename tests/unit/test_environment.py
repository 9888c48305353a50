"""An agent sees what it needs, and nothing that belongs to the fleet."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from orchestrator.environment import agent_environment, own_programs_environment


def environment(base: dict[str, str], *allow: str, **extra: str) -> dict[str, str]:
    return agent_environment(base=base, allow=allow, extra=extra, cookie="the-cookie")


def test_only_what_a_list_names_passes() -> None:
    base = {
        "LANG": "C",
        "LC_TIME": "de_DE",
        "HTTPS_PROXY": "http://proxy",
        "SECRET": "s",
        "AWS_REGION": "r",
        "KEY": "k",
    }
    seen = environment(base, "KEY", "AWS_*")
    assert {name: seen.get(name) for name in base} == {**base, "SECRET": None}


def test_no_variable_of_the_fleet_passes_even_if_a_list_names_it() -> None:
    base = {"ORCHESTRATOR_BROKER_URL": "b", "ORCHESTRATOR_DATABASE_URL": "d", "ORCHESTRATOR_JOB": "an outer job"}
    seen = environment(base, "ORCHESTRATOR_*", "*")
    assert not any(name.startswith("ORCHESTRATOR_") for name in seen.keys() - {"ORCHESTRATOR_ATTEMPT"})


def test_the_workers_own_programs_see_nothing_of_the_fleet() -> None:
    of_the_fleet = {
        "ORCHESTRATOR_BROKER_URL": "b",
        "PGPASSWORD": "p",
        "FLOWER_BASIC_AUTH": "me:f",
        "CELERY_BROKER_URL": "b",
    }
    others = {"ORCHESTRATOR_ATTEMPT": "the worker's cookie", "HOME": "/home/me", "HOUSE_VARIABLE": "stays"}
    assert own_programs_environment({**of_the_fleet, **others}) == others


def test_the_attempts_own_variables_and_its_cookie_are_there() -> None:
    seen = environment({"ORCHESTRATOR_ATTEMPT": "an outer attempt", "LANG": "C"}, ORCHESTRATOR_JOB="3f2a", LANG="de_DE")
    assert (seen["ORCHESTRATOR_JOB"], seen["ORCHESTRATOR_ATTEMPT"], seen["LANG"]) == ("3f2a", "the-cookie", "de_DE")


def test_the_programs_beside_the_worker_stay_on_the_path() -> None:
    folders = environment({"PATH": "/usr/bin"})["PATH"].split(os.pathsep)
    assert "/usr/bin" in folders
    if sys.prefix != sys.base_prefix:
        assert folders[0] == str(Path(sys.executable).parent)


def test_without_a_path_there_is_one() -> None:
    assert environment({})["PATH"].endswith(os.defpath)
