"""The WebUI's doors under any input: the route of predictions, the axes of a plot, the arguments of a generation."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from copy import copy
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from lib_hybridstitch.errors import CheckpointError, SettingsError
from lib_hybridstitch.prediction.resolver import FAST_ENOUGH
from lib_hybridstitch.settings import StitchSettings, specs
from lib_hybridstitch.webui import api, xyz
from lib_hybridstitch.webui.extension import Extension
from lib_hybridstitch.webui.options import Options
from tests.properties import anything, api_dicts, scalars, texts, tries, valid
from tests.sentences import one_sentence
from tests.settings_tables import EVERY_PRESET, OWN
from tests.webui.plain_host import PlainHost

PLAN = "/hybridstitch/v1/plan"
SLOWEST = 5.0
"""Seconds of processor time for one prediction, on a machine of which others want their share."""


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Extension:
    """An extension over that host."""
    return Extension(PlainHost(tmp_path_factory.mktemp("checkpoints")), Options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def web(extension: Extension) -> Iterator[TestClient]:
    """A client that hears of every failure of the server."""
    app = FastAPI()
    api.add_routes(app, extension, None)
    with TestClient(app, raise_server_exceptions=True) as client:
        yield client


def spelled(value: Any) -> bytes:
    """JSON as a careless program writes it: NaN, Infinity and halves of characters included."""
    return json.dumps(value, default=str, ensure_ascii=True).encode()


def is_written(value: Any) -> bool:
    """Whether Python writes it at all."""
    return not isinstance(value, int) or abs(value) < 10**4000


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """What might be sent: the fields of a run, good and absurd."""
    wild = draw(st.sampled_from([*api.RUN_LIMITS, "name", *["nothing"] * 7]))
    made: dict[str, Any] = {}
    for name, (kind, _, low, high) in api.RUN_LIMITS.items():
        if name == wild:
            beyond = st.sampled_from([low - 1, high + 1, -low, high * 2**40])
            made[name] = draw(st.one_of(beyond, scalars().filter(is_written)))
        elif draw(st.booleans()):
            made[name] = draw(st.integers(int(low), int(high)) if kind is int else st.floats(low, high))
    if wild == "name":
        made[draw(st.sampled_from(["sampler", "scheduler", "seed", "Steps", "prompt"]))] = draw(texts())
    settings = {name: draw(valid(name)) for name in draw(st.lists(st.sampled_from(list(specs())), max_size=4))}
    if draw(st.booleans()):
        settings["small_checkpoint"] = "small"
    made["settings"] = settings
    return made


def check_answer(answer: Any) -> bool:
    """Whether a prediction was given; else one sentence was."""
    told = answer.json()
    if answer.status_code == 200:
        assert len(told["steps"]) >= 1 and told["speedup"] > 0 and set(told["settings"]) == set(specs())
        assert told["summary"] and told["method"] and told["plan"]
        return True
    assert answer.status_code == 422 and one_sentence(
        told["detail"] if told["detail"][-1] in ".?" else told["detail"] + "."
    ), told
    return False


def test_any_request_gets_a_prediction_or_one_sentence(web: TestClient, long_run: bool) -> None:
    seen = {True: 0, False: 0}

    @tries(60, long_run)
    @given(request=requests())
    def run(request: dict[str, Any]) -> None:
        start = time.process_time()
        answer = web.post(PLAN, content=spelled(request), headers={"content-type": "application/json"})
        assert time.process_time() - start < SLOWEST
        given_well = check_answer(answer)
        seen[given_well] += 1
        if given_well:
            kept = answer.json()["settings"]
            wanted = {name: value for name, value in request["settings"].items() if name != "preset" and value != ""}
            assert {name: kept[name] for name in wanted} == wanted

    run()
    assert min(seen.values()) > 2, seen


def test_any_bytes_get_one_sentence(web: TestClient, long_run: bool) -> None:
    good = spelled({"settings": {"enabled": True, "preset": "Paper"}, "steps": 20})

    @st.composite
    def bodies(draw: st.DrawFn) -> bytes:
        at = draw(st.integers(0, len(good)))
        middle = draw(st.binary(max_size=12))
        return draw(st.sampled_from([middle, good[:at], good[:at] + middle + good[at:], middle + good]))

    @tries(40, long_run)
    @given(body=bodies())
    def run(body: bytes) -> None:
        check_answer(web.post(PLAN, content=body))

    run()


@pytest.mark.parametrize(
    ("body", "status", "say"),
    [
        (b"", 422, "must be a JSON object"),
        (b"[1, NaN]", 422, "Request body must be a JSON object."),
        (b'{"steps": NaN}', 422, "steps is nan, but must be a whole number from 1 to 150."),
        (b'{"steps": 1e999}', 422, "steps is inf, but must be a whole number"),
        (b'{"steps": ' + b"9" * 4000 + b"}", 422, "steps is 9999"),
        (b'{"steps": ' + b"9" * 50_000 + b"}", 422, "must be a JSON object"),
        (b'{"steps": 5, "steps": 6}', 422, "'steps' stands twice in the request"),
        (b'{"settings": {"preset": "Fast", "preset": "Paper"}}', 422, "'preset' stands twice in the request"),
        (
            b'{"settings": {"small_checkpoint": "\\ud800"}}',
            422,
            "small_checkpoint is '\\ud800', but must be a text of one",
        ),
        (
            b'{"settings": {"small_checkpoint": "a\\nb"}}',
            422,
            "small_checkpoint is 'a\\nb', but must be a text of one line",
        ),
        (b'{"sampler": "Eular"}', 422, "sampler is 'Eular', but must be one of"),
        (b'{"a":' * 15_000, 422, "must be a JSON object"),
        (b"[" * 90_000, 422, "must be a JSON object"),
        (b" " * 100_001, 413, "The request is longer than 100000 bytes."),
    ],
)
def test_refusals_of_a_prediction(web: TestClient, body: bytes, status: int, say: str) -> None:
    answer = web.post(PLAN, content=body, headers={"content-type": "application/json"})
    told = answer.json()["detail"]
    assert answer.status_code == status and say in told and one_sentence(told), told


@pytest.mark.parametrize("method", OWN)
def test_the_longest_prediction_is_quick(web: TestClient, method: str) -> None:
    """The most steps, the largest picture, and a target out of reach, for which every plan is tried."""
    settings = {"method": method, "target_speedup": 4, "small_checkpoint": "small"}
    request = {"settings": settings, "steps": 150, "width": 2048, "height": 2048, "batch_size": 64}
    start = time.process_time()
    answer = web.post(PLAN, json=request)
    assert time.process_time() - start < SLOWEST
    assert check_answer(answer)
    assert answer.json()["reason"] == "target" or answer.json()["speedup"] >= FAST_ENOUGH * 4


# --- X/Y/Z


class AxisOption:
    """The plot script's own, as far as it goes."""

    def __init__(self, label: str, type: Any, apply: Any, confirm: Any = None, cost: float = 0.0, choices: Any = None):
        self.label, self.type, self.apply, self.confirm = label, type, apply, confirm


