"""One model is kept while it is the one that is asked for, and never taken away in mid-run."""

from __future__ import annotations

import pytest

from lib_hybridstitch.hosts.slot import Shelf


class Model:
    """Counts its releases."""

    def __init__(self) -> None:
        self.released = 0

    def release(self) -> None:
        """Count."""
        self.released += 1


def test_same_key_loads_once_and_another_key_replaces() -> None:
    shelf: Shelf[Model] = Shelf()
    first = shelf.take("a", Model)
    shelf.put_back()
    assert shelf.take("a", Model) is first
    shelf.put_back()
    second = shelf.take("b", Model)
    assert second is not first
    assert (first.released, second.released) == (1, 0)
    assert shelf.holds("b")
    assert not shelf.holds("a")


def test_release_waits_for_the_run_that_uses_the_model() -> None:
    shelf: Shelf[Model] = Shelf()
    model = shelf.take("a", Model)
    assert shelf.release()
    assert model.released == 0
    shelf.put_back()
    assert model.released == 1
    assert not shelf.release(), "nothing is left"


def test_release_between_runs_is_immediate() -> None:
    shelf: Shelf[Model] = Shelf()
    model = shelf.take("a", Model)
    shelf.put_back()
    assert shelf.release()
    assert model.released == 1


def test_a_wish_for_release_does_not_outlive_its_model() -> None:
    shelf: Shelf[Model] = Shelf()
    shelf.take("a", Model)
    shelf.release()
    other = shelf.take("b", Model)
    shelf.put_back()
    assert other.released == 0


class Stubborn(Model):
    """A model whose memory cannot be given back."""

    def release(self) -> None:
        """Fail."""
        super().release()
        raise RuntimeError("the driver does not answer")


def test_a_model_that_cannot_be_released_is_not_kept_and_stands_in_nobodys_way() -> None:
    shelf: Shelf[Model] = Shelf()
    stubborn = shelf.take("a", Stubborn)
    assert shelf.release()
    with pytest.raises(RuntimeError, match="driver"):
        shelf.put_back()
    other = shelf.take("a", Model)
    shelf.put_back()
    assert other is not stubborn and stubborn.released == 1
    assert shelf.holds("a") and other.released == 0, "the old wish for a release is forgotten"
