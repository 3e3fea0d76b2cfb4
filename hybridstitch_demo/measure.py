"""Run one request large only, small only and stitched, interleaved, and put together what was gained and lost."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybridstitch_demo.autoencoder import FACTOR
from hybridstitch_demo.generate import (
    LARGE_ONLY,
    SMALL_ONLY,
    Pair,
    Request,
    Result,
    generate,
    plan_for,
    schedule,
)
from hybridstitch_demo.metrics import Lpips, psnr
from hybridstitch_demo.words import LENGTH, read
from lib_hybridstitch import __version__
from lib_hybridstitch.engine.report import Report
from lib_hybridstitch.mmdit.tokens import TokenGrid
from lib_hybridstitch.plans.plan import Plan
from lib_hybridstitch.prediction.cost import Forecast, StepCosts, forecast, pass_flops
from lib_hybridstitch.prediction.target import aim
from lib_hybridstitch.settings import StitchSettings

PSNR_OF_EQUALS = 100.0
"""PSNR reported for equal pictures, in dB."""


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
        for network, kept in ((pair.large, record.tokens_large), (pair.small, record.tokens_small)):
            each = round(record.kept(kept))
            total += pass_flops(network.config, each, record.tokens, LENGTH, record.rows_computed)
    return total


def foretell(pair: Pair, request: Request, settings: StitchSettings) -> Forecast:
    """Say by counted operations what the settings will do to a request."""
    plan = plan_for(settings, request)
    return forecast(plan, schedule(request), _costs(pair, request, plan))


def settled(pair: Pair, request: Request, settings: StitchSettings) -> StitchSettings:
    """The settings, with the numbers that a target speedup comes to by counted operations, if they name one."""
    if not settings.target_speedup:
        return settings
    sigmas = schedule(request)
    return aim(settings, sigmas, sigmas, lambda plan: _costs(pair, request, plan)).settings


def _costs(pair: Pair, request: Request, plan: Plan) -> StepCosts:
    tokens, rows = (request.size // (FACTOR * pair.large.config.patch_size)) ** 2, 1 if request.cfg == 1 else 2
    return StepCosts.counted(pair.large.config, pair.small.config, plan, tokens, LENGTH, rows, rows)


@dataclass(frozen=True)
class Comparison:
    """The three ways of drawing one request.

    Args:
        large, small, stitched: the last result of each.
        ms: method → milliseconds of every repeat.
        told: what was expected of it.
    """

    request: Request
    settings: StitchSettings
    told: Forecast
    large: Result
    small: Result
    stitched: Result
    ms: dict[str, list[float]]

    def median(self, method: str) -> float:
        """Median milliseconds of "large", "small" or "hybridstitch"."""
        return statistics.median(self.ms[method])


def compare(
    pair: Pair,
    request: Request,
    settings: StitchSettings,
    told: Forecast,
    repeats: int = 3,
    progress: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Draw the request in three ways, interleaved and `repeats` times after one warm-up of each.

    Args:
        told: the forecast, kept beside what happened.
        progress: called with the method, the evaluation and their number.
    """
    plans = {"large": LARGE_ONLY, "small": SMALL_ONLY, "hybridstitch": plan_for(settings, request)}
    options = {"fp8_cache": settings.kv_cache == "fp8", "use_cache": settings.kv_cache != "off"}
    results: dict[str, Result] = {}
    ms: dict[str, list[float]] = {name: [] for name in plans}
    for repeat in range(repeats + 1):
        for name, chosen in plans.items():

            def tell(step: int, of: int, name: str = name) -> None:
                if progress is not None:
                    progress(name, step, of)

            results[name] = generate(pair, request, chosen, tell, **(options if name == "hybridstitch" else {}))
            if repeat:
                ms[name].append(results[name].ms)
    return Comparison(request, settings, told, results["large"], results["small"], results["hybridstitch"], ms)


def mask_frequency(result: Result, image: int) -> Tensor | None:
    """How often the large model computed each token between full passes, as the token grid; None without masks."""
    grid = TokenGrid.of(result.latents)
    masks = [mask[image] for mask in result.report.masks.values() if mask.any()]
    return torch.stack(masks).float().mean(0).view(grid.height, grid.width) if masks else None


def report_json(pair: Pair, done: Comparison, distance: Lpips) -> dict[str, Any]:
    """Put together `report.json`; speed-ups are ratios of the medians of interleaved runs, models already loaded."""
    large, stitched = done.large.pictures, done.stitched.pictures
    readings = [read(prompt) for prompt in done.request.prompts]
    ratios = sorted(a / b for a, b in zip(done.ms["large"], done.ms["hybridstitch"]))
    return {
        "version": __version__,
        "machine": machine(),
        "prompt": done.request.prompts[0] if len(set(done.request.prompts)) == 1 else list(done.request.prompts),
        "seed": done.request.seeds[0],
        "count": len(done.request.seeds),
        "steps": done.request.steps,
        "size": done.request.size,
        "cfg": done.request.cfg,
        "sampler": done.request.sampler,
        "stages": [
            {
                "stage": record.stage.value,
                "sigma": round(record.sigma, 4),
                "tokens_large": round(record.tokens_large, 2),
                "tokens_small": round(record.tokens_small, 2),
                "tokens": record.tokens,
                "ms": round(record.ms, 2),
            }
            for record in done.stitched.report.evaluations()
        ],
        "ms_large_only": round(done.median("large"), 1),
        "ms_small_only": round(done.median("small"), 1),
        "ms_hybridstitch": round(done.median("hybridstitch"), 1),
        "speedup_wall": round(done.median("large") / done.median("hybridstitch"), 3),
        "speedup_wall_range": [round(ratios[0], 3), round(ratios[-1], 3)],
        "repeats": len(ratios),
        "speedup_flops": round(run_flops(pair, done.large.report) / run_flops(pair, done.stitched.report), 3),
        "psnr_to_large": round(float(psnr(stitched, large).clamp(max=PSNR_OF_EQUALS).mean()), 2),
        "lpips_to_large": round(float(distance(stitched, large).mean()), 4),
        "psnr_small_to_large": round(float(psnr(done.small.pictures, large).clamp(max=PSNR_OF_EQUALS).mean()), 2),
        "lpips_small_to_large": round(float(distance(done.small.pictures, large).mean()), 4),
        "mean_mask_ratio": round(done.stitched.report.mean_mask_ratio(), 3),
        "cache_bytes": done.stitched.report.cache_bytes,
        "forecast": {
            "summary": done.told.summary,
            "speedup": round(done.told.speedup, 3),
            "advice": done.told.advice,
        },
        "failure": done.stitched.report.failure,
        "known_words": sorted({name for reading in readings for name in reading.names}),
        "unknown_words": sorted({word for reading in readings for word in reading.unknown}),
        "dropped_words": sorted({word for reading in readings for word in reading.dropped}),
        "settings": done.settings.to_dict(),
    }
