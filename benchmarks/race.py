"""The sanity race: HybridStitch's presets and its peers on one pair, the same seeds, one machine, one run.

    python3 run.py bench            # about ten minutes on two cores
    python3 run.py bench --quick    # two minutes, for a look

Distance is measured to the picture of the large model alone (Euler, same seed); time from noise to picture, one picture
at a time, all contenders taking turns.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lib_hybridstitch import __version__
from lib_hybridstitch.demo.generate import (
    LARGE_ONLY,
    SMALL_ONLY,
    Pair,
    Request,
    batches,
    generate,
    load_pair,
    plan_for,
)
from lib_hybridstitch.demo.measure import PSNR_OF_EQUALS, machine, run_flops
from lib_hybridstitch.demo.metrics import Lpips, psnr, ssim
from lib_hybridstitch.demo.words import DRAWINGS, GROUNDS
from lib_hybridstitch.settings import StitchSettings
from lib_hybridstitch.stitch.plan import Plan

RESULTS = Path(__file__).parent / "results"
STEPS = 28
CFG = 3.0
PROMPT_SEED = 2026
BATCH = 8
RESAMPLES = 2000


@dataclass(frozen=True)
class Contender:
    """One way to draw.

    Args:
        method: its name in the table.
        setting: what distinguishes it from its siblings.
        plan: who computes what; made anew from `settings` when None.
        settings: of the engine.
        steps, sampler: of the request.
    """

    method: str
    setting: str
    plan: Plan | None = None
    settings: StitchSettings | None = None
    steps: int = STEPS
    sampler: str = "euler"

    def request(self, prompts: Sequence[str], seeds: Sequence[int]) -> Request:
        """The request it draws."""
        return Request(tuple(prompts), tuple(seeds), self.steps, CFG, sampler=self.sampler)

    def plan_of(self, request: Request) -> Plan:
        """Its plan over the request's schedule."""
        if self.plan is not None:
            return self.plan
        assert self.settings is not None, "a contender has a plan or settings"
        return plan_for(self.settings, request)


def contenders() -> list[Contender]:
    """Everybody in the race; the reference first."""
    field = [Contender("large only", f"Euler, {STEPS} steps", LARGE_ONLY), Contender("small only", "", SMALL_ONLY)]
    for label, sampler in (("Euler", "euler"), ("DPM++ 2M", "dpmpp-2m")):
        field += [
            Contender("fewer steps", f"{label}, {steps} steps", LARGE_ONLY, steps=steps, sampler=sampler)
            for steps in (20, 17, 14, 10, 8)
        ]
    for share in (0.36, 0.5, 0.64):
        field.append(_stitched("T-Stitch", f"{share:.0%} small", method="T-Stitch", switch_step=share))
    for share in (0.64, 0.5, 0.36):
        field.append(_stitched("SRDiffusion", f"{share:.0%} large", method="SRDiffusion", switch_step=share))
    field.append(_stitched("SRDiffusion", "adaptive", method="SRDiffusion", switch_step=0.6, adaptive=True))
    for ratio in (0.5, 0.25):
        field.append(_stitched("RAS", f"ratio {ratio:g}", method="RAS", switch_step=4, mask_ratio=ratio))
    for preset in ("Paper", "Quality", "Balanced", "Fast"):
        field.append(Contender(f"HybridStitch {preset}", "", settings=StitchSettings.from_dict({"preset": preset})))
    return field


def _stitched(name: str, setting: str, **settings: object) -> Contender:
    return Contender(name, setting, settings=StitchSettings.from_dict({"preset": "Custom", **settings}))


def scenes(count: int) -> tuple[list[str], list[int]]:
    """Prompts of one to three drawings and their seeds, always the same."""
    source = random.Random(PROMPT_SEED)
    prompts = [
        " and ".join(source.sample(DRAWINGS, source.choice((1, 2, 2, 3)))) + " on " + source.choice(GROUNDS)
        for _ in range(count)
    ]
    return prompts, list(range(1000, 1000 + count))


def draw(pair: Pair, contender: Contender, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, float]:
    """Draw all prompts in batches; returns pictures and the counted operations per picture."""
    pictures, operations = [], 0
    for part in batches(contender.request(prompts, seeds), BATCH):
        result = generate(pair, part, contender.plan_of(part), keep_masks=False)
        if result.report.failure:
            raise RuntimeError(f"{contender.method} {contender.setting}: {result.report.failure}")
        pictures.append(result.pictures)
        operations += run_flops(pair, result.report)
    return torch.cat(pictures), operations / len(prompts)


