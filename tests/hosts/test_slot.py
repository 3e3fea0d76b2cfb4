"""One model is kept while it is the one that is asked for, and never taken away in mid-run."""

from __future__ import annotations

import pytest

from lib_hybridstitch.hosts.slot import ModelSlot


class Model:
    """Counts its releases."""

    def __init__(self) -> None:
        self.released = 0

    def release(self) -> None:
        """Count."""
        self.released += 1


def test_same_key_loads_once_and_another_key_replaces() -> None:
    slot: ModelSlot[Model] = ModelSlot()
    first = slot.take("a", Model)
    slot.free()
    assert slot.take("a", Model) is first
    slot.free()
    second = slot.take("b", Model)
    assert second is not first
    assert (first.released, second.released) == (1, 0)
    assert slot.holds("b")
    assert not slot.holds("a")


def test_release_waits_for_the_run_that_uses_the_model() -> None:
    slot: ModelSlot[Model] = ModelSlot()
    model = slot.take("a", Model)
    assert slot.release()
    assert model.released == 0
    slot.free()
    assert model.released == 1
    assert not slot.release(), "nothing is left"


def test_release_between_runs_is_immediate() -> None:
    slot: ModelSlot[Model] = ModelSlot()
    model = slot.take("a", Model)
    slot.free()
    assert slot.release()
    assert model.released == 1


def test_a_release_that_was_asked_for_is_forgotten_with_its_model() -> None:
    slot: ModelSlot[Model] = ModelSlot()
    slot.take("a", Model)
    slot.release()
    other = slot.take("b", Model)
    slot.free()
    assert other.released == 0


class Stubborn(Model):
    """A model whose memory cannot be given back."""

    def release(self) -> None:
        """Fail."""
        super().release()
        raise RuntimeError("the driver does not answer")


def test_a_model_that_cannot_be_released_is_not_kept_and_stands_in_nobodys_way() -> None:
    slot: ModelSlot[Model] = ModelSlot()
    stubborn = slot.take("a", Stubborn)
    assert slot.release()
    with pytest.raises(RuntimeError, match="driver"):
        slot.free()
    other = slot.take("a", Model)
    slot.free()
    assert other is not stubborn and stubborn.released == 1
    assert slot.holds("a") and other.released == 0, "the release that was asked for before is forgotten"
