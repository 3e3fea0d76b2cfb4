"""What happens around a run: interrupt, skip, another checkpoint, unloading, the X/Y/Z plot."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.live.client import Result, WebUI, same

MANY_STEPS = 150


@pytest.fixture(autouse=True)
def _unharmed(webui: WebUI) -> Iterator[None]:
    """Whatever a test does, the host's own picture is the same afterwards."""
    webui.reference()
    yield
    assert webui.shows_its_own(webui.generate())


def _stopped_by(webui: WebUI, route: str, step: int, **changes: Any) -> Result:
    """A stitched run that is stopped through the API after some steps."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(webui.generate, webui.settings(preset="Paper"), steps=MANY_STEPS, **changes)
        webui.wait_for_step(step)
        webui.post(route, {})
        return running.result()


@pytest.mark.parametrize("step", [3, 60, 110], ids=["among large steps", "among masked ones", "among small ones"])
def test_interrupt(webui: WebUI, step: int) -> None:
    result = _stopped_by(webui, "/sdapi/v1/interrupt", step)
    assert result.status == 200
    assert result.stopped == ""
    [done] = webui.last_run()["passes"]
    assert step <= len(done["steps"]) < MANY_STEPS


def test_skip_leaves_the_next_batch_alone(webui: WebUI) -> None:
    result = _stopped_by(webui, "/sdapi/v1/skip", 3, n_iter=2)
    assert result.status == 200
    assert result.stopped == ""
    [done] = webui.last_run()["passes"]
    assert len(done["steps"]) == MANY_STEPS


def test_a_run_after_an_interrupt_is_as_before(webui: WebUI) -> None:
    args = webui.settings(preset="Paper")
    before = webui.generate(args)
    _stopped_by(webui, "/sdapi/v1/interrupt", 60)
    assert same(webui.generate(args), before)


def test_another_checkpoint_in_between(webui: WebUI) -> None:
    if not webui.target.other:
        pytest.skip("name a second checkpoint with --webui-other")
    args = webui.settings(preset="Paper")
    first = webui.generate(args)
    with webui.options(sd_model_checkpoint=webui.target.other):
        other = webui.generate(args)
        assert other.stopped == ""
        assert other.happened
        if webui.runs_large_itself:
            assert not same(other, first)
            assert same(webui.generate(webui.all_large()), webui.generate())
    assert same(webui.generate(args), first)


def test_unload_and_reload(webui: WebUI) -> None:
    args = webui.settings(preset="Paper")
    first = webui.generate(args)
    for _ in range(2):
        webui.post("/sdapi/v1/unload-checkpoint", {})
        webui.post("/sdapi/v1/reload-checkpoint", {})
        again = webui.generate(args)
        assert again.stopped == ""
        assert same(again, first)


def _plot(webui: WebUI, axes: dict[str, str]) -> Result:
    """Run the X/Y/Z plot over up to three of our axes, values with commas between; sub-images are included."""
    scripts = webui.get("/sdapi/v1/script-info")
    script = next((one for one in scripts if one["name"] == "x/y/z plot" and not one["is_img2img"]), None)
    if script is None:
        pytest.skip("this WebUI has no X/Y/Z plot")
    labels = script["args"][0]["choices"]
    args: list[Any] = []
    for label, values in [*axes.items(), *[("Nothing", "")] * (3 - len(axes))]:
        args += [labels.index(label), values, []]
    ticks = {"Draw legend": False, "Include Sub Images": True, "Use text inputs instead of dropdowns": True}
    args += [ticks.get(entry["label"], entry["value"]) for entry in script["args"][9:]]
    settings = webui.settings(enabled=False, preset="Paper")
    return webui.generate(settings, script_name="x/y/z plot", script_args=args)


def test_a_plot_over_our_axes(webui: WebUI) -> None:
    axes = {"[HybridStitch] Preset": "Paper, Balanced", "[HybridStitch] Mask ratio": "0.2, 0.5"}
    plot = _plot(webui, axes)
    assert plot.status == 200, plot.error
    cells = plot.pictures[-4:]
    for cell, (preset, ratio) in zip(cells, [(p, r) for r in (0.2, 0.5) for p in ("Paper", "Balanced")], strict=True):
        single = webui.generate(webui.settings(preset=preset, mask_ratio=ratio))
        assert (cell == single.pictures[0]).all()


def test_a_plot_with_and_without(webui: WebUI) -> None:
    plot = _plot(webui, {"[HybridStitch] Enabled": "False, True"})
    assert plot.status == 200, plot.error
    off, on = plot.pictures[-2:]
    assert (off == webui.generate().pictures[0]).all()
    assert (on == webui.generate(webui.settings(preset="Paper")).pictures[0]).all()
