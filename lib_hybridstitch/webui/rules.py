"""What the panel's controls do to one another: values in, values and `gr.update`s out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_hybridstitch.settings import CUSTOM, DEFAULT_PRESET, StitchSettings, method_specs

Resolve = Callable[[Sequence[Any]], StitchSettings]
"""Script arguments → settings, with the settings page's small checkpoint; raises SettingsError."""


@dataclass(frozen=True)
class Rules:
    """Each function takes what the controls show; `small` is the small checkpoint, "" or None without one."""

    resolve: Resolve

    def settings(self, method: str, preset: str, small: object) -> StitchSettings:
        """What is in force, with the preset's values; which small checkpoint it is does not matter here."""
        named = {"method": method, "preset": preset, "small_checkpoint": "chosen" if small else ""}
        return self.resolve([{"enabled": True, **named}])

    def show(self, method: str, preset: str, small: object) -> list[Any]:
        """Changes of the preset's control, then of each method's: what the method in force has is there."""
        chosen = self.settings(method, preset, small).chosen()
        presets = gr.update(choices=[*chosen.presets, CUSTOM], visible=bool(chosen.presets))
        return [presets, *(gr.update(visible=name in chosen.specs()) for name in method_specs())]

    def choose_method(self, method: str, preset: str, small: object) -> list[Any]:
        """The plan (none), the preset, and the methods' values."""
        made = self.settings(method, DEFAULT_PRESET if preset == CUSTOM else preset, small)
        return ["", made.preset, *made.values.values()]

    def choose_preset(self, method: str, preset: str, small: object, *values: object) -> list[Any]:
        """The plan (none), the target (none, it would override the preset), and the methods' values.

        Nothing changes where the preset's label is true already: gradio 4 reports a value that was set for a group of
        choices as if the user had chosen it, and a pasted plan must stay.
        """
        if preset == CUSTOM or self.preset_of(method, preset, small, *values) == preset:
            return [gr.update() for _ in ("plan", "target_speedup", *method_specs())]
        return ["", 0, *self.settings(method, preset, small).values.values()]

    def preset_of(self, method: str, preset: str, small: object, *values: object) -> str:
        """The preset in force whose values the methods' controls show, or Custom."""
        chosen, shown = self.settings(method, preset, small).chosen(), dict(zip(method_specs(), values, strict=True))
        own = {name: shown[name] for name in chosen.specs()}
        return next((name for name in chosen.presets if chosen.preset(name) == own), CUSTOM)

    def move(self, name: str, method: str, preset: str, small: object, *values: object) -> list[Any]:
        """A method's setting `name` was moved: the plan (none), the target (none if it would override), the preset."""
        chosen = self.settings(method, preset, small).chosen()
        target = 0 if name in chosen.set_by_target() else gr.update()
        return ["", target, self.preset_of(method, preset, small, *values)]
