"""The extension's routes behind the WebUI's --api-auth, as the WebUI itself registers them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from lib_hybridstitch.webui.api import ROOT
from run import ROOT as FOLDER
from tests import standins
from tests.standins import Host

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
BODIES = (b"", b"{}", b"{", b"\xff", b"[NaN]", b'{"settings": {"mask_ratio": 9}}', b" " * 200_000)


def basic(pair: str | bytes) -> str:
    return "Basic " + base64.b64encode(pair if isinstance(pair, bytes) else pair.encode()).decode()


WRONG: dict[str, str | None] = {
    "nothing": None,
    "an empty header": "",
    "an empty pair": basic(""),
    "a colon": basic(":"),
    "the wrong password": basic("ann:y"),
    "the beginning of the password": basic("ann:secre"),
    "the password and more": basic("ann:secretX"),
    "a space behind": basic("ann:secret "),
    "a line break behind": basic("ann:secret\n"),
    "a zero behind": basic("ann:secret\0"),
    "the user in another case": basic("Ann:secret"),
    "the password alone": basic("secret"),
    "the user alone": basic("ann"),
    "another user's password": basic("bob:secret"),
    "both pairs": basic("ann:secret,bob:pa:ss"),
    "a comma": basic(","),
    "in plain text": "Basic ann:secret",
    "as a bearer": basic("ann:secret").replace("Basic", "Bearer"),
    "without a scheme": basic("ann:secret").removeprefix("Basic "),
    "twice": f"{basic('ann:y')}, {basic('ann:secret')}",
    "no base64": "Basic ====",
    "other letters": "Basic \xe9\xe9\xe9\xe9",
    "no UTF-8": basic(b"\xff\xfe:\xff"),
    "much": "Basic " + "QUFB" * 10_000,
}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    """A WebUI started with --api-auth."""
    made = standins.forge.install(monkeypatch, tmp_path)
    monkeypatch.setattr(made.shared.cmd_opts, "api_auth", "ann:secret,bob:pa:ss", raising=False)
    made.load_script(FOLDER / "scripts" / "hybridstitch.py")
    return made


def routes(host: Host) -> dict[str, set[str]]:
    """Every route of ours that the application has, and its methods."""
    ours = [route for route in host.app.routes if getattr(route, "path", "").startswith("/hybridstitch")]
    return {route.path: set(route.methods) for route in ours}  # type: ignore[attr-defined]


def test_no_method_of_any_route_answers_without_the_password(host: Host) -> None:
    """Whatever is sent along: not even whether a request is well formed is told."""
    found = routes(host)
    assert set(found) == {f"{ROOT}/{name}" for name in ("schema", "plan", "last-run")}
    with TestClient(host.app) as client:
        for path, own in found.items():
            for method in METHODS:
                for header in WRONG.values() if method in own else (None, "", basic("ann:y")):
                    headers = {} if header is None else {"authorization": header.encode("latin-1")}
                    answer = client.request(method, path, headers=headers, content=b"{}")
                    assert answer.status_code == (401 if method in own else 405), (method, path, header)
            for body in BODIES:
                assert client.request(next(iter(own)), path, content=body).status_code == 401, (path, body[:20])


def test_either_pair_opens_every_route(host: Host) -> None:
    for pair in ("ann:secret", "bob:pa:ss"):
        client = TestClient(host.app, headers={"authorization": basic(pair)})
        assert client.get(f"{ROOT}/schema").status_code == 200
        assert client.get(f"{ROOT}/last-run").status_code == 404
        assert client.post(f"{ROOT}/plan", json={}).status_code == 200
        shouted = basic(pair).replace("Basic", "bASIC")
        assert client.get(f"{ROOT}/schema", headers={"authorization": shouted}).status_code == 200


SPELLINGS: tuple[Callable[[str], str], ...] = (
    lambda path: path + "/",
    lambda path: path.upper(),
    lambda path: path.replace("/v1/", "//v1/"),
    lambda path: path.replace("/v1/", "/v1/./"),
    lambda path: path.replace("/v1/", "/v1/x/../"),
    lambda path: path.replace("v1", "%761"),
    lambda path: path + "?authorization=" + basic("ann:secret"),
    lambda path: path + ";a=b",
)


def test_no_other_spelling_of_an_address_goes_around_it(host: Host) -> None:
    client = TestClient(host.app)
    for twist in SPELLINGS:
        for path, own in routes(host).items():
            answer = client.request(next(iter(own)), twist(path), content=b"{}")
            assert answer.status_code in (401, 404, 405), twist(path)


def test_after_reload_ui_the_password_still_holds(host: Host) -> None:
    host.reload_ui()
    client = TestClient(host.app)
    assert [client.request(next(iter(own)), path).status_code for path, own in routes(host).items()] == [401] * 3
