"""Runs in a process of its own, under an audit hook, which nobody can take off again: what is opened and written.

Prints one JSON object: per WebUI what a caller's names made the process open, and what a generation wrote.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from hybridstitch_demo import sdapi
from hybridstitch_demo.studio import Studio
from lib_hybridstitch.mmdit import checkpoint
from run import ROOT
from tests import standins
from tests.networks import MEDIUM
from tests.standins import Host, write_checkpoint

SCRIPT = ROOT / "scripts" / "hybridstitch.py"
SMALL = {"steps": 4, "width": 64, "height": 64, "scheduler": "Simple"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod")
DOORS = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")


class Watch:
    """What happens between `begin` and `end`, by event."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] | None = None
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.seen is None:
            return
        if event == "open" and isinstance(arguments[0], int):
            return  # a stream around what is open already
        if event == "open":
            path, mode, flags = arguments
            writes = any(letter in (mode or "") for letter in "wax+") or bool((flags or 0) & WRITING)
            self.seen.append(("write" if writes else "read", _text(path)))
        elif event in CHANGES or event.startswith("shutil."):
            self.seen.append(("write", f"{event} {_text(arguments[0])}"))
        elif event in DOORS:
            self.seen.append(("door", f"{event} {arguments[:2]!r}"))
        elif event in ("os.listdir", "os.scandir"):
            self.seen.append(("read", _text(arguments[0])))

    @contextmanager
    def watching(self) -> Iterator[list[tuple[str, str]]]:
        """What was seen inside."""
        self.seen = found = []
        try:
            yield found
        finally:
            self.seen = None


def _text(path: object) -> str:
    return os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else repr(path)


def names_of(outside: Path, inside: Path) -> list[str]:
    """Ways of naming a checkpoint that lies outside of the WebUI's folder, and files that are none."""
    stranger = outside / "stranger.safetensors"
    around = os.path.relpath(stranger, inside)
    ways = [str(stranger), around, f"./{around}", around.replace("/", "\\"), f"{inside}/{around}", stranger.as_uri()]
    ways += [f"file:{stranger}", f"\\\\127.0.0.1\\share{stranger}", f"//127.0.0.1/share{stranger}"]
    ways += [f"http://127.0.0.1:9{stranger}", f"{stranger}\0.safetensors", f"sd3.5_medium/../{around}", f"~{stranger}"]
    ways += [f"sd3.5_medium [{stranger}]", "../../../../etc/passwd", "/etc/passwd", "/proc/self/environ", "/dev/zero"]
    ways += ["C:\\Windows\\win.ini", "NUL", "..", ".", "/", "", "*", "stranger", "stranger.safetensors"]
    return [*ways, f"{inside}/sd3.5_medium.safetensors"]


def ask_everywhere(web: TestClient, host: Host, name: str, drawing: str) -> None:
    """Hand one name to every door that takes one; `drawing` is the setting by which a generation gets it."""
    for key in ("small_checkpoint", "large_checkpoint"):
        settings = {"enabled": True, "preset": "Paper", "small_checkpoint": "sd3.5_medium", key: name}
        web.post("/hybridstitch/v1/plan", json={"settings": settings, "steps": 4})
        if key == drawing:
            web.post("/sdapi/v1/txt2img", json={**SMALL, "alwayson_scripts": {"HybridStitch": {"args": [settings]}}})
    web.get("/hybridstitch/v1/last-run", params={"task": name})
    web.get(f"/hybridstitch/v1/{quote(name, safe='')}")
    web.post("/hybridstitch/v1/plan", json={"sampler": name, "scheduler": name})
    host.opts.data["hybridstitch_small_checkpoint"] = name
    web.post("/hybridstitch/v1/plan", json={"settings": {"enabled": True, "preset": "Paper"}})
    del host.opts.data["hybridstitch_small_checkpoint"]


def generations(web: TestClient) -> list[int]:
    """One of each kind, stitched, so that models are loaded, cached, measured and told of; their statuses."""
    stitch = {"enabled": True, "small_checkpoint": "sd3.5_medium", "preset": "Paper"}
    asked = {**SMALL, "steps": 8, "prompt": "a frog", "alwayson_scripts": {"HybridStitch": {"args": [stitch]}}}
    drawn = web.post("/sdapi/v1/txt2img", json=asked)
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.5}
    answers = [
        drawn,
        web.post("/sdapi/v1/txt2img", json={**asked, **hires}),
        web.post("/sdapi/v1/img2img", json={**asked, "init_images": drawn.json()["images"]}),
        web.get("/hybridstitch/v1/last-run"),
        web.get("/hybridstitch/v1/schema"),
        web.post("/hybridstitch/v1/plan", json={"settings": stitch}),
    ]
    return [answer.status_code for answer in answers]


def probe(watch: Watch, like: str, folder: Path, every: int) -> dict[str, Any]:
    """All in one stand-in; of the names every so-manieth."""
    inside, outside = folder / "models" / "Stable-diffusion", folder / "outside"
    outside.mkdir()
    write_checkpoint(outside / "stranger.safetensors", MEDIUM)
    with pytest.MonkeyPatch.context() as patched, ExitStack() as closed:
        host = (standins.a1111 if like == "a1111" else standins.forge).install(
            patched, folder, large="sd3.5_large", **({} if like == "a1111" else {"like": like})
        )
        if like == "a1111":
            host.module("modules.standin").parts.reads_norms = True
        host.load_script(SCRIPT)
        sdapi.add_routes(host.app, Studio(host))
        web = closed.enter_context(TestClient(host.app))
        loaded = host.module("modules.script_loading").loaded_scripts[str(SCRIPT)]
        generations(web)  # what is imported at the first call is no finding
        found: dict[str, Any] = {"inside": str(inside), "names": {}}
        for number, name in enumerate(names_of(outside, inside)[::every]):
            with watch.watching() as seen:
                ask_everywhere(web, host, name, ("small_checkpoint", "large_checkpoint")[number % 2])
            found["names"][name] = sorted(set(seen))
        with watch.watching() as seen:
            checkpoint.inspect(outside / "stranger.safetensors")
            (outside / "note").write_text("x")
        found["control"] = sorted(set(seen))
        loaded.EXTENSION.release()
        with watch.watching() as seen:
            found["statuses"] = generations(web)
        found["generation"] = sorted(set(seen))
        last = web.get("/hybridstitch/v1/last-run").json()
        found["last_run"] = [last["stopped"], last["passes"][0]["happened"]]
        return found


if __name__ == "__main__":
    watcher, root, pace = Watch(), Path(sys.argv[1]), int(sys.argv[2])
    print(json.dumps({like: probe(watcher, like, root / like, pace) for like in ("forge", "a1111")}))
