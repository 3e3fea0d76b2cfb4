"""What happened in a generation, in words for infotext and in figures for `/last-run` and the panel."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from statistics import median
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lib_hybridstitch import __version__
from lib_hybridstitch.engine.report import Record, Report, mean_mask
from lib_hybridstitch.plans.plan import HIRES, Kind
from lib_hybridstitch.prediction.resolver import Resolved, in_words
from lib_hybridstitch.settings import specs

if TYPE_CHECKING:
    from lib_hybridstitch.generation.generation import Generation, Pass
    from lib_hybridstitch.hosts.base import Sampling

HAPPENED = "HybridStitch"
HASH = "HybridStitch small hash"
PROFILE = "HybridStitch profile"
TIMINGS = "HybridStitch timings"
VERSION = "HybridStitch version"
STOPPED = "HybridStitch stopped"
RUN_KEYS = (HAPPENED, HASH, PROFILE, TIMINGS, VERSION, STOPPED)
"""Infotext keys that record a run; they are never read back."""


@dataclass(frozen=True)
class Done:
    """A finished pass, without the networks it ran on.

    Args:
        sampling: what the host said about it.
        resolved: its plan and prediction.
        report: what happened, with one record per evaluation in `records`.
        patch: edge of a token in latent pixels.
        hosts_own: whether the host draws with its large model by itself too.
    """

    sampling: Sampling
    resolved: Resolved
    report: Report
    records: Sequence[Record]
    patch: int
    hosts_own: bool

    @classmethod
    def of(cls, opened: Pass, records: Sequence[Record]) -> Done:
        """What is left of a pass that was open."""
        stitcher = opened.stitcher
        return cls(opened.sampling, opened.resolved, stitcher.report, records, stitcher.patch, opened.hosts_own)


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
        plan = specs()["plan"].infotext
        infotext.pop(plan, None)  # it stands behind what happened, whether it was written or made
        infotext[HAPPENED] = "; ".join(_sentence(done) for done in generation.passes)
        infotext[plan] = _plan_text(generation.passes)
        infotext[PROFILE] = generation.passes[0].resolved.plan.profile
        if not any(done.resolved.plan.needs_small for done in generation.passes):
            infotext.pop(specs()["small_checkpoint"].infotext, None)  # what had no part in the picture
        elif generation.small_hash:
            infotext[HASH] = generation.small_hash
        if generation.record_timings:
            infotext[TIMINGS] = "; ".join(_timings(done.records) for done in generation.passes)
    if generation.stopped:
        infotext[STOPPED] = generation.stopped
    infotext[VERSION] = __version__


def _sentence(done: Done) -> str:
    return ("hires " if done.sampling.hires else "") + in_words(done.records)


def _plan_text(passes: Sequence[Done]) -> str:
    """The plans of all passes, as the setting `plan` takes them."""
    first = [str(done.resolved.plan) for done in passes if not done.sampling.hires]
    second = [f"{HIRES} {done.resolved.plan}" for done in passes if done.sampling.hires]
    return " ".join(first[:1] + second[:1])


def _timings(records: Sequence[Record]) -> str:
    sums = {kind: sum(one.ms for one in records if one.kind is kind) for kind in dict.fromkeys(r.kind for r in records)}
    return ", ".join(f"{kind.word} {ms:.0f} ms" for kind, ms in sums.items())


def speedup(records: Sequence[Record]) -> float | None:
    """Measured speed-up of a pass: what it would have taken at the pace of its large steps, over what it took.

    None where the large model never computed a whole step by itself, so that there is nothing to compare with.
    """
    large = [record.ms for record in records if record.kind is Kind.LARGE and not record.tokens_small]
    total = sum(record.ms for record in records)
    return len(records) * median(large) / total if large and total else None


def figures(generation: Generation) -> dict[str, Any]:
    """The last run as JSON: settings, timeline, masks and messages; no prompts and no pictures."""
    return {
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": __version__,
        "host": generation.host.name,
        "task": generation.host.task(),
        "settings": generation.settings.to_dict() if generation.settings else None,
        "small_hash": generation.small_hash,
        "stopped": generation.stopped,
        "messages": list(generation.messages),
        "passes": [_pass_figures(done) for done in generation.passes],
    }


def _pass_figures(done: Done) -> dict[str, Any]:
    report, sampling, resolved = done.report, done.sampling, done.resolved
    images, _, height, width = sampling.latent
    return {
        "hires": sampling.hires,
        "method": resolved.plan.method,
        "plan": str(resolved.plan),
        "profile": resolved.plan.profile,
        "happened": _sentence(done),
        "images": images,
        "grid": [height // done.patch, width // done.patch],
        "steps": [_step_figures(record, report.masks) for record in done.records],
        "speedup": speedup(done.records),
        "predicted": resolved.speedup,
        "hosts_own": done.hosts_own,
        "mean_mask_ratio": mean_mask(done.records),
        "cache_bytes": report.cache_bytes,
        "stopped": report.failure,
    }


def _step_figures(record: Record, masks: Mapping[int, Tensor]) -> dict[str, Any]:
    mask = masks.get(record.evaluation)
    return {
        "evaluation": record.evaluation,
        "kind": record.kind.value,
        "name": record.kind.word,
        "sigma": record.sigma,
        "rows": record.rows,
        "rows_cached": record.rows_cached,
        "tokens": record.tokens,
        "tokens_large": record.tokens_large,
        "tokens_small": record.tokens_small,
        "ms": record.ms,
        "mask": None if mask is None else [row.nonzero().flatten().tolist() for row in mask],
    }
