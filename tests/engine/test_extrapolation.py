"""Extrapolated steps, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lib_hybridstitch.engine.evaluation import COND, UNCOND, Evaluation, Model
from lib_hybridstitch.engine.history import FOLLOWED, LONGEST_REACH, NOISY, History
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.plans.profile import log_snr
from tests.engine.passes import (
    GRID,
    both,
    constant,
    evaluation,
    large_model,
    latents,
    letters,
    small_network,
    stitcher,
)
from tests.plans.schedules import written

SIGMAS = (1.0, 0.8, 0.7, 0.6, 0.5, 0.2, 0.1)


def reach(sigma: float, last: float, before: float) -> float:
    """How far λ(σ) lies behind the last level, in distances of the two."""
    return (log_snr(sigma) - log_snr(last)) / (log_snr(last) - log_snr(before))


def carried_out(text: str, large: tuple[float, ...], small: tuple[float, ...] = ()) -> tuple[list[float], Stitcher]:
    """The velocity of every step of a plan on `SIGMAS`, whose models answer with one number per call."""
    plan = written(text, SIGMAS[: len(written(text).steps)])
    engine = Stitcher(large_model(), Model(small_network(), constant(*small)), plan)
    full_pass, x = constant(*large), latents()[0]
    made = [engine.velocity(both(x, sigma, full_pass=full_pass)).velocity for sigma in plan.sigmas]
    for velocity in made:
        assert torch.allclose(velocity[1] - velocity[0], torch.tensor(10.0)), "each row by its own history"
    return [float(velocity[0].mean()) for velocity in made], engine


def test_it_follows_most_of_the_line_through_the_last_two_in_log_snr() -> None:
    assert FOLLOWED == 0.9
    made, engine = carried_out("3L X", (5.0, 2.0, 3.0))
    assert made[3] == pytest.approx(3 + 0.9 * reach(0.6, 0.7, 0.8) * (3 - 2))
    assert letters(engine) == "LLLX"


def test_what_was_extrapolated_is_nothing_to_extrapolate_from() -> None:
    made, _ = carried_out("3L 2X", (5.0, 2.0, 3.0))
    assert made[4] == pytest.approx(3 + 0.9 * reach(0.5, 0.7, 0.8) * (3 - 2))


def test_above_the_noisy_levels_it_holds() -> None:
    assert NOISY == 0.75
    history = History.begin(torch.tensor([[2.0]]), 0.8).then(torch.tensor([[3.0]]), 0.78)
    assert float(history.at(0.76)) == float(history.at(0.7501)) == 3.0
    way = reach(0.75, 0.78, 0.8)
    assert 0 < way <= LONGEST_REACH, "else nothing was tested"
    assert float(history.at(0.75)) == pytest.approx(3 + 0.9 * way, abs=1e-3)


def test_where_it_would_reach_too_far_it_holds() -> None:
    assert LONGEST_REACH == 2.5
    history = History.begin(torch.tensor([[2.0]]), 0.7).then(torch.tensor([[3.0]]), 0.6)
    levels = [sigma / 1000 for sigma in range(599, 0, -1)]
    near = [sigma for sigma in levels if reach(sigma, 0.6, 0.7) <= 2.5]
    assert 0 < len(near) < len(levels)
    assert all(float(history.at(sigma)) > 3 for sigma in near)
    assert all(float(history.at(sigma)) == 3 for sigma in levels if sigma not in near)


@pytest.mark.parametrize(("sigma", "hold"), [(0.5, True), (0.65, False), (0.6, False), (math.nan, False)])
def test_it_holds_where_a_plan_says_so_and_never_looks_back(sigma: float, hold: bool) -> None:
    history = History.begin(torch.tensor([[2.0]]), 0.7).then(torch.tensor([[3.0]]), 0.6)
    assert float(history.at(sigma, hold)) == 3.0


def test_a_single_point_is_held() -> None:
    made, engine = carried_out("2L S X", (5.0, 2.0), (7.0,))
    assert made == [5.0, 2.0, 7.0, 7.0] and letters(engine) == "LLSX"


def test_a_second_look_at_one_level_takes_the_place_of_the_first() -> None:
    history = (
        History.begin(torch.tensor([[1.0]]), 0.8).then(torch.tensor([[9.0]]), 0.7).then(torch.tensor([[2.0]]), 0.7)
    )
    assert float(history.at(0.6)) == pytest.approx(2 + 0.9 * reach(0.6, 0.7, 0.8) * (2 - 1), abs=1e-5)


def test_every_token_rests_on_the_levels_at_which_it_was_computed() -> None:
    history = History.begin(torch.tensor([[1.0], [1.0]]), 0.8).then(torch.tensor([[2.0], [2.0]]), 0.7)
    history = history.then(torch.tensor([[4.0]]), 0.6, torch.tensor([1]))
    found = history.at(0.5)[:, 0].tolist()
    assert found[0] == pytest.approx(2 + 0.9 * reach(0.5, 0.7, 0.8) * (2 - 1), abs=1e-5)
    assert found[1] == pytest.approx(4 + 0.9 * reach(0.5, 0.6, 0.7) * (4 - 2), abs=1e-5)


def test_after_small_steps_it_goes_by_the_small_models_history_and_after_large_ones_by_the_large_ones() -> None:
    made, _ = carried_out("2L 2S X 2L", (5.0, 2.0, 30.0, 40.0), (7.0, 8.0))
    assert made[4] == pytest.approx(8 + 0.9 * reach(0.5, 0.6, 0.7) * (8 - 7))
    made, _ = carried_out("2L 2S L X", (5.0, 2.0, 4.0), (7.0, 8.0))
    way = reach(0.2, 0.5, 0.8)
    assert way < 2.5
    assert made[5] == pytest.approx(4 + 0.9 * way * (4 - 2))


def test_behind_a_probe_it_goes_by_the_large_model_though_the_small_one_was_asked() -> None:
    engine, x = stitcher(written("2L X M50", (1.0, 0.8, 0.7, 0.6))), latents()[0]
    made = [engine.velocity(both(x, sigma)).velocity for sigma in engine.plan.sigmas[:3]]
    assert engine.report.evaluations()[1].tokens_small == GRID.count
    expected = made[1] + 0.9 * reach(0.7, 0.8, 1.0) * (made[1] - made[0])
    assert torch.allclose(made[2], expected, atol=1e-4)


def test_after_masked_steps_every_token_goes_by_the_model_that_had_it_last() -> None:
    plan = written("2L 2M50 X", (1.0, 0.8, 0.7, 0.6, 0.5))
    engine, x = stitcher(plan), latents()[0]
    small = Model(small_network())
    made, asked = [], []
    for sigma in plan.sigmas:
        made.append(GRID.to_patches(engine.velocity(both(x, sigma)).velocity))
        asked.append(GRID.to_patches(small.full_pass(both(x, sigma)).velocity))
    first, second = engine.report.masks[2][0], engine.report.masks[3][0]
    assert (first & second).any() and (~first & ~second).any() and (first != second).any()

    def line(last: Tensor, sigma: float, before: Tensor, sigma_before: float) -> Tensor:
        return last + 0.9 * reach(0.5, sigma, sigma_before) * (last - before)

    since_probe = reach(0.5, 0.6, 0.8)
    assert since_probe < 2.5
    for token in range(GRID.count):
        if not second[token]:
            expected = line(asked[3][:, token], 0.6, asked[2][:, token], 0.7)
        elif first[token]:
            expected = line(made[3][:, token], 0.6, made[2][:, token], 0.7)
        else:
            expected = line(made[3][:, token], 0.6, made[1][:, token], 0.8)
        assert torch.allclose(made[4][:, token], expected, atol=1e-3), token


def test_a_row_without_a_past_is_computed() -> None:
    engine, x = stitcher("2L X"), latents()[0]
    seen: list[Evaluation] = []
    first, second, third = engine.plan.sigmas
    for sigma in (first, second):
        engine.velocity(evaluation(x[None], sigma, [(0, COND)]))
    call = evaluation(torch.stack([x, x]), third, [(0, COND), (0, UNCOND)])
    own = call.full_pass
    object.__setattr__(call, "full_pass", lambda given: (seen.append(given), own(given))[1])
    engine.velocity(call)
    assert seen == [call] and letters(engine) == "LLL"
