"""Times and memory of a pair with random weights on one device: passes, the engine's own work, whole runs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.counted import PRESETS, RATIOS, operations_of, plan_bytes, plans
from benchmarks.overhead import bookkeeping
from benchmarks.sd35 import ROWS, Scale, weights
from benchmarks.stopwatch import Stopwatch, over
from hybridstitch_demo.graphs import capture, on_stream
from lib_hybridstitch.engine.evaluation import Evaluation, Model
from lib_hybridstitch.engine.masks import mask_size
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.kv_cache import KVCache, needed_bytes
from lib_hybridstitch.mmdit.model import MMDiT
from lib_hybridstitch.mmdit.partial import run
from lib_hybridstitch.mmdit.tokens import TokenGrid, shared
from lib_hybridstitch.plans.plan import LARGE, Plan
from lib_hybridstitch.prediction.memory import activation_bytes

GUIDANCE = 4.5
RUN_ROUNDS = 3
BOOKKEEPING_ROUNDS = 5
WEIGHT_SPREAD = 0.02
AT_ONCE = 0.3
"""Share of the tokens in the partial pass that is captured and runs beside the small model."""


@dataclass(frozen=True)
class Bench:
    """The pair on its device.

    Args:
        scale: what it is.
        large, small: networks of random weights.
        device: where they compute.
        rounds: timed rounds of single passes.
        compiler: backend of torch.compile for one more row, or "".
    """

    scale: Scale
    large: MMDiT
    small: MMDiT
    device: torch.device
    rounds: int
    compiler: str = ""

    @classmethod
    def of(cls, scale: Scale, device: torch.device, rounds: int, compiler: str = "") -> Bench:
        """Make both networks on the device."""
        large, small = (random_network(config, scale.dtype, device) for config in (scale.large, scale.small))
        return cls(scale, large, small, device, rounds, compiler)

    def passes(self, size: int, until: float) -> dict[str, Any]:
        """Single passes and the engine's own work at one size; rounds end at `until`, by `time.monotonic`."""
        call = self.scale.inputs(size, self.device)
        typed = replace(call, x=self._typed(call.x), context=self._typed(call.context), pooled=self._typed(call.pooled))
        with torch.inference_mode():
            found: dict[str, Any] = {"passes": self._passes(size, typed, Stopwatch(self.device, until))}
            if self.device.type == "cuda":
                found["at_once"] = self._at_once(size, typed, Stopwatch(self.device, until))
            found["bookkeeping"] = bookkeeping(self.large, typed, min(self.rounds, BOOKKEEPING_ROUNDS), self._now)
        return found

    def runs(self, size: int, until: float) -> dict[str, Any]:
        """Whole runs at one size; rounds end at `until`."""
        with torch.inference_mode():
            return {"runs": self._runs(size, self.scale.inputs(size, self.device), Stopwatch(self.device, until))}

    def _typed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.scale.dtype)

    def _now(self) -> float:
        """Seconds, once all work that was asked for is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    # --- single passes -----------------------------------------------------------------------------------------------

    def _passes(self, size: int, call: Evaluation, watch: Stopwatch) -> dict[str, Any]:
        """Full, partial and small passes by the clock beside their counted operations, and their peak memory."""
        count, cache = self.scale.tokens(size), KVCache()

        work = functools.partial(self._pass, call)
        works = {"large": work(self.large, None, None), "large, filling the cache": work(self.large, None, cache)}
        for ratio in RATIOS:
            works[f"large, {ratio:.0%}"] = work(self.large, mask_size(ratio, count), cache)
        works["small"] = work(self.small, None, None)
        if self.compiler:
            compiled = torch.compile(self.large, backend=self.compiler)
            works["large, compiled"] = lambda: compiled(call.x, call.sigma * 1000, call.pooled, call.context)
        peak = watch.peak(works["large"])
        rows = over(watch.clock(works, self.rounds), "large")
        counted = operations_of(self.scale, size)
        for ratio in RATIOS:
            rows[f"large, {ratio:.0%}"]["counted"] = counted["partial_of_large"][f"{ratio:g}"]
        rows["small"]["counted"] = counted["small_of_large"]
        width = self.scale.dtype.itemsize
        formula = activation_bytes(self.scale.large, self.scale.setup(size), width) + self._weights()
        cached = needed_bytes(self.scale.large, count, self.scale.context, len(ROWS), width)
        return {"rows": rows, "peak": _memory(peak, formula), "cache": {"bytes": cache.bytes(), "formula": cached}}

    def _pass(self, call: Evaluation, network: MMDiT, kept: int | None, cache: KVCache | None) -> Callable[[], object]:
        """A pass over `kept` tokens, evenly spread; over all of them when None."""
        tokens = None
        if kept is not None:
            count = TokenGrid.of(call.x, self.scale.large.patch_size).count
            tokens = shared(torch.arange(kept, device=self.device) * count // kept, len(ROWS))
        return lambda: run(network, call.x, call.sigma, call.context, call.pooled, tokens, cache, rows=call.rows)

    def _at_once(self, size: int, call: Evaluation, watch: Stopwatch) -> dict[str, Any]:
        """What a GPU could gain: passes replayed from a CUDA graph, and both models' passes on two streams."""
        cache, aside = KVCache(), torch.cuda.Stream()  # one stream: every new one gets workspaces of its own
        self._pass(call, self.large, None, cache)()
        large = self._pass(call, self.large, None, None)
        partial = self._pass(call, self.large, mask_size(AT_ONCE, self.scale.tokens(size)), cache)
        small = self._pass(call, self.small, None, None)

        def in_turn() -> None:
            partial()
            small()

        works = {"large": large, "partial": partial, "partial, then small": in_turn}
        works["partial beside small, on two streams"] = lambda: beside(partial, small, aside)
        left_out = {}
        for name, work in (("large", large), ("partial", partial), ("partial, then small", in_turn)):
            try:
                works[f"{name}, from a CUDA graph"] = captured(work, aside)
            except RuntimeError as error:  # the other rows are worth having
                left_out[name] = str(error).partition("\n")[0]
        return {"ratio": AT_ONCE, "rows": over(watch.clock(works, self.rounds), "large"), "not_captured": left_out}

    def _weights(self) -> int:
        """Bytes of both networks, which lie on the device all the time."""
        return sum(weights(config, self.scale.dtype.itemsize) for config in (self.scale.large, self.scale.small))

    # --- whole runs --------------------------------------------------------------------------------------------------

    def _runs(self, size: int, call: Evaluation, watch: Stopwatch) -> dict[str, Any]:
        """One picture's evaluations by the large model alone and by each preset, through the engine."""
        every, sigmas = plans(self.scale, size), self.scale.run.sigmas
        alone = Plan((LARGE,) * len(sigmas), sigmas, "large alone")
        field = {alone.method: alone, **{name: every[name].plan for name in PRESETS}}

        def work(plan: Plan) -> Callable[[], object]:
            return lambda: self.whole_run(plan, call)

        peaks = {name: watch.peak(work(plan)) for name, plan in field.items()}
        works = {name: work(plan) for name, plan in field.items()}
        rows = over(watch.clock(works, RUN_ROUNDS, warm_up=0), "large alone")  # the runs for the peaks have warmed up
        speedups = operations_of(self.scale, size)["speedup"]
        width = self.scale.dtype.itemsize
        unused = weights(self.scale.small, width)
        for name, plan in field.items():
            row = rows[name]
            low, high = row.pop("ratio_quartiles")
            row["speedup"] = round(1 / row.pop("ratio"), 3)
            row["speedup_quartiles"] = [round(1 / high, 3), round(1 / low, 3)]
            row["speedup_counted"] = speedups.get(name, 1.0)
            formula = plan_bytes(self.scale, self.scale.setup(size), plan, width, width) + (
                0 if plan.needs_small else unused
            )
            row["peak"] = _memory(peaks[name], formula)
        return rows

    def whole_run(self, plan: Plan, call: Evaluation) -> Tensor:
        """Draw one latent (1, channels, H, W) with Euler and guidance, as a sampler does.

        Raises:
            RuntimeError: when the engine gave up, since the time would be another run's.
        """
        large, small = (Model(network, dtype=self.scale.dtype) for network in (self.large, self.small))
        stitcher = Stitcher(large, small, plan, GUIDANCE, self.scale.large.patch_size)
        latent, sigmas = call.x[:1], plan.sigmas
        for sigma, following in zip(sigmas, (*sigmas[1:], 0.0)):
            level = torch.full_like(call.sigma, sigma)
            asked = replace(call, x=latent.expand_as(call.x), sigma=level, full_pass=large.full_pass)
            cond, uncond = stitcher.velocity(asked).velocity.chunk(2)
            latent = latent + (following - sigma) * (uncond + GUIDANCE * (cond - uncond))
        stitcher.finish()
        if stitcher.report.failure:
            raise RuntimeError(f"{plan.method}: {stitcher.report.failure}")
        return latent


