"""What /last-run tells to whoever asks: figures, and nothing of what was written or drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import Web, make

SECRETS = ("Zanzibar", "Quokka", "Ouagadougou")


@pytest.mark.parametrize(
    ("name", "stitch"),
    [
        ("forge", {}),
        ("a1111", {}),
        ("forge", {"small_checkpoint": "nothing"}),
        ("forge", {"mask_ratio": 7}),
        ("forge", {"preset": "Balanced", "target_speedup": 1.5}),
    ],
    ids=["stitched", "stitched-a1111", "no checkpoint", "refused", "target"],
)
def test_it_holds_no_prompt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, stitch: dict[str, Any]) -> None:
    web = Web(make(monkeypatch, tmp_path, name))
    positive, negative, style = SECRETS
    result = web.on(stitch, prompt=f"a {positive} frog", negative_prompt=f"{negative}, blurred", styles=[style])
    told = json.dumps(web.extension.last_run, ensure_ascii=False)
    assert any(positive in text for text in result.infotexts), "the picture itself does name it"
    assert not any(secret in told for secret in SECRETS)
    assert set(web.extension.last_run) == {
        *("finished", "version", "host", "task", "settings", "small_hash", "stopped", "messages", "passes"),
    }
    assert len(told) < 200_000
