"""The caches of diffusers 0.39 and of cache-dit 1.5.3 on diffusers' SD3 network, each applied by its own function.

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

Every cache runs with its defaults but for the settings in the table and what this pair asks for: all of them can begin
after as many full steps as ours do, because the layout is decided early (First-Block-Cache knows no warm-up: its
hooks forget in front of each of these steps); TaylorSeer keeps its factors in the precision of the run (by default
bf16); cache-dit keeps one block in front (by default 8), as there are five and not 38. That block is a fifth of this
network and a thirty-eighth of SD3.5-Large's, so that caches which always compute the first one gain less here.
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


def first_block(threshold: float, warm_up: int) -> Apply:
    """First-Block-Cache: the rest is reused while the first block's residual changes by less than `threshold`."""

    def apply(network: Any, clock: Clock, _pair: Pair) -> None:
        hand_text_through(network)
        hooks.apply_first_block_cache(network, hooks.FirstBlockCacheConfig(threshold=threshold))
        network.register_forward_pre_hook(lambda *_: forget(network) if clock.step < warm_up else None)

    return apply


def taylorseer(interval: int, warm_up: int, lite: bool = False, last: bool = False) -> Apply:
    """TaylorSeer: full every `interval` steps, between them each module's output (lite: the last) goes on in a line.

    Args:
        last: whether the last step is always full.
    """

    def apply(network: Any, _clock: Clock, _pair: Pair) -> None:
        hand_text_through(network)
        config = hooks.TaylorSeerCacheConfig(
            cache_interval=interval,
            disable_cache_before_step=warm_up,
            disable_cache_after_step=STEPS - 1 if last else None,
            max_order=1,
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


def magnitude(threshold: float, longest: int, warm_up: int) -> Apply:
    """MagCache: skips while the accumulated error stays below `threshold`, at most `longest` steps in a row.

    Its errors are the calibration's, so that it skips the same steps of every picture.
    """

    def apply(network: Any, _clock: Clock, pair: Pair) -> None:
        config = hooks.MagCacheConfig(
            threshold=threshold,
            max_skip_steps=longest,
            retention_ratio=warm_up / STEPS,
            num_inference_steps=STEPS,
            mag_ratios=list(ratios(pair)),
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


def forget(network: Any) -> None:
    """Empty the state of all of diffusers' hooks, and name it again: this class of network lacks `cache_context`."""
    registry = HookRegistry.check_if_exists_or_initialize(network)
    registry.reset_stateful_hooks()
    registry._set_context(CONTEXT)


def hooked(network: Any, pair: Pair, clock: Clock) -> Cached:
    """A drawer with diffusers' network, whose hooks forget everything before each request."""
    return Cached(network, pair.autoencoder, lambda: forget(network), clock)


CALIBRATORS = ("", "TaylorSeer", "FoCa", "DMD")
"""How cache-dit may forecast what it reuses; FoCa and DMD are its newest."""


@dataclass(frozen=True)
class DualBlock:
    """Settings of cache-dit's DBCache, F1B0.

    Args:
        threshold: largest change of the first block's residual at which the rest is reused.
        calibrator: one of `CALIBRATORS`; TaylorSeer's series is of first order, FoCa and DMD have their defaults.
        warm_up: full steps at the start.
        in_a_row: most steps reused in a row, -1 for any number.
        mask: runs of steps, computed and reused in turns, in the place of the threshold; cache-dit's `steps_mask`.
    """

    threshold: float = 0.0
    calibrator: str = ""
    warm_up: int = 8
    in_a_row: int = -1
    mask: tuple[int, ...] = ()

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
            max_warmup_steps=self.warm_up,
            max_continuous_cached_steps=self.in_a_row,
            num_inference_steps=STEPS,
            enable_separate_cfg=False,
        )
        if self.mask:
            config.steps_computation_mask = cache_dit.steps_mask(list(self.mask[::2]), list(self.mask[1::2]), STEPS)
            config.steps_computation_policy = "static"
        calibrators = {
            "TaylorSeer": cache_dit.TaylorSeerCalibratorConfig,
            "FoCa": cache_dit.FoCaCalibratorConfig,
            "DMD": cache_dit.DMDCalibratorConfig,
        }
        calibrator = calibrators[self.calibrator]() if self.calibrator else None
        cache_dit.enable_cache(adapter, cache_config=config, calibrator_config=calibrator)
        begin = functools.partial(cache_dit.refresh_context, network, num_inference_steps=STEPS)
        return Cached(network, pair.autoencoder, begin, Clock())
