"""A bench per stand-in, kept for a whole file of tests, since making one takes longer than using it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.hosts.conftest import HOSTS, Web, make
from tests.reliability.bench import PLANS, Bench

USUAL = [(name, "two models") for name in HOSTS]
MORE = [("forge", "large alone"), ("a1111", "RAS")]
"""In the fast part of a file that names `EVERY_PLAN`: these plans differ from the first one in a few kinds of steps."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every stand-in under the usual plan; with --long under every plan, in the files that ask for it."""
    if "bench" not in metafunc.fixturenames:
        return
    chosen = USUAL
    if getattr(metafunc.module, "EVERY_PLAN", False):
        chosen = [(name, plan) for name in HOSTS for plan in PLANS]
        if not metafunc.config.getoption("--long"):
            chosen = [*USUAL, *MORE]
    metafunc.parametrize("bench", chosen, indirect=True, scope="module", ids=[": ".join(one) for one in chosen])


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The bench of every stand-in; pytest runs all tests of one before it makes the next."""
    name, plan = request.param
    with pytest.MonkeyPatch.context() as patches:
        yield Bench(Web(make(patches, tmp_path_factory.mktemp(name), name)), PLANS[plan])
        gc.unfreeze()
