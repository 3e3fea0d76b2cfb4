"""The panel without a mouse and without looking: axe-core's rules, names, and the keyboard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.acts import once
from tests.browser.tab import Tab

RULES = {"aria-allowed-attr", "color-contrast", "button-name", "label", "image-alt", "role-img-alt"}
"""Rules that must have found something to look at."""


def paper_run(tab: Tab) -> Tab:
    """A page after a run of three stages."""
    tab.ask("frog and red apple on blue", 4)
    tab.unfold()
    tab.small("demo_small")
    tab.settle()
    tab.preset("Paper")
    tab.settle()
    tab.generate()
    tab.steps()
    return tab


def judge(tab: Tab) -> dict[str, Any]:
    """What axe-core says about what the panel shows."""
    from axe_playwright_python.sync_playwright import Axe

    return dict(Axe().run(tab.page, context=".hybridstitch-live").response)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_wrong_before_and_after_a_run(open_tab: Callable[..., Tab], dark: bool) -> None:
    tab = open_tab(dark=dark)
    tab.unfold()
    tab.settle()
    before = judge(tab)
    tab = paper_run(open_tab(dark=dark))
    tab.panel("run", ".hybridstitch-compare").click()
    tab.panel("run", ".hybridstitch-wipe").wait_for(state="visible")
    after = judge(tab)
    assert [(one["id"], one["nodes"][0]["html"]) for one in before["violations"] + after["violations"]] == []
    assert {one["id"] for one in after["passes"]} >= RULES


@once
def test_the_bar_says_in_words_what_it_shows(tab: Tab) -> None:
    tab.field("steps", 20)
    tab.unfold()
    tab.settle()
    bar = tab.panel("bar", "[role=img]")
    assert "20 steps" in str(bar.get_attribute("aria-label")) and "x" in str(bar.get_attribute("aria-label"))
    assert tab.panel("bar", "[role=status]").count() >= 1


@once
def test_a_refusal_is_announced_and_the_bar_keeps_its_place(tab: Tab) -> None:
    tab.unfold()
    tab.settle()
    height = tab.panel("bar").bounding_box()["height"]
    tab.small("nobody")
    assert "nobody" in tab.settle()
    assert "nobody" in tab.panel("bar", "[role=status]").first.inner_text()
    assert tab.panel("bar").bounding_box()["height"] == pytest.approx(height, abs=24)


def test_timeline_and_comparison_work_by_keyboard_alone(tab: Tab) -> None:
    paper_run(tab)
    slider = tab.panel("run", ".hybridstitch-slider")
    slider.focus()
    slider.press("Home")
    assert str(slider.get_attribute("aria-valuetext")).startswith("Step 1 of 12")
    for _ in range(4):
        tab.page.keyboard.press("Tab")
        focused = tab.page.evaluate("() => document.activeElement.className")
        if "hybridstitch-compare" in focused:
            break
    assert "hybridstitch-compare" in focused
    tab.page.keyboard.press("Enter")
    wiper = tab.panel("run", ".hybridstitch-wipe")
    wiper.wait_for(state="visible")
    tab.page.keyboard.press("Tab")
    assert "hybridstitch-wipe" in tab.page.evaluate("() => document.activeElement.className")
    tab.page.keyboard.press("Home")
    assert "0 %" in str(wiper.get_attribute("aria-valuetext"))
