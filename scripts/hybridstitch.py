"""HybridStitch as the WebUI's script: it hands every hook on."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from modules import scripts

from lib_hybridstitch.settings import specs
from lib_hybridstitch.webui import panel
from lib_hybridstitch.webui.registration import register

FOLDER = Path(scripts.basedir())
EXTENSION = register(FOLDER)


def with_settings(process: Any) -> Any:
    """Give a hook the settings as parameters, in their public order: other extensions map arguments by these names."""
    own = list(inspect.signature(process).parameters.values())[:2]
    named = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None) for name in specs()]
    process.__signature__ = inspect.Signature([*own, *named])
    return process


class HybridStitch(scripts.Script):
    """One per tab; both hand on to the extension of this load and keep nothing themselves."""

    sorting_priority = 15

    def title(self) -> str:
        """Name in the interface and key of the API; never renamed."""
        return "HybridStitch"

    def show(self, is_img2img: bool) -> Any:
        """Always there, in both tabs."""
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        """Build the panel; its controls are the script's arguments, by position."""
        built = panel.build(EXTENSION.host, is_img2img, self.elem_id, EXTENSION.settings, EXTENSION.release_in_words)
        self.infotext_fields = built.infotext_fields
        self.paste_field_names = built.paste_field_names
        return built.controls

    def before_process(self, p: Any, *args: Any) -> None:
        """Clean up after a generation that died; also when HybridStitch is off."""
        EXTENSION.before_process()

    @with_settings
    def process(self, p: Any, *args: Any, **named: Any) -> None:
        """Read and check the settings, by position or by name; None leaves one at its preset's value or its default."""
        given = {**dict(zip(specs(), args)), **named}
        by_name = {name: value for name, value in given.items() if value is not None}
        EXTENSION.process(p, [by_name] if named else args)

    def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Prepare for a batch."""
        EXTENSION.process_batch(p)

    def process_before_every_sampling(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Place the engine on the model; at a refiner's switch the hook comes without prompts and nothing is placed."""
        if "c" in kwargs:
            EXTENSION.process_before_every_sampling(p, kwargs["x"], kwargs["c"])

    def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
        """Forget the generation."""
        EXTENSION.postprocess(p)
