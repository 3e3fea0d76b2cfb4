"""CFG-cached steps, by hand: the prompt's rows are computed, the negative prompt's follow by the last difference."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from lib_hybridstitch.engine.evaluation import COND, UNCOND, Evaluation, Model, Prediction, Row
from lib_hybridstitch.engine.stitcher import Stitcher
from tests.engine.passes import PAIR, TOKENS, evaluation, large_model, latents, letters, small_network
from tests.plans.schedules import written

BOTH_IMAGES: tuple[Row, ...] = ((0, COND), (1, COND), (0, UNCOND), (1, UNCOND))


class Models:
    """Two models that answer with numbers given per row, and note what they were asked."""

    def __init__(self, plan: str) -> None:
        self.asked: list[tuple[str, tuple[Row, ...]]] = []
        self.answers: dict[Row, float] = {}
        small = Model(small_network(), lambda call: self.answer("small", call))
        self.engine = Stitcher(large_model(), small, written(plan))

    def answer(self, model: str, call: Evaluation) -> Prediction:
        self.asked.append((model, call.rows))
        values = torch.tensor([self.answers[row] for row in call.rows])
        return Prediction(torch.ones_like(call.x) * values.view(-1, 1, 1, 1))

    def step(self, index: int, rows: Sequence[Row], *values: float) -> list[float]:
        """The velocities of one call in the step `index`, where the models would answer with `values`."""
        self.asked.clear()
        self.answers = dict(zip(rows, values))
        x = torch.cat([latents(1)] * len(rows))
        call = evaluation(x, self.engine.plan.sigmas[index], rows, full_pass=lambda call: self.answer("large", call))
        velocity = self.engine.velocity(call).velocity
        assert not self.engine.report.failure
        return [float(row.mean()) for row in velocity]


@pytest.mark.parametrize(("plan", "model"), [("2L C", "large"), ("2S s", "small")])
def test_the_negative_prompt_follows_by_the_difference_it_had(plan: str, model: str) -> None:
    models = Models(plan)
    models.step(0, BOTH_IMAGES, 1, 2, 11, 22)
    models.step(1, BOTH_IMAGES, 1, 2, 4, 8)
    assert models.step(2, BOTH_IMAGES, 5, 6, -1, -1) == [5, 6, 5 + 3, 6 + 6]
    assert models.asked == [(model, ((0, COND), (1, COND)))]
    record = models.engine.report.evaluations()[2]
    assert (record.kind.value, record.rows, record.rows_cached) == (plan[-1], 4, 2)
    shares = (record.tokens_large, record.tokens_small)
    assert shares == ((TOKENS / 2, 0) if model == "large" else (0, TOKENS / 2))


def test_the_difference_is_that_of_the_last_step_that_had_both_and_stays() -> None:
    models = Models("2L C L C C")
    for index, cond, uncond in ((0, 0, 9), (1, 0, 3)):
        models.step(index, PAIR, cond, uncond)
    assert models.step(2, PAIR, 1, -1) == [1, 4]
    models.step(3, PAIR, 2, 4)
    assert models.step(4, PAIR, 5, -1) == [5, 7]
    assert models.step(5, PAIR, 6, -1) == [6, 8]


def test_rows_may_come_apart_where_the_prompts_come_first() -> None:
    models = Models("2L C")
    for index in range(2):
        models.step(index, PAIR[:1], 1)
        models.step(index, PAIR[1:], 4)
    assert models.step(2, PAIR[:1], 5) == [5]
    assert models.step(2, PAIR[1:], -1) == [8]
    assert models.asked == []
    record = models.engine.report.evaluations()[2]
    assert (record.kind.value, record.rows, record.rows_cached, record.tokens_large) == ("C", 2, 1, TOKENS / 2)


def test_a_row_whose_prompt_is_still_to_come_is_computed() -> None:
    models = Models("2L C")
    for index in range(2):
        models.step(index, PAIR, 1, 4)
    assert models.step(2, PAIR[1:], 7) == [7]
    assert models.step(2, PAIR[:1], 5) == [5]
    assert letters(models.engine) == "LLL"


def test_a_second_evaluation_at_one_level_does_not_mix_with_the_first() -> None:
    """Heun: the rows of the first evaluation were of another latent."""
    models = Models("2L C")
    for index in range(2):
        models.step(index, PAIR, 1, 4)
    for cond in (5, 50):
        assert models.step(2, PAIR[:1], cond) == [cond]
        assert models.step(2, PAIR[1:], -1) == [cond + 3]
    assert models.step(2, PAIR[1:], 7) == [7], "this time its prompt is still to come"


def test_only_the_negative_prompt_follows() -> None:
    rows: tuple[Row, ...] = ((0, COND), (0, "cond 2"), (0, UNCOND))
    models = Models("2L C")
    for index in range(2):
        models.step(index, rows, 1, 2, 4)
    assert models.step(2, rows, 5, 6, -1) == [5, 6, 8]
    assert models.asked == [("large", rows[:2])]


def test_without_a_difference_or_a_negative_prompt_the_large_model_computes_all() -> None:
    models = Models("2L 2C")
    for index in range(3):
        assert models.step(index, PAIR[:1], index) == [index]
    assert models.step(3, PAIR, 5, 6) == [5, 6]
    assert letters(models.engine) == "LLLL"


def test_what_fails_in_a_part_of_the_rows_is_computed_whole_by_the_large_model() -> None:
    """To evaluate some rows alone is our doing, which the host, or another extension, may not expect."""
    engine, x = Stitcher(large_model(), None, written("3L 2C")), latents()
    asked: list[tuple[Row, ...]] = []

    def only_whole(call: Evaluation) -> Prediction:
        asked.append(call.rows)
        if len(call.rows) < 2:
            raise RuntimeError("two rows are expected")
        return Prediction(call.x)

    for sigma in engine.plan.sigmas:
        assert torch.equal(engine.velocity(evaluation(x, sigma, full_pass=only_whole)).velocity, x)
    assert asked == [PAIR] * 3 + [PAIR[:1], PAIR, PAIR]
    assert "two rows are expected" in engine.report.failure
