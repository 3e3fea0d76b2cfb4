"""The caches of diffusers 0.39 and of cache-dit 1.5 on diffusers' SD3 network, each applied by its own function.

Guidance goes in one call (rows without prompt first), as in diffusers' StableDiffusion3 pipeline, so that a cache
decides once for all rows. Verified by trying, on `SD3Transformer2DModel`:

- First-Block-Cache, TaylorSeer's lite mode and cache-dit's TaylorSeer stop with an error: SD3's last block returns
  None for the text, and they do arithmetic with it. They run once that block hands its text through
  (`hand_text_through`), which changes no velocity.
- FasterCache stops with an error, because it halves the batch without halving SD3's pooled text. It runs once that
  argument is added to its list.
- Pyramid Attention Broadcast, MagCache and TaylorSeer over attention and feed-forward run as they are. By default
  TaylorSeer takes the attention only: 1.26x counted at every third step, too little for a curve.
- The text-KV cache changes nothing: it is for a block that SD3 does not have. Layer skip is a kind of guidance and
  not a cache.
- cache-dit knows SD3 through a pipeline only; a BlockAdapter with the pattern from its SD3 entry does the same.

Every cache runs with its defaults but for the settings in the table and what this pair asks for: TaylorSeer and
cache-dit start after six full steps (by default 3 and 8), because the layout is decided early; TaylorSeer keeps its
factors in the precision of the run (by default bf16); cache-dit keeps one block in front (by default 8), as there are
five and not 38.
"""

from __future__ import annotations

import functools
import os
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import hooks
from diffusers.hooks.hooks import HookRegistry
from torch import Tensor

from benchmarks.diffusers_network import diffusers_network
from benchmarks.drawers import Cached, Clock, NotRunError
from hybridstitch_demo.generate import Pair, Request

STEPS = 28
CFG = 4.0
"""Steps and guidance of every race."""
WARM_UP = 6
"""Full steps at the start, about a fifth of the run."""
CONTEXT = "guided"
"""The name of the one state that diffusers' hooks keep, as there is one call per step."""
CALIBRATION = ("frog and red apple on blue", "panda and tulip on sunset", "car on checks", "pig and bee on night")
"""Prompts that MagCache is calibrated on; the pair saw such in its training."""

Apply = Callable[[Any, Clock, Pair], None]


def hand_text_through(network: Any) -> None:
    """Let the last block return the text (rows, L, width) that it was given instead of None; nothing reads it."""
    block = network.transformer_blocks[-1]
    inner = block.forward

    def forward(
        self: Any,  # noqa: ARG001 - bound as a method
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        joint_attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[Tensor, Tensor]:
        _, image = inner(hidden_states, encoder_hidden_states, temb, joint_attention_kwargs)
        return encoder_hidden_states, image

    block.forward = types.MethodType(forward, block)


def first_block(threshold: float) -> Apply:
    """First-Block-Cache: the rest is reused while the first block's residual changes by less than `threshold`."""

    def apply(network: Any, _clock: Clock, _pair: Pair) -> None:
        hand_text_through(network)
        hooks.apply_first_block_cache(network, hooks.FirstBlockCacheConfig(threshold=threshold))

    return apply


def taylorseer(interval: int, order: int = 1, lite: bool = False) -> Apply:
    """TaylorSeer: full every `interval` steps, a Taylor series of each module's output (lite: of the last) between."""

    def apply(network: Any, _clock: Clock, _pair: Pair) -> None:
        hand_text_through(network)
        config = hooks.TaylorSeerCacheConfig(
            cache_interval=interval,
            disable_cache_before_step=WARM_UP,
            max_order=order,
            taylor_factors_dtype=torch.float32,
            cache_identifiers=None if lite else [r"transformer_blocks\.\d+\.(attn2?|ff|ff_context)"],
            use_lite_mode=lite,
        )
        hooks.apply_taylorseer_cache(network, config)

    return apply


def broadcast(interval: int) -> Apply:
    """Pyramid Attention Broadcast: attention is computed every `interval` steps at 100 < timestep < 800."""

    def apply(network: Any, clock: Clock, _pair: Pair) -> None:
        config = hooks.PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=interval, current_timestep_callback=lambda: clock.timestep
        )
        hooks.apply_pyramid_attention_broadcast(network, config)

    return apply


