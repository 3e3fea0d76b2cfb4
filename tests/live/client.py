"""A running WebUI through its public API, and what a generation gave back."""

from __future__ import annotations

import base64
import io
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image

PATIENCE = 1800  # seconds; a first generation may load models
HAPPENED, STOPPED = "HybridStitch", "HybridStitch stopped"
_ENTRY = re.compile(r'\s*([\w \-/]+):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')

Picture = np.ndarray
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """What the tests were told on the command line; see `tests/conftest.py`."""

    url: str
    small: str
    large: str
    other: str
    wrong: str
    forms: tuple[str, ...]
    size: int
    steps: int


@dataclass(frozen=True)
class Result:
    """One generation.

    Args:
        status: of the HTTP answer.
        pictures: (height, width, 3) each.
        infotexts: one per picture.
        error: the answer's body when it is no success.
    """

    status: int
    pictures: tuple[Picture, ...] = ()
    infotexts: tuple[str, ...] = ()
    error: str = ""

    @property
    def keys(self) -> dict[str, str]:
        """The first picture's infotext by key, values unquoted; empty without a picture."""
        line = self.infotexts[0].splitlines()[-1] if self.infotexts else ""
        return {key: json.loads(value) if value[:1] == '"' else value for key, value in _ENTRY.findall(line)}

    @property
    def happened(self) -> str:
        """What HybridStitch says it did, or ""."""
        return self.keys.get(HAPPENED, "")

    @property
    def stopped(self) -> str:
        """Why HybridStitch stopped or never began, or ""."""
        return self.keys.get(STOPPED, "")

    def steps(self) -> dict[str, int]:
        """Evaluations per kind of step, over all passes, by HybridStitch's own account."""
        counted: dict[str, int] = {}
        for count, kind in re.findall(r"(\d+) ([A-Za-z][A-Za-z ]*?)(?= at |,|;|$)", self.happened):
            counted[kind] = counted.get(kind, 0) + int(count)
        return counted

    @property
    def painted(self) -> bool:
        """Whether every picture holds something; what is not finite comes out black."""
        return self.status == 200 and bool(self.pictures) and all(np.ptp(picture) > 0 for picture in self.pictures)


def same(one: Result, other: Result) -> bool:
    """Whether two generations came out alike: the same pictures, or the same failure."""
    if one.status != other.status or len(one.pictures) != len(other.pictures):
        return False
    return all(np.array_equal(a, b) for a, b in zip(one.pictures, other.pictures, strict=True))


def distance(one: Picture, other: Picture) -> float:
    """Mean difference of two pictures in grey levels, 0..255."""
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


