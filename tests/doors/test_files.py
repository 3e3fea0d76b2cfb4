"""No name that a caller sends is opened, and a generation writes nothing, connects to nothing, starts nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from run import ROOT

HOSTS = ("forge", "a1111")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, long_run: bool) -> dict[str, Any]:
    """What audit_probe.py saw; the long run tries every name, the other every third."""
    folder = tmp_path_factory.mktemp("doors")
    for like in HOSTS:
        (folder / like).mkdir()
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/doors/audit_probe.py"), str(folder), "1" if long_run else "3"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def is_code(path: str) -> bool:
    """Whether a file belongs to the program that runs: Python, its libraries, this project."""
    roots = [sys.prefix, sys.base_prefix, str(ROOT)]
    return path.endswith((".py", ".pyc")) or any(path.startswith(root + os.sep) for root in roots)


@pytest.mark.parametrize("like", HOSTS)
def test_the_hook_sees_what_is_opened(report: dict[str, Any], like: str) -> None:
    """Without this the others would prove nothing."""
    kinds = {kind: Path(path).name for kind, path in report[like]["control"]}
    assert kinds == {"read": "stranger.safetensors", "write": "note"}
    opened = [path for found in report[like]["names"].values() for _, path in found]
    assert {Path(path).suffix for path in opened if not is_code(path)} == {".safetensors"}, "the list is looked at"


@pytest.mark.parametrize("like", HOSTS)
def test_no_name_from_a_caller_opens_a_file_outside_of_the_list(report: dict[str, Any], like: str) -> None:
    """By every door, in every spelling: only files of the WebUI's own list are opened, and no folder is read."""
    inside = report[like]["inside"]
    assert len(report[like]["names"]) >= 9
    for name, found in report[like]["names"].items():
        for kind, path in found:
            assert kind == "read", (name, kind, path)
            assert is_code(path) or Path(path).parent == Path(inside), (name, path)


@pytest.mark.parametrize("like", HOSTS)
def test_a_generation_writes_connects_and_starts_nothing(report: dict[str, Any], like: str) -> None:
    """txt2img, hires, img2img, stitched; loaded anew; the WebUI alone writes pictures, and the stand-in keeps none."""
    assert report[like]["statuses"] == [200] * 6
    stopped, happened = report[like]["last_run"]
    assert stopped == "" and "masked" in happened
    assert [found for found in report[like]["generation"] if found[0] != "read"] == []
    read = {Path(path).name for _, path in report[like]["generation"] if not is_code(path)}
    assert "sd3.5_medium.safetensors" in read
