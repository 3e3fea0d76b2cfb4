"""The extension's own routes: what can be set, what would happen, and what did happen."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, HTTPException, Request

from lib_hybridstitch import __version__
from lib_hybridstitch.errors import HybridStitchError, SettingsError, quoted
from lib_hybridstitch.mmdit import checkpoint
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.plans.methods import METHODS
from lib_hybridstitch.plans.profile import Profile, ProfileError, profile_of
from lib_hybridstitch.prediction.operations import Setup
from lib_hybridstitch.prediction.resolver import Resolved, resolve
from lib_hybridstitch.settings import StitchSettings

if TYPE_CHECKING:
    from lib_hybridstitch.hosts.base import Host
    from lib_hybridstitch.webui.extension import Extension

ROOT = "/hybridstitch/v1"
LATENT_FACTOR = 8
LONGEST_REQUEST = 100_000
"""Bytes of a request; one with every setting has about a thousand."""
RUN_LIMITS: dict[str, tuple[type, Any, float, float]] = {
    "steps": (int, 28, 1, 150),
    "width": (int, 1024, 64, 2048),
    "height": (int, 1024, 64, 2048),
    "cfg_scale": (float, 5.0, 1, 30),
    "batch_size": (int, 1, 1, 64),
    "denoising_strength": (float, 1.0, 0, 1),
}
"""Numbers of a run that a prediction depends on: type, default, least and most."""


class UnavailableError(HybridStitchError):
    """A prediction cannot be made yet, because the large model is not known."""


def schema() -> dict[str, Any]:
    """What can be set: JSON Schema of the settings, the methods with their presets, the order of positions."""
    settings = StitchSettings.json_schema()
    return {
        "version": __version__,
        "settings": settings,
        "positions": list(settings["properties"]),
        "methods": {
            method.name: {
                "settings": list(method.specs()),
                "presets": {name: method.preset(name) for name in method.presets},
            }
            for method in METHODS
        },
    }


def plan(extension: Extension, request: Mapping[str, Any]) -> dict[str, Any]:
    """What would happen in a run, without running it.

    Args:
        request: {"settings": {...}, "steps", "width", "height", "cfg_scale", "batch_size", "denoising_strength",
            "sampler", "scheduler"}, all optional; a strength below 1 is img2img's.

    Raises:
        SettingsError: for anything that is not allowed, in one sentence that names the key.
        CheckpointError: when a named checkpoint cannot be used.
        PairError: when the two models cannot be stitched.
        UnavailableError: while no large model is loaded or chosen.
    """
    asked = _run_of(request)
    settings = extension.settings([asked["settings"]])
    host = extension.host
    run = host.run(asked["sampler"], asked["scheduler"], asked["steps"], asked["denoising_strength"])
    large = host.large_config(settings)
    if large is None:
        raise UnavailableError("No model is loaded yet; generate once, or choose a checkpoint, to see a prediction.")
    guided = asked["cfg_scale"] != 1
    profile, unreadable = _profile(host, settings)
    run = replace(run, guided=guided, profile=profile)
    setup = Setup(
        large,
        None,
        _tokens(asked["width"], large.patch_size) * _tokens(asked["height"], large.patch_size),
        host.context(),
        asked["batch_size"],
        1 + guided,
        settings.kv_cache,
        settings.small_device,
    )
    resolved = resolve(settings, run, setup, extension.timings.of(setup))
    if resolved.plan.needs_small:
        setup = replace(setup, small=_small_config(extension, settings, large))
        resolved = resolve(settings, run, setup, extension.timings.of(setup))
    return {
        "summary": resolved.summary,
        "plan": str(resolved.plan),
        "method": resolved.plan.method,
        "profile": resolved.plan.profile,
        "notes": [*unreadable, *resolved.plan.notes],
        "advice": resolved.advice,
        "reason": resolved.reason,
        "speedup": resolved.speedup,
        "seconds": resolved.seconds,
        "large_seconds": resolved.large_seconds,
        "settings": settings.to_dict(),
        "tokens": setup.tokens,
        "steps": _steps(resolved, setup),
    }


def _profile(host: Host, settings: StitchSettings) -> tuple[Profile | None, list[str]]:
    """What is known of the large model, and why it cannot be read where it is there; a generation goes on without."""
    try:
        return profile_of(host.profiles(), host.large_hash(settings)), []
    except ProfileError as error:
        return None, [str(error)]


def _steps(resolved: Resolved, setup: Setup) -> list[dict[str, Any]]:
    """Every step: its kind, its noise level, and the share of all tokens and rows that each model computes."""
    plan, found = resolved.plan, []
    for index, (step, sigma) in enumerate(zip(plan.steps, plan.sigmas, strict=True)):
        work = setup.work(plan, index)
        shares = {"large": work.large * work.rows, "small": work.small * work.rows}
        found.append({"kind": step.kind.value, "name": step.kind.word, "sigma": sigma, "ratio": step.ratio, **shares})
    return found


def _tokens(pixels: int, patch: int) -> int:
    return pixels // LATENT_FACTOR // patch


def _small_config(extension: Extension, settings: StitchSettings, large: MMDiTConfig) -> MMDiTConfig | None:
    """Architecture of the small checkpoint from its header; None while none is chosen."""
    if not settings.small_checkpoint:
        return None
    path = extension.host.find_checkpoint(settings.small_checkpoint).path
    if path.suffix.lower() == ".gguf":
        return None  # only the host's loader reads it, and a prediction loads nothing
    config = checkpoint.inspect(path).config
    large.check_pair(config, "the large checkpoint", path.name)
    return config


def _run_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """The run of a request, checked, with defaults for what is missing."""
    if not isinstance(request, Mapping):
        raise SettingsError("Request body must be a JSON object.")
    known = (*RUN_LIMITS, "sampler", "scheduler", "settings")
    for key in request:
        if key not in known:
            raise SettingsError(f"There is no field {quoted(key)}; the fields are {', '.join(known)}.", str(key))
    run: dict[str, Any] = {}
    for name, (kind, default, low, high) in RUN_LIMITS.items():
        value = request.get(name, default)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not low <= value <= high or (kind is int and value != int(value)):
            whole = "a whole number" if kind is int else "a number"
            raise SettingsError(f"{name} is {quoted(value)}, but must be {whole} from {low} to {high}.", name)
        run[name] = kind(value)
    for name, wanted, default in (("sampler", str, "Euler"), ("scheduler", str, "Automatic"), ("settings", dict, {})):
        value = request.get(name, default)
        if not isinstance(value, wanted):
            words = "a text" if wanted is str else "an object of settings and values"
            raise SettingsError(f"{name} is {quoted(value)}, but must be {words}.", name)
        run[name] = value
    return run


async def _request_of(request: Request) -> Any:
    """The JSON of a request's body, read here so that whatever is wrong with it is one sentence.

    Raises:
        HTTPException: 413 for too long a body, 422 for one that is not JSON or names a field twice.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST_REQUEST:
            raise HTTPException(413, f"The request is longer than {LONGEST_REQUEST} bytes.")
    try:
        return json.loads(body, object_pairs_hook=_without_repetition)
    except SettingsError as error:
        raise HTTPException(422, str(error)) from error
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, "Request body must be a JSON object.") from error


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise SettingsError(f"{quoted(name)} stands twice in the request, but must have one value.", name)
        made[name] = value
    return made


