"""Progress, options and lists by the API, as the hosts tell them."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from tests.demo.sdapi.asked import ASKED, STITCH, Ask, encoded, gradient, picture_of, pixels
from tests.standins import Host


def test_progress_while_it_runs(client: TestClient, held: Any) -> None:
    runs, may = held
    idle = client.get("/sdapi/v1/progress").json()
    assert (idle["progress"], idle["eta_relative"], idle["state"]["job_count"]) == (0, 0, 0)
    with ThreadPoolExecutor(2) as pool:
        body = {**ASKED, "force_task_id": "task(mine)"}
        first = pool.submit(client.post, "/sdapi/v1/txt2img", json=body)
        assert runs.wait(30)
        second = pool.submit(client.post, "/sdapi/v1/txt2img", json={**ASKED, "force_task_id": "task(next)"})
        told = client.get("/sdapi/v1/progress").json()
        assert 0 < told["progress"] < 1
        assert told["state"]["sampling_steps"] == 4
        assert picture_of(told["current_image"]).size == (128, 128)
        assert client.get("/sdapi/v1/progress?skip_current_image=true").json()["current_image"] is None
        mine = client.post("/internal/progress", json={"id_task": "task(mine)", "id_live_preview": -1}).json()
        assert (mine["active"], mine["queued"], mine["completed"]) == (True, False, False)
        assert mine["live_preview"].startswith("data:image/png;base64,")
        known = {"id_task": "task(mine)", "id_live_preview": mine["id_live_preview"]}
        assert client.post("/internal/progress", json=known).json()["live_preview"] is None
        blind = {"id_task": "task(mine)", "live_preview": False}
        assert client.post("/internal/progress", json=blind).json()["live_preview"] is None
        until = time.time() + 30
        while client.get("/internal/pending-tasks").json() != {"size": 1, "tasks": ["task(next)"]}:
            assert time.time() < until
        waiting = client.post("/internal/progress", json={"id_task": "task(next)"}).json()
        assert (waiting["active"], waiting["queued"], waiting["live_preview"]) == (False, True, None)
        may.set()
        assert first.result().status_code == second.result().status_code == 200
    after = client.post("/internal/progress", json={"id_task": "task(mine)"}).json()
    assert (after["active"], after["completed"]) == (False, True)
    assert client.get("/sdapi/v1/progress").json()["current_image"] is None


def test_interrupt_keeps_what_there_is(client: TestClient, draw: Ask, held: Any) -> None:
    runs, may = held
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.post, "/sdapi/v1/txt2img", json={**ASKED, "n_iter": 3})
        assert runs.wait(30)
        assert client.post("/sdapi/v1/interrupt").json() == {}
        assert client.get("/sdapi/v1/progress").json()["state"]["interrupted"] is True
        may.set()
        images = running.result().json()["images"]
    whole = draw()["images"]
    assert len(images) == 1
    assert pixels(images[0]) != pixels(whole[0])


def test_skip_goes_on_with_the_next_batch(client: TestClient, draw: Ask, held: Any) -> None:
    runs, may = held
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.post, "/sdapi/v1/txt2img", json={**ASKED, "n_iter": 2})
        assert runs.wait(30)
        assert client.post("/sdapi/v1/skip").json() is None
        may.set()
        images = running.result().json()["images"]
    assert pixels(images[1]) == pixels(draw(seed=6)["images"][0])
    assert pixels(images[0]) != pixels(draw(seed=5)["images"][0])


def test_options_round_trip(client: TestClient, host: Host) -> None:
    options = client.get("/sdapi/v1/options").json()
    assert set(host.opts.data_labels) <= set(options)
    changed = {"eta_ancestral": 0.5, "sd_model_checkpoint": "sd3.5_medium.safetensors"}
    assert client.post("/sdapi/v1/options", json=changed).json() is None
    now = client.get("/sdapi/v1/options").json()
    assert {key: now[key] for key in changed} == changed
    assert {**now, **{key: options[key] for key in changed}} == options


def test_unknown_options_fail_as_on_the_hosts(client: TestClient) -> None:
    before = client.get("/sdapi/v1/options").json()
    for body, told in (({"sd_model_checkpoint": "mine"}, "model 'mine' not found"), ({"mine": 1}, "'mine'")):
        answer = client.post("/sdapi/v1/options", json=body)
        assert (answer.status_code, answer.json()["errors"]) == (500, told)
    assert client.get("/sdapi/v1/options").json() == before


def test_lists_have_the_hosts_shapes(client: TestClient) -> None:
    shapes = {
        "sd-models": {"title", "model_name", "hash", "sha256", "filename", "config"},
        "samplers": {"name", "aliases", "options"},
        "schedulers": {"name", "label", "aliases", "default_rho", "need_inner_model"},
        "upscalers": {"name", "model_name", "model_path", "model_url", "scale"},
        "latent-upscale-modes": {"name"},
    }
    lists = {name: client.get(f"/sdapi/v1/{name}").json() for name in shapes}
    for name, keys in shapes.items():
        assert lists[name], name
        assert all(set(one) == keys for one in lists[name])
    assert {"sd3.5_large", "sd3.5_medium"} <= {one["model_name"] for one in lists["sd-models"]}
    assert "Euler" in {one["name"] for one in lists["samplers"]}
    assert all(isinstance(value, str) for one in lists["samplers"] for value in one["options"].values())
    assert set(client.get("/sdapi/v1/memory").json()) == {"ram", "cuda"}
    assert client.get("/sdapi/v1/cmd-flags").json()["api"] is True
    assert client.get("/internal/ping").json() == {}
    assert client.get("/sdapi/v1/loras").json() == []


def test_scripts_tell_their_arguments(client: TestClient) -> None:
    assert client.get("/sdapi/v1/scripts").json() == {"txt2img": ["hybridstitch"], "img2img": ["hybridstitch"]}
    first, second = client.get("/sdapi/v1/script-info").json()
    assert (first["name"], first["is_alwayson"], first["is_img2img"], second["is_img2img"]) == (
        "hybridstitch",
        True,
        False,
        True,
    )
    assert all(set(one) == {"label", "value", "minimum", "maximum", "step", "choices"} for one in first["args"])
    assert any(one["choices"] and "T-Stitch" in one["choices"] for one in first["args"])
    assert any(one["minimum"] is not None and one["maximum"] > one["minimum"] for one in first["args"])


def test_checkpoints_are_refreshed_unloaded_and_reloaded(client: TestClient, draw: Ask, tmp_path: Path) -> None:
    before = draw()
    large = next(tmp_path.rglob("sd3.5_large.safetensors"))
    (large.parent / "another.safetensors").write_bytes(large.read_bytes())
    assert client.post("/sdapi/v1/refresh-checkpoints").json() is None
    assert "another" in {one["model_name"] for one in client.get("/sdapi/v1/sd-models").json()}
    unknown = draw(override_settings={"sd_model_checkpoint": "nobody's"})
    assert json.loads(unknown["info"])["sd_model_name"] == "sd3.5_large"  # and not the first of the list
    assert client.post("/sdapi/v1/unload-checkpoint").json() == {}
    assert client.post("/sdapi/v1/reload-checkpoint").json() == {}
    assert pixels(draw()["images"][0]) == pixels(before["images"][0])


def test_a_picture_tells_how_it_was_made(draw: Ask, client: TestClient) -> None:
    answer = draw(alwayson_scripts={"HybridStitch": {"args": [STITCH]}})
    told = client.post("/sdapi/v1/png-info", json={"image": answer["images"][0]}).json()
    assert told["info"] == json.loads(answer["info"])["infotexts"][0]
    assert told["items"] == {}
    assert (told["parameters"]["Seed"], told["parameters"]["Prompt"]) == ("5", "a frog")
    silent = client.post("/sdapi/v1/png-info", json={"image": encoded(gradient())}).json()
    assert silent["info"] == ""
    assert client.post("/sdapi/v1/png-info", json={"image": "no"}).status_code == 500
