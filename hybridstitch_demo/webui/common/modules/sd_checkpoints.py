"""The list of checkpoints, which both host families keep alike in `modules.sd_models`."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from modules import hashes, shared

checkpoints_list: dict[str, CheckpointInfo] = {}
checkpoint_aliases: dict[str, CheckpointInfo] = {}
folder: list[Path] = []
"""where checkpoints lie; set when the stand-in is installed"""
ENDINGS = (".ckpt", ".safetensors", ".gguf")


def model_hash(filename: str) -> str:
    """The old hash, of 64 KB from the middle of the file; small files share one."""
    with Path(filename).open("rb") as file:
        file.seek(0x100000)
        return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


class CheckpointInfo:
    """A file of the list. Its sha256 is unknown, and missing from the title, until it was loaded once."""

    def __init__(self, filename: str) -> None:
        self.filename = str(filename)
        path = Path(filename)
        inside = folder and folder[0] in path.parents
        self.is_safetensors = path.suffix.lower() == ".safetensors"
        self.name = str(path.relative_to(folder[0])) if inside else path.name
        self.name_for_extra = path.stem
        self.model_name = str(Path(self.name).with_suffix("")).replace("/", "_")
        self.hash = model_hash(self.filename)
        self.metadata: dict[str, Any] = {}
        self.ids = [self.hash, self.model_name, self.name, self.name_for_extra, f"{self.name} [{self.hash}]"]
        self._set_hash(hashes.cache.get(f"checkpoint/{self.name}"))

    def _set_hash(self, sha256: str | None) -> None:
        self.sha256, self.shorthash = sha256, sha256[:10] if sha256 else None
        mark = f" [{self.shorthash}]" if self.shorthash else ""
        self.title, self.short_title = f"{self.name}{mark}", f"{self.name_for_extra}{mark}"
        extra = [sha256[:10], sha256] if sha256 else []
        self.ids = list(dict.fromkeys([*self.ids, self.title, self.short_title, *extra]))

    def __repr__(self) -> str:
        return str({"filename": self.filename, "hash": self.hash})

    def register(self) -> None:
        """Enter it into the list and under all its names."""
        checkpoints_list[self.title] = self
        checkpoint_aliases.update(dict.fromkeys(self.ids, self))

    def calculate_shorthash(self) -> str | None:
        """Compute the sha256; the title changes with it."""
        if self.shorthash is None:
            old = self.title
            self._set_hash(hashes.sha256(self.filename, f"checkpoint/{self.name}"))
            entries = {self.title if title == old else title: info for title, info in checkpoints_list.items()}
            checkpoints_list.clear()
            checkpoints_list.update(entries)
            self.register()
        return self.shorthash


def list_models() -> None:
    """Read the folder again."""
    checkpoints_list.clear()
    checkpoint_aliases.clear()
    for path in sorted(folder[0].rglob("*")):
        if path.suffix.lower() in ENDINGS and path.is_file():
            CheckpointInfo(str(path)).register()


def checkpoint_tiles(use_short: bool = False) -> list[str]:
    """Titles for drop-downs."""
    return [info.short_title if use_short else info.title for info in checkpoints_list.values()]


def get_closet_checkpoint_match(search_string: str | None) -> CheckpointInfo | None:
    """A checkpoint by one of its names, else the one with the shortest title that contains the string."""
    if not search_string:
        return None
    if search_string in checkpoint_aliases:
        return checkpoint_aliases[search_string]
    for part in (search_string, re.sub(r"\s*\[[^]]+]\s*$", "", search_string)):
        found = sorted((info for info in checkpoints_list.values() if part in info.title), key=lambda i: len(i.title))
        if found:
            return found[0]
    return None


def select_checkpoint() -> CheckpointInfo:
    """The checkpoint of the settings, else the first."""
    chosen = checkpoint_aliases.get(shared.opts.sd_model_checkpoint)
    if chosen is None and not checkpoints_list:
        raise FileNotFoundError("No checkpoints found.")
    return chosen or next(iter(checkpoints_list.values()))
