"""The embedded WebUI in a headless Chromium, under both versions of gradio that WebUIs pin.

Without a Chromium these tests are skipped, and the end of the run says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from hybridstitch_demo.autoencoder import PAIR
from lib_hybridstitch.mmdit.checkpoint import load
from tests.browser import chromium
from tests.browser.server import Server, serving
from tests.browser.tab import Tab
from tests.networks import SD3, random_network
from tests.standins import write_checkpoint

LIKE = ("forge", "a1111")
STRANGER = "stranger"
"""A checkpoint in the list that is no partner of the pair."""
MARKUP = "<img src=markup-a onerror=window.markupRan=1>"
MARKUP_STRANGER = '"><svg onload="window.markupRan=2"><img src=markup-b onerror=window.markupRan=2>'
"""The same under names that are markup: a copy of the pair's small model, and one that is no partner."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One headless Chromium for all tests."""
    program = chromium.find()
    if not program:
        pytest.skip(f"there is no Chromium: install Debian's package chromium, or name one in {chromium.VARIABLE}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(chromium.FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="session", params=LIKE)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page in both likenesses, with a checkpoint of another size in its list."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in (STRANGER, MARKUP_STRANGER):
        write_checkpoint(folder / f"{name}.safetensors", random_network(SD3))
    write_checkpoint(folder / f"{MARKUP}.safetensors", load(PAIR / "small.safetensors", dtype=torch.float32))
    with serving(request.param, "--ckpt-dir", str(folder)) as started:
        yield started


@pytest.fixture
def open_tab(browser: Any, server: Server) -> Iterator[Callable[..., Tab]]:
    """Opens pages, each with a storage of its own unless one is given; none may leave an error in the console."""
    contexts: list[Any] = []
    tabs: list[Tab] = []

    def make(context: Any = None, width: int = 1280, dark: bool = False, **options: Any) -> Tab:
        if context is None:
            context = browser.new_context(viewport={"width": width, "height": 1000}, **options)
            contexts.append(context)
        tab = Tab(context.new_page(), server.address, dark)
        tabs.append(tab)
        return tab

    yield make
    errors = [error for tab in tabs for error in tab.errors]
    for context in contexts:
        context.close()
    assert not errors, "\n".join(errors)


@pytest.fixture
def tab(open_tab: Callable[..., Tab]) -> Tab:
    """One page."""
    return open_tab()
