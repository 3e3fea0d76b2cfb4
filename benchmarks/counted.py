"""Operations and bytes of a pair, by the project's formulas and without a weight in memory; nothing is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.alive import Alive
from benchmarks.sd35 import ROWS, Scale, weights
from lib_hybridstitch.engine.masks import mask_size
from lib_hybridstitch.fields import Scalar
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.kv_cache import KVCache
from lib_hybridstitch.mmdit.model import MMDiT
from lib_hybridstitch.mmdit.partial import run
from lib_hybridstitch.mmdit.tokens import shared
from lib_hybridstitch.plans.hybridstitch import HybridStitch
from lib_hybridstitch.plans.plan import Plan
from lib_hybridstitch.plans.ras import RAS
from lib_hybridstitch.plans.srdiffusion import SRDiffusion
from lib_hybridstitch.plans.step_cache import StepCache
from lib_hybridstitch.plans.t_stitch import TStitch
from lib_hybridstitch.prediction.memory import activation_bytes, cache_bytes
from lib_hybridstitch.prediction.operations import Setup, pass_flops
from lib_hybridstitch.prediction.resolver import Resolved, resolve
from lib_hybridstitch.settings import StitchSettings

RATIOS = (0.1, 0.2, 0.3, 0.5)
"""Shares of the tokens in a partial pass."""
VERIFIED = (0.1, 0.5)
"""Shares whose count is compared with PyTorch's."""
SHARES = (0.36, 0.5, 0.64)
"""Where the peers change over, as fractions of the run."""
ITEMSIZES = {"bf16": 2, "fp8": 1}


PRESETS = {
    f"{method.name} {preset}": (method, preset) for method in (HybridStitch, StepCache) for preset in method.presets
}
"""The presets of both our methods by name."""
MASKED, UNMASKED = f"{HybridStitch.name} Balanced", f"{StepCache.name} Balanced"
"""What a plan needs does not depend on its preset, but on whether it has a mask and a small model."""


def plans(scale: Scale, size: int) -> dict[str, Resolved]:
    """Every preset and a few settings of the peers, by name, for one picture of a size."""
    asked: dict[str, dict[str, Scalar]] = {
        name: {"method": method.name, "preset": preset} for name, (method, preset) in PRESETS.items()
    }
    for share in SHARES:
        asked[f"{TStitch.name}, {share:.0%} small"] = {"method": TStitch.name, "switch_step": share}
    for share in reversed(SHARES):
        asked[f"{SRDiffusion.name}, {share:.0%} large"] = {"method": SRDiffusion.name, "switch_step": share}
    for ratio in (0.5, 0.25):
        asked[f"{RAS.name}, ratio {ratio:g}"] = {"method": RAS.name, "mask_ratio": ratio}
    return {name: resolve(settings_of(values), scale.run, scale.setup(size)) for name, values in asked.items()}


def settings_of(values: dict[str, Scalar]) -> StitchSettings:
    """Settings with a small model at hand."""
    return StitchSettings.from_dict({"small_checkpoint": "small", **values})


def operations_of(scale: Scale, size: int) -> dict[str, Any]:
    """Count what one picture of a size costs: passes in operations and over a full large pass, plans as speed-ups."""
    count = scale.tokens(size)
    large = pass_flops(scale.large, count, count, scale.context, len(ROWS))
    small = pass_flops(scale.small, count, count, scale.context, len(ROWS))
    partial = {
        f"{ratio:g}": pass_flops(scale.large, mask_size(ratio, count), count, scale.context, len(ROWS))
        for ratio in RATIOS
    }
    every = plans(scale, size)
    return {
        "tokens": count,
        "large": large,
        "small": small,
        "partial": partial,
        "small_of_large": round(small / large, 4),
        "partial_of_large": {ratio: round(flops / large, 4) for ratio, flops in partial.items()},
        "plan": {name: str(found.plan) for name, found in every.items()},
        "speedup": {name: round(found.speedup, 3) for name, found in every.items()},
    }


