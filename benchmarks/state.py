"""What a race has done so far, kept on disk so that an interrupted one goes on where it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

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


class State:
    """Drawings and timed rounds by fingerprint; every change is on disk before the next step begins.

    Args:
        path: a JSON file, made when something is recorded.
        fresh: forget what it holds.
    """

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self.path = path
        self._held: dict[str, Any] = {"drawings": {}, "rounds": {}}
        if not fresh and path.is_file():
            self._held = json.loads(path.read_text(encoding="utf-8"))

    def drawing(self, key: str) -> Drawn | None:
        """The drawing recorded under a fingerprint."""
        found = self._held["drawings"].get(key)
        return Drawn(**found) if found else None

    def record_drawing(self, key: str, drawn: Drawn) -> None:
        """Keep a drawing."""
        self._held["drawings"][key] = asdict(drawn)
        self._write()

    def rounds(self, key: str) -> list[Round]:
        """The timed rounds recorded under a fingerprint."""
        return [{name: (ms, ratio) for name, (ms, ratio) in held.items()} for held in self._held["rounds"].get(key, [])]

    def record_round(self, key: str, times: Round) -> None:
        """Keep one more round."""
        self._held["rounds"].setdefault(key, []).append(times)
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps(self._held), encoding="utf-8")
        beside.replace(self.path)
