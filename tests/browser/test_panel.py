"""What the panel does before anything is drawn: controls, bar, plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lib_hybridstitch.settings import specs
from tests.browser.acts import FROG, drawn, once
from tests.browser.tab import Tab, happened
from tests.settings_tables import OWN


def asked(tab: Tab) -> list[dict[str, Any]]:
    """Hears the settings of every question to /plan."""
    found: list[dict[str, Any]] = []

    def hear(request: Any) -> None:
        if request.url.endswith("/hybridstitch/v1/plan"):
            found.append(request.post_data_json["settings"])

    tab.page.on("request", hear)
    return found


# --- the controls


def test_only_the_methods_controls_are_there_and_all_settings_are_sent(tab: Tab) -> None:
    questions = asked(tab)
    tab.unfold()
    tab.settle()
    assert tab.controls() == OWN["Step cache"]
    tab.small("demo_small")
    tab.settle()
    assert tab.controls() == OWN["HybridStitch"]
    for method in ("T-Stitch", "Step cache", "RAS", "HybridStitch"):
        tab.pick("method", method)
        assert tab.settle()
        assert tab.controls() == OWN[method]
        assert tab.panel("preset").is_visible() == (method in ("Step cache", "HybridStitch"))
        assert questions[-1]["method"] == method
    tab.pick("method", "Auto")
    tab.small("")
    tab.settle()
    assert tab.controls() == OWN["Step cache"]
    assert all(list(settings) == list(specs()) for settings in questions)


def test_asked_for_the_method_the_page_draws_by_the_method(tab: Tab) -> None:
    """A small checkpoint, a switch and a ratio: nothing else needs to be known, and each of them counts."""
    tab.ask(FROG, 4, steps=28)
    tab.unfold()
    tab.small("demo_small")
    tab.settle()
    tab.set("switch_step", 4)
    tab.set("mask_ratio", 0.3)
    assert "masked at 30 %" in tab.settle() and tab.chosen_preset() == "Custom"
    assert drawn(tab).startswith("LLLLM")
    infotext = tab.generate()
    assert "HybridStitch method: HybridStitch" in infotext and "HybridStitch plan: 4L " in infotext
    assert "masked at 30 %" in happened(infotext) and " small" in happened(infotext)
    tab.set("switch_step", 6)
    tab.set("mask_ratio", 0.5)
    assert "masked at 50 %" in tab.settle()
    assert drawn(tab).startswith("LLLLLLM")


def test_a_preset_moves_the_numbers_and_a_number_names_the_preset(tab: Tab) -> None:
    tab.unfold()
    tab.small("demo_small")
    tab.settle()
    tab.preset("Fast")
    tab.set("mask_ratio", 0.4)
    tab.settle()
    assert tab.chosen_preset() == "Custom"
    tab.set("mask_ratio", 0.3)
    tab.settle()
    assert tab.chosen_preset() == "Fast"
    tab.set("target_speedup", 2)
    tab.set("switch_step", 0.4)
    tab.settle()
    assert tab.number("target_speedup") == 0, "the target would override the switch"


def test_a_pasted_plan_stays_until_a_control_is_touched(tab: Tab) -> None:
    """However the settings of the infotext differ from those that the panel shows."""
    line = "Steps: 12, Sampler: Euler, CFG scale: 3, Seed: 1, Size: 128x128"
    pasted = f"{FROG}\n{line}, HybridStitch method: HybridStitch, HybridStitch small checkpoint: demo_small"
    pasted += ", HybridStitch preset: Custom, HybridStitch score: change, HybridStitch plan: 6L 2M40 X 3S"
    tab.unfold()
    tab.unfold_advanced()

    def paste() -> None:
        tab.field("prompt", pasted)
        tab.page.click("#txt2img_paste")
        tab.page.wait_for_function("(id) => document.querySelector(`#${id} input`).value", arg=tab.id("plan"))

    touches: list[Callable[[], None]] = [
        lambda: tab.set("mask_ratio", 0.2),
        lambda: tab.pick("score", "disagreement"),
        lambda: tab.preset("Fast"),
        lambda: tab.pick("method", "SRDiffusion"),
        lambda: tab.set("target_speedup", 1.5),
    ]
    for touch in touches:
        paste()
        words = tab.settle()
        assert tab.plan.input_value() == "6L 2M40 X 3S"
        assert "2 masked at 40 %" in words and "The plan under Advanced is in force." in words
        touch()
        assert "The plan under Advanced" not in tab.settle()
        assert tab.plan.input_value() == ""


# --- the bar


@once
def test_the_bar_has_a_segment_per_step_filled_as_it_is_computed(tab: Tab) -> None:
    tab.field("steps", 28)
    tab.unfold()
    tab.small("demo_small")
    tab.unfold_advanced()
    tab.plan.fill("8L 6M30 X 3S 6C 4s")
    tab.settle()
    shares = tab.panel("bar", ".hybridstitch-segment").evaluate_all(
        "(all) => all.map((one) => [one.dataset.kind, one.style.getPropertyValue('--hybridstitch-share'),"
        " one.style.getPropertyValue('--hybridstitch-both')])"
    )
    told = {kind: (float(large), float(both)) for kind, large, both in shares}
    assert drawn(tab) == 8 * "L" + 6 * "M" + "X" + 3 * "S" + 6 * "C" + 4 * "s"
    assert told == {"L": (1, 1), "M": (0.3, 1), "X": (0, 0), "S": (0, 1), "C": (0.5, 0.5), "s": (0, 0.5)}
    assert tab.panel("bar", "li").all_inner_texts() == [
        "8 large", "6 masked at 30 %", "1 extrapolated", "3 small", "6 CFG cached", "4 small CFG cached",
    ]  # fmt: skip


def test_the_bar_follows_at_once_and_says_when_nothing_is_gained(tab: Tab) -> None:
    tab.field("steps", 20)
    tab.unfold()
    before = tab.settle()
    assert "20 steps" in before and "Step cache runs" in before
    tab.preset("Quality")
    assert tab.settle() != before
    tab.set("computed_share", 1)
    assert "Not faster" in tab.settle()
    assert tab.chosen_preset() == "Custom"
    tab.page.fill("#txt2img_steps input[type=number]", "5")
    tab.preset("Fast")
    assert "because this pass is so short" in tab.settle()


def test_behind_a_password_the_panel_says_why_it_tells_nothing(tab: Tab) -> None:
    questions = []

    def refuse(route: Any) -> None:
        questions.append(route.request.url)
        route.fulfill(status=401, body='{"detail": "Give the user name and password of --api-auth."}')

    tab.page.route("**/hybridstitch/v1/plan", refuse)
    tab.unfold()
    assert "--api-auth" in tab.settle()
    tab.set("computed_share", 0.7)
    tab.settle()
    assert len(questions) == 1, "asking again would only fill the browser's console"
    tab.errors.clear()  # the browser itself notes that one
