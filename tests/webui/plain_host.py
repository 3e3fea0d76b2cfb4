"""A WebUI without a WebUI: a large model, one small checkpoint, two samplers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_hybridstitch.errors import CheckpointError, SettingsError
from lib_hybridstitch.hosts.base import CheckpointFile
from lib_hybridstitch.hosts.shared import assumed_schedule
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.plans.method import Run
from lib_hybridstitch.settings import StitchSettings
from tests.networks import LARGE, MEDIUM
from tests.standins import write_checkpoint

SAMPLERS = {"Euler": False, "Euler a": True}


class PlainHost:
    """As much of a host as a prediction asks for.

    Args:
        folder: gets the small checkpoint, and may hold profiles.
        large: architecture of the large model; None before one is loaded.
    """

    name = "plain"

    def __init__(self, folder: Path, large: MMDiTConfig | None = LARGE) -> None:
        self.folder, self.running = folder, ""
        self._large = large
        self._small = CheckpointFile("small", write_checkpoint(folder / "small.safetensors", MEDIUM))

    def large_config(self, settings: StitchSettings) -> MMDiTConfig | None:
        return self._large

    def large_hash(self, settings: StitchSettings) -> str:
        return "a2fc6c4a92"

    def profiles(self) -> Path:
        return self.folder

    def task(self) -> str:
        return self.running

    def context(self) -> int:
        return 154

    def problem(self) -> str:
        return ""

    def tell(self, p: Any, sentence: str) -> None:
        p.comments.append(sentence)

    def run(self, sampler: str, scheduler: str, steps: int, strength: float = 1.0) -> Run:
        if sampler not in SAMPLERS or scheduler not in ("Automatic", "Simple"):
            raise SettingsError(f"sampler is {sampler!r}, but must be one of {', '.join(SAMPLERS)}.", "sampler")
        levels = assumed_schedule(steps)
        return Run(levels[len(levels) - max(int(strength * steps), 1) :], ancestral=SAMPLERS[sampler])

    def checkpoint_titles(self) -> list[str]:
        return ["small"]

    def find_checkpoint(self, name: str) -> CheckpointFile:
        if name != "small":
            raise CheckpointError(f"{name}: is not in the WebUI's list of checkpoints")
        return self._small
