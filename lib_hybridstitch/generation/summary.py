"""What happened in a generation, in words for infotext and in figures for `/last-run` and the panel."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from statistics import median
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lib_hybridstitch import __version__
from lib_hybridstitch.engine.report import Record, Report
from lib_hybridstitch.plans.plan import Stage
from lib_hybridstitch.settings import specs

if TYPE_CHECKING:
    from lib_hybridstitch.generation.generation import Generation
    from lib_hybridstitch.hosts.base import Sampling

HAPPENED = "HybridStitch"
HASH = "HybridStitch small hash"
TIMINGS = "HybridStitch timings"
VERSION = "HybridStitch version"
STOPPED = "HybridStitch stopped"
AIMED = "HybridStitch aimed at"
RUN_KEYS = (HAPPENED, HASH, TIMINGS, VERSION, STOPPED, AIMED)
"""Infotext keys that record a run; they are never read back."""


@dataclass(frozen=True)
class Done:
    """A finished pass, without the networks it ran on.

    Args:
        sampling: what the host said about it.
        method: whose plan it followed.
        report: what happened.
        patch: edge of a token in latent pixels.
        used_small: whether a small model was loaded for it.
        foreseen: its speed-up by the forecast.
        hosts_own: whether the host draws with its large model by itself too.
    """

    sampling: Sampling
    method: str
    report: Report
    patch: int
    used_small: bool
    foreseen: float
    hosts_own: bool


def renew(p: Any) -> None:
    """Give a processing object a record of its own, without any key of ours.

    An X/Y/Z plot, like other extensions, generates with shallow copies of one object: they share its record, and what
    an earlier one wrote there would stand in the next picture too. Where none of our keys is, nothing is changed.
    """
    ours = {*RUN_KEYS, *(spec.infotext for spec in specs().values())}
    if not ours.isdisjoint(p.extra_generation_params):
        p.extra_generation_params = {key: value for key, value in p.extra_generation_params.items() if key not in ours}


def write(infotext: MutableMapping[str, Any], generation: Generation) -> None:
    """Record in infotext what happened, and why not where it did not; what an earlier batch left is replaced."""
    for key in RUN_KEYS:
        infotext.pop(key, None)
    if generation.passes:
        infotext[HAPPENED] = "; ".join(_sentence(done) for done in generation.passes)
        if not any(done.used_small for done in generation.passes):
            infotext.pop(specs()["small_checkpoint"].infotext, None)  # what had no part in the picture
        elif generation.small_hash:
            infotext[HASH] = generation.small_hash
        if generation.timings:
            infotext[TIMINGS] = "; ".join(_timings(done.report) for done in generation.passes)
    if generation.aimed and generation.settings:
        infotext[AIMED] = f"{generation.settings.target_speedup:g}x, foretold {generation.aimed.speedup:.2f}x"
    if generation.stopped:
        infotext[STOPPED] = generation.stopped
    infotext[VERSION] = __version__


def _sentence(done: Done) -> str:
    """Steps per stage and the mean mask, such as "6 large, 22 hybrid (8 full, mask 30 %)"."""
    steps = done.report.evaluations()
    parts = []
    for stage in Stage:
        found = [step for step in steps if step.stage is stage]
        if not found:
            continue
        text = f"{len(found)} {stage.value}"
        if stage is Stage.HYBRID:
            full = sum(step.full for step in found)
            held = sum(step.full and step.rows_held > 0 for step in found)
            masked = [step.tokens_large / step.tokens for step in found if not step.full]
            share = sum(masked) / len(masked) if masked else 0.0
            mask = f"mask {share:.0%}".replace("%", " %") if share else "without mask"
            text += f" ({full} full, {held} of them with guidance held, {mask})" if held else f" ({full} full, {mask})"
        parts.append(text)
    return ("hires " if done.sampling.hires else "") + ", ".join(parts)


def _timings(report: Report) -> str:
    steps = report.evaluations()
    sums = [(stage, [step.ms for step in steps if step.stage is stage]) for stage in Stage]
    return ", ".join(f"{stage.value} {sum(times):.0f} ms" for stage, times in sums if times)


def speedup(steps: Sequence[Record]) -> float | None:
    """Measured speed-up of a pass: what it would have taken at the pace of its full large steps, over what it took.

    None where the large model never computed a whole step by itself, so that there is nothing to compare with.
    """
    large = [step.ms for step in steps if step.full and not step.rows_held and not step.tokens_small]
    total = sum(step.ms for step in steps)
    return len(steps) * median(large) / total if large and total else None


def figures(generation: Generation) -> dict[str, Any]:
    """The last run as JSON: settings, timeline, masks and messages; no prompts and no pictures."""
    return {
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": __version__,
        "host": generation.host.name,
        "task": generation.host.task(),
        "settings": generation.settings.to_dict() if generation.settings else None,
        "aimed": generation.aimed.settings.to_dict() if generation.aimed else None,
        "small_hash": generation.small_hash,
        "stopped": generation.stopped,
        "messages": list(generation.messages),
        "passes": [_pass_figures(done) for done in generation.passes],
    }


def _pass_figures(done: Done) -> dict[str, Any]:
    report, sampling = done.report, done.sampling
    images, _, height, width = sampling.latent
    steps = report.evaluations()
    patch = done.patch
    return {
        "hires": sampling.hires,
        "method": done.method,
        "happened": _sentence(done),
        "images": images,
        "grid": [height // patch, width // patch],
        "steps": [_step_figures(step, report.masks.get(step.evaluation)) for step in steps],
        "speedup": speedup(steps),
        "forecast": done.foreseen,
        "hosts_own": done.hosts_own,
        "mean_mask_ratio": report.mean_mask_ratio(),
        "cache_bytes": report.cache_bytes,
        "stopped": report.failure,
    }


def _step_figures(step: Record, mask: Tensor | None) -> dict[str, Any]:
    return {
        "evaluation": step.evaluation,
        "stage": step.stage.value,
        "sigma": step.sigma,
        "rows": step.rows,
        "rows_held": step.rows_held,
        "full": step.full,
        "tokens": step.tokens,
        "tokens_large": step.tokens_large,
        "tokens_small": step.tokens_small,
        "ms": step.ms,
        "mask": None if mask is None else [row.nonzero().flatten().tolist() for row in mask],
    }
