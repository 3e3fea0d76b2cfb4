"""Everybody in the race: each method is a curve, each of its settings one point of it.

The settings of the peers are chosen on training scenes, from what `benchmarks.tuning` tries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks import caches
from benchmarks.diffusers_network import diffusers_network
from benchmarks.drawers import Clock, Drawer, Pipeline, Stitched
from benchmarks.placed import Placed, growing
from benchmarks.spectrum import Spectrum
from benchmarks.trials import written
from hybridstitch_demo.generate import PROFILE, Pair, Request, only, resolved, run_of
from lib_hybridstitch.fields import Scalar
from lib_hybridstitch.plans.hybridstitch import HybridStitch
from lib_hybridstitch.plans.plan import LARGE, SMALL, Plan, Step
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
    """Our engine by settings, as for a model that nobody has measured.

    Args:
        known: whether Step cache goes by the pair's profile.
    """

    settings: StitchSettings
    known: bool = False

    def drawer(self, pair: Pair) -> Drawer:
        """Make the drawer."""
        profile = Profile.read(PROFILE) if self.known else None
        return Stitched(pair, lambda request: resolved(pair, request, self.settings, profile).plan)


@dataclass(frozen=True)
class Written:
    """Our engine by a plan's text form, followed to the letter."""

    plan: str

    def drawer(self, pair: Pair) -> Stitched:
        """Make the drawer."""
        return Stitched(pair, self._plan)

    def _plan(self, request: Request) -> Plan:
        own, sigmas = written(self.plan), run_of(request).sigmas
        return Plan(own.fitted(len(sigmas)), sigmas, "written plan", own.score, own.hold)


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
        alone: whether its pictures are drawn one by one, because it decides once for all pictures of a call; a picture
            would otherwise depend on its neighbours.
    """

    method: str
    setting: str
    recipe: Recipe
    steps: int = STEPS
    sampler: str = "euler"
    quick: bool = False
    alone: bool = False

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
        *placed_steps(),
        *forecasting(),
        *hooked(),
        *cache_dit(),
        *stitching_peers(),
        *ours(),
    ]


def fewer_steps() -> list[Contender]:
    """The large model with fewer steps; a step of Heun's is two evaluations, but for the last."""
    counts = {
        "Euler": ("euler", (14, 9)),
        "DPM++ 2M": ("dpmpp-2m", (14, 9)),
        "UniPC": ("unipc", (14,)),
        "Heun": ("heun", (7,)),
    }
    return [
        Contender(f"fewer steps, {label}", f"{steps} steps", Alone(LARGE), steps, sampler, quick=steps in (14, 9, 7))
        for label, (sampler, every) in counts.items()
        for steps in every
    ]


def placed_steps() -> list[Contender]:
    """The large model by Euler over fewer noise levels, dense where the layout is decided; guidance cached late.

    Plans with "hold" are Euler steps over the noise levels that are computed; `bench search` found them. The others
    have gaps that grow evenly between levels that lie where they fall.
    """
    recipes: list[tuple[str, Recipe]] = [
        ("18 steps, 16 guided", Placed(growing(18, 8, last=True), 16)),
        ("13 steps, 10 guided", Placed(growing(13, 8, last=True), 10)),
        ("11 steps, 9 guided, then none", Placed(growing(11, 8, last=True), 9, cached=False)),
    ]
    recipes += [
        (plan, Written(plan))
        for plan in (
            "9L X L X L 2X L 3X C 3X C 3X L hold",
            "3L C X L X L 3X 2L 4X C 2X C 2X L C L 2X hold",
            "3L 2X L 2X L C 4X C L 5X C 5X C hold",
        )
    ]
    return [Contender("placed steps", name, one, quick=index == 1) for index, (name, one) in enumerate(recipes)]


def forecasting() -> list[Contender]:
    """Spectrum, the windows such that the last step is a computed one, and its authors' own setting."""
    recipes = (
        Spectrum(1.5, 9, 1.0),
        Spectrum(0.75, 7),
        Spectrum(0.85, 6),
        Spectrum(2.5, 6),
        Spectrum(0.75, 5),
    )
    return [
        Contender(
            "Spectrum",
            f"{one.warm_up} first, window {one.window:g} + {one.growth:g}",
            one,
            quick=(one.growth, one.warm_up) == (0.75, 7),
        )
        for one in recipes
    ]


