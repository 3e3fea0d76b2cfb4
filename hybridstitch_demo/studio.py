"""Generations of the stand-in for its page and its API: one at a time, with pictures as files know them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from hybridstitch_demo.comparison import to_image
from hybridstitch_demo.standin import Host

PARAMETERS = "parameters"
"""The text chunk of a PNG that holds the infotext."""


@dataclass(frozen=True)
class Drawn:
    """What a generation gave.

    Args:
        pictures: in order.
        infotexts: one per picture.
        comments: sentences below the pictures, a line each.
        info: what the API tells in its field of that name.
    """

    pictures: list[Image.Image]
    infotexts: list[str]
    comments: str
    info: dict[str, Any] = field(default_factory=dict)


def to_picture(tensor: Tensor) -> Image.Image:
    """A tensor (3, H, W) in 0..1 as a picture."""
    return to_image(tensor, tensor.shape[-1])


def to_tensor(picture: Image.Image) -> Tensor:
    """A picture as a tensor (3, H, W) in 0..1; what is transparent becomes black."""
    return torch.from_numpy(numpy.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255


def text_chunk(infotext: str) -> PngImagePlugin.PngInfo:
    """What a PNG carries along."""
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text(PARAMETERS, infotext)
    return chunk


def new_task(kind: str) -> str:
    """A name for a job that did not come from a page."""
    return f"task({kind}-{secrets.token_hex(8)})"


class Studio:
    """Draws with a stand-in.

    Args:
        host: the stand-in, started.
    """

    def __init__(self, host: Host) -> None:
        self.host = host

    def draw(
        self, kind: str, attributes: Mapping[str, Any], script_args: Sequence[Any], task: str, is_api: bool = False
    ) -> Drawn:
        """Generate, after what was asked for before.

        Args:
            kind: "txt2img" or "img2img".
            attributes: of p, pictures (`init_images`, `mask`) as PIL's.
            script_args: values of every script's controls.
            task: the job's name; `new_task` makes one.
            is_api: whether it comes from the API.
        """
        progress = self.host.module("modules.progress")
        progress.add_task_to_queue(task)
        with self.host.module("modules.call_queue").queue_lock:
            progress.start_task(task)
            try:
                return self._draw(kind, attributes, tuple(script_args), is_api)
            finally:
                progress.finish_task(task)

    def _draw(self, kind: str, attributes: Mapping[str, Any], script_args: tuple[Any, ...], is_api: bool) -> Drawn:
        given = dict(attributes)
        if given.get("init_images"):
            given["init_images"] = [to_tensor(picture) for picture in given["init_images"]]
        if given.get("mask") is not None:
            given["mask"] = to_tensor(given["mask"]).mean(0)
        with closing(self.host.processing(kind, **given)) as p:
            p.is_api, p.scripts = is_api, self.host.runner(kind)
            processed = self.host.process(p, script_args)
            pictures = [to_picture(tensor) for tensor in processed.images]
            return Drawn(pictures, list(processed.infotexts), processed.comments, _info(p, processed))

    def preview(self) -> Image.Image | None:
        """What the running generation looks like; None while there is nothing to see."""
        latent = self.host.state.current_latent
        if latent is None:
            return None
        with torch.inference_mode():
            decoded = self.host.module("modules.sd_encoding").decode(latent[:1].clone())
        return to_picture(decoded[0].add(1).div(2).clamp(0, 1))


def _info(p: Any, processed: Any) -> dict[str, Any]:
    """The host's description of a generation."""
    return {
        "prompt": processed.all_prompts[0] if processed.all_prompts else "",
        "all_prompts": processed.all_prompts,
        "negative_prompt": p.all_negative_prompts[0] if p.all_negative_prompts else "",
        "all_negative_prompts": p.all_negative_prompts,
        "seed": processed.all_seeds[0] if processed.all_seeds else p.seed,
        "all_seeds": processed.all_seeds,
        "subseed": p.subseed,
        "all_subseeds": p.all_subseeds,
        "subseed_strength": p.subseed_strength,
        "width": p.width,
        "height": p.height,
        "sampler_name": p.sampler_name,
        "cfg_scale": p.cfg_scale,
        "steps": p.steps,
        "batch_size": p.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": p.sd_model_name,
        "sd_model_hash": p.sd_model_hash,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": p.seed_resize_from_w,
        "seed_resize_from_h": p.seed_resize_from_h,
        "denoising_strength": p.denoising_strength,
        "extra_generation_params": {
            key: value for key, value in processed.extra_generation_params.items() if value is not None
        },
        "index_of_first_image": processed.index_of_first_image,
        "infotexts": processed.infotexts,
        "styles": p.styles,
        "job_timestamp": "0",
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": "stand-in",
    }
