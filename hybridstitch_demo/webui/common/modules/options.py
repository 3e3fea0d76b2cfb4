"""Where the hosts keep the class of a setting."""

from __future__ import annotations

from modules.shared import OptionInfo

__all__ = ["OptionInfo"]
