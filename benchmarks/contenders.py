"""Everybody in the race: each method is a curve, each of its settings one point of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks import caches
from benchmarks.drawers import Clock, Drawer, Pipeline, Stitched
from benchmarks.twin import diffusers_twin
from hybridstitch_demo.generate import LARGE_ONLY, SMALL_ONLY, Pair, Request, plan_for
from lib_hybridstitch.plans.plan import Plan
from lib_hybridstitch.settings import StitchSettings

STEPS, CFG = caches.STEPS, caches.CFG
OURS = "HybridStitch"
"""What our methods' names begin with."""


Settings = list[tuple[str, str, tuple[Any, ...]]]
"""Of one cache: what the table calls it, the function of `benchmarks.caches`, and its arguments."""


class Recipe(Protocol):
    """What makes a drawer; its `repr` says everything that decides the pictures."""

    def drawer(self, pair: Pair) -> Drawer:
        """Make the drawer.

        Raises:
            NotRunError: when something is missing for it.
        """
        ...


@dataclass(frozen=True)
class Fixed:
    """Our engine by a plan that is the same for every schedule."""

    plan: Plan

    def drawer(self, pair: Pair) -> Drawer:
        """Make the drawer."""
        return Stitched(pair, lambda _: self.plan)


@dataclass(frozen=True)
class Settled:
    """Our engine by settings."""

    settings: StitchSettings

    def drawer(self, pair: Pair) -> Drawer:
        """Make the drawer."""
        return Stitched(pair, functools.partial(plan_for, self.settings))


@dataclass(frozen=True)
class ThePipeline:
    """diffusers' own pipeline with the large model's weights."""

    def drawer(self, pair: Pair) -> Drawer:
        """Make the drawer; see `Pipeline`."""
        return Pipeline(diffusers_twin(pair.large.config, pair.large.state_dict()), pair.autoencoder)


@dataclass(frozen=True)
class Hooked:
    """One of diffusers' caches.

    Args:
        cache: a function of `benchmarks.caches`, by name.
        values: its arguments.
    """

    cache: str
    values: tuple[Any, ...]

    def drawer(self, pair: Pair) -> Drawer:
        """Make the drawer."""
        network, clock = diffusers_twin(pair.large.config, pair.large.state_dict()), Clock()
        apply: Callable[..., caches.Apply] = getattr(caches, self.cache)
        apply(*self.values)(network, clock, pair)
        return caches.hooked(network, pair, clock)


@dataclass(frozen=True)
class Contender:
    """One way to draw.

    Args:
        method: its curve.
        setting: what distinguishes it from its siblings.
        recipe: what makes its drawer.
        steps, sampler: of its requests.
        quick: whether it is in the quick race too.
    """

    method: str
    setting: str
    recipe: Recipe
    steps: int = STEPS
    sampler: str = "euler"
    quick: bool = False

    @property
    def name(self) -> str:
        """Method and setting."""
        return f"{self.method}, {self.setting}" if self.setting else self.method

    @property
    def ours(self) -> bool:
        """Whether it is one of our methods."""
        return self.method.startswith(OURS)

    def request(self, prompts: Sequence[str], seeds: Sequence[int]) -> Request:
        """The request it draws."""
        return Request(tuple(prompts), tuple(seeds), self.steps, CFG, sampler=self.sampler)


def contenders() -> list[Contender]:
    """Everybody, the reference first."""
    reference = Contender("large only", f"Euler, {STEPS} steps", Fixed(LARGE_ONLY), quick=True)
    return [
        reference,
        Contender("large only, diffusers", f"Euler, {STEPS} steps", ThePipeline(), quick=True),
        Contender("small only", f"Euler, {STEPS} steps", Fixed(SMALL_ONLY), quick=True),
        *fewer_steps(),
        *cached(),
        *stitching_peers(),
        *ours(),
    ]


