"""Asked for the method, every door does the method: with a small checkpoint, a switch and a ratio mean HybridStitch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lib_hybridstitch.plans.plan import parse
from lib_hybridstitch.settings import CUSTOM, StitchSettings, specs
from lib_hybridstitch.webui.infotext import Paste
from tests.hosts.conftest import SMALL, Web, make

STEPS = 28
RUN = {"steps": STEPS, "width": 128, "height": 128, "cfg_scale": 3.0, "sampler": "Euler", "scheduler": "Simple"}
ASKED = {"small_checkpoint": SMALL, "switch_step": 4, "mask_ratio": 0.3}
STEP_CACHE = "No small checkpoint is chosen, so Step cache runs."
Asked = dict[str, Any]


@pytest.fixture(scope="module", params=("forge", "a1111"))
def web(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The extension in both families."""
    with pytest.MonkeyPatch.context() as patches:
        yield Web(make(patches, tmp_path_factory.mktemp(request.param), request.param))


def by_dict(web: Web, asked: Asked) -> dict[str, Any]:
    return generated(web, [{"enabled": True, **asked}])


def by_positions(web: Web, asked: Asked) -> dict[str, Any]:
    wanted = {"enabled": True, **asked}
    return generated(web, [wanted.get(name) for name in specs()])


def by_panel(web: Web, asked: Asked) -> dict[str, Any]:
    """The values of the panel's controls after somebody has used them: the label of the preset follows."""
    shown = {
        name: control.value for name, control in zip(specs(), web.host.script("HybridStitch").controls, strict=True)
    }
    moved = {"preset": CUSTOM} if asked.keys() & {"switch_step", "mask_ratio"} else {}
    return generated(web, [{**shown, **asked, **moved, "enabled": True}[name] for name in specs()])


def by_plot(web: Web, asked: Asked) -> dict[str, Any]:
    """A cell of an X/Y/Z plot over a panel that shows the defaults, unticked."""
    return generated(web, list(StitchSettings().to_dict().values()), hybridstitch_xyz=asked)


def by_infotext(web: Web, asked: Asked) -> dict[str, Any]:
    """What somebody has written by hand, pasted into the panel."""
    text = {specs()[name].infotext: str(value) for name, value in asked.items()}
    pasted = {name: Paste(name)(text) for name in specs()}
    return generated(web, list(pasted.values()))


def by_prediction(web: Web, asked: Asked) -> dict[str, Any]:
    """What /plan says of it."""
    body = {"settings": {"enabled": True, **asked}, **RUN}
    told = TestClient(web.host.app).post("/hybridstitch/v1/plan", json=body).json()
    return {"method": told["method"], "plan": told["plan"], "said": [told["advice"]] if told["advice"] else []}


def generated(web: Web, args: list[Any], **attributes: Any) -> dict[str, Any]:
    """Method and plan of a generation, and what the user was told."""
    host = web.host
    values = {"steps": STEPS, "width": 128, "height": 128, "cfg_scale": 3.0, "scheduler": "Simple", **attributes}
    result = host.generate(alwayson={"HybridStitch": args}, **values)
    assert "HybridStitch stopped" not in result.infotext, result.infotext
    said = [comment.removeprefix("HybridStitch: ") for comment in result.comments]
    return {"method": web.last_pass["method"], "plan": web.last_pass["plan"], "said": said}


DOORS = (by_dict, by_positions, by_panel, by_plot, by_infotext, by_prediction)
every_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)


def kinds(plan: str) -> set[str]:
    """The letters of a plan's steps."""
    written, _ = parse(plan)
    assert written is not None
    return {step.kind.value for step in written.steps}


@every_door
def test_a_switch_and_a_ratio_beside_a_small_checkpoint_are_hybridstitch(
    web: Web, door: Callable[[Web, Asked], dict[str, Any]]
) -> None:
    made = door(web, ASKED)
    assert made["method"] == "HybridStitch" and STEP_CACHE not in made["said"]
    assert kinds(made["plan"]) >= {"L", "M", "S"}
    assert made["plan"].startswith("4L ") and "M30" in made["plan"]
    assert door(web, {**ASKED, "switch_step": 6})["plan"].startswith("6L ")
    assert "M50" in door(web, {**ASKED, "mask_ratio": 0.5})["plan"]


@every_door
def test_without_a_small_checkpoint_it_is_the_step_cache_with_its_one_sentence(
    web: Web, door: Callable[[Web, Asked], dict[str, Any]]
) -> None:
    made = door(web, {"switch_step": 4, "mask_ratio": 0.3})
    assert (made["method"], made["said"].count(STEP_CACHE)) == ("Step cache", 1)
    assert kinds(made["plan"]) <= {"L", "C", "X"}


@every_door
def test_a_written_plan_overrides_the_method(web: Web, door: Callable[[Web, Asked], dict[str, Any]]) -> None:
    made = door(web, {"small_checkpoint": SMALL, "plan": "6L 2M40 X 19S"})
    assert (made["method"], made["plan"]) == ("written plan", "6L 2M40 X 19S")


@every_door
def test_the_settings_pages_small_checkpoint_counts(
    web: Web, monkeypatch: pytest.MonkeyPatch, door: Callable[[Web, Asked], dict[str, Any]]
) -> None:
    monkeypatch.setitem(web.host.opts.data, "hybridstitch_small_checkpoint", SMALL)
    assert door(web, {"switch_step": 4})["method"] == "HybridStitch"


def test_a_picture_is_made_again_from_its_infotext(web: Web) -> None:
    """Whatever became of the presets: the plan that ran is what runs."""
    first = web.host.generate(alwayson={"HybridStitch": [{"enabled": True, **ASKED}]}, steps=STEPS)
    read = web.host.module("modules.infotext_utils").parse_generation_parameters(first.infotexts[0])
    pasted = {name: Paste(name)(read) for name in specs()}
    assert pasted["plan"] == web.last_pass["plan"] and pasted["method"] == "HybridStitch"
    again = web.host.generate(alwayson={"HybridStitch": list(pasted.values())}, steps=STEPS)
    assert all(one.equal(other) for one, other in zip(first.images, again.images, strict=True))
