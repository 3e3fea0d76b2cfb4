"""A client of the API that others wrote, over a real connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from PIL import Image

from tests.demo.sdapi.asked import STITCH


@pytest.fixture
def served(app: FastAPI) -> Iterator[int]:
    """The port of a server of the API."""
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.time() + 30
    while not server.started:
        assert time.time() < until
        time.sleep(0.02)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(30)


def test_the_webuiapi_client(served: int, capsys: pytest.CaptureFixture[str]) -> None:
    webuiapi = pytest.importorskip("webuiapi")
    api = webuiapi.WebUIApi(port=served, sampler="Euler", scheduler="Simple", steps=4)
    assert (api.has_controlnet, api.has_adetailer, api.has_animatediff) == (False, False, False)
    small = {"width": 128, "height": 128, "cfg_scale": 3}
    result = api.txt2img(prompt="a frog", seed=5, **small, alwayson_scripts={"HybridStitch": {"args": [STITCH]}})
    assert "HybridStitch" in result.image.info["parameters"]
    assert api.png_info(result.image).info == result.info["infotexts"][0]
    mask = Image.new("L", (128, 128), 255)
    again = api.img2img(images=[result.image], mask_image=mask, inpainting_fill=1, seed=5, **small)
    assert again.image.size == (128, 128)
    assert again.parameters["mask"] is None
    with pytest.raises(RuntimeError, match="always on script Mine not found"):
        api.txt2img(alwayson_scripts={"Mine": {"args": []}}, **small)
    api.util_set_model("sd3.5_medium")
    assert "medium" in api.util_get_current_model()
    assert api.set_options({"eta_ancestral": 0.25}) is None
    assert api.get_options()["eta_ancestral"] == 0.25
    api.util_wait_for_ready(check_interval=0.05)
    assert api.get_progress()["progress"] == 0
    assert api.interrupt() == {}
    assert api.skip() is None
    assert "Euler" in api.util_get_sampler_names()
    assert "simple" in api.util_get_scheduler_names()
    for ask in "cmd_flags sd_vae upscalers latent_upscale_modes loras hypernetworks face_restorers".split():
        assert isinstance(getattr(api, f"get_{ask}")(), (list, dict))
    for ask in "realesrgan_models prompt_styles embeddings memory schedulers scripts sd_models".split():
        assert isinstance(getattr(api, f"get_{ask}")(), (list, dict))
    assert api.refresh_checkpoints() is None
    capsys.readouterr()
