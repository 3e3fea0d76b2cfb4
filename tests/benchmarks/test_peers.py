"""The peers run on SD3's network, and what they leave out is counted."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from diffusers import hooks

from benchmarks import caches
from benchmarks.contenders import Alone, Hooked, ThePipeline
from benchmarks.diffusers_network import diffusers_network
from benchmarks.drawers import Cached, Clock, Drawer, Drawing, NotRunError
from benchmarks.operations import counted
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
        ("first_block", (0.5,)),
        ("taylorseer", (3,)),
        ("taylorseer", (3, 1, True)),
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


def test_first_block_cache_that_never_reuses_is_the_reference() -> None:
    """What is changed for the caches, the last block's text, changes no picture."""
    assert torch.allclose(draw(Hooked("first_block", (0.0,)).drawer(pair())).pictures, reference().pictures, atol=1e-3)


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
    drawer = Hooked("magnitude", (0.5, 3)).drawer(pair())
    drawing = drawer.draw(dataclasses.replace(REQUEST, steps=caches.STEPS), count=True)
    assert drawing.operations is not None and reference().operations is not None
    assert drawing.operations / caches.STEPS < 0.7 * reference().operations / STEPS


def test_cache_dit_runs_or_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cache_dit", None)
    with pytest.raises(NotRunError, match=r"benchmarks/requirements\.txt"):
        caches.DualBlock(0.2, taylor=False).drawer(pair())


@pytest.mark.parametrize("taylor", [False, True])
def test_cache_dit_computes_less_and_forgets_between_requests(taylor: bool) -> None:
    pytest.importorskip("cache_dit")
    drawer: Cached = caches.DualBlock(0.5, taylor).drawer(pair())
    first, second = draw(drawer), draw(drawer)
    assert first.operations is not None and reference().operations is not None
    assert first.operations == second.operations < 0.9 * reference().operations
    assert torch.equal(first.pictures, second.pictures)
