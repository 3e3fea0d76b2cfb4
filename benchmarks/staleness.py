"""What a masked step loses by what is old in it: its score, its mask, its cached keys and values.

    python3 run.py bench staleness        # a quarter of an hour on one core

A run is large but for five steps, σ 0.90 to 0.82, where the layout is decided. Those steps are left to the small
model, which does damage; then they are masked, each time with something else exact or old. What is shown is the share
of the damage (mean square error of the finished latent) that the masked steps undo.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.trials import CFG, SEED, STEPS, scenes
from hybridstitch_demo.generate import Pair, Request, batches, guided, load_pair, run_of
from hybridstitch_demo.measure import machine
from lib_hybridstitch.engine import masks
from lib_hybridstitch.engine.evaluation import Evaluation, Model
from lib_hybridstitch.engine.history import History
from lib_hybridstitch.mmdit.kv_cache import FreshKeys, KVCache
from lib_hybridstitch.mmdit.tokens import TokenGrid, gather, scatter_
from lib_hybridstitch.plans.profile import log_snr

RESULTS = Path(__file__).parent / "results"
FIRST, LAST = 7, 11
"""The steps that are masked, of `STEPS`."""
BATCH = 16


@dataclass(frozen=True)
class Variant:
    """One way to make a masked step.

    Args:
        name: as the table calls it.
        ratio: of the mask.
        score: where the mask comes from: "exact" (both models in this step), "stale" (the step before, masked tokens
            renewed), "expected" (the small model now against the large one's extrapolated velocity), "known" (both
            extrapolated, nothing of this step), "change" (of x0).
        every: steps from one exact score to the next, those between are stale.
        keys: "exact", "cached", "extrapolated" (in log-SNR, from the last two full passes) or "none".
        refresh: steps from one full large pass to the next within the stage; 0 is never.
        halo: whether the neighbours of the mask are computed too, and only their keys used.
        decay: share of the last score that is added to the new one.
        smooth: whether scores are averaged over 3 × 3 tokens.
        shape: share of the score that the mask must hold, instead of a fixed ratio; 0 is the ratio.
        waiting: share of the mask that goes to the tokens that have waited longest.
        text: whether the text's keys and values are renewed.
    """

    name: str
    ratio: float = 0.3
    score: str = "stale"
    every: int = 1
    keys: str = "cached"
    refresh: int = 0
    halo: bool = False
    decay: float = 0.0
    smooth: bool = False
    shape: float = 0.0
    waiting: float = 0.0
    text: bool = True


class Keys(KVCache):
    """The cache with what is tried on it."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant, self.sigma, self.levels = variant, 1.0, [1.0, 1.0]
        self.full: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def attend(self, rows: tuple[object, ...], name: str, fresh: FreshKeys) -> tuple[Tensor, Tensor]:
        """See `KVCache.attend`."""
        if fresh.tokens is None:
            self.full[name] = [*self.full.get(name, []), (fresh.whole_keys(), fresh.whole_values())][-2:]
            return super().attend(rows, name, fresh)
        if self.variant.keys == "extrapolated" and len(self.full[name]) == 2:
            before, last = (log_snr(level) for level in self.levels)
            reach = (log_snr(self.sigma) - last) / (last - before)
            entry = self._group(rows).entries[name]
            (old_keys, old_values), (keys, values) = self.full[name]
            entry.keys, entry.values = keys + reach * (keys - old_keys), values + reach * (values - old_values)
        if not self.variant.text:
            entry = self._group(rows).entries[name]
            length = fresh.context_length
            held = entry.keys[:, :length].clone(), entry.values[:, :length].clone()
            fresh = replace(fresh, context_keys=held[0], context_values=held[1])
        return super().attend(rows, name, fresh)


