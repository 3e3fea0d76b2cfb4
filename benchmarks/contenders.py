"""Everybody in the race: each method is a curve, each of its settings one point of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks import caches
from benchmarks.diffusers_network import diffusers_network
from benchmarks.drawers import Clock, Drawer, Pipeline, Stitched
from hybridstitch_demo.generate import PROFILE, Pair, Request, only, resolved
from lib_hybridstitch.fields import Scalar
from lib_hybridstitch.plans.hybridstitch import HybridStitch
from lib_hybridstitch.plans.plan import LARGE, SMALL, Step
from lib_hybridstitch.plans.profile import Profile
from lib_hybridstitch.plans.ras import RAS
from lib_hybridstitch.plans.srdiffusion import SRDiffusion
from lib_hybridstitch.plans.step_cache import StepCache
from lib_hybridstitch.plans.t_stitch import TStitch
from lib_hybridstitch.settings import StitchSettings

STEPS, CFG = caches.STEPS, caches.CFG
OURS = (HybridStitch.name, StepCache.name)
"""What the names of our curves begin with."""
PAPER = "Paper"
"""The preset that is a curve by itself: the method as published."""
SMALL_CHECKPOINT = "small"
"""Says that there is a small model: the pair's own."""

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
class Alone:
    """One model in every step, through our engine."""

    step: Step

    def drawer(self, pair: Pair) -> Drawer:
        """Make the drawer."""
        return Stitched(pair, lambda request: only(self.step, request))


@dataclass(frozen=True)
class Settled:
    """Our engine by settings, with what is known of the pair."""

    settings: StitchSettings

    def drawer(self, pair: Pair) -> Drawer:
        """Make the drawer."""
        profile = Profile.read(PROFILE)
        return Stitched(pair, lambda request: resolved(pair, request, self.settings, profile).plan)


@dataclass(frozen=True)
class ThePipeline:
    """diffusers' own pipeline with the large model's weights."""

    def drawer(self, pair: Pair) -> Drawer:
        """Make the drawer; see `Pipeline`."""
        return Pipeline(diffusers_network(pair.large.config, pair.large.state_dict()), pair.autoencoder)


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
        network, clock = diffusers_network(pair.large.config, pair.large.state_dict()), Clock()
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
    reference = Contender("large only", f"Euler, {STEPS} steps", Alone(LARGE), quick=True)
    return [
        reference,
        Contender("large only, diffusers", f"Euler, {STEPS} steps", ThePipeline(), quick=True),
        Contender("small only", f"Euler, {STEPS} steps", Alone(SMALL), quick=True),
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
        Contender(f"fewer steps, {label}", f"{steps} steps", Alone(LARGE), steps, sampler, quick=steps in (14, 9, 7))
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
        _engine(TStitch.name, f"{share:.0%} small", share == 0.5, switch_step=share) for share in (0.36, 0.5, 0.64)
    ]
    field += [
        _engine(SRDiffusion.name, f"{share:.0%} large", share == 0.5, switch_step=share)
        for share in (0.8, 0.64, 0.5, 0.43, 0.36)
    ]
    return field + [
        _engine(RAS.name, f"ratio {ratio:g}", ratio == 0.25, mask_ratio=ratio) for ratio in (0.5, 0.25, 0.125)
    ]


def ours() -> list[Contender]:
    """HybridStitch as published, and the curves of both our methods: their presets, and other computed shares."""
    field = [_engine(f"{HybridStitch.name} {PAPER}", "", quick=True, method=HybridStitch.name, preset=PAPER)]
    for method in (HybridStitch, StepCache):
        field += [_engine(method.name, name, quick=True, preset=name) for name in method.presets if name != PAPER]
        field += [_engine(method.name, f"{share:.0%} computed", computed_share=share) for share in (0.8, 0.68, 0.5)]
    return field


def _engine(name: str, setting: str, quick: bool = False, **settings: Scalar) -> Contender:
    """A contender on our engine; its curve is named after the method unless that is among the settings."""
    asked = {"method": name, "small_checkpoint": SMALL_CHECKPOINT, **settings}
    return Contender(name, setting, Settled(StitchSettings.from_dict(asked)), quick=quick)
