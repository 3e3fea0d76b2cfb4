"""What cannot be stitched is painted by the large model alone, and one sentence says why."""

from __future__ import annotations

import copy
import os
from typing import Any

import pytest
import torch

from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.errors import SettingsError
from lib_hybridstitch.prediction.memory import Memory
from lib_hybridstitch.settings import specs
from tests.hosts.conftest import Web, in_a1111, in_forges
from tests.networks import LARGE, MEDIUM
from tests.standins import Result, write_checkpoint


def reason(web: Web, result: Result) -> str:
    """The sentence, after making sure that it stands everywhere and that the picture is the large model's."""
    assert result.swallowed == []
    said = str(result.infotext["HybridStitch stopped"])
    assert "HybridStitch" not in result.infotext
    assert any(said in comment for comment in result.comments)
    assert web.extension.last_run["stopped"] == said
    assert "\n" not in said
    assert torch.equal(result.latents, web.plain)
    return said


@pytest.mark.parametrize(
    ("stitch", "parts"),
    [
        ({"small_checkpoint": ""}, ["needs a small model", "choose a small checkpoint"]),
        ({"small_checkpoint": "", "method": "T-Stitch"}, ["needs a small model"]),
        ({"plan": "8L M30 Q"}, ["plan has 'Q'", "must be steps such as"]),
        ({"small_checkpoint": "nothing"}, ["nothing", "not in the WebUI's list"]),
        ({"small_checkpoint": "sd3.5_medi"}, ["sd3.5_medi", "did you mean sd3.5_medium?"]),
        ({"smal_checkpoint": "x"}, ["'smal_checkpoint'", "did you mean small_checkpoint?"]),
        ({"mask_ratio": 3}, ["mask_ratio is 3", "from 0 to 1"]),
        ({"switch_step": "8"}, ["switch_step is '8'", "must be"]),
        ({"preset": "Turbo"}, ["preset is 'Turbo'", "Balanced"]),
        ({"small_device": "second"}, ["small_device", "--hybridstitch-second-device"]),
    ],
)
def test_wrong_settings(web: Web, stitch: dict[str, Any], parts: list[str]) -> None:
    said = reason(web, web.on(stitch))
    assert all(part in said for part in parts), said


def test_a_checkpoint_that_does_not_fit_the_large_one(web: Web) -> None:
    from dataclasses import replace

    folder = web.host.module("modules.sd_checkpoints").folder[0]
    write_checkpoint(folder / "other.safetensors", replace(LARGE, context_dim=16, depth=2))
    web.host.sd_models.list_models()
    assert "text width" in reason(web, web.on({"small_checkpoint": "other"}))


def test_a_damaged_file(web: Web) -> None:
    folder = web.host.module("modules.sd_checkpoints").folder[0]
    (folder / "broken.safetensors").write_bytes(b"no checkpoint at all")
    web.host.sd_models.list_models()
    assert "broken.safetensors" in reason(web, web.on({"small_checkpoint": "broken"}))


@pytest.mark.skipif(os.name != "posix", reason="pipes are made otherwise elsewhere")
@pytest.mark.parametrize("become", ["nothing", "a folder", "a pipe"])
def test_a_file_of_the_list_that_is_none_any_more(web: Web, become: str) -> None:
    """Gone since the list was read: a sentence and no trace, and a pipe in its place is not waited for."""
    folder = web.host.module("modules.sd_checkpoints").folder[0]
    name = f"passing {become}"
    path = write_checkpoint(folder / f"{name}.safetensors", MEDIUM)
    web.host.sd_models.list_models()
    path.unlink()
    {"nothing": lambda: None, "a folder": path.mkdir, "a pipe": lambda: os.mkfifo(path)}[become]()
    said = reason(web, web.on({"small_checkpoint": name}))
    path.rmdir() if become == "a folder" else path.unlink(missing_ok=True)
    assert said == f"{name}: is in the WebUI's list of checkpoints but no file any more, refresh the list."


def test_a_damaged_name_or_a_long_one_is_one_line(web: Web) -> None:
    assert "must be a text of one line" in reason(web, web.on({"small_checkpoint": "a\nb"}))
    assert len(reason(web, web.on({"small_checkpoint": "x" * 100_000}))) < 200


def test_a_prediction_for_a_sampler_or_schedule_that_is_not_there(web: Web) -> None:
    host = web.extension.host
    assert host.run("Euler", "Simple", 4).steps == 4
    assert [host.run(name, "Simple", 4).ancestral for name in ("Euler", "Euler a")] == [False, True]
    with pytest.raises(SettingsError, match=r"^sampler is 'Eular', but must be one of .*Euler"):
        host.run("Eular", "Simple", 4)
    with pytest.raises(SettingsError, match=r"^scheduler is 'Simpel', but must be one of .*Simple"):
        host.run("Euler", "Simpel", 4)


