"""The method this extension is named after, asked for as plainly as can be; and what every preset keeps to."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from lib_hybridstitch.plans.plan import Kind, Step, parse
from lib_hybridstitch.prediction.resolver import ADVICE
from tests.hosts.conftest import HIRES, SMALL, Web
from tests.standins import Result

CALL: dict[str, Any] = {"small_checkpoint": SMALL, "switch_step": 4, "mask_ratio": 0.3}
PRESETS = [
    *(("HybridStitch", preset) for preset in ("Quality", "Balanced", "Fast", "Paper")),
    *(("Step cache", preset) for preset in ("Quality", "Balanced", "Fast")),
]
FULL_ROW = {Kind.EXTRAPOLATED: 2, Kind.MASKED: 2, Kind.CFG_CACHED: 3, Kind.SMALL_CFG_CACHED: 3}
"""How many large steps in a row a step of that kind rests on."""
ROOT = Path(__file__).resolve().parents[2]


def planned(result: Result) -> tuple[Step, ...]:
    """The steps that a picture records."""
    first, _ = parse(str(result.infotext["HybridStitch plan"]))
    assert first is not None
    return first.steps


def large_first(steps: Sequence[Step]) -> int:
    """With how many large steps a plan begins."""
    return next((index for index, step in enumerate(steps) if step.kind is not Kind.LARGE), len(steps))


@pytest.mark.parametrize("steps", [8, 28])
def test_the_plainest_call_is_the_method_with_all_its_stages(web: Web, steps: int) -> None:
    web.call({**CALL, "plan": "1S"})  # the small model is there to be counted
    with web.counted() as counts:
        result = web.call(CALL, steps=steps)
    plan, kinds = planned(result), [step.kind for step in planned(result)]
    assert {Kind.LARGE, Kind.MASKED, Kind.SMALL} <= set(kinds) and len(plan) == steps
    assert large_first(plan) == 4 and kinds[4] is Kind.MASKED
    assert {step.ratio for step in plan if step.kind is Kind.MASKED} == {0.3}
    assert result.infotext["HybridStitch method"] == "HybridStitch"
    assert "HybridStitch stopped" not in result.infotext
    masked, probe = kinds.count(Kind.MASKED), 1
    assert counts["small"] == masked + kinds.count(Kind.SMALL) + kinds.count(Kind.SMALL_CFG_CACHED) + probe
    assert counts["large"] == kinds.count(Kind.LARGE) + masked
    assert [step["kind"] for step in web.last_pass["steps"]] == [kind.value for kind in kinds]


def test_switch_and_ratio_move_the_plan(web: Web) -> None:
    firsts = {at: large_first(planned(web.call({**CALL, "switch_step": at}, steps=12))) for at in (3, 4, 6, 0.25, 0.5)}
    assert [firsts[at] for at in (3, 4, 6)] == [3, 4, 6] and 0 < firsts[0.25] < firsts[0.5] < 12
    for ratio in (0.1, 0.5):
        plan = planned(web.call({**CALL, "mask_ratio": ratio}, steps=12))
        assert {step.ratio for step in plan if step.kind is Kind.MASKED} == {ratio}
        tokens = web.last_pass["grid"][0] * web.last_pass["grid"][1]
        masks = [step["mask"][0] for step in web.last_pass["steps"] if step["mask"]]
        assert masks and {len(mask) for mask in masks} == {round(ratio * tokens)}


@pytest.mark.parametrize("stitch", [{}, {"switch_step": 4, "mask_ratio": 0.3}], ids=["nothing", "the same keys"])
def test_without_a_small_checkpoint_the_step_cache_runs_and_one_sentence_says_so(
    web: Web, stitch: dict[str, Any]
) -> None:
    web.extension.timings.clear()
    result = web.call(stitch, steps=28)
    assert result.infotext["HybridStitch method"] == "Step cache"
    assert {step.kind for step in planned(result)} <= {Kind.LARGE, Kind.CFG_CACHED, Kind.EXTRAPOLATED}
    assert result.comments == [f"HybridStitch: {ADVICE['step_cache']}"]


def resting(steps: Sequence[str]) -> Iterator[str]:
    """What is wrong with the beginning of a pass, given the kinds that ran."""
    if steps[:2] != ["L", "L"][: len(steps)]:
        yield "does not begin with two large steps"
    row = most = 0
    for index, kind in enumerate(steps):
        row = row + 1 if kind == "L" else 0
        most = max(most, row)
        small = "SSS" in "".join(steps[:index]) and kind == "s"
        if most < FULL_ROW.get(Kind(kind), 0) and not small:
            yield f"step {index} is {kind} after at most {most} large steps in a row"


@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_every_pass_of_every_preset_begins_with_what_later_steps_rest_on(web: Web, method: str, preset: str) -> None:
    stitch = {"method": method, "preset": preset}
    ways: list[dict[str, Any]] = [{"steps": steps} for steps in (1, 2, 3, 4, 8, 20, 28)]
    ways += [{"steps": steps, "kind": "img2img", "denoising_strength": 0.3} for steps in (8, 20)]
    ways += [{"steps": 3, **HIRES, "hr_second_pass_steps": steps} for steps in (1, 6)]
    for way in ways:
        result = web.on(stitch, width=64, height=64, **way)
        assert "HybridStitch stopped" not in result.infotext
        passes = web.extension.last_run["passes"]
        assert len(passes) == 1 + ("enable_hr" in way)
        for done in passes:
            ran = [step["kind"] for step in done["steps"]]
            assert list(resting(ran)) == [], f"{way}: {' '.join(ran)}"


def test_what_is_looked_for_above_would_be_found() -> None:
    assert len(list(resting(["L", "M", "L", "L", "C", "X"]))) == 3
    assert list(resting(["L", "L", "M", "S"])) == list(resting(["L"])) == []


def ours_above(network: Any) -> list[str]:
    """Functions of ours between the host's sampling and its model, from inside one of the model's own modules."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_locals.get("self") is not network:
        frame = frame.f_back
    while frame is not None and frame.f_locals.get("self") is network:  # its forward, and torch's way into it
        frame = frame.f_back
    found = []
    while frame is not None and not (frame.f_code.co_name == "sample" and "generation" in frame.f_code.co_filename):
        if frame.f_code.co_filename.startswith((f"{ROOT}/lib_hybridstitch", f"{ROOT}/scripts")):
            found.append(f"{frame.f_code.co_filename}: {frame.f_code.co_name}")
        frame = frame.f_back
    return found


@pytest.mark.parametrize("stitch", [{"plan": "1L"}, CALL], ids=["all large", "the method"])
def test_at_most_six_frames_of_ours_lie_between_the_host_and_its_model(web: Web, stitch: dict[str, Any]) -> None:
    network = web.host.load()
    seen: list[list[str]] = []
    handle = network.x_embedder.register_forward_pre_hook(lambda *_: seen.append(ours_above(network)))
    try:
        web.call({"small_checkpoint": web.small, **stitch})
    finally:
        handle.remove()
    large = len(seen) if "plan" in stitch else 3  # the method's fourth is the probe, whose pass is ours
    for frames in seen[:large]:
        assert 1 <= len(frames) <= 6, "\n".join(frames)
