"""Our translations reach a language whatever its pack is called.

A WebUI merges localisation files of one name only, and packs call the same language by different names: "ja" and
"ja_JP", "zh-Hans" and "zh-Hans (Stable)". Without this the panel would stay English beside a translated page.
"""

from __future__ import annotations

import re
from pathlib import Path

_CODE = re.compile(r"[a-z]{2,3}(?![a-z])")
_TRADITIONAL = re.compile(r"(?<![a-z])(hant|tw|hk|mo)(?![a-z])")
_OURS = {"de": "de", "en": "en", "ja": "ja", "jp": "ja", "zh": "zh-Hans", "cn": "zh-Hans"}


def language(stem: str) -> str:
    """The name of our file for the language a localisation file's name says, or "" when we have none.

    Chinese is simplified unless the name says that it is traditional, which we do not have.
    """
    code = _CODE.match(stem.lower())
    ours = _OURS.get(code.group(), "") if code else ""
    return "" if ours == "zh-Hans" and _TRADITIONAL.search(stem.lower()) else ours


def register(folder: Path) -> None:
    """Add our files to every pack of the same language; may be called again and again.

    Ours come first in a pack, so that what the pack itself translates stays as its authors want it.

    Args:
        folder: holds our files, named by language.
    """
    from modules.localization import localizations

    for stem, files in localizations.items():
        ours = folder / f"{language(stem)}.json"
        if not ours.is_file() or any(Path(file).resolve() == ours.resolve() for file in files):
            continue
        files.insert(0, str(ours))
