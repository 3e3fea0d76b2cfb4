"""The extension's routes: schema, forecast and last run, their refusals, and the host's password."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from safetensors.torch import save_file

from lib_hybridstitch.errors import CheckpointError
from lib_hybridstitch.generation.generation import Generation
from lib_hybridstitch.hosts.base import CheckpointFile
from lib_hybridstitch.hosts.shared import assumed_schedule
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.settings import PRESETS, StitchSettings, specs
from lib_hybridstitch.webui import api
from lib_hybridstitch.webui.extension import KEPT_RUNS, Extension
from lib_hybridstitch.webui.options import Options
from tests.networks import LARGE, MEDIUM, random_network


class FakeHost:
    """A host with a large model and one small checkpoint."""

    name = "fake"
    running = ""

    def __init__(self, folder: Path, large: MMDiTConfig | None = LARGE) -> None:
        self._folder, self._large = folder, large

    def large_config(self, settings: StitchSettings) -> MMDiTConfig | None:
        return self._large

    def task(self) -> str:
        return self.running

    def context(self) -> int:
        return 154

    def schedule(self, sampler: str, scheduler: str, steps: int) -> tuple[float, ...]:
        return assumed_schedule(steps)

    def find_checkpoint(self, name: str) -> CheckpointFile:
        if name != "small":
            raise CheckpointError(f"{name}: is not in the WebUI's list of checkpoints")
        return CheckpointFile("small", self._folder / "small.safetensors")


@pytest.fixture
def extension(tmp_path: Path) -> Extension:
    """An extension over a fake host whose list holds "small"."""
    save_file(dict(random_network(MEDIUM).state_dict()), tmp_path / "small.safetensors")
    return Extension(FakeHost(tmp_path), Options)  # type: ignore[arg-type]


def client(extension: Extension, credentials: str | None = None) -> TestClient:
    """A client of the routes."""
    app = FastAPI()
    api.add_routes(app, extension, credentials)
    return TestClient(app)


def test_schema_names_every_setting_in_the_order_of_positions(extension: Extension) -> None:
    told = client(extension).get("/hybridstitch/v1/schema").json()
    assert told["positions"] == list(specs())
    assert told["settings"]["additionalProperties"] is False
    assert set(told["presets"]) == set(PRESETS)


def test_plan_foretells_a_run(extension: Extension) -> None:
    request = {
        "settings": {"enabled": True, "small_checkpoint": "small", "preset": "Paper"}, "steps": 28, "width": 128,
        "height": 96, "cfg_scale": 5, "sampler": "Euler", "scheduler": "Simple",
    }  # fmt: skip
    told = client(extension).post("/hybridstitch/v1/plan", json=request).json()
    assert told["tokens"] == 8 * 6
    stages = [step["stage"] for step in told["steps"]]
    assert (stages.count("large"), stages.count("hybrid"), stages.count("small")) == (8, 8, 12)
    assert [step["large"] for step in told["steps"]] == [1.0] * 9 + [0.3] * 7 + [0.0] * 12
    assert told["summary"].startswith("28 steps · 8 large · 8 hybrid at 30%")
    assert told["speedup"] > 1


def test_plan_of_img2img_is_the_end_of_the_run(extension: Extension) -> None:
    """At strength 0.5 the hosts begin 10 // 2 + 1 steps before the end of 10."""
    request = {"settings": {"preset": "Balanced"}, "steps": 10, "denoising_strength": 0.5}
    told = client(extension).post("/hybridstitch/v1/plan", json=request).json()
    whole = client(extension).post("/hybridstitch/v1/plan", json={**request, "denoising_strength": 1}).json()
    assert len(whole["steps"]) == 10
    assert [step["sigma"] for step in told["steps"]] == [step["sigma"] for step in whole["steps"]][4:]


def test_plan_says_when_the_chosen_small_model_has_no_part(extension: Extension) -> None:
    request = {"settings": {"preset": "Balanced", "small_checkpoint": "small"}}
    assert (
        client(extension).post("/hybridstitch/v1/plan", json=request).json()["advice"]
        == "This plan uses no small model."
    )


def test_plan_resolves_a_target_speedup(extension: Extension) -> None:
    request = {"settings": {"preset": "Quality", "target_speedup": 1.5}, "steps": 28, "scheduler": "Simple"}
    told = client(extension).post("/hybridstitch/v1/plan", json=request).json()
    assert 0.99 * 1.5 <= told["speedup"] < 1.65 and told["reason"] == ""
    assert told["settings"]["target_speedup"] == 0 and 0.5 < told["settings"]["full_share"] < 0.75
    full = sum(step["large"] == 1 for step in told["steps"])
    assert told["speedup"] == pytest.approx(28 / full, rel=0.01)