class WebUI:
    """The WebUI under test."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._known: dict[str, Result] = {}

    # --- HTTP --------------------------------------------------------------------------------------------------------

    def call(self, path: str, body: object = None, method: str | None = None) -> tuple[int, Any]:
        """Status and decoded answer; a body makes it a POST."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.target.url.rstrip("/") + path, data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=PATIENCE) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            try:
                return error.code, json.loads(text)
            except ValueError:
                return error.code, text

    def get(self, path: str) -> Any:
        """The answer to a GET that must succeed."""
        status, answer = self.call(path)
        assert status == 200, f"{path}: {status} {answer}"
        return answer

    def post(self, path: str, body: object) -> Any:
        """The answer to a POST that must succeed."""
        status, answer = self.call(path, body)
        assert status == 200, f"{path}: {status} {answer}"
        return answer

    # --- what it is --------------------------------------------------------------------------------------------------

    @property
    def forge_family(self) -> bool:
        """Whether its hires passes choose modules of their own, as Forge's do."""
        return "forge_additional_modules" in self.get("/sdapi/v1/options")

    @property
    def runs_large_itself(self) -> bool:
        """Whether a picture made with HybridStitch off shows the large model."""
        return self.target.large == "current"

    def samplers(self) -> list[str]:
        """Every sampler it lists."""
        return [entry["name"] for entry in self.get("/sdapi/v1/samplers")]

    def schedulers(self) -> list[str]:
        """Every schedule it lists."""
        return [entry["label"] for entry in self.get("/sdapi/v1/schedulers")]

    @contextmanager
    def options(self, **changes: object) -> Iterator[None]:
        """Change options, and set them back; `override_settings` would leak into later requests.

        A WebUI may not list an extension's option that was never set; ours, the only ones tried, are then empty.
        """
        before = self.get("/sdapi/v1/options")
        self.post("/sdapi/v1/options", changes)
        try:
            yield
        finally:
            self.post("/sdapi/v1/options", {name: before.get(name, "") for name in changes})

    # --- generations -------------------------------------------------------------------------------------------------

    def settings(self, **changes: object) -> dict[str, Any]:
        """HybridStitch's settings for the models under test, enabled."""
        models = {"small_checkpoint": self.target.small, "large_checkpoint": self.target.large}
        return {"enabled": True, **models, **changes}

    def all_large(self) -> dict[str, Any]:
        """A plan of large steps alone, in every pass."""
        return self.settings(plan="1L / hires 1L")

    def generate(self, args: Settings | list[Any] | None = None, kind: str = "txt2img", **changes: Any) -> Result:
        """Make pictures.

        Args:
            args: HybridStitch's settings by name or by position; None leaves it out of the request.
            kind: txt2img or img2img.
            changes: of the request.
        """
        body = self.request(args, **changes)
        status, answer = self.call(f"/sdapi/v1/{kind}", body)
        if status != 200:
            return Result(status, error=json.dumps(answer)[:2000])
        info = json.loads(answer["info"])
        pictures = tuple(_decoded(text) for text in answer["images"])
        return Result(status, pictures, tuple(info["infotexts"]))

    def reference(self, kind: str = "txt2img", **changes: Any) -> Result:
        """The large model's own picture: the WebUI's, or by us alone where it cannot run that model. Made once."""
        key = json.dumps([kind, changes], sort_keys=True)
        if key not in self._known:
            self._known[key] = self._own(kind, **changes)
        return self._known[key]

    def shows_its_own(self, result: Result, kind: str = "txt2img", **changes: Any) -> bool:
        """Whether a generation came out as the large model's own, as near as the WebUI repeats that."""
        reference = self.reference(kind, **changes)
        if same(result, reference):
            return True
        if not (result.painted and reference.painted):
            return False
        return distance(result.pictures[0], reference.pictures[0]) < 2 * self._noise(kind, **changes)

    def _noise(self, kind: str, **changes: Any) -> float:
        """How far the reference and its repetitions lie apart, in mean grey levels; 0 where they are the same.

        The WebUIs encode an initial picture with noise from a generator that nobody seeds: A1111 and Forge repeat
        an img2img picture only when the generation before was the same one, ersatzForge never does. ersatzForge also
        rounds otherwise after a generation of another kind, so one stands between two repetitions.
        """
        pictures = [self.reference(kind, **changes).pictures[0]]
        for _ in range(4):
            self.generate(prompt="a [red apple|green table]", batch_size=3)
            pictures += [self._own(kind, **changes).pictures[0] for _ in range(2)]
        return max(distance(one, other) for one, other in combinations(pictures, 2))

    def _own(self, kind: str, **changes: Any) -> Result:
        args = None if self.runs_large_itself else self.all_large()
        return self.generate(args, kind, **changes)

    def request(self, args: Settings | list[Any] | None = None, **changes: Any) -> dict[str, Any]:
        """The body of a generation; a small picture unless `changes` say otherwise."""
        size, steps = self.target.size, self.target.steps
        body: dict[str, Any] = {"prompt": "a red apple on a table", "negative_prompt": "blurry", "seed": 7}
        body |= {"width": size, "height": size, "steps": steps, "cfg_scale": 4, "sampler_name": "Euler"}
        body |= {"scheduler": "Simple", "save_images": False, "do_not_save_samples": True, **changes}
        if args is not None:
            body["alwayson_scripts"] = {"HybridStitch": {"args": args if isinstance(args, list) else [args]}}
        return body

    def last_run(self) -> dict[str, Any]:
        """What the extension reports about the last stitched run."""
        return dict(self.get("/hybridstitch/v1/last-run"))

    def wait_for_step(self, step: int) -> None:
        """Wait until the generation that is under way has reached a sampling step."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            state = self.get("/sdapi/v1/progress?skip_current_image=true")["state"]
            if state["sampling_step"] >= step and state["job_count"] > 0:
                return
            time.sleep(0.05)
        raise AssertionError(f"no generation reached step {step}")


def encoded(picture: Picture) -> str:
    """A picture as the API takes it."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def _decoded(text: str) -> Picture:
    return np.array(Image.open(io.BytesIO(base64.b64decode(text.split(",")[-1]))).convert("RGB"))
