"""Forge's guidance: chunks of whole batches, the last first, in as few calls as lengths and memory allow."""

from __future__ import annotations

import math
from typing import Any

import torch
from modules.standin import journal
from torch import Tensor

from backend import memory_management
from backend.sampling.condition import compile_conditions, compile_weighted_conditions

COND, UNCOND = 0, 1


def _joinable(first: dict[str, Any], second: dict[str, Any]) -> bool:
    mine, theirs = first["model_conds"], second["model_conds"]
    same_control = first.get("control") is second.get("control")
    return same_control and all(mine[key].can_concat(theirs[key]) for key in mine)


def _next_call(model: Any, waiting: list[tuple[dict[str, Any], int]], x: Tensor) -> list[tuple[dict[str, Any], int]]:
    """Take out of `waiting` what the next call computes: from the end, as much as fits the free memory."""
    fitting = [index for index, (cond, _) in enumerate(waiting) if _joinable(cond, waiting[0][0])][::-1]
    free, chosen = memory_management.get_free_memory(x.device), fitting[:1]
    for share in range(1, len(fitting) + 1):
        part = fitting[: len(fitting) // share]
        if model.memory_required([len(part) * x.shape[0], *x.shape[1:]]) < free:
            chosen = part
            break
    return [waiting.pop(index) for index in chosen]


def _options(model_options: dict[str, Any], kinds: list[int], sigma: Tensor) -> dict[str, Any]:
    rows = torch.tensor([float(kind) for kind in kinds for _ in range(len(sigma))])
    return {
        **model_options.get("transformer_options", {}),
        "cond_or_uncond": kinds[:],
        "sigmas": sigma,
        "cond_mark": rows,
        "cond_indices": [index for index, kind in enumerate(rows) if kind == COND],
        "uncond_indices": [index for index, kind in enumerate(rows) if kind == UNCOND],
    }


def calc_cond_uncond_batch(
    model: Any, cond: Any, uncond: Any, x_in: Tensor, timestep: Tensor, model_options: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Denoised latents under the prompts (by their weights) and under the negative prompts (0 where there are none)."""
    waiting = [(one, COND) for one in cond] + [(one, UNCOND) for one in uncond or ()]
    sums, counts = [torch.zeros_like(x_in), torch.zeros_like(x_in)], [1e-37, 1e-37]
    while waiting:
        chosen = _next_call(model, waiting, x_in)
        conds, kinds = [one["model_conds"] for one, _ in chosen], [kind for _, kind in chosen]
        c: dict[str, Any] = {key: conds[0][key].concat([other[key] for other in conds[1:]]) for key in conds[0]}
        c["transformer_options"] = _options(model_options, kinds, timestep)
        x, sigma, control = (
            torch.cat([x_in] * len(kinds)),
            torch.cat([timestep] * len(kinds)),
            chosen[0][0].get("control"),
        )
        if control is not None:
            c["control"] = control.get_control(x, sigma, c.copy(), len(kinds))
            c["control_model"] = control
        journal.call(x, sigma, c["c_crossattn"], tuple(kinds))
        if "model_function_wrapper" in model_options:
            request = {"input": x, "timestep": sigma, "c": c, "cond_or_uncond": kinds}
            output = model_options["model_function_wrapper"](model.apply_model, request)
        else:
            output = model.apply_model(x, sigma, **c)
        for (one, kind), result in zip(chosen, output.chunk(len(kinds))):
            weight = one.get("strength", 1.0)
            sums[kind] += result * weight
            counts[kind] += weight
    return sums[COND] / counts[COND], sums[UNCOND] / counts[UNCOND]


def sampling_function_inner(
    model: Any, x: Tensor, timestep: Tensor, uncond: Any, cond: Any, cond_scale: float, model_options: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """Guidance, and what extensions put into its place."""
    strength = sum(one.get("strength", 1) for one in cond)
    skip = math.isclose(cond_scale, 1.0) and not model_options.get("disable_cfg1_optimization", False)
    given = None if skip else uncond
    for function in model_options.get("sampler_pre_cfg_function", []):
        model, cond, given, x, timestep, model_options = function(model, cond, given, x, timestep, model_options)
    positive, negative = calc_cond_uncond_batch(model, cond, given, x, timestep, model_options)
    known = {
        "cond_denoised": positive,
        "uncond_denoised": negative,
        "model": model,
        "model_options": model_options,
        "input": x,
        "sigma": timestep,
    }
    if "sampler_cfg_function" in model_options:
        inputs = {"cond": x - positive, "uncond": x - negative, "cond_scale": cond_scale, "timestep": timestep}
        result = x - model_options["sampler_cfg_function"]({**known, **inputs})
    else:
        factor = 1.0 if math.isclose(strength, 1.0) else strength
        result = negative + (positive - negative) * cond_scale * factor
    for function in model_options.get("sampler_post_cfg_function", []):
        result = function({**known, "denoised": result, "cond": cond, "uncond": uncond})
    return result, positive, negative


def sampling_function(self: Any, denoiser_params: Any, cond_scale: float, cond_composition: Any) -> Any:
    """One evaluation through the patched unet of the moment."""
    unet = self.inner_model.inner_model.forge_objects.unet
    x, sigma, options = denoiser_params.x, denoiser_params.sigma, unet.model_options
    uncond = compile_conditions(denoiser_params.text_uncond)
    cond = compile_weighted_conditions(denoiser_params.text_cond, cond_composition)
    if unet.controlnet_linked_list is not None:
        for one in [*cond, *(uncond or ())]:
            one["control"] = unet.controlnet_linked_list
    model, seed = unet.model, self.p.seeds[0]
    for modifier in options.get("conditioning_modifiers", []):
        changed = modifier(model, x, sigma, uncond, cond, cond_scale, options, seed)
        model, x, sigma, uncond, cond, cond_scale, options, seed = changed
    return sampling_function_inner(model, x, sigma, uncond, cond, cond_scale, options)


def sampling_prepare(unet: Any, x: Tensor) -> None:
    """Bring the unet and what hangs on it to the device."""
    memory_management.load_models_gpu(
        models=[unet, *unet.extra_model_patchers_during_sampling],
        memory_required=unet.memory_required([x.shape[0] * 2, *x.shape[1:]]),
        hard_memory_preservation=unet.extra_preserved_memory_during_sampling,
    )


def sampling_cleanup(unet: Any) -> None:
    """After sampling; the models stay where they are."""
