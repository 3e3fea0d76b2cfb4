"""The embedded WebUI: the extension in a browser, on the demo pair, without a WebUI.

python3 run.py serve
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from hybridstitch_demo import standin
from hybridstitch_demo.autoencoder import PAIR
from hybridstitch_demo.codec import PairCodec
from hybridstitch_demo.generate import PROFILE
from lib_hybridstitch.mmdit.checkpoint import load

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "hybridstitch.py"
ADDRESS = "127.0.0.1"
LARGE, SMALL = "demo_large", "demo_small"
LIKE = ("forge", "a1111")
PICTURES = "pictures"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.ckpt_dir and not options.ckpt_dir.is_dir():
        parser.error(f"--ckpt-dir {options.ckpt_dir} is no folder; name one that holds safetensors files")
    try:
        door = _open_door(options.port)
    except OSError as error:
        print(_no_door(options.port, error), file=sys.stderr)
        return 2
    _leave_on_signals()
    more = options.ckpt_dir.resolve() if options.ckpt_dir else None
    with _folder() as folder:
        try:
            _serve(door, make_host(options.like, folder, more), folder / PICTURES, not options.no_browser)
        except KeyboardInterrupt:
            pass
        finally:
            door.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py serve", description="A small WebUI with the extension in it, drawing with the project's own pair."
    )
    parser.add_argument("--port", type=int, default=7860, help="port of the page (default %(default)s; 0 takes any)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page in the browser")
    parser.add_argument(
        "--like", choices=LIKE, default=LIKE[0], help="the WebUI whose calls and habits it has (default %(default)s)"
    )
    parser.add_argument("--ckpt-dir", type=Path, help="a folder of further checkpoints for the list")
    return parser


def _open_door(port: int) -> socket.socket:
    """Bind the port before anything slow happens.

    Raises:
        OSError: when the port cannot be had.
    """
    if not 0 <= port <= 65535:
        raise OSError(errno.EINVAL, "no such port")
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a page closed a moment ago does not hold it
    try:
        door.bind((ADDRESS, port))
    except OSError:
        door.close()
        raise
    return door


def _no_door(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is taken, perhaps by a WebUI; close that, or choose another with --port {port + 1}."
    if error.errno == errno.EACCES:
        return f"Port {port} may not be used by this user; choose one above 1023 with --port."
    return f"--port is {port}, but must be a port of this machine, from 1024 to 65535, or 0 for any."


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder for checkpoints and pictures, gone afterwards; meanwhile the working one, which gradio 3 lays open."""
    before = Path.cwd()
    folder = Path(tempfile.mkdtemp(prefix="hybridstitch-"))
    (folder / PICTURES).mkdir()
    os.chdir(folder / PICTURES)
    try:
        yield folder
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


def make_host(like: str, folder: Path, more: Path | None = None) -> standin.Host:
    """Install the stand-in with the pair as its checkpoints and what is known of it, and start it without a page.

    Args:
        like: one of `LIKE`.
        folder: to be filled with checkpoints and data.
        more: further checkpoints.
    """
    _tame_gradio(folder)
    models = folder / "models"
    for name, stored in ((LARGE, "large"), (SMALL, "small")):
        network = load(PAIR / f"{stored}.safetensors", dtype=torch.float32)
        standin.write_checkpoint(models / f"{name}.safetensors", network)
    for file in further_checkpoints(more) if more else ():
        shutil.copyfile(file, models / file.name)
    standin.enter(standin.finder(like), like, PairCodec(), models)
    host = standin.Host(like)
    host.module("modules.standin").parts.reads_norms = True  # so that the pair draws on A1111's network too
    host.module("modules.paths").data_path = str(folder)
    _add_profile(host, folder / "hybridstitch" / "profiles")
    host.choose(LARGE)
    host.scripts.script_files.append(SCRIPT)
    return host


def _add_profile(host: standin.Host, folder: Path) -> None:
    """Put the large model's profile where the extension looks for it, under the hash that the host has for the file."""
    known = host.sd_models.get_closet_checkpoint_match(LARGE).calculate_shorthash()
    folder.mkdir(parents=True)
    shutil.copyfile(PROFILE, folder / f"{known}.json")


def further_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder by name; what only bears such a name (a folder, a pipe, a broken link) is none."""
    return sorted(path for path in folder.glob("*.safetensors") if path.is_file())


def _serve(door: socket.socket, host: standin.Host, pictures: Path, browser: bool) -> None:
    import uvicorn

    from hybridstitch_demo.site import make_site

    site = make_site(host, pictures)
    address = f"http://{ADDRESS}:{door.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(site, log_level="warning", timeout_graceful_shutdown=1))
    threading.Thread(target=_announce, args=(server, address, browser), daemon=True).start()
    server.run(sockets=[door])


def _leave_on_signals() -> None:
    """A stopped service or a closed terminal ends it as Ctrl-C does, so that nothing is left behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if hasattr(signal, "SIGHUP"):  # which the server does not know
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def _tame_gradio(folder: Path) -> None:
    """Gradio reports its use, keeps uploads, and writes a stub beside every file that derives from its components."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    with contextlib.suppress(ImportError):  # gradio 3 does not
        from gradio import component_meta

        component_meta.create_or_modify_pyi = lambda *_: None


def _announce(server: Any, address: str, browser: bool) -> None:
    """Say that the page is there, once it is."""
    while not server.started:
        if server.should_exit:
            return
        time.sleep(0.05)
    print(f"HybridStitch is at {address} (Ctrl-C ends it)", flush=True)
    if browser:
        webbrowser.open(address)


if __name__ == "__main__":
    sys.exit(main())
