"""Draw one request in four ways, interleaved, and put together what was gained and what was lost."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybridstitch_demo.generate import Pair, Request, Result, generate, only, resolved
from hybridstitch_demo.metrics import Lpips, psnr
from hybridstitch_demo.words import LENGTH, read
from lib_hybridstitch import __version__
from lib_hybridstitch.engine.report import Record, Report, mean_mask
from lib_hybridstitch.mmdit.tokens import TokenGrid
from lib_hybridstitch.plans.plan import LARGE, SMALL, Plan
from lib_hybridstitch.plans.profile import Profile
from lib_hybridstitch.plans.step_cache import StepCache
from lib_hybridstitch.prediction.operations import pass_flops
from lib_hybridstitch.prediction.resolver import Resolved
from lib_hybridstitch.settings import CUSTOM, DEFAULT_PRESET, StitchSettings

PSNR_OF_EQUALS = 100.0
"""PSNR reported for equal pictures, in dB."""
WAYS = ("large", "hybridstitch", "step_cache", "small")
"""The ways of drawing, in the order in which they take turns and are shown; the names are the report's."""


def machine() -> dict[str, Any]:
    """Describe the machine, for numbers to be judged by."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": "cpu",
    }


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def run_flops(pair: Pair, report: Report) -> int:
    """Count the operations of what a run did."""
    total = 0
    for record in report.evaluations():
        computed = record.rows - record.rows_cached
        for network, share in ((pair.large, record.tokens_large), (pair.small, record.tokens_small)):
            kept = round(share * record.rows / computed) if computed else 0
            total += pass_flops(network.config, kept, record.tokens, LENGTH, computed)
    return total


@dataclass(frozen=True)
class Way:
    """One way to draw a request.

    Args:
        name: as people read it.
        plan: what is done.
        settings, resolved: where the plan comes from; None for a model alone.
    """

    name: str
    plan: Plan
    settings: StitchSettings | None = None
    resolved: Resolved | None = None


def ways(pair: Pair, request: Request, settings: StitchSettings, profile: Profile | None) -> dict[str, Way]:
    """The four ways of `WAYS`: the first and the last are a model alone.

    Args:
        settings: of the second one; Step cache takes its preset and target speed-up over.
        profile: what is known of the large model.
    """
    preset = settings.preset if settings.preset in StepCache.presets else DEFAULT_PRESET
    target = settings.target_speedup
    cache = StitchSettings.from_dict({"method": StepCache.name, "preset": preset, "target_speedup": target})

    def stitched(chosen: StitchSettings) -> Way:
        found = resolved(pair, request, chosen, profile)
        if found.reason == "no_small":  # it was only at hand, nobody asked for it
            chosen = chosen.with_changes({"small_checkpoint": ""})
            found = resolved(pair, request, chosen, profile)
        return Way(_name(chosen, found), found.plan, chosen, found)

    large, small = (Way(f"{name} model", only(step, request)) for name, step in (("Large", LARGE), ("Small", SMALL)))
    return dict(zip(WAYS, (large, stitched(settings), stitched(cache), small), strict=True))


def _name(settings: StitchSettings, found: Resolved) -> str:
    """A method with its preset, or with the speed-up that it was asked for."""
    if settings.plan:
        return "Written plan"
    if settings.target_speedup:
        return f"{found.plan.method}, for {settings.target_speedup:g}x"
    return found.plan.method if settings.preset == CUSTOM else f"{found.plan.method} {settings.preset}"


@dataclass(frozen=True)
class Outcome:
    """What came of one way.

    Args:
        result: of the last run.
        ms: of every timed run, from noise to pictures.
        records: one per evaluation of the last run, each with the median time of all timed runs.
    """

    way: Way
    result: Result
    ms: list[float]
    records: list[Record]

    @property
    def median(self) -> float:
        """Median milliseconds."""
        return statistics.median(self.ms)


@dataclass(frozen=True)
class Comparison:
    """A request drawn in every way.

    Args:
        drawn: by the names of `WAYS`.
        lpips, psnr: distance of each way's pictures to the large model's, (pictures,).
    """

    request: Request
    drawn: Mapping[str, Outcome]
    lpips: Mapping[str, Tensor]
    psnr: Mapping[str, Tensor]

    def ratios(self, way: str) -> list[float]:
        """How much faster than the large model a way was in each timed run, ascending."""
        return sorted(a / b for a, b in zip(self.drawn["large"].ms, self.drawn[way].ms, strict=True))

    def speedup(self, way: str) -> float:
        """Ratio of the medians."""
        return self.drawn["large"].median / self.drawn[way].median


Progress = Callable[[str, int, int], None]
"""Told a way's name, an evaluation, and how many it has."""


