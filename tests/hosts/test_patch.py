"""One attribute of one instance is replaced, and nothing of it stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from lib_hybridstitch.hosts.patch import patch_instance, strip


class Model(nn.Module):
    """Doubles its input."""

    def forward(self, x: int) -> int:
        """Twice x."""
        return 2 * x


def plus_one(original: Callable[..., Any]) -> Callable[..., Any]:
    """A replacement that adds one."""
    return lambda x: original(x) + 1


def test_patch_acts_on_the_instance_alone_and_undo_leaves_no_trace() -> None:
    patched, other = Model(), Model()
    before = set(vars(patched))
    undo = patch_instance(patched, "forward", plus_one)
    assert (patched(3), other(3)) == (7, 6)
    undo()
    assert patched(3) == 6
    assert set(vars(patched)) == before


def test_somebody_elses_attribute_comes_back() -> None:
    model = Model()
    theirs = lambda x: 10 * x  # noqa: E731 - an attribute, as other extensions set it
    model.forward = theirs  # type: ignore[method-assign]
    undo = patch_instance(model, "forward", plus_one)
    assert model(3) == 31
    undo()
    assert vars(model)["forward"] is theirs


def test_undo_under_a_later_patch_hands_on_to_the_original() -> None:
    model = Model()
    undo = patch_instance(model, "forward", plus_one)
    ours = model.forward
    model.forward = lambda x: ours(x) + 100  # type: ignore[method-assign]
    undo()
    assert model(3) == 106, "theirs stays, ours is gone"


@pytest.mark.parametrize("times", [1, 3])
def test_strip_removes_what_was_left_behind(times: int) -> None:
    model = Model()
    before = set(vars(model))
    for _ in range(times):
        patch_instance(model, "forward", plus_one)
    assert model(3) == 6 + times
    assert strip(model, "forward")
    assert model(3) == 6
    assert set(vars(model)) == before
    assert not strip(model, "forward")


def test_strip_leaves_other_patches_alone() -> None:
    model = Model()
    model.forward = lambda x: 10 * x  # type: ignore[method-assign]
    assert not strip(model, "forward")
    assert model(3) == 30