def test_too_little_memory_is_noticed_before_anything_is_loaded(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.extension.release()
    host = web.extension.host
    monkeypatch.setattr(type(host), "memory", lambda self, device: Memory(1000, 1000))
    said = reason(web, web.on())
    assert "small model" in said
    assert "free" in said
    assert not web.extension.release(), "nothing was loaded"


@in_a1111
def test_timestep_samplers_are_left_alone(web: Web) -> None:
    off = web.off(sampler_name="DDIM")
    result = web.on(sampler_name="DDIM")
    assert "DDIM" in result.infotext["HybridStitch stopped"]
    assert torch.equal(result.latents, off.latents)


@in_forges
def test_another_large_checkpoint_is_refused_where_the_host_can_load_it_itself(web: Web) -> None:
    said = reason(web, web.on({"large_checkpoint": "sd3.5_large"}))
    assert "leave large_checkpoint at current" in said


def test_off_says_nothing(web: Web) -> None:
    result = web.host.generate(alwayson={"HybridStitch": [{"enabled": False}]}, steps=4)
    assert not [key for key in result.infotext if "HybridStitch" in key]
    assert result.comments == []


def test_a_wrong_position_of_a_ticked_panel_is_named(web: Web) -> None:
    wrong = {"enabled": True, "small_checkpoint": web.small, "switch_step": 1.5}
    result = web.host.generate(alwayson={"HybridStitch": [wrong.get(name) for name in specs()]}, steps=8)
    assert "switch_step is 1.5" in result.infotext["HybridStitch stopped"]


def test_positions_mean_what_the_dictionary_means(web: Web) -> None:
    by_name = web.on()
    settings = by_name.p.extra_generation_params
    wanted = web.extension.last_run["settings"]
    by_position = web.host.generate(alwayson={"HybridStitch": [wanted[name] for name in specs()]}, steps=8)
    assert torch.equal(by_position.latents, by_name.latents)
    assert by_position.infotext == {key: value for key, value in settings.items() if value is not None}


def test_axes_of_a_grid_change_settings(web: Web) -> None:
    by_name = web.on({"mask_ratio": 0.6})

    p = web.host.processing(steps=8)
    p.scripts, p.hybridstitch_xyz = web.host.runner("txt2img"), {"mask_ratio": 0.6}
    ticked = {"HybridStitch": [{"small_checkpoint": web.small, "preset": "Paper"}]}
    by_axis = web.host.run(p, web.host.script_args("txt2img", ticked))
    assert torch.equal(by_axis.latents, by_name.latents)


def test_the_cells_of_a_grid_record_their_own_settings_only(web: Web) -> None:
    """A plot makes its cells with shallow copies of one object, which share what is to be recorded."""
    p = web.host.processing(steps=20)
    p.scripts = web.host.runner("txt2img")

    def cell(**changes: Any) -> Any:
        made = copy.copy(p)
        made.hybridstitch_xyz = changes
        ticked = {"HybridStitch": [{"enabled": True, "small_checkpoint": web.small}]}
        return web.host.run(made, web.host.script_args("txt2img", ticked)).infotext

    plain, target = cell(), cell(target_speedup=3)
    assert target["HybridStitch target speedup"] == "3" and target["HybridStitch plan"] != plain["HybridStitch plan"]
    assert cell(mask_ratio=0.25)["HybridStitch mask ratio"] == "0.25"
    assert cell() == plain
    assert not [key for key in cell(enabled=False) if key.startswith("HybridStitch")]


def test_the_settings_pages_small_checkpoint_is_used_when_none_is_chosen(web: Web) -> None:
    named = web.on()
    unnamed = web.on({"small_checkpoint": ""}, settings={"hybridstitch_small_checkpoint": web.small})
    assert torch.equal(unnamed.latents, named.latents)
    assert unnamed.infotext["HybridStitch small checkpoint"] == web.small


@pytest.mark.parametrize("fault", ["before", "during"])
def test_the_log_is_told_once(
    web: Web, fault: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "before":
        web.on({"small_checkpoint": "nothing"}, n_iter=3)
    else:
        monkeypatch.setattr(Stitcher, "_masked", lambda *_: 1 / 0)
        web.on()
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


@in_forges
def test_where_the_webui_divides_by_zero_the_user_is_told_what_to_choose(web: Web) -> None:
    result = web.on(scheduler="Automatic")
    said = str(result.infotext["HybridStitch stopped"])
    assert said.startswith("the stitched velocity at sigma 0.000 is not finite; ")
    assert "choose another schedule type, such as Simple" in said
    assert "choose another schedule type" not in str(web.on(scheduler="Simple").infotext)
