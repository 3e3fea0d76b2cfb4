"""Callbacks: registered by the file that calls, reported when they fail, all cleared when the UI is reloaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modules import errors
from modules.standin import journal

CATEGORIES = (
    "app_started model_loaded ui_tabs ui_train_tabs ui_settings before_image_saved image_saved extra_noise "
    "cfg_denoiser cfg_denoised cfg_after_cfg before_component after_component image_grid infotext_pasted "
    "script_unloaded before_ui on_reload list_optimizers list_unets before_token_counter"
).split()
REVERSED = ("script_unloaded", "before_ui")


@dataclass
class ScriptCallback:
    """A registered function and the file that registered it."""

    script: str
    callback: Any
    name: str = "unnamed"


@dataclass
class CFGDenoiserParams:
    """What `on_cfg_denoiser` functions are handed, before the model is called."""

    x: Any
    image_cond: Any
    sigma: Any
    sampling_step: int
    total_sampling_steps: int
    text_cond: Any
    text_uncond: Any
    denoiser: Any = None


@dataclass
class CFGDenoisedParams:
    """What `on_cfg_denoised` functions are handed: the rows' results before guidance."""

    x: Any
    sampling_step: int
    total_sampling_steps: int
    inner_model: Any


@dataclass
class AfterCFGCallbackParams:
    """What `on_cfg_after_cfg` functions are handed: the guided result."""

    x: Any
    sampling_step: int
    total_sampling_steps: int


@dataclass
class ExtraNoiseParams:
    """What `on_extra_noise` functions are handed."""

    noise: Any
    x: Any
    xi: Any


callback_map: dict[str, list[ScriptCallback]] = {f"callbacks_{category}": [] for category in CATEGORIES}


def _caller() -> str:
    return next((frame.filename for frame in inspect.stack() if frame.filename != __file__), "unknown file")


def add_callback(
    callbacks: list[ScriptCallback],
    fun: Callable[..., Any],
    *,
    name: str | None = None,
    category: str = "unknown",
    filename: str | None = None,
) -> None:
    """Append a function under a name that tells its file and category and is unique in the list."""
    filename = filename or _caller()
    full = f"base/{Path(filename).name}/{category}" + (f"/{name}" if name else "")
    taken, unique, index = {known.name for known in callbacks}, full, 0
    while unique in taken:
        index += 1
        unique = f"{full}-{index}"
    callbacks.append(ScriptCallback(filename, fun, unique))


def clear_callbacks() -> None:
    """Forget every callback."""
    for callbacks in callback_map.values():
        callbacks.clear()


def remove_current_script_callbacks() -> None:
    """Forget what the calling file registered."""
    filename = _caller()
    for callbacks in callback_map.values():
        callbacks[:] = [known for known in callbacks if known.script != filename]


def remove_callbacks_for_function(callback_func: Callable[..., Any]) -> None:
    """Forget one function."""
    for callbacks in callback_map.values():
        callbacks[:] = [known for known in callbacks if known.callback != callback_func]


def ordered_callbacks(category: str) -> list[ScriptCallback]:
    """The functions of a category, in the order in which they are called."""
    callbacks = list(callback_map[f"callbacks_{category}"])
    return callbacks[::-1] if category in REVERSED else callbacks


def _run(category: str, *args: Any, **kwargs: Any) -> list[Any]:
    """Call every function of a category; what fails is reported and passed over."""
    journal.hooks.append(category if category == "on_reload" else f"on_{category}")
    results = []
    for known in ordered_callbacks(category):
        try:
            results.append(known.callback(*args, **kwargs))
        except Exception:  # noqa: BLE001 - as the hosts do; an interrupt passes
            errors.report(f"Error executing callback {category} for {known.script}", exc_info=True)
    return results


def _registrar(category: str) -> Callable[..., None]:
    def register(callback: Callable[..., Any], *, name: str | None = None) -> None:
        add_callback(callback_map[f"callbacks_{category}"], callback, name=name, category=category)

    register.__doc__ = f"Register a function for {category}."
    return register


def _runner(category: str) -> Callable[..., list[Any]]:
    def run(*args: Any, **kwargs: Any) -> list[Any]:
        return _run(category, *args, **kwargs)

    run.__doc__ = f"Call the functions registered for {category}."
    return run


for _category in CATEGORIES:
    globals()["on_before_reload" if _category == "on_reload" else f"on_{_category}"] = _registrar(_category)
    globals()["app_reload_callback" if _category == "on_reload" else f"{_category}_callback"] = _runner(_category)
