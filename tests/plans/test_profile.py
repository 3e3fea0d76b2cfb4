"""What is known of one large model: a file that can be trusted, or one sentence why not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_hybridstitch.plans.profile import Profile, ProfileError, log_snr, profile_of
from tests.properties import anything, tries
from tests.sentences import one_sentence

SOUND = {"name": "mine", "checkpoint": "abc123", "sigmas": [0.2, 0.4, 0.8], "change": [1, 3, 5], "lasting": [1, 1, 4]}
REMOVED = "(removed)"


def file_of(folder: Path, content: Any, name: str = "abc123.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_profile_is_read_and_interpolated_and_held_beyond_its_ends(tmp_path: Path) -> None:
    profile = Profile.read(file_of(tmp_path, SOUND))
    assert (profile.name, profile.checkpoint, profile.sigmas) == ("mine", "abc123", (0.2, 0.4, 0.8))
    found = [profile.at(profile.change, sigma) for sigma in (0.0, 0.2, 0.3, 0.6, 0.8, 1.0)]
    assert found == pytest.approx([1, 1, 2, 4, 5, 5])


def test_the_strain_of_a_step_by_hand() -> None:
    profile = Profile("", "", (0.0, 1.0), (2.0, 2.0), (9.0, 9.0))
    assert profile.strain((0.5, 0.2), 0) == pytest.approx(0.3 * 3 * 2)
    assert profile.strain((0.5, 0.2), 1) == pytest.approx(0.2 * 3 * 2), "the last step reaches to the end"


def test_log_snr_is_finite_falls_with_noise_and_vanishes_half_way() -> None:
    levels = [log_snr(sigma) for sigma in (0.0, 0.2, 0.5, 0.8, 1.0)]
    assert all(math.isfinite(level) for level in levels) and levels == sorted(levels, reverse=True)
    assert log_snr(0.5) == 0.0
    assert log_snr(0.2) == pytest.approx(math.log(4), abs=0.01)


@pytest.mark.parametrize(
    "change",
    [
        {"sigmas": []},
        {"sigmas": [0.4, 0.2, 0.8]},
        {"sigmas": [0.2, 0.2, 0.8]},
        {"change": [1, 2]},
        {"change": [1, -2, 3]},
        {"change": [1, "NaN", 3]},
        {"lasting": [1, 1e999, 3]},
        {"lasting": [1, 10**400, 3]},
        {"lasting": [1, None, 3]},
        {"lasting": 3},
        {"lasting": REMOVED},
        {"name": REMOVED},
    ],
    ids=lambda change: str(change)[:40],
)
def test_curves_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    content = {name: value for name, value in {**SOUND, **change}.items() if value is not REMOVED}
    with pytest.raises(ProfileError, match=r"abc123\.json") as refused:
        Profile.read(file_of(tmp_path, content))
    assert one_sentence(str(refused.value))


@pytest.mark.parametrize("content", ["", "no json", "[]", "3", "null", '{"name": ' + "9" * 5000 + "}", "[" * 10**5])
def test_what_is_no_profile_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ProfileError) as refused:
        Profile.read(file_of(tmp_path, content))
    assert one_sentence(str(refused.value))


@tries(100)
@given(name=st.sampled_from([*SOUND]), value=anything())
def test_whatever_stands_in_a_field_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: Any
) -> None:
    try:
        text = json.dumps({**SOUND, name: value})
    except (TypeError, ValueError):
        return
    try:
        profile = Profile.read(file_of(tmp_path_factory.getbasetemp(), text))
    except ProfileError as refused:
        assert one_sentence(str(refused))
    else:
        assert "\n" not in profile.name and math.isfinite(profile.strain((0.5, 0.2), 0))


def test_a_profile_belongs_to_the_checkpoint_it_was_measured_on(tmp_path: Path) -> None:
    file_of(tmp_path, SOUND)
    file_of(tmp_path, SOUND, "def456.json")
    found = profile_of(tmp_path, "abc123")
    assert found is not None and found.name == "mine"
    assert profile_of(tmp_path, "0") is profile_of(tmp_path, "") is profile_of(tmp_path, "../abc123") is None
    assert profile_of(tmp_path / "missing", "abc123") is None
    with pytest.raises(ProfileError, match="was measured on 'abc123'") as refused:
        profile_of(tmp_path, "def456")
    assert one_sentence(str(refused.value))
