"""The samplers' loops: func(model, x, sigmas, extra_args, callback) → latent, as in a host's k_diffusion.

model(x, sigma per image, **extra_args) → denoised; `sigmas` descend and end at 0; `callback` is called once per step.
Euler, Heun and DPM++ 2M are solved by diffusers' flow-matching schedulers at the host's own noise levels. The others
are written out, since diffusers has no flow-matching counterpart: none of Euler a (its stochastic Euler replaces all of
the noise at every step) and DDIM, and none of DPM++ SDE that evaluates between the levels. Sources: Karras et al.,
arXiv 2206.00364 (Heun, the ancestral step); Lu et al., arXiv 2211.01095 (DPM++); Song et al., arXiv 2010.02502 (DDIM).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from torch import Tensor

Model = Callable[..., Tensor]
Callback = Callable[[dict[str, Any]], None]


def _step(model: Model, x: Tensor, sigma: Tensor, extra: dict[str, Any]) -> Tensor:
    return model(x, sigma * x.new_ones(x.shape[0]), **extra)


def _solve(
    solver: Any,
    visits: Sequence[int],
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any],
    callback: Callback,
) -> Tensor:
    """Walk down `sigmas` by a scheduler of diffusers; `visits` has the number of the noise level of every evaluation.

    Of two visits of a level the first ends the step before, and the second, with its callback, begins a step.
    """
    solver.set_begin_index(0)  # else it would look its place up by the timestep, which may be there twice
    for index, following in zip(visits, [*visits[1:], None]):
        sigma = sigmas[index]
        denoised = _step(model, x, sigma, extra_args)
        if index != following:
            callback({"x": x, "i": index, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        x = solver.step((x - denoised) / sigma, 1000 * sigma, x, return_dict=False)[0]
    return x


def euler(model: Model, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], callback: Callback) -> Tensor:
    """One evaluation per step."""
    solver = FlowMatchEulerDiscreteScheduler()
    solver.set_timesteps(sigmas=sigmas[:-1].tolist())
    return _solve(solver, range(len(sigmas) - 1), model, x, sigmas, extra_args, callback)


def ancestral(sigma: Tensor, following: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Split a step into the way down and the noise that is added after it."""
    up = min(following, eta * (following**2 * (sigma**2 - following**2) / sigma**2) ** 0.5)
    return (following**2 - up**2) ** 0.5, up


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
    """Two evaluations per step but the last: each inner noise level above 0 is visited twice in a row."""
    steps = len(sigmas) - 1
    visits = [index for index in range(steps) for _ in range(2 if index > 0 and sigmas[index] > 0 else 1)]
    solver = FlowMatchHeunDiscreteScheduler()
    solver.set_timesteps(steps)
    # It takes a number of steps only; the levels of a schedule go where it keeps its own, one per evaluation and the 0.
    solver.sigmas = sigmas[[*visits, steps]]
    solver.timesteps = 1000 * solver.sigmas[:-1]
    return _solve(solver, visits, model, x, sigmas, extra_args, callback)


def dpmpp_2m(model: Model, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], callback: Callback) -> Tensor:
    """Second order from the evaluation before, in λ = log((1 - σ)/σ) as flow matching has it (k_diffusion: -log σ).

    From σ = 1, λ = -∞, the first two steps are of first order and finite.
    """
    steps = len(sigmas) - 1
    solver = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    solver.set_timesteps(steps)
    # It takes a number of steps or whole timesteps only; the levels of a schedule go where it keeps its own. A table's
    # last level may be above 1 by rounding, where λ does not exist. The number of timesteps tells which step is the
    # last and of first order: the one that arrives at 0, also where a schedule has the 0 twice.
    solver.sigmas = sigmas.clamp(max=1)
    solver.timesteps = 1000 * sigmas[sigmas > 0]
    return _solve(solver, range(steps), model, x, sigmas, extra_args, callback)


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
