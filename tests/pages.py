"""The environments with the toolkits that WebUIs pin, above the one that runs the tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from run import A1111_PAGE, FORGE_PAGE, Environment, Layer

LAYERS: dict[str, Layer] = {"a1111": A1111_PAGE, "forge": FORGE_PAGE}


def environment(like: str) -> Environment:
    """The environment of a page; made when it is missing, an error where that fails.

    Args:
        like: "a1111" (gradio 3) or "forge" (gradio 4).
    """
    layer = LAYERS[like]
    if sys.version_info[:2] > layer.newest:
        pytest.skip(f"{layer.name} does not support this Python")
    return Environment(Path(sys.prefix)).above(layer)
