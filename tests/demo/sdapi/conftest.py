"""The embedded WebUI's API on a stand-in of each family."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from hybridstitch_demo import sdapi
from hybridstitch_demo.studio import Studio
from tests import standins
from tests.demo.sdapi.asked import ASKED, Ask
from tests.standins import Host

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "hybridstitch.py"


@pytest.fixture(params=["forge", "a1111"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    """A stand-in of each family, with the extension in it."""
    if request.param == "a1111":
        made = standins.a1111.install(monkeypatch, tmp_path, large="sd3.5_large")
        made.module("modules.standin").parts.reads_norms = True
    else:
        made = standins.forge.install(monkeypatch, tmp_path)
    made.load_script(SCRIPT)
    return made


@pytest.fixture
def app(host: Host) -> FastAPI:
    """The API alone."""
    made = FastAPI()
    sdapi.add_routes(made, Studio(host))
    return made


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    """Asks as a program does."""
    return TestClient(app)


@pytest.fixture
def draw(client: TestClient) -> Ask:
    """`draw(**fields)` is the answer to a request for pictures that must succeed."""

    def ask(kind: str = "txt2img", **fields: Any) -> Any:
        answer = client.post(f"/sdapi/v1/{kind}", json={**ASKED, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


@pytest.fixture
def refusal(client: TestClient, host: Host) -> Ask:
    """`refusal(**fields)` is status and sentence of a refused request."""

    def ask(kind: str = "txt2img", **fields: Any) -> tuple[int, str]:
        answer = client.post(f"/sdapi/v1/{kind}", json={**ASKED, **fields})
        told = answer.json()
        assert "Traceback" not in answer.text
        if isinstance(told["detail"], list):  # fastapi's own way, for a value of the wrong type
            (wrong,) = told["detail"]
            assert set(told) == {"detail"} and wrong["loc"] == ["body", *fields]
            return answer.status_code, wrong["msg"]
        whole = {"error", "detail", "body", "errors"}
        assert set(told) == whole or (host.name != "a1111" and set(told) == {"detail"})
        return answer.status_code, told["detail"] or told["errors"]

    return ask


@pytest.fixture
def held(host: Host) -> Iterator[tuple[threading.Event, threading.Event]]:
    """(it runs, it may go on): every generation stops after its second evaluation until it may go on."""
    runs, may = threading.Event(), threading.Event()
    done: list[object] = []

    def wait(params: object) -> None:
        done.append(params)
        if len(done) == 2:
            runs.set()
            assert may.wait(30)

    host.callbacks.on_cfg_after_cfg(wait)
    yield runs, may
    may.set()