@dataclass
class Stage:
    """The masked steps of one batch by one variant; call it for every evaluation of the run."""

    pair: Pair
    variant: Variant | None
    index: int = 0
    score: Tensor | None = None
    signals: Tensor | None = None
    waited: Tensor | None = None
    clean: Tensor | None = None
    history: History | None = None
    small_history: History | None = None
    computed: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.large, self.small = Model(self.pair.large), Model(self.pair.small)
        self.cache = Keys(self.variant or Variant(""))

    def velocity(self, call: Evaluation) -> Tensor:
        """The velocity of an evaluation, (rows, 16, H, W)."""
        index, self.index, sigma = self.index, self.index + 1, float(call.sigma[0])
        grid = TokenGrid.of(call.x, 2)
        inside = FIRST <= index <= LAST
        if inside and self.variant is None:
            return self.small.full_pass(call).velocity
        chosen = self.variant
        refreshed = chosen is not None and chosen.refresh and (index - FIRST + 1) % chosen.refresh == 0
        if not inside or refreshed or chosen is None:
            return grid.to_latent(self._large(call, grid, sigma, needed=index >= FIRST - 2 and index <= LAST))
        return grid.to_latent(self._masked(call, grid, sigma, index, chosen))

    def _large(self, call: Evaluation, grid: TokenGrid, sigma: float, needed: bool) -> Tensor:
        large = self.large.patches(call, None, self.cache if needed else None)
        if needed:
            self.cache.levels = [self.cache.levels[1], sigma]
            self.history = _then(self.history, large, sigma)
            self._note_change(call, grid, sigma, large)
            small = self.small.patches(call)
            self.signals = large - small
            self.small_history = _then(self.small_history, small, sigma)
        return large

    def _masked(self, call: Evaluation, grid: TokenGrid, sigma: float, index: int, chosen: Variant) -> Tensor:
        small = self.small.patches(call)
        exact_now = chosen.score == "exact" and (index - FIRST) % chosen.every == 0
        exact = self.large.patches(call) if exact_now or chosen.keys == "exact" else None
        signals = self.signals
        if exact_now and exact is not None:
            signals = exact - small
        elif chosen.score == "expected" and self.history is not None:
            signals = self.history.at(sigma).reshape(small.shape) - small
        elif chosen.score == "known" and self.history is not None and self.small_history is not None:
            signals = (self.history.at(sigma) - self.small_history.at(sigma)).reshape(small.shape)
        self.small_history = _then(self.small_history, small, sigma)
        assert signals is not None, "a large step comes before"
        tokens = self._chosen(signals, grid, chosen)
        self.cache.sigma = sigma
        if exact is not None and chosen.keys == "exact":
            fresh = gather(exact, tokens)
        elif chosen.halo:
            around = self._around(tokens, grid)
            wide = self.large.patches(call, around, self.cache)
            fresh = gather(scatter_(small.clone(), around, wide), tokens)
            self.computed[-1] = around.shape[1] / grid.count
        else:
            fresh = self.large.patches(call, tokens, None if chosen.keys == "none" else self.cache)
        found = scatter_(small.clone(), tokens, fresh)
        self.history = _then(self.history, found, sigma, tokens)
        self._note_change(call, grid, sigma, found)
        if chosen.score == "stale" or (chosen.score == "exact" and not exact_now):
            self.signals = scatter_(signals.clone(), tokens, fresh - gather(small, tokens))
        elif chosen.score == "exact":
            self.signals = signals
        return found

    def _chosen(self, signals: Tensor, grid: TokenGrid, chosen: Variant) -> Tensor:
        """The mask (rows, K): the same for both rows of a picture."""
        cond, uncond = signals.chunk(2)
        score = torch.lerp(uncond, cond, CFG).abs().mean(-1)
        if chosen.score == "change" and self.score is not None:
            score = self.score
        if chosen.smooth:
            square = score.reshape(-1, 1, grid.height, grid.width)
            score = torch.nn.functional.avg_pool2d(square, 3, 1, 1, count_include_pad=False).flatten(1)
        if chosen.decay and self.waited is not None and chosen.score != "change":
            score = score + chosen.decay * self.waited
        if chosen.decay:
            self.waited = score
        size = masks.mask_size(chosen.ratio, grid.count)
        if chosen.shape:
            part = score.sort(descending=True).values.cumsum(-1) / score.sum(-1, keepdim=True)
            size = int((part < chosen.shape).sum(-1).float().mean()) + 1
        if chosen.waiting:
            waited = torch.zeros_like(score) if self.waited is None else self.waited
            kept = size - masks.mask_size(chosen.waiting * chosen.ratio, grid.count)
            top = score.topk(kept).indices
            waited = (waited + 1).scatter(1, top, 0.0)
            rest = (waited + 1e-3 * score / score.amax()).scatter(1, top, -1.0).topk(size - kept).indices
            self.waited = waited.scatter(1, rest, 0.0)
            tokens = torch.cat((top, rest), 1).sort(1).values
        else:
            tokens = score.topk(size).indices.sort(1).values
        self.computed.append(size / grid.count)
        return tokens.repeat(2, 1)

    def _around(self, tokens: Tensor, grid: TokenGrid) -> Tensor:
        """The mask and its neighbours, as many for every picture as the largest of them has, (rows, K)."""
        square = torch.zeros(tokens.shape[0], grid.count).scatter(1, tokens, 1.0)
        wide = torch.nn.functional.max_pool2d(square.reshape(-1, 1, grid.height, grid.width), 3, 1, 1).flatten(1)
        size = int(wide.sum(1).mean())
        return (2 * square + wide).topk(max(size, tokens.shape[1])).indices.sort(1).values

    def _note_change(self, call: Evaluation, grid: TokenGrid, sigma: float, velocity: Tensor) -> None:
        clean = grid.to_patches(call.x) - sigma * velocity
        cond, uncond = clean.chunk(2)
        clean = torch.lerp(uncond, cond, CFG)
        if self.clean is not None:
            self.score = (clean - self.clean).abs().mean(-1)
        self.clean = clean


def _then(history: History | None, patches: Tensor, sigma: float, tokens: Tensor | None = None) -> History:
    """A history of all rows of a call as if they were one: patches (rows, N, width), renewed at tokens (rows, K)."""
    rows, count, width = patches.shape
    flat = patches.reshape(rows * count, width)
    if history is None:
        return History.begin(flat, sigma)
    if tokens is None:
        return history.then(flat, sigma)
    index = (tokens + count * torch.arange(rows)[:, None]).flatten()
    return history.then(flat[index], sigma, index)


