"""Pictures by the API: the hosts' requests in, the hosts' answers out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.demo.sdapi.asked import ASKED, STITCH, Ask, encoded, gradient, picture_of, pixels
from tests.standins import Host

ROUNDING = 2
"""Levels by which a batch may differ from its singles: matrices of another height add up in another order."""


def test_the_answer_has_the_hosts_shape_and_defaults(client: TestClient) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={"prompt": "a frog", "steps": 2, "nobody_knows": 1}).json()
    assert set(answer) == {"images", "parameters", "info"}
    picture, info, parameters = picture_of(answer["images"][0]), json.loads(answer["info"]), answer["parameters"]
    assert (picture.format, picture.size) == ("PNG", (128, 128))
    assert picture.info["parameters"] == info["infotexts"][0]
    assert f"Seed: {info['seed']}" in picture.info["parameters"]
    assert info["seed"] == info["all_seeds"][0] >= 0
    assert (info["sampler_name"], info["steps"], info["cfg_scale"]) == ("Euler", 2, 7.0)
    assert (parameters["seed"], parameters["width"], parameters["sampler_index"]) == (-1, 128, "Euler")
    assert parameters["alwayson_scripts"] == {}
    assert "nobody_knows" not in parameters
    assert "init_images" not in parameters


def test_a_seed_decides_the_picture(draw: Ask) -> None:
    first, again, other = (draw(seed=seed)["images"][0] for seed in (5, 5, 6))
    assert pixels(first) == pixels(again)
    assert pixels(first) != pixels(other)


def test_a_batch_is_its_singles(draw: Ask) -> None:
    batch = draw(batch_size=2)
    singles = [draw(seed=seed)["images"][0] for seed in (5, 6)]
    assert most_apart(batch["images"], singles) <= ROUNDING
    assert json.loads(batch["info"])["all_seeds"] == [5, 6]
    assert "Seed: 6" in picture_of(batch["images"][1]).info["parameters"]
    assert [pixels(one) for one in draw(n_iter=2)["images"]] == [pixels(one) for one in singles]


def most_apart(some: list[str], others: list[str]) -> int:
    """The largest difference of two lists of pictures, in levels of 0 to 255."""
    pairs = zip(some, others, strict=True)
    return max(abs(a - b) for one, other in pairs for a, b in zip(pixels(one), pixels(other), strict=True))


def test_numbers_may_be_texts_and_null_is_the_default(draw: Ask) -> None:
    parameters = draw(steps="3", batch_size=1.0, width=None, hr_checkpoint_name="Use same checkpoint")["parameters"]
    assert (parameters["steps"], parameters["batch_size"], parameters["width"]) == (3, 1, 128)
    assert parameters["hr_checkpoint_name"] is None


def test_an_unknown_sampler_is_the_first_of_the_list_as_on_the_hosts(draw: Ask) -> None:
    info = json.loads(draw(sampler_name="Mine", enable_hr=True, hr_sampler_name="Nobody", hr_scale=1)["info"])
    assert info["sampler_name"] == "DPM++ 2M"


def test_what_the_stand_in_has_no_use_for_is_repeated(draw: Ask) -> None:
    parameters = draw(s_churn=0.5, restore_faces=True)["parameters"]
    assert (parameters["s_churn"], parameters["restore_faces"], parameters["do_not_save_grid"]) == (0.5, True, False)


def test_a_schedule_may_be_at_the_end_of_a_samplers_name(draw: Ask) -> None:
    info = json.loads(draw(sampler_name="Euler Karras", scheduler=None)["info"])
    assert info["sampler_name"] == "Euler"
    assert "Schedule type: Karras" in info["infotexts"][0]


def test_pictures_are_sent_unless_they_are_not_wanted(draw: Ask) -> None:
    answer = draw(send_images=False)
    assert answer["images"] == []
    assert json.loads(answer["info"])["infotexts"]


def test_hires_enlarges(draw: Ask) -> None:
    answer = draw(enable_hr=True, hr_scale=1.5, hr_upscaler="Latent", denoising_strength=0.6, hr_cfg=3)
    assert picture_of(answer["images"][0]).size == (192, 192)


def test_hybridstitch_takes_one_object(draw: Ask) -> None:
    plain = draw()
    stitched = draw(alwayson_scripts={"hybridstitch": {"args": [STITCH]}})
    infotext = json.loads(stitched["info"])["infotexts"][0]
    assert "HybridStitch" in infotext
    assert "HybridStitch" not in json.loads(plain["info"])["infotexts"][0]
    assert picture_of(stitched["images"][0]).info["parameters"] == infotext
    assert pixels(plain["images"][0]) != pixels(stitched["images"][0])


def test_an_infotext_repeats_its_picture(draw: Ask, client: TestClient) -> None:
    stitched = draw(alwayson_scripts={"HybridStitch": {"args": [STITCH]}}, width=160)
    infotext = json.loads(stitched["info"])["infotexts"][0]
    again = client.post("/sdapi/v1/txt2img", json={"infotext": infotext}).json()
    assert again["parameters"]["width"] == 160
    assert pixels(again["images"][0]) == pixels(stitched["images"][0])
    other = client.post("/sdapi/v1/txt2img", json={"infotext": infotext, "seed": 9}).json()
    assert json.loads(other["info"])["seed"] == 9
    off = {"infotext": infotext, "alwayson_scripts": {"HybridStitch": {"args": [False]}}}
    plain = json.loads(client.post("/sdapi/v1/txt2img", json=off).json()["info"])["infotexts"][0]
    assert "HybridStitch" not in plain


def test_settings_of_a_request_end_with_it(draw: Ask, client: TestClient) -> None:
    def threshold() -> Any:
        return client.get("/sdapi/v1/options").json()["skip_early_cond"]

    changed = draw(override_settings={"skip_early_cond": 0.5, "batch_cond_uncond": False})
    assert threshold() == 0.0
    draw(override_settings={"skip_early_cond": 0.5}, override_settings_restore_afterwards=False)
    assert threshold() == 0.5
    assert changed["parameters"]["override_settings"]["skip_early_cond"] == 0.5


def test_img2img_begins_with_a_picture(draw: Ask) -> None:
    plain = encoded(gradient())
    raw = draw("img2img", init_images=[plain], denoising_strength=0.4)
    whole = draw("img2img", init_images=[f"data:image/png;base64,{plain}"], denoising_strength=0.4)
    black = draw("img2img", init_images=[encoded(Image.new("RGB", (128, 128)))], denoising_strength=0.4)
    assert pixels(raw["images"][0]) == pixels(whole["images"][0])
    assert pixels(raw["images"][0]) != pixels(black["images"][0])
    assert raw["parameters"]["init_images"] is None
    kept = draw("img2img", init_images=[plain], include_init_images=True)
    assert kept["parameters"]["init_images"] == [plain]


def test_a_mask_is_white_where_to_paint(draw: Ask) -> None:
    left = Image.new("L", (128, 128))
    left.paste(255, (0, 0, 64, 128))
    transparent = Image.new("RGBA", (128, 128), (9, 9, 9, 255))
    transparent.putalpha(left)
    white = Image.new("RGB", (128, 128), "white")
    asked = {"init_images": [encoded(white)], "denoising_strength": 0.9}
    untouched = draw("img2img", **asked, mask=encoded(Image.new("L", (128, 128))))
    whole = picture_of(untouched["images"][0])
    for mask, invert, painted in ((left, 0, 0), (left, 1, 64), (transparent, 0, 0)):
        answer = draw("img2img", **asked, mask=encoded(mask), inpainting_mask_invert=invert)
        picture = picture_of(answer["images"][0])
        kept = 64 - painted
        assert picture.crop((kept, 0, kept + 64, 128)).tobytes() == whole.crop((kept, 0, kept + 64, 128)).tobytes()
        halves = [one.crop((painted, 0, painted + 64, 128)).tobytes() for one in (picture, whole)]
        assert halves[0] != halves[1]


def test_img2img_refuses_what_is_no_picture(refusal: Ask) -> None:
    assert refusal("img2img") == (404, "Init image not found")
    assert refusal("img2img", init_images=["nothing"]) == (500, "Invalid encoded image")
    assert refusal("img2img", init_images=[7]) == (500, "Invalid encoded image")
    assert refusal("img2img", init_images=["http://127.0.0.1/a.png"]) == (500, "Requests not allowed")
    one = encoded(gradient())
    assert refusal("img2img", init_images=[one], mask="AAAA") == (500, "Invalid encoded image")
    assert refusal("img2img", init_images=[one] * 3)[0] == 422


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        ({"steps": "many"}, 422, "steps is 'many', but must be a whole number."),
        ({"steps": 1.5}, 422, "steps is 1.5, but must be a whole number."),
        ({"steps": True}, 422, "steps is True, but must be a whole number."),
        ({"seed": 2**60}, 422, "seed is 1152921504606846976, but must be from"),
        ({"steps": 0}, 422, "steps is 0, but must be from 1 to 150."),
        ({"cfg_scale": []}, 422, "cfg_scale is [], but must be a number."),
        ({"cfg_scale": "nan"}, 422, "cfg_scale is 'nan', but must be a number."),
        ({"prompt": 7}, 422, "prompt is 7, but must be a text."),
        ({"enable_hr": "perhaps"}, 422, "enable_hr is 'perhaps', but must be true or false."),
        ({"styles": "bright"}, 422, "styles is 'bright', but must be a list."),
        ({"override_settings": []}, 422, "override_settings is [], but must be an object."),
        ({"width": 1024}, 422, "width is 1024, but must be from 64 to 512 pixels in multiples of 16."),
        ({"height": 100}, 422, "height is 100, but must be from 64 to 512 pixels in multiples of 16."),
        ({"enable_hr": True, "hr_scale": 20}, 422, "hr_resize_x or hr_scale makes the width 2560, but it must be from"),
        ({"enable_hr": True, "hr_upscaler": "LDSR"}, 422, "hr_upscaler is 'LDSR', but this WebUI has only Latent."),
        ({"alwayson_scripts": {"Mine": {"args": []}}}, 422, "always on script Mine not found"),
        ({"alwayson_scripts": {"HybridStitch": []}}, 422, "alwayson_scripts must have"),
        ({"alwayson_scripts": {"HybridStitch": {"args": {}}}}, 422, "alwayson_scripts must have"),
        ({"script_name": "Mine"}, 422, "Script 'Mine' not found"),
        ({"refiner_checkpoint": "nobody's"}, 500, "Could not find checkpoint with name nobody's"),
        ({"override_settings": {"nobody_knows": 1}}, 500, "'nobody_knows'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(refusal: Ask, fields: Any, status: int, told: str) -> None:
    answer = refusal(**fields)
    assert answer[0] == status
    assert answer[1].startswith(told)


def test_a_failure_inside_is_told_and_the_next_run_is_whole(
    host: Host, client: TestClient, draw: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = draw()

    def fail(latents: Any) -> Any:
        raise ArithmeticError("no picture today")

    with monkeypatch.context() as patch:
        patch.setattr(host.module("modules.sd_encoding"), "decode", fail)
        answer = client.post("/sdapi/v1/txt2img", json=ASKED)
    assert answer.status_code == 500
    assert answer.json() == {"error": "ArithmeticError", "detail": "", "body": "", "errors": "no picture today"}
    assert host.module("modules.progress").current_task is None
    assert pixels(draw()["images"][0]) == pixels(before["images"][0])
