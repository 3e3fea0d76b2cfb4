"""`run.py serve` from the command line: its one line, its port, the browser, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch

from hybridstitch_demo.autoencoder import PAIR
from hybridstitch_demo.generate import PROFILE
from hybridstitch_demo.serve import LARGE, further_checkpoints
from hybridstitch_demo.standin import write_checkpoint
from lib_hybridstitch.mmdit.checkpoint import load
from lib_hybridstitch.plans.profile import Profile
from run import COMMANDS, ROOT, child_environment
from tests.pages import environment

START = 60.0  # seconds; an idle machine takes about six


def start(like: str, *arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.Popen[str]:
    made = environment(like)
    return subprocess.Popen(
        [str(made.python), "-m", COMMANDS["serve"].module, "--like", like, *arguments],
        env={**child_environment(COMMANDS["serve"], ROOT, os.environ), **variables},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Press Ctrl-C; returns what was printed since, and complaints."""
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=20)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("like", ["forge", "a1111"])
def test_it_says_one_line_opens_the_browser_and_frees_its_port(like: str, tmp_path: Path) -> None:
    port, opened, scratch = free_port(), tmp_path / "opened", tmp_path / "scratch"
    scratch.mkdir()
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    process = start(like, "--port", str(port), BROWSER=f"{browser} %s", TMPDIR=str(scratch))
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == f"HybridStitch is at http://127.0.0.1:{port} (Ctrl-C ends it)\n"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as reply:
        page = reply.read().decode()
    assert "hybridstitch_panel.js" in page
    assert "googleapis" not in page.split("window.gradio_config")[0] and "cdnjs" not in page
    deadline = time.monotonic() + START
    while not opened.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert opened.read_text().strip() == f"http://127.0.0.1:{port}"
    assert list(scratch.glob("hybridstitch-*"))
    said, complaints = stop(process)
    assert process.returncode == 0
    assert said == "" and "Traceback" not in complaints
    assert [left.name for left in scratch.iterdir() if not left.name.startswith("torch")] == []
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_nothing_is_left_behind_however_it_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    process = start("forge", "--no-browser", "--port", "0", TMPDIR=str(tmp_path))
    assert process.stdout is not None and process.stdout.readline()
    assert list(tmp_path.glob("hybridstitch-*"))
    process.send_signal(number)
    _, complaints = process.communicate(timeout=20)
    assert "Traceback" not in complaints
    assert not list(tmp_path.glob("hybridstitch-*"))


@pytest.mark.parametrize(
    ("port", "sentence"),
    [
        ("taken", "is taken, perhaps by a WebUI; close that, or choose another with --port"),
        ("70000", "--port is 70000"),
    ],
)
def test_a_port_that_cannot_be_had_gives_one_sentence(port: str, sentence: str) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        number = str(busy.getsockname()[1]) if port == "taken" else port
        process = start("forge", "--no-browser", "--port", number)
        said, complaints = process.communicate(timeout=START)
    assert process.returncode == 2 and said == ""
    assert sentence in complaints and len(complaints.strip().splitlines()) == 1


def test_a_folder_of_checkpoints_that_is_not_there_gives_one_sentence(tmp_path: Path) -> None:
    process = start("forge", "--no-browser", "--port", "0", "--ckpt-dir", str(tmp_path / "nowhere"))
    said, complaints = process.communicate(timeout=START)
    assert process.returncode == 2 and said == ""
    assert "nowhere is no folder; name one that holds safetensors files" in complaints


def test_the_users_own_files_are_out_of_the_browsers_reach(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("mine")
    process = start("a1111", "--no-browser", "--port", "0", cwd=tmp_path)
    assert process.stdout is not None
    address = next(word for word in process.stdout.readline().split() if word.startswith("http"))
    try:
        for path in ("secret.txt", str(tmp_path / "secret.txt")):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{address}/file={path}")
            assert refused.value.code in (403, 404)
    finally:
        stop(process)


def listed(address: str, route: str) -> Any:
    """The answer of a route."""
    with urllib.request.urlopen(f"{address}/{route}", timeout=START) as reply:
        return json.load(reply)


def ask(address: str, route: str, **body: Any) -> Any:
    """The answer of a route to a JSON request."""
    request = urllib.request.Request(
        f"{address}/{route}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=START) as reply:
        return json.load(reply)


@pytest.mark.parametrize("like", ["forge", "a1111"])
def test_the_pairs_profile_is_used_for_the_pairs_large_model_and_for_no_other(like: str, tmp_path: Path) -> None:
    network = load(PAIR / "large.safetensors", dtype=torch.float32)
    network.pos_embed.mul_(0.99)
    write_checkpoint(tmp_path / "other.safetensors", network)
    process = start(like, "--no-browser", "--port", "0", "--ckpt-dir", str(tmp_path))
    assert process.stdout is not None
    address = next(word for word in process.stdout.readline().split() if word.startswith("http"))
    settings = {"enabled": True, "method": "Step cache"}
    size = {"steps": 12, "width": 128, "height": 128}
    asked = {"prompt": "frog", "sampler_name": "Euler", "scheduler": "Simple", **size}
    asked["alwayson_scripts"] = {"HybridStitch": {"args": [settings]}}
    try:
        [large] = [one for one in listed(address, "sdapi/v1/sd-models") if one["model_name"] == LARGE]
        assert large["hash"] == Profile.read(PROFILE).checkpoint
        told, infotexts = [], []
        for checkpoint in (LARGE, "other"):
            ask(address, "sdapi/v1/options", sd_model_checkpoint=checkpoint)
            made = ask(address, "sdapi/v1/txt2img", **asked)
            infotexts.append(json.loads(made["info"])["infotexts"][0])
            told.append(ask(address, "hybridstitch/v1/plan", settings=settings, **size)["profile"])
    finally:
        stop(process)
    assert told == ["shipped with the demo pair", "generic"]
    for name, infotext in zip(told, infotexts, strict=True):
        assert f"HybridStitch profile: {name}" in infotext and "HybridStitch stopped" not in infotext


@pytest.mark.skipif(os.name != "posix", reason="pipes and links are made otherwise elsewhere")
def test_what_only_bears_the_name_of_a_checkpoint_is_not_offered(tmp_path: Path) -> None:
    """A pipe would be waited for, and a folder would end the start by a trace."""
    (tmp_path / "real.safetensors").write_bytes(b"x")
    (tmp_path / "linked.safetensors").symlink_to("real.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "gone.safetensors").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert [path.name for path in further_checkpoints(tmp_path)] == ["linked.safetensors", "real.safetensors"]