def test_any_value_of_an_axis_is_taken_or_stops_the_plot_by_a_sentence(extension: Extension, long_run: bool) -> None:
    """The plot itself turns the text of a number's axis into one, and says so when it cannot."""
    axes = xyz._axes(AxisOption, extension.host)
    names = list(xyz.labels())
    seen = {"taken": 0, "refused": 0, "no number": 0}

    @st.composite
    def cells(draw: st.DrawFn) -> list[tuple[int, str]]:
        chosen = draw(st.lists(st.integers(0, len(axes) - 1), min_size=1, max_size=3, unique=True))
        return [(at, draw(st.one_of(valid(names[at]).map(str), valid(names[at]).map(str), texts()))) for at in chosen]

    @tries(80, long_run)
    @given(cell=cells())
    def run(cell: list[tuple[int, str]]) -> None:
        p, expected = SimpleNamespace(), {}
        for at, text in cell:
            option, name = axes[at], names[at]
            try:
                value = option.type(text)
            except ValueError:
                seen["no number"] += 1
                return
            try:
                option.confirm(p, [value])
            except (SettingsError, CheckpointError) as error:
                assert one_sentence(f"{error}.".replace("..", ".")), str(error)
                seen["refused"] += 1
                return
            before = dict(vars(p))
            p, former = copy(p), p
            option.apply(p, value, [value])
            assert vars(former) == before
            expected[name] = (
                {"true": True, "false": False}.get(text.strip().lower(), value) if specs()[name].kind is bool else value
            )
        seen["taken"] += 1
        assert xyz.changes(p) == {"enabled": True, **expected}
        json.dumps(vars(p), allow_nan=False)
        made = StitchSettings().with_changes(xyz.changes(p)).to_dict()
        assert all(made[name] == value for name, value in expected.items() if name != "preset")

    run()
    assert min(seen.values()) > 2, seen


# --- a generation's arguments


def test_any_arguments_of_a_generation_are_taken_or_refused_in_its_infotext(
    extension: Extension, long_run: bool
) -> None:
    """Whatever a caller hands over: nothing is raised into the host, and the picture says why it was not stitched."""
    seen = {"stitched": 0, "off": 0, "refused": 0}

    @st.composite
    def arguments(draw: st.DrawFn) -> tuple[Any, ...]:
        if draw(st.booleans()):
            return (
                {**draw(api_dicts()), **({"enabled": True} if draw(st.booleans()) else {})},
                *draw(st.lists(scalars())),
            )
        wild = draw(st.integers(0, 25))
        return tuple(
            draw(anything() if at == wild else st.one_of(st.none(), valid(name))) for at, name in enumerate(specs())
        )

    @tries(80, long_run)
    @given(args=arguments())
    def run(args: tuple[Any, ...]) -> None:
        p = SimpleNamespace(extra_generation_params={}, comments=[])
        p = type("P", (SimpleNamespace,), {"__hash__": object.__hash__, "__eq__": object.__eq__})(**vars(p))
        extension.process(p, args)
        generation = extension._of(p)
        extension.postprocess(p)
        stopped = p.extra_generation_params.get("HybridStitch stopped")
        if stopped:
            seen["refused"] += 1
            assert one_sentence(stopped) and p.comments == [
                f"HybridStitch stopped, the large model made the picture: {stopped}"
            ]
            assert extension.last_run is not None and extension.last_run["stopped"] == stopped
        elif generation:
            seen["stitched"] += 1
            assert generation.settings is not None and generation.settings.enabled
            assert p.extra_generation_params == generation.settings.to_infotext()
        else:
            seen["off"] += 1
            assert p.extra_generation_params == {} and p.comments == []

    run()
    assert min(seen.values()) > 2, seen


@pytest.mark.parametrize(("method", "label"), EVERY_PRESET)
def test_every_preset_is_taken_by_the_route(web: TestClient, method: str, label: str) -> None:
    settings = {"method": method, "preset": label, "small_checkpoint": "small"}
    assert web.post(PLAN, json={"settings": settings}).json()["settings"]["preset"] == label