def faster(interval: int) -> Apply:
    """FasterCache: attention every second step, the rows without prompt every `interval` steps, late in the run."""

    def apply(network: Any, clock: Clock, _pair: Pair) -> None:
        batched = ("hidden_states", "encoder_hidden_states", "timestep", "pooled_projections")
        config = hooks.FasterCacheConfig(
            unconditional_batch_skip_range=interval,
            spatial_attention_block_identifiers=("transformer_blocks.*attn",),
            tensor_format="BCHW",
            attention_weight_callback=lambda _: 0.5,
            current_timestep_callback=lambda: clock.timestep,
            _unconditional_conditional_input_kwargs_identifiers=batched,
        )
        hooks.apply_faster_cache(network, config)

    return apply


def magnitude(threshold: float, longest: int) -> Apply:
    """MagCache: skips while the accumulated error stays below `threshold`, at most `longest` steps in a row."""

    def apply(network: Any, _clock: Clock, pair: Pair) -> None:
        config = hooks.MagCacheConfig(
            threshold=threshold, max_skip_steps=longest, num_inference_steps=STEPS, mag_ratios=list(ratios(pair))
        )
        hooks.apply_mag_cache(network, config)

    return apply


@functools.cache
def ratios(pair: Pair) -> tuple[float, ...]:
    """MagCache's calibration: how the residual's magnitude changes from step to step, (STEPS,)."""
    network = diffusers_network(pair.large.config, pair.large.state_dict())
    # one step more than there are: at the last one it would print the ratios and forget them
    hooks.apply_mag_cache(network, hooks.MagCacheConfig(calibrate=True, num_inference_steps=STEPS + 1))
    seeds = tuple(range(len(CALIBRATION)))
    hooked(network, pair, Clock()).draw(Request(CALIBRATION, seeds, STEPS, CFG))
    hook = network.transformer_blocks[0]._diffusers_hook.get_hook("mag_cache_leader_block_hook")
    return tuple(hook.state_manager.get_state().calibration_ratios)


def hooked(network: Any, pair: Pair, clock: Clock) -> Cached:
    """A drawer with diffusers' network, whose hooks forget everything before each request."""
    registry = HookRegistry.check_if_exists_or_initialize(network)

    def begin() -> None:
        registry.reset_stateful_hooks()
        registry._set_context(CONTEXT)  # what `cache_context` does, which this class of network lacks

    return Cached(network, pair.autoencoder, begin, clock)


@dataclass(frozen=True)
class DualBlock:
    """Settings of cache-dit's DBCache, F1B0.

    Args:
        threshold: largest change of the first block's residual at which the rest is reused.
        taylor: whether the reused residual follows a Taylor series of first order.
        in_a_row: most steps reused in a row, -1 for any number.
    """

    threshold: float
    taylor: bool
    in_a_row: int = -1

    def drawer(self, pair: Pair) -> Cached:
        """A drawer with the cache applied.

        Raises:
            NotRunError: when cache-dit cannot be imported.
        """
        os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "WARNING")  # it reads this when it is imported
        try:
            import cache_dit
        except ImportError as error:
            raise NotRunError(
                f"cache-dit cannot be imported ({error}): install benchmarks/requirements.txt."
            ) from error
        network = diffusers_network(pair.large.config, pair.large.state_dict())
        hand_text_through(network)
        adapter = cache_dit.BlockAdapter(
            transformer=network,
            blocks=network.transformer_blocks,
            forward_pattern=cache_dit.ForwardPattern.Pattern_1,
            has_separate_cfg=False,
        )
        config = cache_dit.DBCacheConfig(
            Fn_compute_blocks=1,
            Bn_compute_blocks=0,
            residual_diff_threshold=self.threshold,
            max_warmup_steps=WARM_UP,
            max_continuous_cached_steps=self.in_a_row,
            num_inference_steps=STEPS,
            enable_separate_cfg=False,
        )
        calibrator = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=1) if self.taylor else None
        cache_dit.enable_cache(adapter, cache_config=config, calibrator_config=calibrator)
        begin = functools.partial(cache_dit.refresh_context, network, num_inference_steps=STEPS)
        return Cached(network, pair.autoencoder, begin, Clock())
