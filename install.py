"""Run by a WebUI at each start, unless it was told --skip-install.

Installs nothing: all that the extension needs comes with the WebUI. It only says so in one sentence where something is
missing, since the failure that would follow is hard to read. Libraries are looked up and not imported, as importing
torch here would cost seconds at every start.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

OLDEST = (3, 10)
NEEDED = ("torch", "safetensors", "einops", "numpy")


def complaint(version: Sequence[int], missing: Sequence[str]) -> str:
    """The sentence for this Python version and these missing libraries, or "" when all is well."""
    if tuple(version[:2]) < OLDEST:
        found, floor = (".".join(map(str, numbers[:2])) for numbers in (version, OLDEST))
        return f"HybridStitch needs Python {floor} or newer, but this WebUI runs on {found}: update the WebUI's Python."
    if missing:
        return (
            f"HybridStitch cannot work without {', '.join(missing)}, which the WebUI should have brought along: "
            f"run {sys.executable} -m pip install {' '.join(missing)}"
        )
    return ""


def main() -> None:
    """Print the complaint, if any; the WebUI shows what stands on the standard output."""
    said = complaint(sys.version_info, [name for name in NEEDED if importlib.util.find_spec(name) is None])
    if said:
        sys.stdout.write(said + "\n")


if __name__ == "__main__":
    main()
