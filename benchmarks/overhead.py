"""What the engine's parts cost: partial passes over full ones, its own work over a large step, cache over its formula.

    python3 run.py bench overhead

Networks of random weights: time does not depend on weights. 1024 tokens, guidance (two rows), fp32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.stopwatch import Stopwatch, over
from hybridstitch_demo.measure import machine
from hybridstitch_demo.training import LARGE, new_network
from lib_hybridstitch import __version__
from lib_hybridstitch.engine.evaluation import Evaluation, Model
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.kv_cache import KVCache, needed_bytes
from lib_hybridstitch.mmdit.model import MMDiT
from lib_hybridstitch.mmdit.partial import run
from lib_hybridstitch.mmdit.tokens import shared
from lib_hybridstitch.plans.method import Run
from lib_hybridstitch.plans.plan import Kind
from lib_hybridstitch.prediction.operations import Setup, pass_flops
from lib_hybridstitch.prediction.resolver import resolve
from lib_hybridstitch.settings import StitchSettings

RESULTS = Path(__file__).parent / "results"
RATIOS = (0.1, 0.2, 0.3, 0.5, 1.0)
TOKENS = 1024
CONTEXT = 64
ROWS = 2
STEPS = {
    "masked, by disagreement": (Kind.MASKED, "M30", "disagreement"),
    "masked, by change": (Kind.MASKED, "M30", "change"),
    "CFG cached": (Kind.CFG_CACHED, "C", "disagreement"),
    "extrapolated": (Kind.EXTRAPOLATED, "X L", "disagreement"),
}
"""What is timed: its kind, what is repeated behind large steps so that it is done, and the score."""
BEFORE, RUN_BEFORE = 24, 3
"""Large steps that a plan begins with, so that it counts as no short one; and how many of them are run."""


def config(depth: int) -> MMDiTConfig:
    """SD3.5-Large's structure at another depth."""
    return replace(LARGE, depth=depth, context_dim=256, pooled_dim=256, pos_embed_size=64)


def inputs(network: MMDiT) -> Evaluation:
    """One evaluation with both streams of one picture."""
    source = torch.Generator().manual_seed(0)
    edge = int(TOKENS**0.5) * network.config.patch_size
    return Evaluation(
        x=torch.randn(ROWS, network.config.in_channels, edge, edge, generator=source),
        sigma=torch.full((ROWS,), 0.5),
        context=torch.randn(ROWS, CONTEXT, network.config.context_dim, generator=source),
        pooled=torch.randn(ROWS, network.config.pooled_dim, generator=source),
        rows=((0, "cond"), (0, "uncond")),
        full_pass=Model(network).full_pass,
    )