def fewer_steps() -> list[Contender]:
    """The large model with fewer steps; a step of Heun's is two evaluations, but for the last."""
    counts = {
        "Euler": ("euler", (20, 14, 11, 9)),
        "DPM++ 2M": ("dpmpp-2m", (20, 17, 14, 11, 9)),
        "UniPC": ("unipc", (14, 9)),
        "Heun": ("heun", (7, 5)),
    }
    return [
        Contender(
            f"fewer steps, {label}", f"{steps} steps", Fixed(LARGE_ONLY), steps, sampler, quick=steps in (14, 9, 7)
        )
        for label, (sampler, every) in counts.items()
        for steps in every
    ]


def cached() -> list[Contender]:
    """The caches of diffusers and cache-dit; what they need to run on SD3 is said in `benchmarks.caches`.

    Those that leave out attention only gain too little for a curve: one point shows it.
    """
    first: Settings = [(f"threshold {value:g}", "first_block", (value,)) for value in (0.1, 0.2, 0.3)]
    taylor: Settings = [(f"every {interval}", "taylorseer", (interval,)) for interval in (2, 3, 5)]
    lite: Settings = [(f"every {interval}", "taylorseer", (interval, 1, True)) for interval in (2, 3, 5)]
    attention: Settings = [(f"every {interval}", "broadcast", (interval,)) for interval in (4,)]
    guidance: Settings = [(f"without prompt every {interval}", "faster", (interval,)) for interval in (5,)]
    skips: Settings = [
        (f"threshold {value:g}, at most {longest}", "magnitude", (value, longest))
        for value, longest in ((0.06, 1), (0.06, 3), (0.24, 5))
    ]
    methods: dict[str, Settings] = {
        "First-Block-Cache": first,
        "TaylorSeer": taylor,
        "TaylorSeer lite": lite,
        "Pyramid Attention Broadcast": attention,
        "FasterCache": guidance,
        "MagCache": skips,
    }
    hooks = [
        Contender(method, setting, Hooked(cache, values), quick=index == len(settings) // 2)
        for method, settings in methods.items()
        for index, (setting, cache, values) in enumerate(settings)
    ]
    dual = [
        Contender(
            f"cache-dit DBCache{' + TaylorSeer' * taylor}",
            f"F1B0, threshold {threshold:g}",
            caches.DualBlock(threshold, taylor),
            quick=threshold == 0.2,
        )
        for taylor, threshold in ((False, 0.2), (True, 0.1), (True, 0.2), (True, 0.4))
    ]
    return hooks + dual


def stitching_peers() -> list[Contender]:
    """T-Stitch, SRDiffusion and RAS on our engine, at their published kinds of settings."""
    field = [
        _engine("T-Stitch", f"{share:.0%} small", share == 0.5, method="T-Stitch", switch_step=share)
        for share in (0.36, 0.5, 0.64)
    ]
    field += [
        _engine("SRDiffusion", f"{share:.0%} large", share == 0.5, method="SRDiffusion", switch_step=share)
        for share in (0.8, 0.64, 0.5, 0.43, 0.36)
    ]
    field.append(
        _engine("SRDiffusion adaptive", "at the latest 60%", method="SRDiffusion", switch_step=0.6, adaptive=True)
    )
    return field + [
        _engine("RAS", f"ratio {ratio:g}", ratio == 0.25, method="RAS", switch_step=4, mask_ratio=ratio)
        for ratio in (0.5, 0.25, 0.125)
    ]


def ours() -> list[Contender]:
    """HybridStitch: the published plan, and the curve on which the other presets lie."""
    paper = Contender(f"{OURS} Paper", "", Settled(StitchSettings.from_dict({"preset": "Paper"})), quick=True)
    curve = [_engine(OURS, f"{share:.0%} full", base="Balanced", full_share=share) for share in (0.75, 0.5, 0.39, 0.35)]
    presets = [
        Contender(OURS, name, Settled(StitchSettings.from_dict({"preset": name})), quick=True)
        for name in ("Quality", "Balanced", "Fast")
    ]
    return [paper, *presets, *curve]


def _engine(name: str, setting: str, quick: bool = False, base: str = "Custom", **settings: object) -> Contender:
    """A contender on our engine, whose settings are those of the preset `base` but for `settings`."""
    return Contender(name, setting, Settled(StitchSettings.from_dict({"preset": base, **settings})), quick=quick)
