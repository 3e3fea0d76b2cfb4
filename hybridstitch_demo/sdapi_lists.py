"""What the API of the embedded WebUI lists: checkpoints, samplers, scripts and their arguments, as the hosts do."""

from __future__ import annotations

from typing import Any

from hybridstitch_demo.standin import KINDS, Host


class Lists:
    """Routes that list what there is.

    Args:
        host: the stand-in.
    """

    def __init__(self, host: Host) -> None:
        self.host = host

    def checkpoints(self) -> list[dict[str, Any]]:
        """Checkpoints; hashes are known of those that were loaded once."""
        return [
            {
                "title": one.title,
                "model_name": one.model_name,
                "hash": one.shorthash,
                "sha256": one.sha256,
                "filename": one.filename,
                "config": None,
            }
            for one in list(self.host.sd_models.checkpoints_list.values())
        ]

    def samplers(self) -> list[dict[str, Any]]:
        """Samplers; what their options say is text."""
        return [
            {
                "name": one.name,
                "aliases": one.aliases,
                "options": {key: str(value) for key, value in one.options.items()},
            }
            for one in self.host.module("modules.sd_samplers").all_samplers
        ]

    def schedulers(self) -> list[dict[str, Any]]:
        """Noise schedules."""
        names = ("name", "label", "aliases", "default_rho", "need_inner_model")
        schedules = self.host.module("modules.sd_schedulers").schedulers
        return [{name: getattr(one, name) for name in names} for one in schedules]

    def upscalers(self) -> list[dict[str, Any]]:
        """Enlargers of pictures: the stand-in enlarges latents only."""
        return [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4}]

    def latent_upscale_modes(self) -> list[dict[str, Any]]:
        """Enlargers of latents."""
        return [{"name": name} for name in self.host.shared.latent_upscale_modes]

    def scripts(self) -> dict[str, list[str]]:
        """Scripts of each tab, in lower case."""
        return {kind: [one.name for one in self.host.runner(kind).scripts if one.name is not None] for kind in KINDS}

    def script_info(self) -> list[dict[str, Any]]:
        """Scripts of both tabs with their controls."""
        return [
            {
                "name": one.name,
                "is_alwayson": one.alwayson,
                "is_img2img": one.is_img2img,
                "args": [_argument(control) for control in one.controls],
            }
            for kind in KINDS
            for one in self.host.runner(kind).scripts
            if one.controls is not None
        ]

    def embeddings(self) -> dict[str, Any]:
        """Textual inversions: none."""
        return {"loaded": {}, "skipped": {}}


def _argument(control: Any) -> dict[str, Any]:
    """A control as the argument of a script."""
    told = {name: getattr(control, name, None) for name in ("value", "minimum", "maximum", "step")}
    choices = getattr(control, "choices", None)
    names = None if choices is None else [one[0] if isinstance(one, (tuple, list)) else one for one in choices]
    return {"label": control.label or "", **told, "choices": names}