@dataclass(frozen=True)
class Shares:
    """What is measured of a variant."""

    undone: float
    tipped: int
    computed: float


class Bench:
    """The scenes of a pool that the small model damages most, the large model's own way to the stage, and its end."""

    def __init__(self, pair: Pair, pool: int, count: int) -> None:
        self.pair = pair
        prompts, seeds = scenes(pool)
        self._take(prompts, seeds)
        worst = self._errors(None)[0].argsort(descending=True)[:count].tolist()
        self._take([prompts[index] for index in worst], [seeds[index] for index in worst])
        self.damage = self._errors(None)[0]

    def _take(self, prompts: list[str], seeds: list[int]) -> None:
        whole = Request(tuple(prompts), tuple(seeds), STEPS, CFG)
        self.parts = list(batches(whole, BATCH))
        self.sigmas = run_of(whole).sigmas
        alone = Model(self.pair.large)

        def velocity(call: Evaluation) -> Tensor:
            return alone.full_pass(call).velocity

        self.begun = [self._sampled(part, velocity, part.noise(), 0, FIRST - 2) for part in self.parts]
        self.reference = [self._sampled(part, velocity, x, FIRST - 2, STEPS) for part, x in zip(self.parts, self.begun)]

    def shares(self, variant: Variant) -> Shares:
        """Measure a variant."""
        errors, computed = self._errors(variant)
        return Shares(1 - errors.sum().item() / self.damage.sum().item(), int((errors > 0.05).sum()), computed)

    def _errors(self, variant: Variant | None) -> tuple[Tensor, float]:
        errors, computed = [], []
        for part, x, reference in zip(self.parts, self.begun, self.reference):
            stage = Stage(self.pair, variant, FIRST - 2)
            found = self._sampled(part, stage.velocity, x, FIRST - 2, STEPS)
            errors.append((found - reference).pow(2).mean((1, 2, 3)))
            computed += stage.computed
        return torch.cat(errors), sum(computed) / max(len(computed), 1)

    def _sampled(
        self, request: Request, velocity: Callable[[Evaluation], Tensor], x: Tensor, first: int, end: int
    ) -> Tensor:
        denoise = guided(velocity, request, Model(self.pair.large).full_pass)
        for index in range(first, end):
            x = x + ((*self.sigmas, 0.0)[index + 1] - self.sigmas[index]) * denoise(x, self.sigmas[index])
        return x


VARIANTS = (
    Variant("everything exact", score="exact", keys="exact"),
    Variant("keys exact, score expected", score="expected", keys="exact"),
    Variant("keys exact, score known before", score="known", keys="exact"),
    Variant("keys exact, score of the step before", keys="exact"),
    Variant("keys exact, score by change", score="change", keys="exact"),
    Variant("score exact", score="exact"),
    Variant("score exact every 2nd step", score="exact", every=2),
    Variant("score expected", score="expected"),
    Variant("score known before (the engine's)", score="known"),
    Variant("score of the step before", score="stale"),
    Variant("score of the step before, smoothed", smooth=True),
    Variant("score by change", score="change"),
    Variant("score expected, running (decay 0.5)", score="expected", decay=0.5),
    Variant("score expected, keys extrapolated", score="expected", keys="extrapolated"),
    Variant("score exact, keys extrapolated", score="exact", keys="extrapolated"),
    Variant("score expected, no keys of the others", score="expected", keys="none"),
    Variant("score expected, text's keys old", score="expected", text=False),
    Variant("score expected, neighbours computed too", score="expected", halo=True),
    Variant("score expected, every 2nd step large", score="expected", refresh=2),
    Variant("score expected, every 3rd step large", score="expected", refresh=3),
    Variant("score expected, a third for those that waited", score="expected", waiting=0.33),
    Variant("score expected, 60 % of the score", score="expected", shape=0.6),
    *(Variant(f"score expected, mask {ratio:.0%}", ratio, "expected") for ratio in (0.2, 0.4, 0.5)),
    Variant("score expected, mask 40%, keys exact", 0.4, "expected", keys="exact"),
)


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every variant, print its line, and write staleness.json."""
    parser = argparse.ArgumentParser(prog="run.py bench staleness", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--pool", type=int, default=128, help="training scenes of which the damaged ones are taken")
    parser.add_argument("--scenes", type=int, default=40, help="scenes that variants are tried on (%(default)s)")
    parser.add_argument("--only", default="", help="variants whose name contains this")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for staleness.json (%(default)s)")
    options = parser.parse_args(arguments)
    bench = Bench(load_pair(), options.pool, options.scenes)
    rows = []
    for variant in VARIANTS:
        if options.only in variant.name:
            found = bench.shares(variant)
            rows.append({"variant": variant.name, **asdict(found)})
            print(f"{found.undone:.2f} undone, {found.tipped} tipped, {found.computed:.0%}: {variant.name}", flush=True)
    head = {"machine": machine(), "generator_seed": SEED, "pool": options.pool, "scenes": options.scenes}
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**head, "rows": rows}, indent=1)
    (options.out / "staleness.json").write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
