"""The engine of one sampling pass: given one evaluation of the sampler, do what the plan says of its noise level.

Reads from top to bottom: `velocity` takes an evaluation and returns what was predicted; below it stands one function
per kind of step; then what later steps rest on: histories, the CFG cache, scores and masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib_hybridstitch.engine import masks
from lib_hybridstitch.engine.evaluation import COND, UNCOND, Evaluation, Model, Prediction, Row
from lib_hybridstitch.engine.history import History
from lib_hybridstitch.engine.report import Record, Report, stopwatch
from lib_hybridstitch.errors import NotFiniteError, StitchError, in_words
from lib_hybridstitch.mmdit.kv_cache import KVCache
from lib_hybridstitch.mmdit.tokens import TokenGrid, scatter_, shared
from lib_hybridstitch.plans.plan import Kind, Plan, Step


@dataclass(frozen=True)
class Outcome:
    """What one step did.

    Args:
        prediction: its velocity.
        kind: what was done; a step for which something is missing is a large one.
        large, small: tokens per row that each model computed, on average.
        cached: rows that follow from the CFG cache.
    """

    prediction: Prediction
    kind: Kind
    large: float = 0.0
    small: float = 0.0
    cached: int = 0


@dataclass
class RowState:
    """What is known of one row: the histories of both models, and whose velocity each token had last.

    Args:
        by_large: (N,) bool, or one answer for all tokens.
    """

    large: History | None = None
    small: History | None = None
    by_large: Tensor | bool = True

    def expected(self, sigma: float, hold: bool) -> Tensor | None:
        """The velocity (N, width) expected at `sigma`; None while the model it rests on has computed nothing."""
        if not isinstance(self.by_large, Tensor):
            history = self.large if self.by_large else self.small
            return None if history is None else history.at(sigma, hold)
        assert self.large is not None and self.small is not None, "a masked step has computed both"
        return torch.where(self.by_large[:, None], self.large.at(sigma, hold), self.small.at(sigma, hold))


@dataclass
class ImageState:
    """What decides the mask of one picture.

    Args:
        signals: stream → (N, width), whose guided size is the score.
        clean: stream → x0 patches (N, width) of the last step, for the score "change".
        tokens: the mask now, (K,) ascending.
        skipped: (N,) evaluations for which each token was not computed (RAS).
    """

    signals: dict[str, Tensor] = field(default_factory=dict)
    clean: dict[str, Tensor] = field(default_factory=dict)
    tokens: Tensor | None = None
    skipped: Tensor | None = None


@dataclass
class Stitcher:
    """Call `velocity` for each evaluation of a pass, in the order the sampler makes them.

    Args:
        large: the large model, for masked passes; its full passes come with each evaluation.
        small: the small model; may be None for plans that never call it.
        plan: of this pass.
        guidance: the scale of classifier-free guidance, for scores.
        patch: edge of a token in latent pixels.
        fp8_cache: keep keys and values in 8-bit floats.
        use_cache: whether masked tokens see the keys and values of the others at all.
        region: (N,) bool, tokens inside the user's inpaint region; None for the whole picture.
    """

    large: Model
    small: Model | None
    plan: Plan
    guidance: float = 1.0
    patch: int = 2
    fp8_cache: bool = False
    use_cache: bool = True
    region: Tensor | None = None
    report: Report = field(default_factory=Report)
    called: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.plan.needs_small and self.small is None:
            raise StitchError(f"{self.plan.method} needs a small model: choose a small checkpoint")
        self._evaluation, self._sigma = -1, float("inf")
        self._seen: set[Row] = set()
        self._asked_to_stop = ""
        self._stop: Callable[[], Callable[[], float]] = lambda: lambda: 0.0
        self._forget()

    def velocity(self, call: Evaluation) -> Prediction:
        """Predict one evaluation.

        Whatever goes wrong on our side ends the stitching: the large model computes this evaluation and all that
        follow, and the report says why. What its own full pass of the evaluation raises passes untouched.
        """
        self.called, made = True, None
        with self.guarded():
            index = self._begin(call)
            if index is not None:
                made = self._carried_out(call, index)
        if made is not None:
            return made
        prediction = call.full_pass(call)
        with self.guarded():
            self._note_large(call, prediction)
        return prediction

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Around work of ours: the picture comes first, whatever goes wrong in it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - see above
            self.give_up(in_words(error))

    def give_up(self, reason: str) -> None:
        """End the stitching: free what is held and let the large model finish the run."""
        if self.report.failure:
            return
        self.report.failure = reason
        self.report.masks.pop(self._evaluation, None)
        self._forget()

    def ask_to_stop(self, reason: str) -> None:
        """Let the large model finish the run from the next call on; may come from another thread."""
        self._asked_to_stop = self._asked_to_stop or reason

    def finish(self) -> None:
        """Free what the pass held; the report stays."""
        self._forget()

    def _forget(self) -> None:
        self._rows: dict[Row, RowState] = {}
        self._whole: dict[tuple[Row, bool], int] = {}
        self._images: dict[int, ImageState] = {}
        self._differences: dict[tuple[int, bool], Tensor] = {}
        self._cache = KVCache(self.fp8_cache)

    # --- one evaluation ----------------------------------------------------------------------------------------------

    def _begin(self, call: Evaluation) -> int | None:
        """Notice where an evaluation begins (at another σ, or when a row comes again); its step, if there is one."""
        self._stop = stopwatch(call.x.device)
        if self._asked_to_stop:
            self.give_up(self._asked_to_stop)
        sigma = float(call.sigma[0])
        fresh = sigma != self._sigma or not self._seen.isdisjoint(call.rows)
        if fresh:
            self._evaluation, self._sigma, self._seen = self._evaluation + 1, sigma, set()
        self._seen.update(call.rows)
        index = None if self.report.failure else self.plan.index(sigma)
        if fresh and index is not None and self.plan.steps[index].kind is Kind.MASKED:
            self._choose_masks(self.plan.steps[index], call)
        return index

    def _carried_out(self, call: Evaluation, index: int) -> Prediction | None:
        """Do what step `index` says; None where the large model is to compute the evaluation by itself."""
        step, grid, sigma = self.plan.steps[index], TokenGrid.of(call.x, self.patch), self._sigma
        outcome: Outcome | None = None
        if step.kind is Kind.EXTRAPOLATED:
            outcome = self._extrapolated(call, grid, sigma)
        elif step.kind is Kind.SMALL:
            outcome = self._small_step(call, grid, sigma)
        elif step.kind in (Kind.CFG_CACHED, Kind.SMALL_CFG_CACHED):
            outcome = self._cfg_cached(call, grid, sigma, by_large=step.kind is Kind.CFG_CACHED)
        elif step.kind is Kind.MASKED and self._can_mask(call):
            outcome = self._masked(call, grid, sigma, step)
        elif step.kind is Kind.MASKED or self.plan.is_probe(index):
            outcome = self._probe(call, grid, sigma)
        if outcome is None:
            return None
        if not bool(torch.isfinite(outcome.prediction.velocity).all()):
            raise NotFiniteError("the stitched velocity", sigma)
        self._note(call, grid, outcome)
        return outcome.prediction

    def _note(self, call: Evaluation, grid: TokenGrid, outcome: Outcome) -> None:
        self.report.cache_bytes = max(self.report.cache_bytes, self._cache.bytes())
        counts = (len(call.rows), grid.count, outcome.large, outcome.small, outcome.cached)
        self.report.add(Record(self._evaluation, outcome.kind, self._sigma, *counts), self._stop())

    def _note_large(self, call: Evaluation, prediction: Prediction) -> None:
        """Remember a full pass that the large model has made by itself."""
        grid, sigma = TokenGrid.of(call.x, self.patch), float(call.sigma[0])
        if not self.report.failure and self._rests_on_history:
            patches = grid.to_patches(prediction.velocity)
            self._remember(call.rows, patches, sigma, by_large=True)
            self._score_change(call, grid, sigma, patches)
        self._note(call, grid, Outcome(prediction, Kind.LARGE, large=grid.count))

    @property
    def _small(self) -> Model:
        assert self.small is not None, "checked when the stitcher was made"
        return self.small

    @property
    def _rests_on_history(self) -> bool:
        return any(step.kind not in (Kind.LARGE, Kind.SMALL) for step in self.plan.steps)

    # --- the kinds of steps ------------------------------------------------------------------------------------------

    def _extrapolated(self, call: Evaluation, grid: TokenGrid, sigma: float) -> Outcome | None:
        """Nobody computes: every row goes on as its last velocities did."""
        states = [self._rows.get(row, RowState()) for row in call.rows]
        expected = [state.expected(sigma, self.plan.hold) for state in states]
        known = [velocity for velocity in expected if velocity is not None]
        if len(known) < len(call.rows):
            return None
        return Outcome(Prediction(grid.to_latent(torch.stack(known))), Kind.EXTRAPOLATED)

    def _small_step(self, call: Evaluation, grid: TokenGrid, sigma: float) -> Outcome:
        """The small model, all tokens and rows."""
        prediction = self._small.full_pass(call)
        if self._rests_on_history:
            self._remember(call.rows, grid.to_patches(prediction.velocity), sigma, by_large=False)
        return Outcome(prediction, Kind.SMALL, small=grid.count)

    def _cfg_cached(self, call: Evaluation, grid: TokenGrid, sigma: float, by_large: bool) -> Outcome | None:
        """One model on the prompt's rows; the others follow from them by the difference they last had.

        A row whose prompt's is still to come cannot wait for it, and is computed.
        """
        asked = [index for index, row in enumerate(call.rows) if not self._follows(row, call.rows, by_large)]
        if len(asked) == len(call.rows):
            return None if by_large else self._small_step(call, grid, sigma)
        fresh: dict[Row, Tensor] = {}
        if asked:
            part = call.part(asked)
            prediction = part.full_pass(part) if by_large else self._small.full_pass(part)
            fresh = dict(zip(part.rows, grid.to_patches(prediction.velocity), strict=True))
        velocities = []
        for row in call.rows:
            image, _ = row
            prompt = fresh[image, COND] if (image, COND) in fresh else self._history((image, COND), by_large).velocity
            velocities.append(fresh[row] if row in fresh else prompt + self._differences[image, by_large])
        patches = torch.stack(velocities)
        self._remember(call.rows, patches, sigma, by_large)
        computed, cached = grid.count * len(asked) / len(call.rows), len(call.rows) - len(asked)
        kind = Kind.CFG_CACHED if by_large else Kind.SMALL_CFG_CACHED
        prediction = Prediction(grid.to_latent(patches))
        return Outcome(prediction, kind, computed * by_large, computed * (not by_large), cached)

    def _follows(self, row: Row, rows: Sequence[Row], by_large: bool) -> bool:
        """Whether a row's velocity follows from its prompt's in a CFG-cached step of these rows."""
        image, stream = row
        if stream != UNCOND or (image, by_large) not in self._differences:
            return False
        return (image, COND) in rows or self._is_fresh((image, COND), by_large)

    def _probe(self, call: Evaluation, grid: TokenGrid, sigma: float) -> Outcome:
        """Large model on all tokens, which fills the cache; the small one beside it where scores need it."""
        large = self.large.patches(call, None, self._cache if self.use_cache else None)
        self._remember(call.rows, large, sigma, by_large=True)
        self._score_change(call, grid, sigma, large)
        asked_small = self.plan.score == "disagreement"
        if asked_small:
            small = self._small.patches(call)
            if not bool(torch.isfinite(small).all()):  # it goes into scores alone, and never into the velocity
                raise NotFiniteError("the small model's velocity", sigma)
            self._remember(call.rows, small, sigma, by_large=False)
            for index, (image, stream) in enumerate(call.rows):
                self._images.setdefault(image, ImageState()).signals[stream] = large[index] - small[index]
        for row in call.rows:
            self._rows[row].by_large = True
        return Outcome(Prediction(grid.to_latent(large)), Kind.LARGE, grid.count, grid.count * asked_small)

    def _masked(self, call: Evaluation, grid: TokenGrid, sigma: float, step: Step) -> Outcome:
        """The large model on the mask; elsewhere the small model, or what the large one's last velocities say."""
        tokens = self._tokens(call)
        if step.extrapolated:
            histories = [self._history(row, by_large=True) for row in call.rows]
            background = torch.stack([history.at(sigma, self.plan.hold) for history in histories])
        else:
            background = self._small.patches(call)
            self._remember(call.rows, background, sigma, by_large=False)
        fresh = self.large.patches(call, tokens, self._cache if self.use_cache else None)
        velocity = scatter_(background.clone(), tokens, fresh)
        self._remember(call.rows, fresh, sigma, by_large=True, tokens=tokens)
        for index, row in enumerate(call.rows):
            nowhere = torch.zeros(grid.count, dtype=torch.bool, device=tokens.device)
            self._rows[row].by_large = step.extrapolated or nowhere.index_fill(0, tokens[index], True)
        self._score_change(call, grid, sigma, velocity)
        self.report.add_mask(self._evaluation, [image for image, _ in call.rows], tokens, grid.count)
        kept = tokens.shape[1]
        return Outcome(Prediction(grid.to_latent(velocity)), Kind.MASKED, kept, grid.count * (not step.extrapolated))

    # --- what later steps rest on ------------------------------------------------------------------------------------

    def _history(self, row: Row, by_large: bool) -> History:
        """The history of a row that a model has computed before."""
        state = self._rows[row]
        history = state.large if by_large else state.small
        assert history is not None, "asked only for what has been computed"
        return history

    def _remember(
        self, rows: Sequence[Row], patches: Tensor, sigma: float, by_large: bool, tokens: Tensor | None = None
    ) -> None:
        """Keep a model's velocities (rows, N, width), or those of `tokens` (rows, K), for later steps."""
        for index, row in enumerate(rows):
            state = self._rows.setdefault(row, RowState())
            known = state.large if by_large else state.small
            chosen = None if tokens is None else tokens[index]
            made = known.then(patches[index], sigma, chosen) if known else History.begin(patches[index], sigma)
            if by_large:
                state.large = made
            else:
                state.small = made
            if tokens is None:
                state.by_large = by_large
                self._whole[row, by_large] = self._evaluation
        for image in {image for image, _ in rows}:
            cond, uncond = (image, COND), (image, UNCOND)
            if self._is_fresh(cond, by_large) and self._is_fresh(uncond, by_large):
                prompts = self._history(cond, by_large).velocity
                self._differences[image, by_large] = self._history(uncond, by_large).velocity - prompts

    def _is_fresh(self, row: Row, by_large: bool) -> bool:
        """Whether a model's velocity of a whole row is of this evaluation; another one may have had the same σ."""
        return self._whole.get((row, by_large)) == self._evaluation

    def _can_mask(self, call: Evaluation) -> bool:
        """Whether every row has been through a full pass since masks are made, and every picture has a mask."""
        computed = all(self._rows.get(row, RowState()).large is not None for row in call.rows)
        masks_known = all(self._images.get(image, ImageState()).tokens is not None for image, _ in call.rows)
        return computed and masks_known and (not self.use_cache or self._cache.holds(call.rows))

    def _tokens(self, call: Evaluation) -> Tensor:
        """The masks of the rows, (rows, K)."""
        chosen = [self._images[image].tokens for image, _ in call.rows]
        if len({image for image, _ in call.rows}) == 1 and chosen[0] is not None:
            return shared(chosen[0], len(chosen))
        return torch.stack([tokens for tokens in chosen if tokens is not None])

    def _choose_masks(self, step: Step, call: Evaluation) -> None:
        """Turn what is known of every picture into its mask for the evaluation that begins."""
        grid = TokenGrid.of(call.x, self.patch)
        size = masks.mask_size(step.ratio, grid.count)
        for image in {image for image, _ in self._rows}:
            state = self._images.setdefault(image, ImageState())
            if self.plan.score == "ras":
                rows = {stream: row.large for (of, stream), row in self._rows.items() if of == image}
                velocities = {stream: history.velocity for stream, history in rows.items() if history}
                metric = masks.ras_metric(masks.guided(velocities, self.guidance), grid)
                skipped = torch.zeros_like(metric) if state.skipped is None else state.skipped
                state.tokens = masks.ras_choice(metric, skipped, size)
                state.skipped = skipped + 1
                state.skipped[state.tokens] -= 1
                continue
            if self.plan.score == "disagreement":
                state.signals |= self._expected_disagreement(image)
            if state.signals:
                scores = masks.guided(state.signals, self.guidance).abs().mean(-1)
                state.tokens = masks.highest(scores, size, self.region)

    def _expected_disagreement(self, image: int) -> dict[str, Tensor]:
        """By how much the models will differ now, stream → (N, width), for streams where both show a trend."""
        expected = {}
        for (of, stream), row in self._rows.items():
            if of == image and row.large is not None and row.small is not None and row.small.has_trend:
                expected[stream] = row.large.at(self._sigma) - row.small.at(self._sigma)
        return expected

    def _score_change(self, call: Evaluation, grid: TokenGrid, sigma: float, velocity: Tensor) -> None:
        """For the score "change": how x0 has moved since the last step, from velocities (rows, N, width)."""
        if self.plan.score != "change":
            return
        clean = grid.to_patches(call.x) - sigma * velocity
        for index, (image, stream) in enumerate(call.rows):
            state = self._images.setdefault(image, ImageState())
            state.signals[stream] = clean[index] - state.clean.get(stream, torch.zeros_like(clean[index]))
            state.clean[stream] = clean[index]
