"""What several tests of the page do."""

from __future__ import annotations

import pytest

from tests.browser.tab import Tab

once = pytest.mark.parametrize("server", ["forge"], indirect=True)
"""For what does not depend on the version of gradio."""
a1111 = pytest.mark.parametrize("server", ["a1111"], indirect=True)

FROG = "frog and red apple on blue"
CLIENT_SIZE = {"width": 128, "height": 128}


def paper(tab: Tab) -> None:
    """The published method, which has three stages and a mask."""
    tab.unfold()
    tab.small("demo_small")
    tab.settle()
    tab.preset("Paper")
    tab.settle()


def drawn(tab: Tab, of: str = "bar", what: str = ".hybridstitch-segment") -> str:
    """The kinds of the steps that the bar shows."""
    return "".join(tab.panel(of, what).evaluate_all("(all) => all.map((one) => one.dataset.kind)"))
