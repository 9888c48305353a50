"""What the tests of real programs share: the scripted model, and servers of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.agents.table import Table
from tests.support.model_server.server import ModelServer
from tests.support.services import Services


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    server = ModelServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def servers() -> Iterator[Services]:
    both = Services()
    yield both
    both.close()


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    one = Table()
    yield one
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        one.show()
