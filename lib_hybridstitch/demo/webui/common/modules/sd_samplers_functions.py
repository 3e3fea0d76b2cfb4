"""The samplers' loops, in the few lines that each needs; a host has them in k_diffusion and beside it.

Every one takes model(x, sigma per image, **extra_args) → denoised. Sources: Karras et al., arXiv 2206.00364 (Euler and
Heun); Lu et al., arXiv 2211.01095 (DPM++); Song et al., arXiv 2010.02502 (DDIM).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

Model = Callable[..., Tensor]
Callback = Callable[[dict[str, Any]], None]


def _step(model: Model, x: Tensor, sigma: Tensor, extra: dict[str, Any]) -> Tensor:
    return model(x, sigma * x.new_ones(x.shape[0]), **extra)


def ancestral(sigma: Tensor, following: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Split a step into the way down and the noise that is added after it."""
    up = min(following, eta * (following**2 * (sigma**2 - following**2) / sigma**2) ** 0.5)
    return (following**2 - up**2) ** 0.5, up


def euler(model: Model, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], callback: Callback) -> Tensor:
    """One evaluation per step."""
    for i in range(len(sigmas) - 1):
        denoised = _step(model, x, sigmas[i], extra_args)
        callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


def euler_ancestral(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any],
    callback: Callback,
    noise: Callable[[], Tensor],
    eta: float = 1.0,
) -> Tensor:
    """Euler with fresh noise at every step."""
    for i in range(len(sigmas) - 1):
        denoised = _step(model, x, sigmas[i], extra_args)
        callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        down, up = ancestral(sigmas[i], sigmas[i + 1], eta)
        x = x + (x - denoised) / sigmas[i] * (down - sigmas[i])
        if sigmas[i + 1] > 0:
            x = x + noise() * up
    return x


def heun(model: Model, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], callback: Callback) -> Tensor:
    """Two evaluations per step but the last: each inner noise level is visited twice in a row."""
    for i in range(len(sigmas) - 1):
        denoised = _step(model, x, sigmas[i], extra_args)
        slope = (x - denoised) / sigmas[i]
        callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        width = sigmas[i + 1] - sigmas[i]
        if sigmas[i + 1] == 0:
            x = x + slope * width
        else:
            ahead = x + slope * width
            second = (ahead - _step(model, ahead, sigmas[i + 1], extra_args)) / sigmas[i + 1]
            x = x + (slope + second) / 2 * width
    return x


def dpmpp_2m(model: Model, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], callback: Callback) -> Tensor:
    """Second order from the evaluation before."""
    before: Tensor | None = None
    for i in range(len(sigmas) - 1):
        denoised = _step(model, x, sigmas[i], extra_args)
        callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        if before is None or sigmas[i + 1] == 0:
            target = denoised
        else:
            ratio = (sigmas[i] / sigmas[i - 1]).log() / (sigmas[i + 1] / sigmas[i]).log()
            target = (1 + 1 / (2 * ratio)) * denoised - 1 / (2 * ratio) * before
        shrink = sigmas[i + 1] / sigmas[i]
        x, before = shrink * x + (1 - shrink) * target, denoised
    return x


def dpmpp_sde(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any],
    callback: Callback,
    noise: Callable[[], Tensor],
    eta: float = 1.0,
) -> Tensor:
    """An evaluation at the geometric middle of every step but the last, and fresh noise."""
    for i in range(len(sigmas) - 1):
        sigma, following = sigmas[i], sigmas[i + 1]
        denoised = _step(model, x, sigma, extra_args)
        callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        if following == 0:
            x = denoised
            continue
        middle = (sigma * following) ** 0.5
        halfway = middle / sigma * x + (1 - middle / sigma) * denoised
        inner = _step(model, halfway, middle, extra_args)
        down, up = ancestral(sigma, following, eta)
        x = down / sigma * x + (1 - down / sigma) * inner + noise() * up
    return x


def ddim(
    model: Model,
    x: Tensor,
    timesteps: Tensor,
    alphas_cumprod: Tensor,
    extra_args: dict[str, Any],
    callback: Callback,
) -> Tensor:
    """A sampler of timesteps: it hands the model 1..999 where the others hand σ, and takes the result for noise."""
    alphas = alphas_cumprod[timesteps]
    for i in range(len(timesteps) - 1):
        index = len(timesteps) - 1 - i
        noise = _step(model, x, timesteps[index].float(), extra_args)
        now, following = alphas[index], alphas[index - 1]
        denoised = (x - (1 - now).sqrt() * noise) / now.sqrt()
        x = following.sqrt() * denoised + (1 - following).sqrt() * noise
        callback({"x": x, "i": i, "sigma": 0, "sigma_hat": 0, "denoised": denoised})
    return x


STRAIGHT: dict[str, Callable[..., Tensor]] = {
    "sample_euler": euler,
    "sample_euler_ancestral": euler_ancestral,
    "sample_heun": heun,
    "sample_dpmpp_2m": dpmpp_2m,
    "sample_dpmpp_sde": dpmpp_sde,
}
