"""A method is one file and one line: written into a copy of the extension, it runs and stands at every door."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import HOSTS

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("lib_hybridstitch", "scripts", "hybridstitch_demo", "localizations", "tests")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "pair", "*.safetensors", "*.webp", "*.png", "live", "browser")
HALVES = '''"""Halves: large for the first half of the run, then every other step small, the others extrapolated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lib_hybridstitch.plans.method import Method, Run, setting
from lib_hybridstitch.plans.plan import EXTRAPOLATED, LARGE, SMALL, Plan


@dataclass(frozen=True)
class Halves(Method):
    """For a test."""

    name: ClassVar[str] = "Halves"

    every_other: int = setting(2, "Every so many", "One step in so many is small.", minimum=1, maximum=4, step=1)

    def plan(self, run: Run) -> Plan:
        """Large, then small and extrapolated by turns."""
        first = run.steps // 2
        rest = (SMALL if step % self.every_other == 0 else EXTRAPOLATED for step in range(run.steps - first))
        return Plan((LARGE,) * first + tuple(rest), run.sigmas, self.name)
'''
PLANNED = "10L S X S X S X S X S X"
RUN = """
import json
from pathlib import Path
import pytest
import lib_hybridstitch
from lib_hybridstitch.webui import api, xyz
from tests.hosts.conftest import HOSTS, Web, make

assert Path(lib_hybridstitch.__file__).is_relative_to(Path.cwd()), "the copy runs, not the original"
told = {}
for name in HOSTS:
    with pytest.MonkeyPatch.context() as patches:
        web = Web(make(patches, Path.cwd() / name, name))
        settings = {"small_checkpoint": web.small, "method": "Halves"}
        made = web.call(settings, steps=20)
        thirds = web.call({**settings, "every_other": 3}, steps=20)
        size = {"width": 128, "height": 128, "steps": 20, "scheduler": "Simple"}
        controls = web.host.runner("txt2img").inputs
        told[name] = {
            "infotext": made.infotext, "thirds": thirds.infotext, "swallowed": list(map(repr, made.swallowed)),
            "labels": [getattr(control, "label", None) for control in controls],
            "plan": api.plan(web.extension, {"settings": settings, **size}), "schema": api.schema(),
            "axes": list(xyz.labels().values()),
        }
print(json.dumps(told))
"""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the extension with one file and one line more."""
    folder = tmp_path / "extension"
    folder.mkdir()
    for name in NEEDED:
        shutil.copytree(ROOT / name, folder / name, ignore=LEFT_OUT)
    (folder / "lib_hybridstitch" / "plans" / "halves.py").write_text(HALVES)
    methods = folder / "lib_hybridstitch" / "plans" / "methods.py"
    text = methods.read_text()
    imported = "from lib_hybridstitch.plans.method import Method\n"
    assert imported in text and "    RAS,\n" in text
    text = text.replace(imported, "from lib_hybridstitch.plans.halves import Halves\n" + imported)
    methods.write_text(text.replace("    RAS,\n", "    RAS,\n    Halves,\n"))
    return folder


def test_a_method_of_one_file_and_one_line_runs_and_is_named_everywhere(copied: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=copied,
        env={**os.environ, "PYTHONPATH": str(copied), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    assert tuple(found) == HOSTS
    for told in found.values():
        check(told)


def check(told: dict[str, Any]) -> None:
    """Whether the method runs, and is offered, recorded and predicted, in one WebUI."""
    assert told["swallowed"] == []
    assert told["infotext"]["HybridStitch method"] == "Halves"
    assert told["infotext"]["HybridStitch plan"] == PLANNED
    assert told["thirds"]["HybridStitch plan"] == "10L S 2X S 2X S 2X S"
    assert told["thirds"]["HybridStitch every other"] == "3"
    assert "Every so many" in told["labels"] and "[HybridStitch] Every so many" in told["axes"]
    assert told["plan"]["plan"] == PLANNED and told["plan"]["method"] == "Halves"
    assert told["plan"]["settings"]["every_other"] == 2
    properties = told["schema"]["settings"]["properties"]
    assert "Halves" in properties["method"]["enum"] and properties["every_other"]["maximum"] == 4
    assert told["schema"]["methods"]["Halves"]["settings"] == ["every_other"]
    assert told["schema"]["positions"][-1] == "every_other"
