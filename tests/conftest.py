"""Options of the tests: `--long` for what takes hours, `--webui-*` for a WebUI that is already running."""

from __future__ import annotations

import pytest


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
    """Skip what is marked `long` unless `--long` is given."""
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes long: runs with --long only"))


@pytest.fixture(scope="session")
def long_run(request: pytest.FixtureRequest) -> bool:
    """Whether `--long` is given: tests that run either way try more then."""
    return bool(request.config.getoption("--long"))