def random_network(config: MMDiTConfig, dtype: torch.dtype, device: torch.device) -> MMDiT:
    """A network whose weights are drawn on the device itself: time does not depend on weights."""
    with torch.device("meta"):
        network = MMDiT(config).to(dtype)
    network = network.to_empty(device=device).eval().requires_grad_(False)
    source = torch.Generator(device).manual_seed(0)
    for name, tensor in network.state_dict().items():
        tensor.normal_(1.0 if ".ln_" in name else 0.0, WEIGHT_SPREAD, generator=source)
    return network


def _memory(peak: int | None, formula: int) -> dict[str, Any]:
    return {"bytes": peak, "formula": formula, "ratio": None if peak is None else round(peak / formula, 3)}


def captured(work: Callable[[], object], aside: torch.cuda.Stream) -> Callable[[], object]:
    """Work as the replay of a CUDA graph, after two warm-ups on the stream `aside`; see `graphs.capture`."""
    with on_stream(aside):
        work()
        work()
    return capture(work)[0]


def beside(first: Callable[[], object], second: Callable[[], object], aside: torch.cuda.Stream) -> None:
    """Do both, the second on the stream `aside`; the current stream goes on when both are done."""
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        second()
    first()
    torch.cuda.current_stream().wait_stream(aside)


def sizes_in_time(bench: Bench, sizes: Sequence[int], minutes: float) -> tuple[dict[str, Any], dict[str, str]]:
    """Time the sizes in their order until time is up: the passes of all sizes before the runs, which are dear.

    Returns:
        size → what was found, and "passes of 1536²", for instance → why they were left out.
    """
    until = time.monotonic() + 60 * minutes
    found: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name, measure in (("passes", bench.passes), ("runs", bench.runs)):
        per_operation = 0.0
        for size in sizes:
            started, operations = time.monotonic(), operations_of(bench.scale, size)["large"]
            if per_operation and started + per_operation * operations > until:
                left_out[f"{name} of {size}²"] = f"no time left of {minutes:g} minutes"
                continue
            try:
                found.setdefault(str(size), {}).update(measure(size, until))
            except RuntimeError as error:  # out of memory, mostly; the other sizes are worth having
                left_out[f"{name} of {size}²"] = str(error).partition("\n")[0]
                continue
            per_operation = (time.monotonic() - started) / operations
    return found, left_out
