"""The settings page, the flags, and the two files a WebUI runs before the extension."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import install
from lib_hybridstitch.webui import options
from lib_hybridstitch.webui.options import Options
from preload import preload


class OptionInfo:
    """The WebUI's own, as far as it goes."""

    def __init__(self, default: Any, label: str, component: Any = None, component_args: Any = None, **more: Any):
        self.default, self.label, self.component, self.component_args = default, label, component, component_args
        self.more, self.comment_after = more, ""

    def info(self, text: str) -> OptionInfo:
        self.comment_after += f"<span class='info'>({text})</span>"
        return self


class Host:
    """One checkpoint, and a second once the folders are read again."""

    def __init__(self) -> None:
        self.titles = ["medium.safetensors"]

    def checkpoint_titles(self) -> list[str]:
        return list(self.titles)

    def refresh_checkpoints(self) -> None:
        self.titles.append("new.safetensors")


@pytest.fixture
def page(host_module: Callable[..., Any]) -> dict[str, OptionInfo]:
    """What `register` adds."""
    added: dict[str, OptionInfo] = {}
    host_module("gradio", Dropdown="a dropdown")
    host_module("modules.options", OptionInfo=OptionInfo)
    host_module("modules.shared", opts=SimpleNamespace(add_option=added.__setitem__))
    options.register(Host())
    return added


def test_the_page_lies_in_our_section_under_stable_diffusion(page: dict[str, OptionInfo]) -> None:
    assert list(page) == ["hybridstitch_small_checkpoint", "hybridstitch_comments", "hybridstitch_timings"]
    for option in page.values():
        assert option.more["section"] == ("hybridstitch", "HybridStitch")
        assert option.more["category_id"] == "sd"


def test_the_pages_defaults_are_those_that_hold_without_it(page: dict[str, OptionInfo]) -> None:
    shown = {key: option.default for key, option in page.items()}
    assert (
        options.read(SimpleNamespace(data=shown)) == options.read(SimpleNamespace(data={})) == Options("", True, False)
    )


def test_its_texts_are_listed_for_translators(page: dict[str, OptionInfo]) -> None:
    shown = [option.label for option in page.values()]
    shown += [option.comment_after[len("<span class='info'>") : -len("</span>")] for option in page.values()]
    assert set(options.texts()) == {text for text in shown if text}


def test_the_checkpoint_list_can_be_refreshed(page: dict[str, OptionInfo]) -> None:
    small = page["hybridstitch_small_checkpoint"]
    assert small.component == "a dropdown"
    assert small.component_args() == {"choices": ["", "medium.safetensors"]}
    small.more["refresh"]()
    assert small.component_args() == {"choices": ["", "medium.safetensors", "new.safetensors"]}


def flags(*arguments: str) -> Any:
    parser = ArgumentParser()
    preload(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("saved", "arguments", "small"),
    [
        ({}, (), ""),
        ({}, ("--hybridstitch-small", "flag"), "flag"),
        ({"hybridstitch_small_checkpoint": "page"}, ("--hybridstitch-small", "flag"), "page"),
        ({"hybridstitch_small_checkpoint": ""}, ("--hybridstitch-small", "flag"), "flag"),
        ({"hybridstitch_small_checkpoint": None}, (), ""),
    ],
)
def test_the_page_comes_before_the_command_line(saved: dict[str, Any], arguments: tuple[str, ...], small: str) -> None:
    assert options.read(SimpleNamespace(data=saved), flags(*arguments)).small_checkpoint == small


def test_saved_values_hold() -> None:
    saved = {"hybridstitch_comments": False, "hybridstitch_timings": True}
    assert options.read(SimpleNamespace(data=saved)) == Options("", comments=False, timings=True)


def test_the_second_device_is_a_flag() -> None:
    assert flags("--hybridstitch-second-device", "cuda:1").hybridstitch_second_device == "cuda:1"
    assert flags().hybridstitch_second_device is None


@pytest.mark.parametrize(
    ("version", "missing", "says"),
    [
        ((3, 10, 0), (), ""),
        ((3, 13, 1), (), ""),
        ((3, 9, 13), (), "needs Python 3.10 or newer, but this WebUI runs on 3.9"),
        ((3, 10, 0), ("torch", "einops"), "cannot work without torch, einops,"),
    ],
)
def test_what_install_complains_about(version: tuple[int, ...], missing: tuple[str, ...], says: str) -> None:
    said = install.complaint(version, missing)
    assert says in said
    assert bool(said) == bool(says)


def test_install_is_silent_where_everything_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    install.main()
    assert capsys.readouterr().out == ""


def test_install_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(install, "NEEDED", ("torch", "a_library_nobody_has"))
    install.main()
    assert "cannot work without a_library_nobody_has," in capsys.readouterr().out