@torch.inference_mode()
def partial_passes(network: MMDiT, rounds: int) -> list[dict[str, Any]]:
    """Time passes over evenly spread tokens against the full pass that fills the cache."""
    call = inputs(network)
    cache = KVCache()

    def work(kept: int | None) -> Callable[[], object]:
        tokens = None if kept is None else shared(torch.arange(kept) * TOKENS // kept, ROWS)
        return lambda: run(network, call.x, call.sigma, call.context, call.pooled, tokens, cache, rows=call.rows)

    works = {"full": work(None), **{str(ratio): work(round(ratio * TOKENS)) for ratio in RATIOS}}
    found = over(Stopwatch().clock(works, rounds), "full")
    full = pass_flops(network.config, TOKENS, TOKENS, CONTEXT)
    return [
        {
            "ratio": ratio,
            "ms": round(found[str(ratio)]["ms"], 1),
            "of_full": round(found[str(ratio)]["ratio"], 3),
            "of_full_quartiles": [round(value, 3) for value in found[str(ratio)]["ratio_quartiles"]],
            "of_full_counted": round(pass_flops(network.config, round(ratio * TOKENS), TOKENS, CONTEXT) / full, 3),
        }
        for ratio in RATIOS
    ]


@torch.inference_mode()
def bookkeeping(
    network: MMDiT, call: Evaluation, rounds: int, now: Callable[[], float] = time.perf_counter
) -> list[dict[str, Any]]:
    """Time the engine's own work in each kind of step: a whole step less the passes inside it, over a large step.

    Args:
        now: seconds; on a GPU it waits for what was asked for before.
    """
    return [{"step": name, **_own_work(network, call, rounds, now, name)} for name in STEPS]


def _own_work(network: MMDiT, call: Evaluation, rounds: int, now: Callable[[], float], name: str) -> dict[str, float]:
    kind, repeated, score = STEPS[name]
    text = f"{BEFORE}L {' '.join([repeated] * (rounds + 1))} score={score}"
    count = BEFORE + (rounds + 1) * len(repeated.split())
    run_of = Run(tuple(0.95 - 0.9 * number / count for number in range(count)))
    setup = Setup(network.config, network.config, TOKENS, CONTEXT, 1, ROWS)
    plan = resolve(StitchSettings(plan=text, small_checkpoint="small"), run_of, setup).plan
    model = _Timed(network, now=now)
    stitcher = Stitcher(model, model, plan)
    own, full = [], []
    for step, sigma in list(zip(plan.steps, plan.sigmas, strict=True))[BEFORE - RUN_BEFORE :]:
        model.spent.clear()
        started = now()
        stitcher.velocity(replace(call, sigma=torch.full_like(call.sigma, sigma), full_pass=model.full_pass))
        whole = 1000 * (now() - started)
        if step.kind is kind:
            own.append(whole - sum(model.spent))
        started = now()
        run(network, call.x, call.sigma, call.context, call.pooled)
        full.append(1000 * (now() - started))
    if stitcher.report.failure:
        raise RuntimeError(stitcher.report.failure)
    ms = statistics.median(own[1:])  # the first one warms up
    return {"ms": round(ms, 3), "of_large_step": round(ms / statistics.median(full), 4)}


@dataclass(frozen=True)
class _Timed(Model):
    """A model that notes how long its passes take.

    Args:
        spent: milliseconds of every pass.
        now: seconds.
    """

    spent: list[float] = field(default_factory=list)
    now: Callable[[], float] = time.perf_counter

    def patches(self, call: Evaluation, tokens: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Velocity of the chosen tokens, as `Model` computes it."""
        started = self.now()
        result = super().patches(call, tokens, cache)
        self.spent.append(1000 * (self.now() - started))
        return result


@torch.inference_mode()
def caches(network: MMDiT) -> list[dict[str, Any]]:
    """Compare what a cache holds with what its formula says."""
    call = inputs(network)
    rows = []
    for fp8, itemsize in ((False, 4), (True, 1)):
        cache = KVCache(fp8)
        run(network, call.x, call.sigma, call.context, call.pooled, cache=cache, rows=call.rows)
        formula = needed_bytes(network.config, TOKENS, CONTEXT, ROWS, itemsize)
        rows.append({"kind": "fp8" if fp8 else "fp32", "bytes": cache.bytes(), "formula": formula})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write overhead.json."""
    parser = argparse.ArgumentParser(prog="run.py bench overhead", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (default %(default)s)")
    parser.add_argument("--depth", type=int, default=8, help="joint blocks of the network (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for overhead.json")
    options = parser.parse_args(arguments)
    network = new_network(config(options.depth)).eval().requires_grad_(False)
    found = {
        "version": __version__,
        "machine": machine(),
        "network": {"depth": options.depth, "tokens": TOKENS, "context": CONTEXT, "rows": ROWS, "dtype": "fp32"},
        "rounds": options.rounds,
        "partial_pass": partial_passes(network, options.rounds),
        "bookkeeping": bookkeeping(network, inputs(network), options.rounds),
        "cache": caches(network),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1)
    (options.out / "overhead.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