def memory_of(scale: Scale, size: int) -> dict[str, Any]:
    """Bytes that one picture of a size needs: weights, caches, activations, and each plan's whole need.

    Activations are those of the large model's full pass in bf16 at their widest; in a plan's need, weights and cache
    are of the kind named. What extrapolation and scores keep is left out: a few velocities, each as large as a latent.
    """
    setup, every = scale.setup(size), plans(scale, size)
    found: dict[str, Any] = {"activations": activation_bytes(scale.large, setup, ITEMSIZES["bf16"]), "plans": {}}
    for kind, itemsize in ITEMSIZES.items():
        found[f"large_{kind}"] = weights(scale.large, itemsize)
        found[f"small_{kind}"] = weights(scale.small, itemsize)
        found[f"cache_{kind}"] = cache_bytes(every[MASKED].plan, setup, itemsize)
    for name, resolved in every.items():
        needs = {kind: plan_bytes(scale, setup, resolved.plan, itemsize) for kind, itemsize in ITEMSIZES.items()}
        found["plans"][name] = needs
    return found


def plan_bytes(scale: Scale, setup: Setup, plan: Plan, itemsize: int, active: int = ITEMSIZES["bf16"]) -> int:
    """Everything a plan needs on the device, in bytes.

    Args:
        itemsize: bytes per number of weights and cache.
        active: bytes per number of activations.
    """
    total = weights(scale.large, itemsize) + activation_bytes(scale.large, setup, active)
    total += weights(scale.small, itemsize) if plan.needs_small else 0
    return total + cache_bytes(plan, setup, itemsize)


def meta_network(config: MMDiTConfig) -> MMDiT:
    """The network with shapes and no weights."""
    with torch.device("meta"):
        return MMDiT(config).eval().requires_grad_(False)


@torch.inference_mode()
def counted_by_torch(scale: Scale, config: MMDiTConfig, size: int, kept: Sequence[int]) -> Iterator[int]:
    """Count the operations of passes of the real module with PyTorch's own counter, without memory or arithmetic.

    Args:
        kept: image tokens computed in each partial pass.

    Yields:
        operations of the full pass, then of each partial one.
    """
    network, call, cache = meta_network(config), scale.inputs(size, torch.device("meta")), KVCache()
    chosen = (torch.empty(number, dtype=torch.long, device="meta") for number in kept)
    for tokens in (None, *(shared(indices, len(ROWS)) for indices in chosen)):
        with FlopCounterMode(display=False) as counter:
            run(network, call.x, call.sigma, call.context, call.pooled, tokens, cache, rows=call.rows)
        yield counter.get_total_flops()


def verification(scale: Scale, size: int) -> dict[str, float]:
    """The formula's count over PyTorch's, for full and partial passes of the large and the small model."""
    count = scale.tokens(size)
    found = {}
    for name, config in (("large", scale.large), ("small", scale.small)):
        kept = [mask_size(share, count) for share in VERIFIED]
        for number, seen in zip((count, *kept), counted_by_torch(scale, config, size, kept)):
            formula = pass_flops(config, number, count, scale.context, len(ROWS))
            found[f"{name}, {number} of {count} tokens"] = round(formula / seen, 5)
    return found


@torch.inference_mode()
def activations_alive(scale: Scale, config: MMDiTConfig, size: int) -> int:
    """Most bytes alive in a full pass of the real module in bf16, beside weights and inputs; without memory.

    Args:
        size: edge of the picture in pixels.
    """
    network, call = meta_network(config).to(torch.bfloat16), scale.inputs(size, torch.device("meta"))
    x, context, pooled = (tensor.to(torch.bfloat16) for tensor in (call.x, call.context, call.pooled))
    with Alive([*network.state_dict().values(), x, context, pooled, call.sigma]) as alive:
        run(network, x, call.sigma, context, pooled, rows=call.rows)
    return alive.peak


def verified_activations(scale: Scale, size: int) -> dict[str, float]:
    """The formula of a full pass's activations over what is alive in the real modules."""
    return {
        name: round(
            activation_bytes(config, scale.setup(size), ITEMSIZES["bf16"]) / activations_alive(scale, config, size),
            4,
        )
        for name, config in (("large", scale.large), ("small", scale.small))
    }
