"""Every sampler and schedule that the WebUI lists, first without the extension, then with it."""

from __future__ import annotations

import pytest

from tests.live.client import Result, WebUI, same


def _unpainted(reference: Result) -> None:
    """Leave a test where the host itself makes no picture; that all-large fails alike is asserted before."""
    if not reference.painted:
        pytest.skip(f"the host itself makes no picture of it: {reference.error or 'black'}")


def _check(webui: WebUI, **changes: str) -> None:
    """All-large is the host's own picture; two plans finish, with pictures of their own unless all was large.

    A sampler that draws noise of its own does not even repeat itself; there only finishing can be asked for. One that
    leaves the schedule (DPM fast) or a schedule meant for another family (Align Your Steps) may pass a kind of step by,
    so that none is asked for.
    """
    reference = webui.reference(**changes)
    large = webui.generate(webui.all_large(), **changes)
    repeats = same(large, reference) or same(webui.generate(**changes), reference)
    assert same(large, reference) or not repeats, "all-large differs though the host repeats itself"
    _unpainted(reference)
    assert large.happened
    for preset in ("Paper", "Balanced"):
        stitched = webui.generate(webui.settings(preset=preset), **changes)
        assert stitched.painted, f"{preset}: {stitched.error or 'black'}"
        assert stitched.stopped == ""
        assert sum(stitched.steps().values()) > 0
        if repeats:
            assert same(stitched, reference) == (set(stitched.steps()) == {"large"})


def test_sampler(webui: WebUI, sampler: str) -> None:
    _check(webui, sampler_name=sampler)


def test_scheduler(webui: WebUI, scheduler: str) -> None:
    _check(webui, scheduler=scheduler)


def test_a_sampler_of_timesteps_is_left_alone(webui: WebUI, own_large: None, timestep_sampler: str) -> None:
    reference = webui.generate(sampler_name=timestep_sampler)
    left = webui.generate(webui.settings(preset="Paper"), sampler_name=timestep_sampler)
    assert same(left, reference)
    _unpainted(reference)
    assert "does not work with noise levels" in left.stopped
    assert left.happened == ""
