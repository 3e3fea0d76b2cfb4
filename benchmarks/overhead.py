"""What the engine's parts cost: partial passes over full ones, mask and plan over a large step, cache over its formula.

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
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.stopwatch import Stopwatch, over
from hybridstitch_demo.measure import machine
from hybridstitch_demo.training import LARGE, new_network
from lib_hybridstitch import __version__
from lib_hybridstitch.engine.evaluation import Evaluation, Side
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.kv_cache import KVCache, needed_bytes
from lib_hybridstitch.mmdit.model import MMDiT
from lib_hybridstitch.mmdit.partial import run
from lib_hybridstitch.mmdit.tokens import shared
from lib_hybridstitch.plans.plan import HybridRule, Plan, Segment, Stage
from lib_hybridstitch.prediction.cost import pass_flops

RESULTS = Path(__file__).parent / "results"
RATIOS = (0.1, 0.2, 0.3, 0.5, 1.0)
TOKENS = 1024
CONTEXT = 64
ROWS = 2


def config(depth: int) -> MMDiTConfig:
    """SD3.5-Large's structure at another depth."""
    return replace(LARGE, depth=depth, context_dim=256, pooled_dim=256, pos_embed_size=64)


def inputs(network: MMDiT) -> Evaluation:
    """One evaluation with both streams of one picture."""
    source = torch.Generator().manual_seed(0)
    side = int(TOKENS**0.5) * network.config.patch_size
    return Evaluation(
        x=torch.randn(ROWS, network.config.in_channels, side, side, generator=source),
        sigma=torch.full((ROWS,), 0.5),
        context=torch.randn(ROWS, CONTEXT, network.config.context_dim, generator=source),
        pooled=torch.randn(ROWS, network.config.pooled_dim, generator=source),
        rows=((0, "cond"), (0, "uncond")),
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
    """Time a hybrid step's own work: a whole step less the passes inside it, over a full large step.

    Args:
        now: seconds; on a GPU it waits for what was asked for before.
    """
    rows = []
    for background, score in (("reuse", "detail"), ("reuse", "change"), ("small", "disagreement")):
        inside: list[float] = []
        large, small = (_Timed(network, inside, now) for _ in range(2))
        rule = HybridRule(0.3, score=score, background=background, extrapolate=0.7)
        stitcher = Stitcher(large, small, Plan("x", (Segment(Stage.HYBRID, float("-inf")),), rule))
        own, full = [], []
        for number in range(rounds + 2):
            inside.clear()
            started = now()
            stitcher.velocity(replace(call, sigma=torch.full_like(call.sigma, 0.9 - 0.8 * number / (rounds + 2))))
            whole = 1000 * (now() - started)
            if number > 1:  # the probe and the first masked step warm up
                own.append(whole - sum(inside))
            started = now()
            run(network, call.x, call.sigma, call.context, call.pooled)
            full.append(1000 * (now() - started))
        if stitcher.report.failure:
            raise RuntimeError(stitcher.report.failure)
        rows.append(
            {
                "background": background,
                "score": score,
                "ms": round(statistics.median(own), 3),
                "of_large_step": round(statistics.median(own) / statistics.median(full), 4),
            }
        )
    return rows


class _Timed(Side):
    """A model that notes how long its passes take."""

    def __init__(self, network: MMDiT, spent: list[float], now: Callable[[], float]) -> None:
        super().__init__(network)
        object.__setattr__(self, "spent", spent)
        object.__setattr__(self, "now", now)

    def patches(self, *arguments: Any) -> torch.Tensor:
        """Velocity of the chosen tokens; the time goes into the list."""
        started = self.now()  # type: ignore[attr-defined]
        result = super().patches(*arguments)
        self.spent.append(1000 * (self.now() - started))  # type: ignore[attr-defined]
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