def test_plan_says_which_passes_hold_guidance_and_what_that_saves(extension: Extension) -> None:
    request = {"settings": {"preset": "Balanced"}, "steps": 28, "scheduler": "Simple"}
    told = client(extension).post("/hybridstitch/v1/plan", json=request).json()
    full = [step["held"] for step in told["steps"] if step["large"] == 1]
    assert len(full) == 16 and full == sorted(full) and sum(full) == 4
    assert told["speedup"] == pytest.approx(28 / 14) and "(16 of them full, 4 with guidance held)" in told["summary"]
    unguided = client(extension).post("/hybridstitch/v1/plan", json={**request, "cfg_scale": 1}).json()
    assert unguided["speedup"] == pytest.approx(28 / 16)
    assert not any(step["held"] for step in unguided["steps"]) and "held" not in unguided["summary"]


@pytest.mark.parametrize("small", ["", "small"], ids=["no small checkpoint", "one that stands by"])
def test_plan_says_when_a_target_is_out_of_reach(extension: Extension, small: str) -> None:
    request = {"settings": {"preset": "Balanced", "target_speedup": 4, "small_checkpoint": small}, "steps": 8}
    told = client(extension).post("/hybridstitch/v1/plan", json=request).json()
    assert told["reason"] == "target"
    assert told["advice"] == "4x is out of reach: this is the fastest plan of its kind; lower target_speedup."


@pytest.mark.parametrize("small", ["", "small"], ids=["no small checkpoint", "one that stands by"])
def test_plan_names_the_setting_that_would_make_it_faster(extension: Extension, small: str) -> None:
    """A target's own numbers follow from it, so they are never what to change; nor is an idle checkpoint the news."""
    for settings, reason, named in (
        ({"target_speedup": 0.5}, "low_target", "target_speedup"),
        ({"full_share": 1.0}, "all_placed", "full_share"),
        ({"background": "reuse", "refresh_every": 1}, "all_full", "refresh_every"),
        ({"switch_step": 150}, "all_large", "switch_step"),
    ):
        request = {"settings": {"preset": "Quality", "small_checkpoint": small, **settings}, "steps": 8}
        told = client(extension).post("/hybridstitch/v1/plan", json=request).json()
        assert told["speedup"] == 1.0
        assert (told["reason"], named in told["advice"]) == (reason, True)


def test_plan_works_with_an_empty_request(extension: Extension) -> None:
    assert client(extension).post("/hybridstitch/v1/plan", json={}).status_code == 200


def test_plan_says_when_a_small_checkpoint_is_missing(extension: Extension) -> None:
    told = client(extension).post("/hybridstitch/v1/plan", json={"settings": {"preset": "Paper"}}).json()
    assert told["advice"] == "Choose a small checkpoint: this plan needs one."


@pytest.mark.parametrize(
    ("request_", "parts"),
    [
        ({"settings": {"smal_checkpoint": "x"}}, ["smal_checkpoint", "small_checkpoint"]),
        ({"settings": {"mask_ratio": 2}}, ["mask_ratio is 2", "from 0 to 1"]),
        ({"settings": {"mask_ratio": "0.3"}}, ["mask_ratio", "'0.3'"]),
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
    extension = Extension(FakeHost(tmp_path, large=None), Options)  # type: ignore[arg-type]
    answer = client(extension).post("/hybridstitch/v1/plan", json={})
    assert answer.status_code == 503
    assert "No model is loaded yet" in answer.json()["detail"]


def test_last_run(extension: Extension) -> None:
    web = client(extension)
    assert web.get("/hybridstitch/v1/last-run").status_code == 404
    extension.last_run = {"stopped": ""}
    assert web.get("/hybridstitch/v1/last-run").json() == {"stopped": ""}


def ended(extension: Extension, task: str) -> None:
    """Let a generation end whose settings were refused; that is the shortest there is."""
    extension.host.running = task  # type: ignore[attr-defined]
    kept = (extension.shelf, extension.paces)
    generation = Generation(extension.host, lambda: None, None, *kept, extension._finished)  # type: ignore[arg-type]
    generation.on_end(generation)


def test_a_run_is_known_by_its_task(extension: Extension) -> None:
    web = client(extension)
    for task in ("task(one)", "task(two)"):
        ended(extension, task)
    assert web.get("/hybridstitch/v1/last-run?task=task(one)").json()["task"] == "task(one)"
    assert web.get("/hybridstitch/v1/last-run").json()["task"] == "task(two)"
    unknown = web.get("/hybridstitch/v1/last-run?task=task(three)")
    assert (unknown.status_code, unknown.json()["detail"]) == (404, "No run of that task is known.")


def test_a_run_without_a_task_is_only_the_last_one(extension: Extension) -> None:
    ended(extension, "")
    assert client(extension).get("/hybridstitch/v1/last-run").json()["task"] == ""
    assert client(extension).get("/hybridstitch/v1/last-run?task=").status_code == 404


def test_the_oldest_runs_are_forgotten_and_a_repeated_task_is_young_again(extension: Extension) -> None:
    for number in range(KEPT_RUNS):
        ended(extension, f"task({number})")
    ended(extension, "task(0)")
    ended(extension, "task(new)")
    known = [number for number in range(KEPT_RUNS) if extension.run_of(f"task({number})")]
    assert known == [0, *range(2, KEPT_RUNS)]


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
