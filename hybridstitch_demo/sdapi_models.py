"""What a request for pictures may hold, by the hosts' names; pictures as text.

As on the hosts, the fields are those of p: their types and defaults are read from its class. Fields that nobody knows
are ignored, and so are those which the hosts know and the stand-in does not (tiling, mask_blur, save_images and so on).
Where this leaves the hosts' way: pictures are 128x128 by default, since the demo pair draws that size best, and sides,
steps and batches have limits.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from fastapi import HTTPException
from PIL import Image, ImageOps

from hybridstitch_demo.studio import text_chunk

SIDE = 128
SIDES = (64, 512, 16)
"""Least, most and step of a picture's sides in pixels."""
HIRES_SIDE = 1024
LIMITS: dict[str, tuple[float, float]] = {
    "seed": (-(2**53), 2**53),
    "subseed": (-(2**53), 2**53),
    "steps": (1, 150),
    "hr_second_pass_steps": (0, 150),
    "batch_size": (1, 64),
    "n_iter": (1, 100),
    "denoising_strength": (0, 1),
    "subseed_strength": (0, 1),
}
NOT_OF_REQUESTS = ("extra_generation_params", "comments")
SAME = ("Use same checkpoint", "Use same sampler", "Use same scheduler")
"""What pages send for "as in the first pass"."""


class Field(NamedTuple):
    """A field of a request.

    Args:
        kind: one of `KINDS`.
        default: for when it is missing or null.
    """

    kind: str
    default: Any


OF_THE_API: dict[str, Field] = {
    "prompt": Field("str", ""),
    "negative_prompt": Field("str", ""),
    "styles": Field("list", None),
    "width": Field("int", SIDE),
    "height": Field("int", SIDE),
    "hr_additional_modules": Field("list", None),
    "sampler_index": Field("str", "Euler"),
    "script_name": Field("str", None),
    "script_args": Field("list", []),
    "send_images": Field("bool", True),
    "save_images": Field("bool", False),
    "alwayson_scripts": Field("dict", {}),
    "force_task_id": Field("str", None),
    "infotext": Field("str", None),
}
WITHOUT_EFFECT: dict[str, Field] = {
    "comments": Field("dict", None),
    "restore_faces": Field("bool", None),
    "tiling": Field("bool", None),
    "do_not_save_samples": Field("bool", False),
    "do_not_save_grid": Field("bool", False),
    "s_churn": Field("float", None),
    "s_tmax": Field("float", None),
    "s_tmin": Field("float", None),
    "s_noise": Field("float", None),
    "firstphase_width": Field("int", 0),
    "firstphase_height": Field("int", 0),
    "firstpass_image": Field("str", None),
}
"""Fields that the hosts take and the stand-in only repeats."""
OF_IMG2IMG: dict[str, Field] = {
    "init_images": Field("list", None),
    "mask": Field("str", None),
    "include_init_images": Field("bool", False),
}
ONLY_OF_THE_API = frozenset(WITHOUT_EFFECT) | frozenset(
    "sampler_index script_name script_args send_images save_images alwayson_scripts force_task_id infotext "
    "include_init_images".split()
)
"""Fields that p has no attributes for."""
FROM_INFOTEXT: dict[str, str] = {
    "Prompt": "prompt",
    "Negative prompt": "negative_prompt",
    "Steps": "steps",
    "Sampler": "sampler_name",
    "Schedule type": "scheduler",
    "CFG scale": "cfg_scale",
    "Seed": "seed",
    "Size-1": "width",
    "Size-2": "height",
    "Denoising strength": "denoising_strength",
    "Hires upscale": "hr_scale",
    "Hires steps": "hr_second_pass_steps",
}
"""Infotext label → field that it fills."""


def _whole(value: Any) -> int:
    if isinstance(value, (bool, list, dict)) or (isinstance(value, float) and value != int(value)):
        raise ValueError
    return int(value)


def _number(value: Any) -> float:
    number = float("nan") if isinstance(value, (bool, list, dict)) else float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _exactly(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            raise ValueError
        return value

    return read


def _flag(value: Any) -> bool:
    if value not in (True, False):  # 0 and 1 are
        raise ValueError
    return bool(value)


KINDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "int": ("a whole number", _whole),
    "float": ("a number", _number),
    "bool": ("true or false", _flag),
    "str": ("a text", _exactly(str)),
    "list": ("a list", _exactly(list)),
    "dict": ("an object", _exactly(dict)),
}
"""Type → its name for people, and what reads a value of JSON; numbers may be written as texts, as on the hosts."""


