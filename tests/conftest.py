"""Options of the tests, `--long` for what takes hours and `--webui-*` for a running WebUI; and who waits for whom.

The whole suite is shared among as many processes as there are cores; tests that are named run in one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from xdist.scheduler import LoadFileScheduling

from tests.turns import MOST_WORKERS, Workers

WORKERS = Workers.here()
BROWSER = Path(__file__).parent / "browser"
LONGEST = ("test_typing_and_lint.py", "test_serve.py", "test_benchmarks.py", "test_peers.py")
"""Files of few tests that take long: begun last, they would keep one process busy while the others are done."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--long`, and `--webui-*`; without `--webui-url` the tests in `tests/live` are skipped."""
    parser.addoption("--long", action="store_true", help="run every test, those included that take hours")
    group = parser.getgroup("webui", "a running WebUI with the extension, started with --api")
    for name, default, text in (
        ("url", "", "address, such as http://127.0.0.1:7860"),
        ("small", "sd3.5_medium", "small checkpoint, as the WebUI's list names it"),
        ("large", "current", "large checkpoint; 'current' is the WebUI's own"),
        ("other", "", "another checkpoint of the same family that the WebUI can switch to, and refine with"),
        ("wrong", "", "a checkpoint of another family, to be refused"),
        ("forms", "", "the small checkpoint in other file formats, names with commas between"),
    ):
        group.addoption(f"--webui-{name}", default=default, help=text)
    group.addoption("--webui-size", type=int, default=128, help="edge of a picture in pixels")
    group.addoption("--webui-steps", type=int, default=8, help="sampling steps")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked `long` unless `--long` is given; what takes longest begins first."""
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="takes long: runs with --long only"))
    if WORKERS.count:
        tests = Counter(item.path for item in items)
        items.sort(key=lambda one: (BROWSER not in one.path.parents, one.path.name not in LONGEST, -tests[one.path]))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """The processes take files in the order of the tests."""
    return ByFile(config, log)


class ByFile(LoadFileScheduling):
    """A file of tests belongs to one process, and those in a browser to a single one: they share a started page."""

    def _split_scope(self, nodeid: str) -> str:
        folder = f"{BROWSER.parent.name}/{BROWSER.name}/"
        return folder if nodeid.startswith(folder) else str(super()._split_scope(nodeid))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many processes as there are cores for the whole suite; none beside this one where tests are named."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return min(os.cpu_count() or 1, MOST_WORKERS) if whole else 0


def pytest_configure() -> None:
    """Each process computes on one core: networks are so small here that a second one would only wait for the first."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _turn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Wait until this test may run."""
    alone = request.node.get_closest_marker("alone") is not None
    with WORKERS.turn(alone, tmp_path_factory.getbasetemp().parent):
        yield


@pytest.fixture(scope="session")
def long_run(request: pytest.FixtureRequest) -> bool:
    """Whether `--long` is given: tests that run either way try more then."""
    return bool(request.config.getoption("--long"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say loudly when the tests in a browser were not run."""
    skipped = [
        report for report in terminalreporter.stats.get("skipped", []) if report.nodeid.startswith("tests/browser/")
    ]
    if skipped:
        terminalreporter.write_line(
            f"WARNING: {len(skipped)} tests in a browser were SKIPPED: {skipped[0].longrepr[2]}", red=True, bold=True
        )
