"""Options of the tests in `tests/live`, which drive a WebUI that is already running."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--webui-*`; without `--webui-url` the live tests are skipped."""
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
