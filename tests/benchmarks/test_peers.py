"""The peers run on SD3's network, and what they leave out is counted."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy
import pytest
import torch
from diffusers import hooks
from numpy.polynomial.chebyshev import chebval

from benchmarks import caches
from benchmarks.contenders import Alone, Hooked, ThePipeline, Written, contenders
from benchmarks.diffusers_network import diffusers_network
from benchmarks.drawers import Cached, Clock, Drawer, Drawing, NotRunError
from benchmarks.operations import counted
from benchmarks.placed import Placed
from benchmarks.spectrum import Spectrum
from benchmarks.tuning import front, grid, growing
from hybridstitch_demo.generate import Pair, Request, load_pair
from lib_hybridstitch.plans import plan
from lib_hybridstitch.prediction.operations import pass_flops
from tests.networks import LARGE, MEDIUM, inputs, random_network

STEPS = 12
REQUEST = Request(("frog and pumpkin on dots",), (3,), STEPS, cfg=4.0, size=64)


@functools.cache
def pair() -> Pair:
    """The pair, loaded once."""
    return load_pair()


def draw(drawer: Drawer) -> Drawing:
    """Draw the request and count."""
    return drawer.draw(REQUEST, count=True)


@functools.cache
def reference() -> Drawing:
    """The large model alone by our engine."""
    return draw(Alone(plan.LARGE).drawer(pair()))


@pytest.mark.parametrize("config", [LARGE, MEDIUM], ids=["large", "dual attention"])
def test_operations_are_counted_as_ours_are(config: Any) -> None:
    network = diffusers_network(config, random_network(config).state_dict())
    latent, context, pooled = inputs(config, rows=2, height=8, width=12, length=5)
    with counted(network) as operations:
        network(latent, context, pooled, torch.ones(2))
    assert operations.total == pass_flops(config, 24, 24, 5, rows=2)
    network(latent, context, pooled, torch.ones(2))
    assert operations.total == pass_flops(config, 24, 24, 5, rows=2), "only inside the block"


def test_diffusers_network_in_our_loop_draws_the_reference() -> None:
    network = diffusers_network(pair().large.config, pair().large.state_dict())
    drawing = draw(caches.hooked(network, pair(), Clock()))
    assert torch.allclose(drawing.pictures, reference().pictures, atol=1e-3)
    assert drawing.operations == reference().operations


def test_diffusers_pipeline_draws_the_reference() -> None:
    pytest.importorskip("transformers")
    drawing = draw(ThePipeline().drawer(pair()))
    assert torch.allclose(drawing.pictures, reference().pictures, atol=1e-3)
    assert drawing.operations == reference().operations


def test_the_small_model_is_not_the_reference() -> None:
    drawing = draw(Alone(plan.SMALL).drawer(pair()))
    assert (drawing.pictures - reference().pictures).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("cache", "values"),
    [
        ("first_block", (0.5, 6)),
        ("taylorseer", (3, 6)),
        ("taylorseer", (3, 6, True)),
        ("taylorseer", (3, 6, True, True)),
        ("broadcast", (2,)),
        ("faster", (2,)),
    ],
)
def test_a_cache_computes_less_and_forgets_between_requests(cache: str, values: tuple[Any, ...]) -> None:
    drawer = Hooked(cache, values).drawer(pair())
    first, second = draw(drawer), draw(drawer)
    assert first.operations is not None and reference().operations is not None
    assert first.operations < 0.97 * reference().operations
    assert second.operations == first.operations
    assert torch.equal(first.pictures, second.pictures)
    assert not torch.equal(first.pictures, reference().pictures)


@pytest.mark.parametrize(("threshold", "warm_up"), [(0.0, 0), (10.0, STEPS)], ids=["threshold", "warm-up"])
def test_first_block_cache_that_never_reuses_is_the_reference(threshold: float, warm_up: int) -> None:
    """What is changed for the caches, the last block's text, changes no picture."""
    drawing = draw(Hooked("first_block", (threshold, warm_up)).drawer(pair()))
    assert torch.allclose(drawing.pictures, reference().pictures, atol=1e-3)
    assert drawing.operations == reference().operations


def test_each_step_of_a_warm_up_is_full() -> None:
    """With a threshold that everything is below, every step behind the warm-up costs one block, and no less."""
    found = [draw(Hooked("first_block", (1e9, warm_up)).drawer(pair())).operations for warm_up in (4, 5, 6)]
    full = reference().operations
    assert full is not None and found[0] is not None and found[1] is not None and found[2] is not None
    assert 0.7 < (found[1] - found[0]) * STEPS / full < 0.9
    assert found[2] - found[1] == found[1] - found[0]


