"""What the tests of the API ask for, and how they look at what comes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

from PIL import Image

ASKED = {"prompt": "a frog", "seed": 5, "steps": 4, "sampler_name": "Euler", "scheduler": "Simple", "cfg_scale": 3}
STITCH: dict[str, Any] = {"enabled": True, "small_checkpoint": "sd3.5_medium", "switch_step": 1}
Ask = Callable[..., Any]


def picture_of(encoded: str) -> Image.Image:
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    picture.load()
    return picture


def pixels(encoded: str) -> bytes:
    return picture_of(encoded).tobytes()


def encoded(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


def gradient() -> Image.Image:
    return Image.linear_gradient("L").resize((128, 128)).convert("RGB")