def add_routes(app: FastAPI, extension: Extension, credentials: str | None) -> None:
    """Register the routes on the host's application.

    Args:
        app: the host's FastAPI application.
        extension: this load of the extension.
        credentials: the host's --api-auth, "user:password" pairs with commas between, which the routes then ask for.
    """

    def allowed(request: Request) -> None:
        if credentials and not _authorised(request.headers.get("authorization", ""), credentials):
            raise HTTPException(401, "Give the user name and password of --api-auth.")

    def read_plan(request: Any = Depends(_request_of)) -> dict[str, Any]:  # noqa: B008 - fastapi's way
        try:
            return plan(extension, request)
        except UnavailableError as error:
            raise HTTPException(503, str(error)) from error
        except HybridStitchError as error:
            raise HTTPException(422, str(error)) from error

    def read_last_run(task: str | None = None) -> dict[str, Any]:
        run = extension.last_run if task is None else extension.run_of(task)
        if run is None:
            known = "Nothing has been stitched yet." if task is None else "No run of that task is known."
            raise HTTPException(404, known)
        return run

    guard = [Depends(allowed)]
    app.router.routes[:] = [route for route in app.router.routes if not getattr(route, "path", "").startswith(ROOT)]
    app.add_api_route(f"{ROOT}/schema", schema, methods=["GET"], dependencies=guard)
    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
    app.add_api_route(f"{ROOT}/plan", read_plan, methods=["POST"], dependencies=guard, openapi_extra=body)
    app.add_api_route(f"{ROOT}/last-run", read_last_run, methods=["GET"], dependencies=guard)


def _authorised(header: str, credentials: str) -> bool:
    """Whether a Basic authorization header carries one of the host's user:password pairs."""
    scheme, _, encoded = header.partition(" ")
    try:
        given = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return False
    pairs = [pair.strip().encode() for pair in credentials.split(",") if pair.strip()]
    return scheme.lower() == "basic" and any(secrets.compare_digest(given, pair) for pair in pairs)