@pytest.mark.parametrize(
    ("apply", "error"),
    [
        (lambda network: hooks.apply_first_block_cache(network, hooks.FirstBlockCacheConfig(0.1)), TypeError),
        (
            lambda network: hooks.apply_taylorseer_cache(network, hooks.TaylorSeerCacheConfig(use_lite_mode=True)),
            AttributeError,
        ),
    ],
    ids=["first block", "TaylorSeer lite"],
)
def test_what_the_docstring_says_about_caches_that_do_not_run_as_they_are(apply: Any, error: type[Exception]) -> None:
    network = diffusers_network(pair().large.config, pair().large.state_dict())
    apply(network)
    with pytest.raises(error, match="NoneType"):
        draw(caches.hooked(network, pair(), Clock()))


def test_magcache_is_calibrated_once_and_skips() -> None:
    found = caches.ratios(pair())
    assert len(found) == caches.STEPS and found[0] == 1 and all(0.5 < ratio < 1.5 for ratio in found)
    drawer = Hooked("magnitude", (0.5, 3, 6)).drawer(pair())
    drawing = drawer.draw(dataclasses.replace(REQUEST, steps=caches.STEPS), count=True)
    assert drawing.operations is not None and reference().operations is not None
    assert drawing.operations / caches.STEPS < 0.7 * reference().operations / STEPS


def test_cache_dit_runs_or_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cache_dit", None)
    with pytest.raises(NotRunError, match=r"benchmarks/requirements\.txt"):
        caches.DualBlock(0.2).drawer(pair())


@pytest.mark.parametrize("calibrator", caches.CALIBRATORS)
@pytest.mark.parametrize("mask", [(), (4, 2, 1, 3, 18)], ids=["threshold", "mask"])
def test_cache_dit_computes_less_and_forgets_between_requests(calibrator: str, mask: tuple[int, ...]) -> None:
    pytest.importorskip("cache_dit")
    drawer: Cached = caches.DualBlock(0.5, calibrator, warm_up=5, mask=mask).drawer(pair())
    first, second = draw(drawer), draw(drawer)
    assert first.operations is not None and reference().operations is not None
    assert first.operations == second.operations < 0.9 * reference().operations
    assert torch.equal(first.pictures, second.pictures)


def test_what_decides_once_for_all_pictures_of_a_call_draws_them_alone() -> None:
    for one in contenders():
        decides = isinstance(one.recipe, Hooked) and one.recipe.cache == "first_block"
        decides = decides or (isinstance(one.recipe, caches.DualBlock) and not one.recipe.mask)
        assert one.alone == decides, one.name


# Spectrum: the numbers are what its authors' code (github.com/hanjq17/Spectrum, f7b7841) gives in single precision
KNOWN = (0, 1, 2, 3, 4, 6, 9, 13)
FEATURES = torch.tensor([[math.cos(step / 10), step**2 / 100] for step in KNOWN], dtype=torch.float64)


@pytest.mark.parametrize(
    ("share", "step", "expected"),
    [
        (1.0, 14, (0.2270600, 1.6490461)),
        (1.0, 16, (0.0959475, 1.8805770)),
        (0.5, 14, (0.2030155, 1.7795231)),
        (0.5, 16, (0.0489315, 2.1152885)),
        (0.0, 16, (0.0019155, 2.3500001)),
    ],
)
def test_spectrum_forecasts_as_its_authors_do(share: float, step: int, expected: tuple[float, float]) -> None:
    weights = Spectrum(chebyshev=share, steps=50).weights(KNOWN, step)
    assert torch.allclose(weights @ FEATURES, torch.tensor(expected, dtype=torch.float64), atol=2e-6)


@pytest.mark.parametrize(
    ("growth", "expected"),
    [(0.75, (0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 25, 31, 38, 46)), (3.0, (0, 1, 2, 3, 4, 6, 11, 19, 30, 44))],
)
def test_spectrum_computes_the_steps_that_its_authors_do(growth: float, expected: tuple[int, ...]) -> None:
    assert Spectrum(growth, steps=50).computed() == expected


