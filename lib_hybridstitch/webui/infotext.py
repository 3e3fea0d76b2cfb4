"""Infotext into the panel: what a picture recorded moves every control back.

A WebUI calls one function per control with the whole parsed infotext. `Paste` is that function. It compares equal by
name, so that the same object in both tabs' fields lets "Send to" carry the control's value from tab to tab.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lib_hybridstitch.errors import SettingsError
from lib_hybridstitch.fields import Scalar
from lib_hybridstitch.log import get_logger
from lib_hybridstitch.settings import StitchSettings, specs


@dataclass(frozen=True)
class Paste:
    """The value one control takes from a pasted infotext.

    Args:
        name: of the setting.
    """

    name: str

    def __call__(self, params: Mapping[str, object]) -> Scalar | None:
        """The value, or None to leave the control as it is.

        A picture made with our settings enables the panel and sets whatever it recorded; what it left out takes the
        preset's value. Any other picture, or one whose values cannot be understood, only disables the panel. Settings
        that do not change a picture stay as they are.
        """
        if not _recorded(params):
            return False if self.name == "enabled" else None
        try:
            settings = StitchSettings.from_infotext(params)
        except SettingsError as error:
            return self._refuse(error)
        if self.name == "enabled":
            return True
        return settings.to_dict()[self.name] if specs()[self.name].infotext else None

    def _refuse(self, error: SettingsError) -> bool | None:
        """Every control meets the same broken infotext: one of them says so."""
        if self.name != "enabled":
            return None
        get_logger("infotext").warning("The pasted infotext was left aside: %s", error)
        return False


def _recorded(params: Mapping[str, object]) -> bool:
    """Whether the infotext holds any of our settings; what a run adds beside them does not count."""
    return any(spec.infotext and spec.infotext in params for spec in specs().values())