def compare(
    pair: Pair,
    request: Request,
    chosen: Mapping[str, Way],
    distance: Lpips,
    repeats: int = 3,
    progress: Progress = lambda *_: None,
) -> Comparison:
    """Draw a request in every way, in turns: one warm-up of each, then `repeats` timed runs."""
    results: dict[str, list[Result]] = {name: [] for name in chosen}
    for _ in range(repeats + 1):
        for name, way in chosen.items():
            results[name].append(_draw(pair, request, way, lambda *at, name=name: progress(name, *at)))
    drawn = {name: _drawn(way, results[name][1:]) for name, way in chosen.items()}
    pictures = {name: one.result.pictures for name, one in drawn.items()}
    large = pictures["large"]
    return Comparison(
        request,
        drawn,
        {name: distance(own, large) for name, own in pictures.items()},
        {name: psnr(own, large).clamp(max=PSNR_OF_EQUALS) for name, own in pictures.items()},
    )


def _draw(pair: Pair, request: Request, way: Way, progress: Callable[[int, int], None]) -> Result:
    cache = way.settings.kv_cache if way.settings else "full"
    return generate(pair, request, way.plan, progress, fp8_cache=cache == "fp8", use_cache=cache != "off")


def _drawn(way: Way, results: list[Result]) -> Outcome:
    times = zip(*([record.ms for record in result.report.evaluations()] for result in results), strict=True)
    last = results[-1]
    records = [
        replace(record, ms=statistics.median(ms)) for record, ms in zip(last.report.evaluations(), times, strict=True)
    ]
    return Outcome(way, last, [result.ms for result in results], records)


def mask_frequency(result: Result, image: int) -> Tensor | None:
    """How often the large model computed each token in masked steps, as the token grid; None without masks."""
    grid = TokenGrid.of(result.latents)
    masks = [mask[image] for mask in result.report.masks.values()]
    return torch.stack(masks).float().mean(0).view(grid.height, grid.width) if masks else None


def report_json(pair: Pair, done: Comparison) -> dict[str, Any]:
    """Put together `report.json`; speed-ups are ratios of the medians of interleaved runs, models already loaded."""
    request, drawn = done.request, done.drawn
    readings = [read(prompt) for prompt in request.prompts]
    return {
        "version": __version__,
        "machine": machine(),
        "prompt": request.prompts[0] if len(set(request.prompts)) == 1 else list(request.prompts),
        "seed": request.seeds[0],
        "count": len(request.seeds),
        "steps": request.steps,
        "size": request.size,
        "cfg": request.cfg,
        "sampler": request.sampler,
        "repeats": len(drawn["large"].ms),
        "ms_large_only": round(drawn["large"].median, 1),
        "ms_small_only": round(drawn["small"].median, 1),
        "ms_hybridstitch": round(drawn["hybridstitch"].median, 1),
        **dict(_figures(pair, done, "hybridstitch")),
        "step_cache": {
            "ms": round(drawn["step_cache"].median, 1),
            **dict(_figures(pair, done, "step_cache")),
        },
        "psnr_small_to_large": round(float(done.psnr["small"].mean()), 2),
        "lpips_small_to_large": round(float(done.lpips["small"].mean()), 4),
        "known_words": sorted({name for reading in readings for name in reading.names}),
        "unknown_words": sorted({word for reading in readings for word in reading.unknown}),
        "dropped_words": sorted({word for reading in readings for word in reading.dropped}),
    }


def _figures(pair: Pair, done: Comparison, name: str) -> Iterator[tuple[str, Any]]:
    """What the report says of one stitched way."""
    one, ratios = done.drawn[name], done.ratios(name)
    report, found, settings = one.result.report, one.way.resolved, one.way.settings
    assert found is not None and settings is not None, "a stitched way has both"
    large = run_flops(pair, done.drawn["large"].result.report)
    yield "name", one.way.name
    yield "method", found.plan.method
    yield "plan", str(found.plan)
    yield "profile", found.plan.profile
    yield "speedup_wall", round(done.speedup(name), 3)
    yield "speedup_wall_range", [round(ratios[0], 3), round(ratios[-1], 3)]
    yield "speedup_flops", round(large / run_flops(pair, report), 3)
    yield "psnr_to_large", round(float(done.psnr[name].mean()), 2)
    yield "lpips_to_large", round(float(done.lpips[name].mean()), 4)
    yield "mean_mask_ratio", round(mean_mask(one.records), 3)
    yield "cache_bytes", report.cache_bytes
    yield "forecast", {"summary": found.summary, "speedup": round(found.speedup, 3), "advice": found.advice}
    yield "notes", list(found.plan.notes)
    yield "failure", report.failure
    yield "stages", [_stage(record) for record in one.records]
    yield "settings", settings.to_dict()


def _stage(record: Record) -> dict[str, Any]:
    return {
        "stage": record.kind.word,
        "kind": record.kind.value,
        "sigma": round(record.sigma, 4),
        "tokens_large": round(record.tokens_large, 2),
        "tokens_small": round(record.tokens_small, 2),
        "tokens": record.tokens,
        "ms": round(record.ms, 2),
    }