def fields_of(kind: str, p_class: Any) -> dict[str, Field]:
    """Fields of a request.

    Args:
        kind: "txt2img" or "img2img".
        p_class: the host's class of p for it.
    """
    known = {}
    for one in fields(p_class):
        name = str(one.type).split(" | ")[0].partition("[")[0]
        if one.init and name in KINDS and one.name not in NOT_OF_REQUESTS:
            known[one.name] = Field(name, one.default)
    return {**known, **WITHOUT_EFFECT, **OF_THE_API, **(OF_IMG2IMG if kind == "img2img" else {})}


def read(body: Mapping[str, Any], known: Mapping[str, Field]) -> dict[str, Any]:
    """The request with a value for every field.

    Raises:
        HTTPException: 422 for a value of the wrong type, with a sentence that names the field, as fastapi tells it.
    """
    request = {}
    for name, field in known.items():
        value = body.get(name)
        if value is None or (name.startswith("hr_") and value in SAME):
            request[name] = field.default
            continue
        words, reader = KINDS[field.kind]
        try:
            request[name] = reader(value)
        except (ValueError, TypeError, OverflowError) as error:
            told = f"{name} is {_short(value)}, but must be {words}."
            where = {"loc": ["body", name], "msg": told, "type": f"{field.kind}_type"}
            raise HTTPException(422, [where]) from error
    return request


def check(request: Mapping[str, Any]) -> None:
    """Refuse what the stand-in cannot draw.

    Raises:
        HTTPException: 422 for a number out of its range, in one sentence that names the field.
    """
    for name, (low, high) in LIMITS.items():
        value = request.get(name)
        if value is not None and not low <= value <= high:
            raise HTTPException(422, f"{name} is {_short(value)}, but must be from {low} to {high}.")
    low, high, step = SIDES
    for name in ("width", "height"):
        if not low <= request[name] <= high or request[name] % step:
            told = f"must be from {low} to {high} pixels in multiples of {step}"
            raise HTTPException(422, f"{name} is {_short(request[name])}, but {told}.")
    if request.get("enable_hr"):
        _check_hires(request)


def _check_hires(request: Mapping[str, Any]) -> None:
    for name, wanted in (("width", "hr_resize_x"), ("height", "hr_resize_y")):
        side = request[wanted] or int(request[name] * request["hr_scale"])
        if not SIDES[0] <= side <= HIRES_SIDE or side % SIDES[2]:
            told = f"it must be from {SIDES[0]} to {HIRES_SIDE} pixels in multiples of {SIDES[2]}"
            raise HTTPException(422, f"{wanted} or hr_scale makes the {name} {_short(side)}, but {told}.")


def fill_from_infotext(
    body: Mapping[str, Any], params: Mapping[str, Any], known: Mapping[str, Field]
) -> dict[str, Any]:
    """A request completed from a parsed infotext; what it holds already counts more."""
    told: dict[str, Any] = {name: params[label] for label, name in FROM_INFOTEXT.items() if params.get(label)}
    if "Hires upscale" in params:
        told["enable_hr"] = True
    given = {name: value for name, value in body.items() if value is not None}
    return {**{name: value for name, value in told.items() if name in known}, **given}


def _short(value: Any) -> str:
    return repr(value)[:64]


def decode_picture(text: Any) -> Image.Image:
    """A picture from base64, with or without "data:image/...;base64," before it.

    Raises:
        HTTPException: 500 for anything else, as on the hosts.
    """
    if str(text).startswith(("http://", "https://")):
        raise HTTPException(500, "Requests not allowed")
    try:
        encoded = text.partition(",")[2] if text.startswith("data:image/") else text
        picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
        picture.load()
        return ImageOps.exif_transpose(picture) or picture
    except Exception as error:  # what a broken file raises is not agreed upon
        raise HTTPException(500, "Invalid encoded image") from error


def decode_mask(text: str) -> Image.Image:
    """A mask, white where to paint; what is transparent says more than colours, as on the hosts."""
    mask = decode_picture(text)
    if mask.mode == "RGBA" and mask.getextrema()[-1] != (255, 255):
        return mask.split()[-1]
    return mask.convert("L")


def encode_picture(picture: Image.Image, infotext: str | None = None) -> str:
    """A picture as base64 of a PNG, with its infotext in it."""
    stream = io.BytesIO()
    picture.save(stream, format="PNG", pnginfo=text_chunk(infotext) if infotext else None)
    return base64.b64encode(stream.getvalue()).decode("ascii")
