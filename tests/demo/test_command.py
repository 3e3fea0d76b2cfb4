"""`run.py demo`: one prompt drawn in four ways, and what is written about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hybridstitch_demo import command
from hybridstitch_demo.generate import Request, load_pair
from hybridstitch_demo.measure import WAYS, ways
from lib_hybridstitch.settings import StitchSettings, specs

PICTURES = ("large", "hybridstitch", "stepcache", "small")


def drawn(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the command; returns its report."""
    assert command.main([*arguments, "--out", str(folder)]) == 0
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one run has written: two pictures of a prompt with a word that the pair does not know."""
    made = tmp_path_factory.mktemp("demo")
    drawn(made, "frog and zorble on blue", "--steps", "12", "--repeats", "2", "--count", "2", "--seed", "7")
    return made


def test_it_writes_a_picture_of_every_way_their_comparison_and_a_report(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(f"{name}.png" for name in PICTURES), "comparison.png", "report.json"]
    )
    for name in PICTURES:
        assert Image.open(folder / f"{name}.png").size == (256, 128), "side by side"
    assert Image.open(folder / "comparison.png").width > 1000


def test_the_report_says_what_was_done_step_by_step_and_what_came_of_it(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    assert (report["method"], report["seed"], report["count"], report["steps"]) == ("HybridStitch", 7, 2, 12)
    assert report["unknown_words"] == ["zorble"] and report["known_words"] == ["blue", "frog"]
    assert report["ms_large_only"] > report["ms_small_only"] > 0 and report["ms_hybridstitch"] > 0
    assert report["settings"]["preset"] == "Balanced" and report["settings"]["small_checkpoint"] == command.SMALL
    for one in (report, report["step_cache"]):
        assert one["failure"] == "" and len(one["stages"]) == 12
        assert one["speedup_flops"] == pytest.approx(one["forecast"]["speedup"], rel=0.01) and one["speedup_wall"] > 0
        assert one["lpips_to_large"] < report["lpips_small_to_large"]
    stages = report["stages"]
    assert {"large", "masked", "small"} <= {stage["stage"] for stage in stages}
    masked = [stage for stage in stages if stage["kind"] == "M"]
    assert {(stage["tokens_large"], stage["tokens_small"], stage["tokens"]) for stage in masked} == {(19, 64, 64)}
    assert report["mean_mask_ratio"] == pytest.approx(0.3, abs=0.01) and report["cache_bytes"] > 0
    assert report["profile"] == "generic" and report["step_cache"]["profile"] == "shipped with the demo pair"
    assert {stage["stage"] for stage in report["step_cache"]["stages"]} <= {"large", "CFG cached", "extrapolated"}


def test_every_setting_but_those_of_a_webui_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    offered = capsys.readouterr().out
    missing = [name for name in specs() if f"--{name.replace('_', '-')} " not in offered]
    assert missing == ["enabled", "small_checkpoint", "large_checkpoint", "hires", "small_device"]


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"preset": "Fast"}, ("HybridStitch Fast", "Step cache Fast")),
        ({"preset": "Paper"}, ("HybridStitch Paper", "Step cache Balanced")),
        ({"switch_step": 4}, ("HybridStitch", "Step cache Balanced")),
        ({"method": "RAS"}, ("RAS", "Step cache Balanced")),
        ({"target_speedup": 2.0}, ("HybridStitch, for 2x", "Step cache, for 2x")),
        ({"plan": "8L 4M30 S"}, ("Written plan", "Step cache Balanced")),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
def test_another_preset_or_method_takes_the_place_of_hybridstitch(
    asked: dict[str, object], names: tuple[str, str]
) -> None:
    request = Request(("pig on night",), (5,))
    found = ways(load_pair(), request, StitchSettings.from_dict({"small_checkpoint": "small", **asked}), None)
    assert tuple(found) == WAYS
    assert [way.name for way in found.values()] == ["Large model", *names, "Small model"]
    assert {way.resolved.advice for way in found.values() if way.resolved} == {""}


def test_a_target_speedup_holds_for_both_methods(tmp_path: Path) -> None:
    report = drawn(tmp_path, "frog on blue", "--steps", "12", "--repeats", "1", "--target-speedup", "1.5")
    for one in (report, report["step_cache"]):
        assert 0.99 * 1.5 <= one["speedup_flops"] == pytest.approx(one["forecast"]["speedup"], rel=0.01)


def test_the_large_model_in_every_step_is_at_distance_zero_and_told_to_gain_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = drawn(tmp_path, "--steps", "2", "--repeats", "1", "--switch-step", "150", "--json")
    said = capsys.readouterr()
    assert json.loads(said.out) == report
    assert report["lpips_to_large"] == 0 and report["psnr_to_large"] == 100
    assert report["forecast"]["advice"].startswith("Not faster") and report["forecast"]["advice"] in said.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--mask-ratio", "2"], "mask_ratio"),
        (["--plan", "8Q"], "plan has '8Q'"),
        (["--count", "99"], "count is 99, allowed are 1 to 16."),
        (["--size", "100"], "size is 100"),
        (["--repeats", "0"], "repeats"),
    ],
)
def test_wrong_arguments_get_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["frog", *arguments, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()
