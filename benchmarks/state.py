"""What a race has done so far, kept on disk so that an interrupted one goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lib_hybridstitch
from benchmarks.scores import Drawn
from hybridstitch_demo.autoencoder import PAIR

Round = dict[str, tuple[float, float]]
"""Contender → milliseconds of its batch, and the reference's over its own."""


def fingerprint(*parts: object) -> str:
    """A short hash of the parts' `repr`."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()[:16]


def weights_hash(folder: Path = PAIR) -> str:
    """A hash of what decides drawings: the pair, its autoencoder, the judge, and what is known of the large model."""
    found = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


def code_hash() -> str:
    """A hash of the code that decides what our engine draws."""
    found = hashlib.sha256()
    for part in ("engine", "mmdit", "plans"):
        for path in sorted((Path(lib_hybridstitch.__file__).parent / part).glob("*.py")):
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


class State:
    """Drawings and timed rounds, a file each, so that several processes can draw at once; written as a whole or not.

    Args:
        folder: made when something is recorded.
        fresh: forget what it holds.
    """

    def __init__(self, folder: Path, fresh: bool = False) -> None:
        self.folder = folder
        if fresh and folder.is_dir():
            shutil.rmtree(folder)

    def drawing(self, key: str) -> Drawn | None:
        """The drawing recorded under a fingerprint."""
        found = self._read(f"drawing-{key}")
        return Drawn(**found) if found else None

    def record_drawing(self, key: str, drawn: Drawn) -> None:
        """Keep a drawing."""
        self._write(f"drawing-{key}", asdict(drawn))

    def rounds(self, key: str) -> list[Round]:
        """The timed rounds recorded under a fingerprint."""
        held = self._read(f"rounds-{key}") or []
        return [{name: (ms, ratio) for name, (ms, ratio) in times.items()} for times in held]

    def record_round(self, key: str, times: Round) -> None:
        """Keep one more round."""
        self._write(f"rounds-{key}", [*self.rounds(key), times])

    def _read(self, name: str) -> Any:
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def _write(self, name: str, held: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self.folder / f"{name}.part"
        beside.write_text(json.dumps(held), encoding="utf-8")
        beside.replace(self.folder / f"{name}.json")
