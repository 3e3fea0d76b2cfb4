"""A bench per stand-in, kept for a whole file of tests, since making one takes longer than using it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hosts.conftest import HOSTS, Web, make
from tests.reliability.bench import PLAN, Bench


@pytest.fixture(scope="module")
def plan() -> dict[str, Any]:
    """What the extension does in every generation; a file that needs more plans has a fixture of its own."""
    return PLAN


@pytest.fixture(scope="module", params=HOSTS)
def bench(
    request: pytest.FixtureRequest, plan: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """The bench of every stand-in; pytest runs all tests of one before it makes the next."""
    name = request.param
    with pytest.MonkeyPatch.context() as patches:
        yield Bench(Web(make(patches, tmp_path_factory.mktemp(name), name)), plan)
        gc.unfreeze()
