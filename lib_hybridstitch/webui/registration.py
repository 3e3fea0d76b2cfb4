"""Everything the extension registers with the WebUI, in one function that runs on every load of its script.

What registers when a library module is imported is gone after Reload UI, since library modules stay imported; what
registers when Script objects are made comes too late for the settings page.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_hybridstitch.hosts.detect import detect
from lib_hybridstitch.log import get_logger
from lib_hybridstitch.webui import api, localization, options, xyz
from lib_hybridstitch.webui.extension import Extension

if TYPE_CHECKING:
    from fastapi import FastAPI

UNLOAD = "unload_model_weights"


def register(folder: Path) -> Extension:
    """Make this load's extension and register its callbacks.

    Args:
        folder: of the extension, where its localizations lie.
    """
    from modules import script_callbacks, shared

    extension = Extension(detect(), lambda: options.read(shared.opts, shared.cmd_opts))
    key = f"HybridStitch {id(extension)}"

    def before_ui() -> None:
        localization.register(folder / "localizations")
        xyz.register(extension.host)

    def app_started(_demo: Any, app: FastAPI) -> None:
        api.add_routes(app, extension, getattr(shared.cmd_opts, "api_auth", None))
        xyz.register(extension.host)  # under --nowebui there was no before_ui in time

    def unloaded() -> None:
        _stop_following(key)
        extension.close()

    script_callbacks.on_before_ui(before_ui)
    script_callbacks.on_ui_settings(partial(options.register, extension.host))
    script_callbacks.on_app_started(app_started)
    script_callbacks.on_cfg_denoiser(extension.on_cfg_denoiser)
    script_callbacks.on_model_loaded(lambda _model: _begin_anew(extension))
    script_callbacks.on_script_unloaded(unloaded)
    _follow_unloading(extension, key)  # last: where loading breaks off before, nothing is left in the host's modules
    return extension


def _begin_anew(extension: Extension) -> None:
    """The WebUI has loaded a checkpoint: other weights, other times."""
    extension.timings.clear()
    if extension.release():
        get_logger("webui").info("HybridStitch released its models, because the WebUI's checkpoint changed")


def _follow_unloading(extension: Extension, key: str) -> None:
    """Release our models when the user has the WebUI unload its own; the hosts have no callback for that."""
    from modules import patches, sd_models

    if not hasattr(sd_models, UNLOAD):
        return
    original = getattr(sd_models, UNLOAD)

    def unload_model_weights(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        extension.release()
        return result

    patches.patch(key, sd_models, UNLOAD, unload_model_weights)


def _stop_following(key: str) -> None:
    from modules import patches, sd_models

    if hasattr(sd_models, UNLOAD):
        patches.undo(key, sd_models, UNLOAD)
