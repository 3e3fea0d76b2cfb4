"""Checkpoints with markup for names, and such a prompt, in a real browser: shown letter by letter, and nothing runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.conftest import MARKUP, MARKUP_STRANGER
from tests.browser.tab import Tab

PROMPT = "frog on blue <img src=markup-prompt onerror=window.markupRan=3>"
WATCH = """
window.markupRan = 0;
window.addEventListener('error', (event) => {
    if (event.target instanceof HTMLImageElement && event.target.src.includes('markup-')) {
        window.markupRan = 9;
    }
}, true);
"""


@pytest.fixture
def tab(open_tab: Callable[..., Tab]) -> Tab:
    """A page that knows when something of a name has run, or been asked for."""
    tab = open_tab()
    tab.page.evaluate(WATCH)
    return tab


def nothing_ran(tab: Tab, asked: list[str]) -> None:
    """No script of a name has run, no element was made of one, and nothing was fetched for one."""
    assert tab.page.evaluate("() => window.markupRan") == 0
    made = "img[src*='markup-'], svg[onload], [onerror], [onfocus], [onmouseover]"
    assert tab.page.evaluate(f'() => document.querySelectorAll("{made}").length') == 0
    assert not asked, asked


def test_a_name_with_markup_is_shown_and_never_run(tab: Tab) -> None:
    """In the list, the bar, the progress, the infotext, the timeline, the sentences below, and the comparison."""
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url) if "markup-" in request.url else None)
    tab.page.on("dialog", lambda dialog: asked.append(dialog.message))
    tab.ask(PROMPT, 4, steps=6)
    tab.unfold()
    box = tab.panel("small_checkpoint", "input")
    box.click()
    options = tab.panel("small_checkpoint", "ul li, [role=option]")
    options.first.wait_for(state="visible")
    listed = "\n".join(options.all_inner_texts())
    assert MARKUP in listed and MARKUP_STRANGER in listed
    nothing_ran(tab, asked)

    tab.small(MARKUP_STRANGER)
    tab.panel("bar").filter(has_text=MARKUP_STRANGER).wait_for(state="visible")  # why there is no prediction
    infotext = tab.generate()
    assert "HybridStitch stopped" in infotext and MARKUP_STRANGER in infotext and PROMPT in infotext
    note = tab.panel("run", ".hybridstitch-note")
    note.wait_for(state="visible")
    assert MARKUP_STRANGER in tab.said() and MARKUP_STRANGER in note.inner_text()
    nothing_ran(tab, asked)

    tab.small(MARKUP)
    tab.settle()
    infotext = tab.generate()
    assert "HybridStitch stopped" not in infotext and MARKUP in infotext
    assert tab.steps() == 6
    nothing_ran(tab, asked)

    tab.panel("run", ".hybridstitch-compare").click()
    tab.panel("run", ".hybridstitch-wipe").wait_for(state="visible")
    nothing_ran(tab, asked)
    tab.small("<iframe srcdoc='<script>parent.markupRan=5</script>'>")
    assert "<iframe srcdoc=" in tab.settle()
    nothing_ran(tab, asked)
