"""What all samplers share: steps of img2img, the interrupt, and the object that a generation keeps."""

from __future__ import annotations

import inspect
from collections import namedtuple
from collections.abc import Callable
from typing import Any

from torch import Tensor

from modules import shared
from modules.shared import opts, state


class InterruptedException(BaseException):
    """The user pressed Interrupt; raised before the next evaluation. Not an Exception, as on the hosts."""


class SamplerData(namedtuple("SamplerData", ["name", "constructor", "aliases", "options"])):
    """A sampler as it is listed."""

    def total_steps(self, steps: int) -> int:
        """Evaluations announced for a number of steps."""
        return steps * 2 if self.options.get("second_order", False) else steps


def setup_img2img_steps(p: Any, steps: int | None = None) -> tuple[int, int]:
    """Steps of the whole schedule, and the step (less one) from whose end img2img begins."""
    if opts.img2img_fix_steps or steps is not None:
        requested = steps or p.steps
        whole = int(requested / min(p.denoising_strength, 0.999)) if p.denoising_strength > 0 else 0
        return whole, requested - 1
    return p.steps, int(min(p.denoising_strength, 0.999) * p.steps)


def store_latent(decoded: Tensor) -> None:
    """Offer a latent to the live preview."""
    state.current_latent = decoded


class Sampler:
    """One pass of one batch: the loop, the denoiser, and what both need."""

    def __init__(self, funcname: str) -> None:
        self.funcname = funcname
        self.func: Callable[..., Any] = lambda *args, **kwargs: None
        self.config: Any = None
        self.last_latent: Any = None
        self.p: Any = None
        self.model_wrap_cfg: Any = None
        self.model_wrap: Any = None
        self.sampler_extra_args: dict[str, Any] = {}
        self.eta: float | None = None
        self.eta_option_field = "eta_ancestral"
        self.s_min_uncond = 0.0
        self.stop_at: int | None = None
        self.conditioning_key = "crossattn"
        self.steps_ahead = 0

    def callback_state(self, d: dict[str, Any]) -> None:
        """Called by the loop after an evaluation; the step so told lags by one, but for ersatzForge."""
        state.sampling_step = d["i"] + self.steps_ahead
        shared.total_tqdm.update()

    def launch_sampling(self, steps: int, func: Callable[[], Tensor]) -> Tensor:
        """Run the loop; interrupted, the last latent is the result."""
        self.model_wrap_cfg.steps = steps
        self.model_wrap_cfg.total_steps = self.config.total_steps(steps)
        state.sampling_steps, state.sampling_step = steps, 0
        try:
            return func()
        except InterruptedException:
            return self.last_latent

    def initialize(self, p: Any) -> dict[str, Any]:
        """Take from p what the denoiser needs; returns what the loop wants beside the usual."""
        self.p = self.model_wrap_cfg.p = p
        self.model_wrap_cfg.mask, self.model_wrap_cfg.nmask = getattr(p, "mask", None), getattr(p, "nmask", None)
        self.model_wrap_cfg.step = 0
        self.eta = p.eta if p.eta is not None else getattr(opts, self.eta_option_field)
        self.s_min_uncond = p.s_min_uncond
        wanted = inspect.signature(self.func).parameters
        given = {"eta": self.eta, "noise": lambda: p.rng.next()}
        return {name: value for name, value in given.items() if name in wanted}

    def extra_args(self, p: Any, cond: Any, uncond: Any, image_cond: Any) -> dict[str, Any]:
        """What the loop hands to every evaluation."""
        self.sampler_extra_args = {
            "cond": cond,
            "image_cond": image_cond,
            "uncond": uncond,
            "cond_scale": p.cfg_scale,
            "s_min_uncond": self.s_min_uncond,
        }
        return self.sampler_extra_args