def hooked() -> list[Contender]:
    """The caches of diffusers; what they need to run on SD3 is said in `benchmarks.caches`.

    Those that leave out attention only gain too little for a curve: one point shows it.
    """
    first: Settings = [("threshold 0.2, 9 first", "first_block", (0.2, 9))]
    taylor: Settings = [("every 6, 9 first", "taylorseer", (6, 9, False, True))]
    lite: Settings = [
        (f"every {interval}, {warm_up} first", "taylorseer", (interval, warm_up, True, True))
        for interval, warm_up in ((3, 9), (4, 7), (5, 7))
    ]
    attention: Settings = [("every 4", "broadcast", (4,))]
    guidance: Settings = [("without prompt every 5", "faster", (5,))]
    skips: Settings = [
        (f"threshold {threshold:g}, at most {longest}, {warm_up} first", "magnitude", (threshold, longest, warm_up))
        for threshold, longest, warm_up in ((0.06, 3, 9), (0.5, 9, 7))
    ]
    methods: dict[str, Settings] = {
        "First-Block-Cache": first,
        "TaylorSeer": taylor,
        "TaylorSeer lite": lite,
        "Pyramid Attention Broadcast": attention,
        "FasterCache": guidance,
        "MagCache": skips,
    }
    return [
        Contender(
            method, setting, Hooked(cache, values), quick=index == len(settings) // 2, alone=cache == "first_block"
        )
        for method, settings in methods.items()
        for index, (setting, cache, values) in enumerate(settings)
    ]


def cache_dit() -> list[Contender]:
    """cache-dit's DBCache, by its threshold or by a mask of steps, with its calibrators."""
    by_threshold = [
        Contender(
            "cache-dit DBCache",
            f"F1B0, threshold {threshold:g}{', ' * bool(calibrator)}{calibrator}",
            caches.DualBlock(threshold, calibrator),
            quick=calibrator == "TaylorSeer",
            alone=True,
        )
        for threshold, calibrator in ((0.2, "TaylorSeer"),)
    ]
    mask = (9, 1, 1, 2, 1, 3, 1, 3, 1, 5, 1)
    by_mask = [
        Contender(
            "cache-dit steps mask",
            f"F1B0, {calibrator}",
            caches.DualBlock(calibrator=calibrator, mask=mask),
            quick=calibrator == "DMD",
        )
        for calibrator in ("FoCa", "DMD")
    ]
    return by_threshold + by_mask


def stitching_peers() -> list[Contender]:
    """T-Stitch, SRDiffusion, FlowBlending (Song et al., arXiv 2512.24724) and RAS on our engine."""
    field = [_engine(TStitch.name, f"{share:.0%} small", share == 0.36, switch_step=share) for share in (0.36,)]
    field += [
        _engine(SRDiffusion.name, f"{share:.0%} large", share == 0.5, switch_step=share)
        for share in (0.5, 0.43, 0.36, 0.29)
    ]
    field += [
        Contender("FlowBlending", plan, Written(plan), quick=plan == "10L 14S 4L")
        for plan in ("12L 14S 2L", "10L 14S 4L", "8L 19S 1L")
    ]
    return field + [
        _engine(RAS.name, f"ratio {ratio:g}", ratio == 0.25, mask_ratio=ratio, switch_step=0.32)
        for ratio in (0.25, 0.125)
    ]


def ours() -> list[Contender]:
    """HybridStitch as published, and the curves of both our methods: their presets, and what targets come to."""
    field = [_engine(f"{HybridStitch.name} {PAPER}", "", quick=True, method=HybridStitch.name, preset=PAPER)]
    targets = {HybridStitch.name: (1.4, 2.6), StepCache.name: (2.6, 3.0, 3.4)}
    for method in (HybridStitch, StepCache):
        field += [_engine(method.name, name, quick=True, preset=name) for name in method.presets if name != PAPER]
        field += [_engine(method.name, f"for {target:g}x", target_speedup=target) for target in targets[method.name]]
    known = StitchSettings.from_dict({"method": StepCache.name})
    return [
        *field,
        Contender(f"{StepCache.name} by the pair's profile", "Balanced", Settled(known, known=True), quick=True),
    ]


def _engine(name: str, setting: str, quick: bool = False, **settings: Scalar) -> Contender:
    """A contender on our engine; its curve is named after the method unless that is among the settings."""
    asked = {"method": name, "small_checkpoint": SMALL_CHECKPOINT, **settings}
    return Contender(name, setting, Settled(StitchSettings.from_dict(asked)), quick=quick)
