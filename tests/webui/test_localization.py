"""Translations: complete, for the texts that are really shown, and found by packs of other names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib_hybridstitch.plans import safety
from lib_hybridstitch.plans.plan import Kind
from lib_hybridstitch.prediction.resolver import ADVICE
from lib_hybridstitch.settings import specs
from lib_hybridstitch.webui import localization, options, xyz
from lib_hybridstitch.webui.texts import NOTES, PAGE
from run import ROOT

FOLDER = ROOT / "localizations"
LANGUAGES = ("en", "ja", "zh-Hans", "de")
NOT_TRANSLATED = {"HybridStitch", "T-Stitch", "SRDiffusion", "RAS", "fp8"}


def translation(language: str) -> dict[str, str]:
    return dict(json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8")))


def test_the_panels_texts_are_what_the_page_shows(report: dict[str, Any]) -> None:
    shown = set()
    for control in report["controls"]["txt2img"]:
        shown |= {control["label"], control["info"] or control["label"]}
    for spec in specs().values():  # a checkpoint's choices are names of files
        shown |= set(spec.choices)
    buttons = {"Advanced", "Release the small model", "Read the checkpoint folders again"}
    assert set(report["texts"]) == shown - NOT_TRANSLATED | buttons | set(PAGE.values()) | set(NOTES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_that_is_shown_is_translated_and_no_other(report: dict[str, Any], language: str) -> None:
    assert set(translation(language)) == {*report["texts"], *options.texts(), *xyz.texts()}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_translation_is_empty_or_padded(language: str) -> None:
    assert all(text and text == text.strip() for text in translation(language).values())


def test_english_is_itself() -> None:
    assert all(key == text for key, text in translation("en").items())


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_other_languages_translate_sentences_and_keep_the_numbers(language: str) -> None:
    sentences = {key: text for key, text in translation(language).items() if key.endswith(".")}
    assert sentences
    for key, text in sentences.items():
        assert key != text
        assert all(word in text for word in ("SD3.5", "8L 4M30 X M30 2X S", "fp8", "--api-auth") if word in key), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_keep_what_is_filled_in(language: str) -> None:
    translated = translation(language)
    braces = {text: sorted(re.findall(r"{\w+}", text)) for text in PAGE.values()}
    assert any(braces.values())
    assert {text: sorted(re.findall(r"{\w+}", translated[text])) for text in PAGE.values()} == braces


def test_the_pages_scripts_say_what_there_is_and_nothing_else() -> None:
    """Every key that a script names exists, and every text is said somewhere."""
    source = "".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "javascript").glob("*.js")))
    said = set(re.findall(r'\bsay\("(\w+)"', source))
    assert said
    assert said <= set(PAGE)
    kinds = {f"{of}_{kind.value}" for of in ("kind", "count") for kind in Kind}  # they say these by the server's word
    reasons = {f"reason_{word}" for word in ADVICE}
    assert kinds | reasons <= set(PAGE)
    strings = set(re.findall(r'"(\w+)"', source)) | kinds | reasons
    assert set(PAGE) <= strings


def test_a_sentence_of_the_server_stands_once() -> None:
    """The page says in its own language what /plan and a generation say in English."""
    assert {PAGE[f"reason_{word}"] for word in ADVICE} == set(ADVICE.values())
    assert set(NOTES) == {text for name, text in vars(safety).items() if name.isupper() and isinstance(text, str)}


@pytest.mark.parametrize(
    ("stem", "ours"),
    [
        ("ja", "ja"),
        ("ja_JP", "ja"),
        ("ja-JP (Stable)", "ja"),
        ("zh_CN", "zh-Hans"),
        ("zh-Hans (Stable)", "zh-Hans"),
        ("zh", "zh-Hans"),
        ("zh_TW", ""),
        ("zh-Hant (Testing)", ""),
        ("de_DE", "de"),
        ("DE", "de"),
        ("en_US", "en"),
        ("ko_KR", ""),
        ("default", ""),
        ("jaunty", ""),
        ("", ""),
    ],
)
def test_the_language_of_a_file_name(stem: str, ours: str) -> None:
    assert localization.language(stem) == ours


def test_packs_of_other_names_get_our_file_once_and_first(host_module: Callable[..., Any], tmp_path: Path) -> None:
    files = {"ja_JP": ["/pack/ja_JP.json"], "ja": [str(FOLDER / "ja.json")], "zh_TW": ["/pack/zh_TW.json"], "zh_CN": []}
    host_module("modules.localization", localizations=files)
    for _ in range(2):
        localization.register(FOLDER)
    assert files == {
        "ja_JP": [str(FOLDER / "ja.json"), "/pack/ja_JP.json"],
        "ja": [str(FOLDER / "ja.json")],
        "zh_TW": ["/pack/zh_TW.json"],
        "zh_CN": [str(FOLDER / "zh-Hans.json")],
    }
    localization.register(tmp_path)  # holds no translation at all
    assert files["ja_JP"] == [str(FOLDER / "ja.json"), "/pack/ja_JP.json"]
