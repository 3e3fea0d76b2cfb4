"""Style, types and the direction of imports: the tools find nothing, with the settings of pyproject.toml."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
LINT_IMPORTS = shutil.which("lint-imports", path=Path(PYTHON).parent) or "lint-imports"
LONGEST_FILE = 400


@pytest.mark.parametrize(
    "command",
    [
        (PYTHON, "-m", "ruff", "check"),
        (PYTHON, "-m", "ruff", "format", "--check"),
        (PYTHON, "-m", "mypy"),
        (LINT_IMPORTS, "--no-cache", "--no-logo"),
    ],
    ids=["lint", "format", "types", "imports"],
)
def test_finds_nothing(command: tuple[str, ...]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("folder", ["lib_hybridstitch", "scripts", "hybridstitch_demo", "benchmarks", "tests"])
def test_no_file_is_too_long_to_read(folder: str) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert lengths
    assert not {str(path): lines for path, lines in lengths.items() if lines > LONGEST_FILE}
