"""The extension's routes: schema, prediction and last run, their refusals, and the host's password."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lib_hybridstitch.generation.generation import Generation
from lib_hybridstitch.plans import safety
from lib_hybridstitch.prediction.resolver import ADVICE
from lib_hybridstitch.settings import specs
from lib_hybridstitch.webui import api
from lib_hybridstitch.webui.extension import KEPT_RUNS, Extension
from lib_hybridstitch.webui.options import Options
from tests.settings_tables import OWN, PRESETS_OF
from tests.webui.plain_host import PlainHost

SMALL = {"small_checkpoint": "small"}


@pytest.fixture
def extension(tmp_path: Path) -> Extension:
    """An extension over a host whose list holds "small"."""
    return Extension(PlainHost(tmp_path), Options)  # type: ignore[arg-type]


def client(extension: Extension, credentials: str | None = None) -> TestClient:
    """A client of the routes."""
    app = FastAPI()
    api.add_routes(app, extension, credentials)
    return TestClient(app)


def told(extension: Extension, settings: dict[str, Any] | None = None, **run: Any) -> dict[str, Any]:
    """The prediction for settings and a run."""
    answer = client(extension).post("/hybridstitch/v1/plan", json={"settings": settings or {}, **run})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_schema_names_settings_methods_and_presets(extension: Extension) -> None:
    schema = client(extension).get("/hybridstitch/v1/schema").json()
    assert schema["positions"] == list(specs()) == list(schema["settings"]["properties"])
    assert {name: method["settings"] for name, method in schema["methods"].items()} == OWN
    assert {name: list(method["presets"]) for name, method in schema["methods"].items()} == PRESETS_OF
    assert schema["methods"]["HybridStitch"]["presets"]["Paper"]["computed_share"] == 1.0


# --- /plan


def test_plan_says_what_every_step_will_be(extension: Extension) -> None:
    paper = told(extension, {**SMALL, "enabled": True, "preset": "Paper"}, steps=28, width=128, height=96)
    assert (paper["tokens"], paper["method"], paper["profile"]) == (8 * 6, "HybridStitch", "generic")
    assert paper["plan"] == "8L 4M30 16S"
    assert Counter(step["kind"] for step in paper["steps"]) == {"L": 8, "M": 4, "S": 16}
    assert [step["name"] for step in paper["steps"]][7:9] == ["large", "masked"]
    assert [step["large"] for step in paper["steps"]] == [1.0] * 8 + [0.29] * 4 + [0.0] * 16  # 14 of 48 tokens
    assert [step["small"] for step in paper["steps"]] == [0.0] * 7 + [1.0] * 21  # the last large step is a probe
    assert paper["summary"].startswith("8 large, 4 masked at 30 %, 16 small; about ")
    assert paper["speedup"] > 1 and paper["seconds"] is None and paper["reason"] == paper["advice"] == ""


def test_plan_moves_with_switch_and_ratio_once_a_small_checkpoint_is_chosen(extension: Extension) -> None:
    plans = {
        (switch, ratio): told(extension, {**SMALL, "switch_step": switch, "mask_ratio": ratio}, steps=28)
        for switch, ratio in ((4, 0.3), (6, 0.3), (4, 0.5))
    }
    assert {plan["method"] for plan in plans.values()} == {"HybridStitch"}
    assert plans[4, 0.3]["plan"].startswith("4L ") and "M30" in plans[4, 0.3]["plan"]
    assert plans[6, 0.3]["plan"].startswith("6L ")
    assert "M50" in plans[4, 0.5]["plan"] and "M30" not in plans[4, 0.5]["plan"]


def test_plan_without_a_small_checkpoint_is_the_step_cache_and_says_so(extension: Extension) -> None:
    made = told(extension, {"switch_step": 4, "mask_ratio": 0.3})
    assert (made["method"], made["reason"]) == ("Step cache", "step_cache")
    assert made["advice"] == "No small checkpoint is chosen, so Step cache runs."
    assert Counter(step["kind"] for step in made["steps"]).keys() == {"L", "X", "C"}


def test_a_written_plan_overrides_the_method(extension: Extension) -> None:
    made = told(extension, {**SMALL, "plan": "8L 2M40 X 17S"}, steps=28)
    assert (made["plan"], made["method"], made["settings"]["method"]) == ("8L 2M40 X 17S", "written plan", "Auto")
    assert told(extension, {"plan": "1L"}, steps=20)["plan"] == "20L", "it fits a pass of any length"


def test_plan_of_img2img_is_the_end_of_the_run(extension: Extension) -> None:
    part, whole = (told(extension, steps=20, denoising_strength=strength) for strength in (0.5, 1))
    assert [step["sigma"] for step in part["steps"]] == [step["sigma"] for step in whole["steps"]][10:]


def test_cached_rows_are_shares_of_what_is_computed(extension: Extension) -> None:
    made = told(extension, {"plan": "14L 14C"}, steps=28)
    assert [step["large"] for step in made["steps"]] == [1.0] * 14 + [0.5] * 14
    assert made["speedup"] == pytest.approx(28 / 21)


def test_plan_resolves_a_target(extension: Extension) -> None:
    made = told(extension, {**SMALL, "target_speedup": 1.5}, steps=28)
    assert 0.99 * 1.5 <= made["speedup"] < 1.75 and made["reason"] == ""
    assert made["settings"]["target_speedup"] == 1.5


def test_plan_says_what_was_changed_for_safety(extension: Extension) -> None:
    assert told(extension, {"plan": "1X"}, steps=20)["notes"] == [safety.BEGINNING, safety.FEW_STEPS]
    ancestral = told(extension, {"preset": "Fast"}, steps=28, sampler="Euler a")
    assert ancestral["notes"] == [safety.ANCESTRAL]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"preset": "Paper"}, "choose_small"),
        ({**SMALL, "method": "RAS"}, "no_small"),
        ({**SMALL, "switch_step": 150}, "not_faster"),
        ({**SMALL, "target_speedup": 4}, "target"),
        ({"preset": "Quality", "target_speedup": 0.5}, "low_target"),
    ],
)
def test_plan_says_the_one_thing_to_know(extension: Extension, settings: Any, reason: str) -> None:
    made = told(extension, settings, steps=8)
    assert (made["reason"], made["advice"]) == (reason, ADVICE[reason])


def test_plan_takes_the_settings_pages_small_checkpoint_when_enabled(tmp_path: Path) -> None:
    extension = Extension(PlainHost(tmp_path), lambda: Options(small_checkpoint="small"))  # type: ignore[arg-type]
    assert told(extension, {"enabled": True})["method"] == "HybridStitch"
    assert told(extension, {})["method"] == "Step cache"


def test_plan_uses_a_profile_of_the_checkpoint_and_says_when_it_is_broken(extension: Extension) -> None:
    path = extension.host.profiles() / "a2fc6c4a92.json"
    curves = {"sigmas": [0.1, 1.0], "change": [0.1, 1.0], "lasting": [1.0, 1.0]}
    path.write_text(json.dumps({"name": "mine", "checkpoint": "a2fc6c4a92", **curves}))
    assert told(extension)["profile"] == "mine"
    path.write_text("{")
    broken = told(extension)
    assert broken["profile"] == "generic" and broken["notes"][0].startswith("a2fc6c4a92.json: not a profile")


@pytest.mark.parametrize(
    ("request_", "parts"),
    [
        ({"settings": {"smal_checkpoint": "x"}}, ["smal_checkpoint", "small_checkpoint"]),
        ({"settings": {"mask_ratio": 2}}, ["mask_ratio is 2", "from 0 to 1"]),
        ({"settings": {"mask_ratio": "0.3"}}, ["mask_ratio", "'0.3'"]),
        ({"settings": {"plan": "8L Q"}}, ["plan has 'Q'"]),
        ({"settings": [1, 2]}, ["settings is [1, 2], but must be an object"]),
        ({"settings": None}, ["settings is None, but must be an object"]),
        ({"steps": 0}, ["steps is 0, but must be a whole number from 1 to 150."]),
        ({"steps": 2.5}, ["steps", "whole number"]),
        ({"width": True}, ["width"]),
        ({"sampler": 3}, ["sampler"]),
        ({"stepz": 3}, ["stepz", "steps"]),
        ({"settings": {"small_checkpoint": "../../etc/passwd", "preset": "Paper"}}, ["not in the WebUI's list"]),
    ],
)
def test_plan_refuses_in_one_sentence(extension: Extension, request_: dict[str, Any], parts: list[str]) -> None:
    answer = client(extension).post("/hybridstitch/v1/plan", json=request_)
    assert answer.status_code == 422
    said = answer.json()["detail"]
    assert all(part in said for part in parts), said
    assert "\n" not in said


def test_plan_waits_for_a_model(tmp_path: Path) -> None:
    extension = Extension(PlainHost(tmp_path, large=None), Options)  # type: ignore[arg-type]
    answer = client(extension).post("/hybridstitch/v1/plan", json={})
    assert answer.status_code == 503
    assert "No model is loaded yet" in answer.json()["detail"]


# --- /last-run


def test_last_run_is_there_once_something_was_stitched(extension: Extension) -> None:
    web = client(extension)
    assert web.get("/hybridstitch/v1/last-run").status_code == 404
    extension.last_run = {"stopped": ""}
    assert web.get("/hybridstitch/v1/last-run").json() == {"stopped": ""}


def ended(extension: Extension, task: str) -> None:
    """Let a generation end whose settings were refused; that is the shortest there is."""
    extension.host.running = task  # type: ignore[attr-defined]
    kept = (extension.slot, extension.timings)
    generation = Generation(extension.host, lambda: None, None, *kept, extension._finished)  # type: ignore[arg-type]
    generation.on_end(generation)


def test_a_run_is_known_by_its_task(extension: Extension) -> None:
    web = client(extension)
    for task in ("task(one)", "task(two)", ""):
        ended(extension, task)
    assert web.get("/hybridstitch/v1/last-run?task=task(one)").json()["task"] == "task(one)"
    assert web.get("/hybridstitch/v1/last-run").json()["task"] == ""
    assert web.get("/hybridstitch/v1/last-run?task=").status_code == 404
    unknown = web.get("/hybridstitch/v1/last-run?task=task(three)")
    assert (unknown.status_code, unknown.json()["detail"]) == (404, "No run of that task is known.")


def test_the_oldest_runs_are_forgotten_and_a_repeated_task_is_young_again(extension: Extension) -> None:
    for number in range(KEPT_RUNS):
        ended(extension, f"task({number})")
    ended(extension, "task(0)")
    ended(extension, "task(new)")
    known = [number for number in range(KEPT_RUNS) if extension.run_of(f"task({number})")]
    assert known == [0, *range(2, KEPT_RUNS)]


# --- all routes


@pytest.mark.parametrize(
    ("given", "status"), [("ann:x", 200), ("bob:y:z", 200), ("ann:y", 401), ("", 401), ("ann:x,bob:y:z", 401)]
)
def test_routes_ask_for_the_hosts_password(extension: Extension, given: str, status: int) -> None:
    web = client(extension, "ann:x, bob:y:z")
    headers = {"Authorization": "Basic " + base64.b64encode(given.encode()).decode()}
    assert web.get("/hybridstitch/v1/schema", headers=headers).status_code == status
    assert web.get("/hybridstitch/v1/schema").status_code == 401


def test_a_reloaded_extension_replaces_the_routes_of_the_one_before(extension: Extension) -> None:
    app = FastAPI()
    for run in ({"run": 1}, {"run": 2}):
        extension = Extension(extension.host, Options)
        extension.last_run = run
        api.add_routes(app, extension, None)
    assert TestClient(app).get("/hybridstitch/v1/last-run").json() == {"run": 2}
    assert [getattr(route, "path", "") for route in app.routes].count("/hybridstitch/v1/plan") == 1
