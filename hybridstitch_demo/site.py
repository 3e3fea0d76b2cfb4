"""The embedded WebUI as a web application: page, API, and the extension's own files."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import FileResponse

from hybridstitch_demo import sdapi
from hybridstitch_demo.page.build import build
from hybridstitch_demo.page.controls import OLD
from hybridstitch_demo.standin import Host
from hybridstitch_demo.studio import Studio

ROOT = Path(__file__).resolve().parents[1]
OWN = Path(__file__).resolve().parent / "page"

Application = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]


def make_site(host: Host, pictures: Path) -> Application:
    """Start the host with its page and routes.

    Args:
        host: with its script files named, not started.
        pictures: the folder where they are kept while the page is open.
    """
    studio = Studio(host)
    host.begin_start()
    if host.name == "a1111":
        host.load_model()  # Forge waits for the first generation
    host.shared.demo = build(host, studio, pictures)
    files = _files()
    _add_files(host.app, files)
    sdapi.add_routes(host.app, studio)
    host.callbacks.app_started_callback(host.shared.demo, host.app)
    host.shared.demo.allowed_paths = [str(pictures)]
    app = gr.mount_gradio_app(host.app, host.shared.demo, path="/", **_allowing(pictures))
    return _with_head(app, _head(files))


def _files() -> dict[str, Path]:
    """What the page loads beside gradio's own: its own parts, then the extension's, in a host's order."""
    scripts = [OWN / "page.js", *sorted((ROOT / "javascript").glob("*.js"))]
    return {f"/page/{path.parent.name}/{path.name}": path for path in (*scripts, OWN / "page.css", ROOT / "style.css")}


def _add_files(app: FastAPI, files: Mapping[str, Path]) -> None:
    for address, path in files.items():

        def read(path: Path = path) -> FileResponse:
            return FileResponse(path, headers={"Cache-Control": "no-cache"})

        app.add_api_route(address, read, methods=["GET"], include_in_schema=False)


def _head(files: Mapping[str, Path]) -> bytes:
    """The lines that load them."""
    lines = [
        f'<script src="{address[1:]}"></script>'
        if address.endswith(".js")
        else f'<link rel="stylesheet" href="{address[1:]}">'
        for address in files
    ]
    return "".join(lines).encode()


def _with_head(app: FastAPI, head: bytes) -> Application:
    """Put lines into the head of every HTML page, and take out what would be loaded from elsewhere."""

    async def run(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await app(scope, receive, send)
            return
        start: dict[str, Any] = {}
        body: list[bytes] = []

        async def collect(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.append(message.get("body", b""))
            if message.get("more_body"):
                return
            whole = _changed(b"".join(body), head)
            headers = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
            start["headers"] = [*headers, (b"content-length", str(len(whole)).encode())]
            await send(start)
            await send({"type": "http.response.body", "body": whole})

        await app(scope, receive, collect)

    return run


def _changed(html: bytes, head: bytes) -> bytes:
    """Gradio's page loads a font list and a script from elsewhere, which this page does without."""
    html = re.sub(rb"<link[^>]*(?:googleapis|gstatic)[^>]*>", b"", html)
    html = re.sub(rb"<script[^>]*cdnjs[^>]*>\s*</script>", b"", html)
    return html.replace(b"</head>", head + b"</head>", 1)


def _allowing(folder: Path) -> dict[str, Any]:
    """Gradio 4 is told when it is mounted which folder the browser may load from."""
    return {} if OLD else {"allowed_paths": [str(folder)]}