def clock(pair: Pair, field: Sequence[Contender], rounds: int) -> dict[Contender, list[float]]:
    """Milliseconds per picture of every contender, who take turns in an order shuffled anew each round."""
    prompts, seeds = scenes(rounds + 1)
    times: dict[Contender, list[float]] = {contender: [] for contender in field}
    source = random.Random(0)
    for number in tqdm(range(rounds + 1), desc="timing", unit="round", file=sys.stderr):
        for contender in source.sample(list(field), len(field)):
            request = contender.request(prompts[number : number + 1], seeds[number : number + 1])
            result = generate(pair, request, contender.plan_of(request), keep_masks=False)
            if number:  # the first round warms up
                times[contender].append(result.ms)
    return times


def interval(values: Tensor) -> tuple[float, float]:
    """Bootstrap interval of the mean, 95 %."""
    source = torch.Generator().manual_seed(0)
    picks = torch.randint(0, len(values), (RESAMPLES, len(values)), generator=source)
    low, high = values[picks].mean(1).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def race(pair: Pair, field: Sequence[Contender], count: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Run everybody and yield one row each, the reference first."""
    prompts, seeds = scenes(count)
    distance = Lpips()
    reference, most = draw(pair, field[0], prompts, seeds)
    times = clock(pair, field, rounds)
    for contender in tqdm(field, desc="drawing", unit="contender", file=sys.stderr):
        pictures, operations = draw(pair, contender, prompts, seeds)
        far = torch.cat([distance(a, b) for a, b in zip(pictures.split(BATCH), reference.split(BATCH))])
        low, high = interval(far)
        ratios = [a / b for a, b in zip(times[field[0]], times[contender])]
        yield {
            "method": contender.method,
            "setting": contender.setting,
            "ms": round(statistics.median(times[contender]), 1),
            "speedup_wall": round(statistics.median(ratios), 3),
            "speedup_wall_quartiles": [round(q, 3) for q in statistics.quantiles(ratios, n=4)[::2]],
            "speedup_flops": round(most / operations, 3),
            "lpips": round(float(far.mean()), 4),
            "lpips_low": round(low, 4),
            "lpips_high": round(high, 4),
            "psnr": round(float(psnr(pictures, reference).clamp(max=PSNR_OF_EQUALS).mean()), 2),
            "ssim": round(float(ssim(pictures, reference).mean()), 4),
            "n": count,
        }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| method | setting | speed-up, clock (quartiles) | speed-up, counted | LPIPS (95 %) | PSNR | SSIM |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["speedup_wall_quartiles"]
        lines.append(
            f"| {row['method']} | {row['setting']} | {row['speedup_wall']:.2f}x ({low:.2f}–{high:.2f}) "
            f"| {row['speedup_flops']:.2f}x | {row['lpips']:.3f} ({row['lpips_low']:.3f}–{row['lpips_high']:.3f}) "
            f"| {row['psnr']:.1f} | {row['ssim']:.3f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the race and write race.json and race.md."""
    parser = argparse.ArgumentParser(prog="run.py bench race", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="8 scenes and 3 rounds instead of 64 and 15")
    parser.add_argument("--scenes", type=int, default=None, help="prompts × seeds to draw")
    parser.add_argument("--rounds", type=int, default=None, help="timed pictures per contender")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for race.json and race.md")
    options = parser.parse_args(arguments)
    count = options.scenes or (8 if options.quick else 64)
    rounds = options.rounds or (3 if options.quick else 15)
    started = time.time()
    rows = list(race(load_pair(), contenders(), count, rounds))
    head = {
        "version": __version__,
        "machine": machine(),
        "steps": STEPS,
        "cfg": CFG,
        "size": 128,
        "scenes": count,
        "seeds": [1000, 1000 + count - 1],
        "rounds": rounds,
        "minutes": round((time.time() - started) / 60, 1),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "race.json").write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    words = (
        f"{count} scenes, {rounds} timed rounds, guidance {CFG:g}, 128 × 128 pixels, {head['machine']['processor']}, "
    )
    words += f"{head['machine']['threads']} threads, fp32, {head['minutes']} minutes."
    text = f"# Race\n\n{words}\nDistances are to the large model's picture of the same seed.\n\n{table(rows)}\n"
    (options.out / "race.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
