"""The one place where stages meet: given one evaluation of the sampler, decide who computes what, and join it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib_hybridstitch.engine import complexity, guidance
from lib_hybridstitch.engine.evaluation import Evaluation, Row, Side
from lib_hybridstitch.engine.report import Record, Report
from lib_hybridstitch.engine.state import ImageState, RowState, RunState
from lib_hybridstitch.errors import NotFiniteError, StitchError, in_words
from lib_hybridstitch.log import get_logger
from lib_hybridstitch.mmdit.kv_cache import KVCache
from lib_hybridstitch.mmdit.tokens import TokenGrid, complement, gather, scatter_, shared
from lib_hybridstitch.plans.plan import Plan, Stage
from lib_hybridstitch.plans.profile import caution


@dataclass
class Stitcher:
    """The engine of one run. Call `velocity` for each evaluation, in the order the sampler makes them.

    Args:
        large: the large model.
        small: the small model; may be None for plans that never call it.
        plan: stages over σ.
        patch: edge of a token in latent pixels.
        fp8_cache: keep keys and values in 8-bit floats.
        use_cache: whether masked tokens see the keys and values of the others at all.
        keep_masks: record the masks in the report.
        region: (N,) bool, tokens inside the user's inpaint region; None for the whole picture.
    """

    large: Side
    small: Side | None
    plan: Plan
    patch: int = 2
    fp8_cache: bool = False
    use_cache: bool = True
    keep_masks: bool = True
    region: Tensor | None = None
    report: Report = field(default_factory=Report)
    state: RunState = field(init=False)
    called: bool = field(default=False, init=False)
    _asked: str = field(default="", init=False)

    def __post_init__(self) -> None:
        if self.plan.needs_small and self.small is None:
            raise StitchError(f"{self.plan.method} with these settings needs a small model; choose a small checkpoint")
        self.state = RunState(large_cache=KVCache(self.fp8_cache), small_cache=KVCache(self.fp8_cache))

    def velocity(self, call: Evaluation) -> Tensor:
        """Compute the velocity (rows, channels, H, W) of one call.

        Whatever goes wrong on our side ends the stitching: the large model computes this call and all that follow,
        and the report says why. What the large model's own full pass raises then, or in the large stage, passes
        untouched.
        """
        self.called, stitched = True, None
        with self.guarded():
            stitched = self._stitched(call)
        return self._large_alone(call) if stitched is None else stitched

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Around work of ours: the picture comes first, whatever goes wrong in it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - see above
            self.give_up(in_words(error))

    def give_up(self, reason: str) -> None:
        """End the stitching: free the caches and let the large model finish the run."""
        if self.report.failure:
            return
        self.report.failure = reason
        self.report.masks.pop(self.state.evaluation, None)
        self.state.drop()
        get_logger("stitch").warning("HybridStitch stopped, the large model finishes the picture: %s", reason)

    def ask_to_stop(self, reason: str) -> None:
        """Let the large model finish the run from the next call on; may come from another thread."""
        self._asked = self._asked or reason

    def finish(self) -> None:
        """Free what the run held; the report stays."""
        self.state.drop()
        self.report.settle()

    # --- evaluations -------------------------------------------------------------------------------------------------

    def _stitched(self, call: Evaluation) -> Tensor | None:
        """The velocity of one call, or None where the large model is to compute it by itself."""
        grid, sigma = TokenGrid.of(call.x, self.patch), float(call.sigma[0])
        self._begin(call, sigma)
        if self._asked:
            self.give_up(self._asked)
        if self.report.failure or (self.plan.stage(sigma) is Stage.LARGE and self.plan.adaptive is None):
            return None
        record = Record(self.state.evaluation, self.plan.stage(sigma), sigma, len(call.rows), grid.count)
        end = self.report.begin(record, call.x.device)
        velocity = self._by_stage(call, grid, sigma, record)
        if not bool(torch.isfinite(velocity).all()):
            raise NotFiniteError("the stitched velocity", sigma)
        end()
        return velocity

    def _large_alone(self, call: Evaluation) -> Tensor:
        """The large model's full pass and nothing else, so that what it raises is its own."""
        end = None
        with self.guarded():
            tokens, sigma = TokenGrid.of(call.x, self.patch).count, float(call.sigma[0])
            record = Record(self.state.evaluation, Stage.LARGE, sigma, len(call.rows), tokens, tokens)
            end = self.report.begin(record, call.x.device)
        velocity = self.large.full(call, self.patch, True)
        if end is not None:
            with self.guarded():
                end()
                if not self.report.failure and self._reuses:
                    self._remember(call, TokenGrid.of(call.x, self.patch).to_patches(velocity), sigma, None)
        return velocity

    @property
    def _reuses(self) -> bool:
        return Stage.HYBRID in self.plan.stages and self.plan.hybrid.background == "reuse"

    def _begin(self, call: Evaluation, sigma: float) -> None:
        """Notice where one evaluation ends and the next begins: at another σ, or when a row comes again."""
        state = self.state
        if sigma == state.sigma and not state.seen.intersection(call.rows):
            state.seen.update(call.rows)
            return
        state.evaluation += 1
        state.previous_sigma, state.sigma, state.seen = state.sigma, sigma, set(call.rows)
        for image in state.images.values():
            self._settle_adaptive(image)
        if self.plan.stage(sigma) is not Stage.HYBRID:
            state.since_full = None
            return
        state.full = self.plan.is_refresh(state.since_full, state.previous_sigma, sigma)
        state.since_full = 1 if state.full or state.since_full is None else state.since_full + 1
        if not state.full:
            for image in state.images.values():
                self._choose(image, call)

    def _by_stage(self, call: Evaluation, grid: TokenGrid, sigma: float, record: Record) -> Tensor:
        stage = self.plan.stage(sigma)
        if stage is Stage.HYBRID:
            return self._hybrid(call, grid, sigma, record)
        if stage is Stage.SMALL:
            record.tokens_small = grid.count
            return self._small_full(call)
        return self._adaptive(call, grid, record)

    def _small_full(self, call: Evaluation) -> Tensor:
        if self.small is None:
            raise StitchError("this stage needs a small model; choose a small checkpoint")
        return self.small.full(call, self.patch, False)

    # --- SRDiffusion's adaptive switch -------------------------------------------------------------------------------

    def _adaptive(self, call: Evaluation, grid: TokenGrid, record: Record) -> Tensor:
        images = [self.state.image(image) for image, _ in call.rows]
        settled = [index for index, image in enumerate(images) if image.settled]
        rest = [index for index, image in enumerate(images) if not image.settled]
        velocity = torch.empty_like(call.x)
        if settled:
            velocity[settled] = self._small_full(call.part(settled))
        if rest:
            velocity[rest] = self.large.full(call.part(rest), self.patch, True)
        record.tokens_large = grid.count * len(rest) / len(images)
        record.tokens_small = grid.count * len(settled) / len(images)
        if not rest:
            record.stage = Stage.SMALL
        for index in rest:
            image, stream = images[index], call.rows[index][1]
            if stream in image.outputs:
                before = image.outputs[stream]
                ratio = (velocity[index] - before).abs().mean() / (before.abs().mean() + complexity.TINY)
                image.fresh_changes.append(float(torch.tanh(ratio)))
            image.outputs[stream] = velocity[index]
        return velocity

    def _settle_adaptive(self, image: ImageState) -> None:
        rule = self.plan.adaptive
        if rule is None or not image.fresh_changes:
            return
        image.changes.append(sum(image.fresh_changes) / len(image.fresh_changes))
        image.fresh_changes.clear()
        if len(image.changes) > 1 and self.state.sigma <= rule.earliest:
            image.settled = image.settled or rule.settled(*image.changes[-2:])

    # --- hybrid stage ------------------------------------------------------------------------------------------------

    def _hybrid(self, call: Evaluation, grid: TokenGrid, sigma: float, record: Record) -> Tensor:
        if self.plan.hybrid.mask_ratio >= 1:
            record.tokens_large = grid.count
            return self.large.full(call, self.patch, True)
        if self.state.full or not self._known(call):
            return grid.to_latent(self._probe(call, grid, sigma, record))
        groups: dict[int, list[int]] = {}
        for index, (image, _) in enumerate(call.rows):
            tokens = self.state.image(image).tokens
            groups.setdefault(0 if tokens is None else len(tokens), []).append(index)
        if len(groups) == 1:
            return grid.to_latent(self._masked(call, grid, sigma, record, 1.0))
        velocity = torch.empty_like(call.x)
        for chosen in groups.values():
            share = len(chosen) / len(call.rows)
            velocity[chosen] = grid.to_latent(self._masked(call.part(chosen), grid, sigma, record, share))
        return velocity

    def _known(self, call: Evaluation) -> bool:
        """Whether every row has been through a full pass, whose cache or velocity a masked pass rests on."""
        rule, state = self.plan.hybrid, self.state
        if rule.background == "reuse" and not all(row in state.rows for row in call.rows):
            return False
        if rule.mask_ratio == 0:
            return True
        if self.use_cache and not state.large_cache.holds(call.rows):
            return False
        return all(state.image(image).tokens is not None for image, _ in call.rows)

    def _probe(self, call: Evaluation, grid: TokenGrid, sigma: float, record: Record) -> Tensor:
        """Full pass of the large model, which fills the cache, and of the small one where scores need it."""
        rule, state = self.plan.hybrid, self.state
        record.tokens_large = grid.count
        if rule.mask_ratio == 0:
            large = self._full(call, grid, sigma, record)
        else:
            large = self.large.patches(call, None, state.large_cache if self.use_cache else None, True)
        small = None
        fills = rule.fills_small_cache and not state.small_cache.holds(call.rows)
        if self.small is not None and (rule.full_calls_small or fills):
            record.tokens_small = grid.count
            cached = rule.fills_small_cache and self.use_cache
            small = self.small.patches(call, None, state.small_cache if cached else None, False)
            if not bool(torch.isfinite(small).all()):  # it may go into scores alone, and never into a velocity
                raise NotFiniteError("the small model's velocity", sigma)
        self._note_cache()
        if rule.background == "reuse":
            self._remember(call, large, sigma, None)
        self._score(call, grid, sigma, large, large, small, None)
        return large

    def _full(self, call: Evaluation, grid: TokenGrid, sigma: float, record: Record) -> Tensor:
        """A full pass of the large model, patches; where guidance is held, of the prompts' rows alone."""
        held = guidance.followers(self.state, call.rows, sigma) if sigma < self.plan.hybrid.hold_guidance else []
        if not held:
            return grid.to_patches(self.large.full(call, self.patch, True))
        asked = [index for index in range(len(call.rows)) if index not in held]
        record.rows_held, record.tokens_large = len(held), grid.count * len(asked) / len(call.rows)
        fresh: dict[Row, Tensor] = {}
        if asked:
            computed = grid.to_patches(self.large.full(call.part(asked), self.patch, True))
            fresh = {call.rows[index]: velocity for index, velocity in zip(asked, computed)}
        return guidance.joined(self.state, call.rows, fresh)

    def _masked(self, call: Evaluation, grid: TokenGrid, sigma: float, record: Record, share: float) -> Tensor:
        """The large model on the mask, the background elsewhere; returns patches (rows, N, width)."""
        tokens = self._tokens(call)
        record.tokens_large += share * tokens.shape[1]
        background, small = self._background(call, grid, sigma, tokens, record, share)
        fresh = None
        velocity = background
        if tokens.shape[1]:
            fresh = self.large.patches(call, tokens, self.state.large_cache if self.use_cache else None, True)
            velocity = scatter_(background.clone() if background is small else background, tokens, fresh)
        if self.plan.hybrid.background == "reuse" and fresh is not None:
            self._remember(call, fresh, sigma, tokens)
        self._score(call, grid, sigma, velocity, fresh, small, tokens)
        self._note_mask(call, grid, tokens)
        self._note_cache()
        return velocity

    def _background(
        self, call: Evaluation, grid: TokenGrid, sigma: float, tokens: Tensor, record: Record, share: float
    ) -> tuple[Tensor, Tensor | None]:
        """Velocity outside the mask, patches (rows, N, width), and the small model's where it saw every token."""
        rule = self.plan.hybrid
        if rule.background == "reuse":
            rows = [self.state.rows[row].at(sigma, rule.extrapolate * caution(sigma)) for row in call.rows]
            return torch.stack(rows), None
        assert self.small is not None, "checked when the stitcher was made"
        if rule.small_scope == "all" or not tokens.shape[1]:
            record.tokens_small += share * grid.count
            small = self.small.patches(call, None, None, False)
            return small, small
        outside = complement(tokens, grid.count)
        record.tokens_small += share * outside.shape[1]
        part = self.small.patches(call, outside, self.state.small_cache if self.use_cache else None, False)
        return scatter_(part.new_zeros(part.shape[0], grid.count, part.shape[2]), outside, part), None

    def _tokens(self, call: Evaluation) -> Tensor:
        """The masks of the rows, (rows, K), all of one size."""
        device = call.x.device
        masks = [self.state.image(image).tokens for image, _ in call.rows]
        chosen = [torch.empty(0, dtype=torch.long, device=device) if mask is None else mask for mask in masks]
        if len({image for image, _ in call.rows}) == 1:
            return shared(chosen[0], len(chosen))
        return torch.stack(chosen)

    # --- scores and masks --------------------------------------------------------------------------------------------

    def _score(
        self,
        call: Evaluation,
        grid: TokenGrid,
        sigma: float,
        velocity: Tensor,
        fresh: Tensor | None,
        small: Tensor | None,
        tokens: Tensor | None,
    ) -> None:
        """Update the scores from one evaluation: of every token (tokens None) or of those just computed."""
        rule = self.plan.hybrid
        if rule.mask_ratio == 0:
            return
        if rule.score == "disagreement":
            if small is None or fresh is None:
                return
            seen = small if tokens is None else gather(small, tokens)
            self._put(call, complexity.disagreement(fresh, seen), tokens)
        elif rule.score == "ras":
            self._put(call, complexity.ras_metric(velocity, grid), None)
        else:
            clean = grid.to_patches(call.x) - sigma * velocity
            if rule.score == "detail":
                self._put(call, complexity.detail(clean, grid), None)
            else:
                self._score_change(call, clean, tokens)

    def _score_change(self, call: Evaluation, clean: Tensor, tokens: Tensor | None) -> None:
        """The score "change"; before a second look, the size of x0 stands in for its change."""
        before = [self.state.image(image).clean.get(stream) for image, stream in call.rows]
        known = [torch.zeros_like(clean[row]) if old is None else old for row, old in enumerate(before)]
        scores = complexity.change(clean, torch.stack(known))
        scores = torch.where(scores > 1e3, clean.abs().mean(-1), scores)
        self._put(call, scores if tokens is None else gather(scores, tokens), tokens)
        for row, (image, stream) in enumerate(call.rows):
            self.state.image(image).clean[stream] = clean[row]

    def _put(self, call: Evaluation, scores: Tensor, tokens: Tensor | None) -> None:
        for row, (image, stream) in enumerate(call.rows):
            state = self.state.image(image)
            if tokens is None or stream not in state.scores:
                state.scores[stream] = scores[row]
            else:
                state.scores[stream] = state.scores[stream].index_copy(0, tokens[row], scores[row])

    def _choose(self, image: ImageState, call: Evaluation) -> None:
        """Turn an image's scores into its mask for the evaluation that begins."""
        rule, grid = self.plan.hybrid, TokenGrid.of(call.x, self.patch)
        scores = image.score()
        if scores is None or rule.mask_ratio == 0:
            return
        size = complexity.mask_size(rule.mask_ratio, grid.count)
        if rule.score == "ras":
            skipped = torch.zeros_like(scores) if image.skipped is None else image.skipped
            image.tokens = complexity.ras_choice(scores, skipped, size)
            image.skipped = (skipped + 1).index_add(
                0, image.tokens, -torch.ones_like(image.tokens, dtype=skipped.dtype)
            )
            return
        region = None if self.region is None else self.region.to(scores.device)
        image.tokens = complexity.highest(complexity.smooth(scores[None], grid)[0], size, rule.mask_threshold, region)

    def _remember(self, call: Evaluation, patches: Tensor, sigma: float, tokens: Tensor | None) -> None:
        for row, key in enumerate(call.rows):
            known = self.state.rows.get(key)
            if known is None:
                self.state.rows[key] = RowState.start(patches[row], sigma)
            else:
                known.update(patches[row], sigma, None if tokens is None else tokens[row])
        if tokens is None and self.plan.hybrid.hold_guidance > 0:
            guidance.remember(self.state, call.rows, sigma)

    def _note_mask(self, call: Evaluation, grid: TokenGrid, tokens: Tensor) -> None:
        if not self.keep_masks:
            return
        images = 1 + max(image for image, _ in call.rows)
        mask = self.report.masks.get(self.state.evaluation)
        if mask is None or mask.shape[0] < images:
            fresh = torch.zeros(images, grid.count, dtype=torch.bool)
            if mask is not None:
                fresh[: mask.shape[0]] = mask
            mask = self.report.masks[self.state.evaluation] = fresh
        for row, (image, _) in enumerate(call.rows):
            mask[image, tokens[row].cpu()] = True

    def _note_cache(self) -> None:
        held = self.state.large_cache.bytes() + self.state.small_cache.bytes()
        self.report.cache_bytes = max(self.report.cache_bytes, held)