@pytest.mark.parametrize("order", [2, 4])
def test_spectrum_without_ridge_is_exact_for_polynomials_up_to_its_order(order: int) -> None:
    spectrum = Spectrum(chebyshev=1.0, ridge=0.0, order=order, steps=28)
    for coefficients in numpy.eye(6):
        values = [chebval(2 * step / 28 - 1, coefficients) for step in KNOWN]
        wanted = chebval(2 * 20 / 28 - 1, coefficients)
        found = float(spectrum.weights(KNOWN, 20) @ torch.tensor(values, dtype=torch.float64))
        assert (abs(found - wanted) < 1e-6) == bool(coefficients[: order + 1].any())


@pytest.mark.parametrize("ridge", [0.1, 2.0])
def test_spectrums_ridge_draws_a_constant_towards_zero_in_closed_form(ridge: float) -> None:
    weights = Spectrum(chebyshev=1.0, ridge=ridge, order=0).weights(KNOWN, 20)
    assert float(weights.sum()) == pytest.approx(len(KNOWN) / (len(KNOWN) + ridge))


def test_spectrum_that_computes_everything_is_the_reference() -> None:
    drawing = draw(Spectrum(growth=0.0, window=1.0, steps=STEPS).drawer(pair()))
    assert torch.allclose(drawing.pictures, reference().pictures, atol=1e-3)
    assert drawing.operations == reference().operations


def test_spectrum_forecasts_row_by_row_and_forgets_between_requests() -> None:
    drawer = Spectrum(steps=STEPS).drawer(pair())
    one = draw(drawer)
    two = drawer.draw(
        dataclasses.replace(REQUEST, prompts=(*REQUEST.prompts, "pig on night"), seeds=(3, 4)), count=True
    )
    assert torch.allclose(two.pictures[:1], one.pictures, atol=1e-4)
    assert one.operations is not None and reference().operations is not None
    assert two.operations == 2 * one.operations
    share = one.operations / reference().operations
    assert 8 / STEPS < share < 8.5 / STEPS, "seven are computed"
    assert torch.equal(draw(drawer).pictures, one.pictures)
    assert not torch.allclose(one.pictures, reference().pictures, atol=1e-2)


def test_placed_steps_at_every_level_with_guidance_are_the_reference() -> None:
    drawing = draw(Placed(tuple(range(STEPS)), STEPS).drawer(pair()))
    assert torch.allclose(drawing.pictures, reference().pictures, atol=1e-4)
    assert drawing.operations == reference().operations


def test_placed_steps_leave_out_levels_and_the_rows_without_prompt() -> None:
    full = reference().operations
    assert full is not None
    drawing = draw(Placed((0, 1, 2, 3, 4, 6, 8.5), 5).drawer(pair()))
    assert drawing.operations == 6 * full // STEPS, "five with both rows, two with one"


def test_placed_steps_without_guidance_are_the_large_model_without_it() -> None:
    drawing = draw(Placed(tuple(range(STEPS)), 0, cached=False).drawer(pair()))
    plain = Alone(plan.LARGE).drawer(pair()).draw(dataclasses.replace(REQUEST, cfg=1.0))
    assert torch.allclose(drawing.pictures, plain.pictures, atol=1e-4)


def test_a_cached_difference_is_nearer_to_guidance_than_none() -> None:
    cached, left_out = (draw(Placed(tuple(range(STEPS)), STEPS - 1, kept).drawer(pair())) for kept in (True, False))
    far = [float((one.pictures - reference().pictures).abs().mean()) for one in (cached, left_out)]
    assert 0 < far[0] < far[1]


def test_a_written_plan_is_followed_to_the_letter() -> None:
    assert str(Written("3L 6S 3L").drawer(pair()).plan(REQUEST)) == "3L 6S 3L"


@pytest.mark.parametrize(("count", "first"), [(18, 8), (11, 8), (9, 7)])
@pytest.mark.parametrize("last", [True, False])
def test_placed_gaps_grow_to_the_end(count: int, first: int, last: bool) -> None:
    levels = growing(count, first, last)
    assert len(levels) == count and levels[:first] == tuple(range(first))
    gaps = numpy.diff((*levels[first - 1 :], *([] if last else [28])))
    assert (numpy.diff(gaps) > 0).all()
    assert levels[-1] == 27 if last else levels[-1] < 27


def test_a_setting_that_another_beats_both_ways_is_not_on_the_front() -> None:
    rows = [{"speedup": speedup, "lpips": lpips} for speedup, lpips in ((2, 0.1), (1, 0.2), (3, 0.3), (2.5, 0.4))]
    assert front(rows) == [rows[0], rows[2]]


def test_the_grid_tries_nothing_twice() -> None:
    tried = [(one.method, repr(one.recipe)) for one in grid()]
    assert len(set(tried)) == len(tried)
