"""HybridStitch as the WebUI's script: it hands every hook on.

The parameters of `process` are the settings in their public order; other extensions map arguments by these names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modules import scripts

from lib_hybridstitch.settings import StitchSettings
from lib_hybridstitch.webui import panel
from lib_hybridstitch.webui.registration import register

FOLDER = Path(scripts.basedir())
EXTENSION = register(FOLDER)


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
        built = panel.build(EXTENSION.host, is_img2img, self.elem_id, StitchSettings(), EXTENSION.release_in_words)
        self.infotext_fields = built.infotext_fields
        self.paste_field_names = built.paste_field_names
        return built.controls

    def before_process(self, p: Any, *args: Any) -> None:
        """Clean up after a generation that died; also when HybridStitch is off."""
        EXTENSION.before_process()

    def process(
        self,
        p: Any,
        enabled: Any = False,
        small_checkpoint: Any = None,
        large_checkpoint: Any = None,
        preset: Any = None,
        method: Any = None,
        switch_step: Any = None,
        handoff_step: Any = None,
        mask_ratio: Any = None,
        mask_threshold: Any = None,
        score: Any = None,
        background: Any = None,
        extrapolate: Any = None,
        small_scope: Any = None,
        refresh_every: Any = None,
        kv_cache: Any = None,
        hires: Any = None,
        show_mask: Any = None,
        small_device: Any = None,
        adaptive: Any = None,
        full_share: Any = None,
        target_speedup: Any = None,
        hold_guidance: Any = None,
    ) -> None:
        """Read and check the settings; None leaves one at its preset's value or its default."""
        args = (enabled, small_checkpoint, large_checkpoint, preset, method, switch_step, handoff_step, mask_ratio)
        args += (mask_threshold, score, background, extrapolate, small_scope, refresh_every, kv_cache, hires)
        EXTENSION.process(p, (*args, show_mask, small_device, adaptive, full_share, target_speedup, hold_guidance))

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
