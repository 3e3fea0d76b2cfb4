"""From drawings and times to rows, intervals, and who is nearer at equal speed."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

RESAMPLES = 2000
AXES = {"wall": "speedup_wall", "counted": "speedup_flops"}
"""Kind of speed-up → its name in a row."""


@dataclass(frozen=True)
class Drawn:
    """How one contender's pictures stand, scene by scene.

    Args:
        lpips, psnr, ssim: distance to the reference's picture of the same scene.
        obeyed: whether the judge finds everything that was asked for.
        operations: counted floating-point operations per picture.
    """

    lpips: list[float]
    psnr: list[float]
    ssim: list[float]
    obeyed: list[bool]
    operations: float


@dataclass(frozen=True)
class Outcome:
    """Everything measured of one contender.

    Args:
        ms: milliseconds of each round's batch.
        ratios: the reference's milliseconds over its own, one of each round.
        speedup_flops: counted operations of the reference over its own.
    """

    method: str
    setting: str
    ours: bool
    drawn: Drawn
    ms: list[float]
    ratios: list[float]
    speedup_flops: float

    @property
    def speedup_wall(self) -> float:
        """Median ratio by the clock."""
        return statistics.median(self.ratios)


def interval(values: Tensor) -> tuple[float, float]:
    """Bootstrap interval of the mean of values (scenes,), 95 %."""
    source = torch.Generator().manual_seed(0)
    picks = torch.randint(0, len(values), (RESAMPLES, len(values)), generator=source)
    low, high = values[picks].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return low, high


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile; a single value is both."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def row(outcome: Outcome) -> dict[str, Any]:
    """One contender as it stands in race.json; `ms` is per batch."""
    drawn = outcome.drawn
    low, high = interval(torch.tensor(drawn.lpips))
    return {
        "method": outcome.method,
        "setting": outcome.setting,
        "speedup_wall": round(outcome.speedup_wall, 3),
        "speedup_wall_quartiles": [round(value, 3) for value in quartiles(outcome.ratios)],
        "speedup_flops": round(outcome.speedup_flops, 3),
        "lpips": round(statistics.fmean(drawn.lpips), 4),
        "lpips_low": round(low, 4),
        "lpips_high": round(high, 4),
        "psnr": round(statistics.fmean(drawn.psnr), 2),
        "ssim": round(statistics.fmean(drawn.ssim), 4),
        "obeyed": round(statistics.fmean(drawn.obeyed), 4),
        "n": len(drawn.lpips),
        "ms": round(statistics.median(outcome.ms), 1),
    }


@dataclass(frozen=True)
class Comparison:
    """One of ours against one peer's curve at the speed of ours.

    Args:
        axis: the kind of speed-up, a key of `AXES`.
        lpips: mean distance of ours; None of the peer's where its curve does not reach the speed.
        low, high: paired bootstrap interval (95 %) of ours less the peer's.
        verdict: "nearer" or "further" when the interval leaves 0 out, else "level"; "not reached".
    """

    ours: str
    setting: str
    axis: str
    speedup: float
    lpips: float
    peer: str
    peer_lpips: float | None
    low: float | None
    high: float | None
    verdict: str


def at_speed(curve: Sequence[tuple[float, Tensor]], speed: float) -> Tensor | None:
    """Interpolate a curve linearly, scene by scene.

    Args:
        curve: speed-up and distances (scenes,) of every setting. The reference, 1x at distance 0, belongs to every
            curve: it is what the method does when it is set to nothing.
        speed: where.

    Returns:
        distances (scenes,), or None where the curve ends before.
    """
    start = (1.0, torch.zeros_like(curve[0][1]))
    points = sorted([start, *curve], key=lambda point: point[0])
    if not points[0][0] <= speed <= points[-1][0]:
        return None
    for (left, before), (right, after) in itertools.pairwise(points):
        if left <= speed <= right:
            return torch.lerp(before, after, (speed - left) / (right - left) if right > left else 1.0)
    return points[-1][1]


def compare(outcomes: Sequence[Outcome]) -> list[Comparison]:
    """Each of ours against each peer's curve, by the clock and counted; a model alone is no curve."""
    peers: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if not outcome.ours and not outcome.method.startswith(("large only", "small only")):
            peers.setdefault(outcome.method, []).append(outcome)
    return [
        _against(own, name, peer, axis) for own in outcomes if own.ours for axis in AXES for name, peer in peers.items()
    ]


def _against(own: Outcome, name: str, peer: Sequence[Outcome], axis: str) -> Comparison:
    speed = getattr(own, AXES[axis])
    distances = torch.tensor(own.drawn.lpips)
    found = at_speed([(getattr(one, AXES[axis]), torch.tensor(one.drawn.lpips)) for one in peer], speed)
    known = (own.method, own.setting, axis, round(speed, 3), round(float(distances.mean()), 4), name)
    if found is None:
        return Comparison(*known, None, None, None, "not reached")
    low, high = interval(distances - found)
    verdict = "nearer" if high < 0 else "further" if low > 0 else "level"
    return Comparison(*known, round(float(found.mean()), 4), round(low, 4), round(high, 4), verdict)


def beside_ours(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Each setting of each peer, at its own counted speed-up, against the curves of our methods that reach it.

    Returns:
        rows: peer, setting, speed-up, its mean LPIPS, our method and its LPIPS there, the paired bootstrap interval
        (95 %) of ours less the peer's, and whether ours is "nearer", "further" or "level".
    """
    curves: dict[str, list[Outcome]] = {}
    for one in outcomes:
        if one.ours and one.setting:
            curves.setdefault(one.method, []).append(one)
    rows = []
    for peer in outcomes:
        if peer.ours or peer.method.startswith(("large only", "small only")):
            continue
        distances = torch.tensor(peer.drawn.lpips)
        for method, curve in curves.items():
            points = [(one.speedup_flops, torch.tensor(one.drawn.lpips)) for one in curve]
            found = at_speed(points, peer.speedup_flops)
            if found is None:
                continue
            low, high = interval(found - distances)
            verdict = "nearer" if high < 0 else "further" if low > 0 else "level"
            row: dict[str, Any] = {"peer": peer.method, "setting": peer.setting, "ours": method, "verdict": verdict}
            row |= {"speedup_flops": round(peer.speedup_flops, 3), "peer_lpips": round(float(distances.mean()), 4)}
            row |= {"ours_lpips": round(float(found.mean()), 4), "low": round(low, 4), "high": round(high, 4)}
            rows.append(row)
    return rows


def nearest_peers(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """For each of ours and each axis the peer that comes nearest to the reference at that speed."""
    best: dict[tuple[str, str, str], Comparison] = {}
    for one in comparisons:
        key = (one.ours, one.setting, one.axis)
        if key not in best or _distance(one) < _distance(best[key]):
            best[key] = one
    return list(best.values())


def _distance(comparison: Comparison) -> float:
    return float("inf") if comparison.peer_lpips is None else comparison.peer_lpips


def as_rows(comparisons: Sequence[Comparison]) -> list[Mapping[str, Any]]:
    """Comparisons as they stand in race.json."""
    return [asdict(one) for one in comparisons]
