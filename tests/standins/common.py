"""Install a stand-in for one test, and generate with it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridstitch_demo import standin
from lib_hybridstitch.mmdit.checkpoint import PREFIX
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.model import MMDiT
from tests.networks import LARGE, MEDIUM, random_network
from tests.standins.codec import HashCodec

FAKES = Path(__file__).resolve().parent / "fakes"
CHECKPOINTS: dict[str, MMDiTConfig] = {"sd3.5_large": LARGE, "sd3.5_medium": MEDIUM}
Checkpoint = str | Path | MMDiT | MMDiTConfig


def write_checkpoint(path: Path, source: MMDiT | MMDiTConfig, prefix: str = PREFIX, dtype: Any = None) -> Path:
    """Write a checkpoint of a network, or of a random one of an architecture (its seed is the file's name's length)."""
    network = _random(source, len(path.stem)) if isinstance(source, MMDiTConfig) else source
    return standin.write_checkpoint(path, network, prefix, dtype)


@cache
def _random(config: MMDiTConfig, seed: int) -> MMDiT:
    """A random network, made once: every stand-in writes the same ones."""
    return random_network(config, seed)


@dataclass(frozen=True)
class Result:
    """What a generation left.

    Args:
        latents: what sampling ended with, of all batches (images, C, H, W); with hires, the second pass's.
        images: pictures as tensors (3, H, W) in 0..1.
        infotext: `p.extra_generation_params`.
        infotexts: the text under each picture.
        comments: sentences below the pictures.
        hook_log: the host's steps and hooks in order; see `modules.standin.Journal`.
        calls: of the large model.
        swallowed: exceptions which hooks and callbacks raised.
        p: the processing object.
    """

    latents: Tensor
    images: list[Tensor]
    infotext: dict[str, Any]
    infotexts: list[str]
    comments: list[str]
    hook_log: list[str]
    calls: list[Any]
    swallowed: list[Exception]
    p: Any


class Host(standin.Host):
    """A stand-in that generates small pictures and tells what happened meanwhile."""

    @property
    def network(self) -> Any:
        """The current model's transformer; Forge has none before the first generation or `load`."""
        model = self.sd_model
        return model.model.diffusion_model if self.name == "a1111" else model.forge_objects.unet.model.diffusion_model

    def load(self) -> Any:
        """Load the current checkpoint, as a generation does at its start; returns its transformer."""
        self.load_model()
        return self.network

    def processing(self, kind: str = "txt2img", prompt: Any = "a frog", **attributes: Any) -> Any:
        """A p without scripts; width, height, steps and seed are small by default."""
        defaults: dict[str, Any] = {"steps": 4, "width": 128, "height": 128, "seed": 1, "cfg_scale": 3.0}
        defaults.update(sampler_name="Euler", scheduler="Simple")
        if kind == "img2img":
            source = torch.Generator().manual_seed(5)
            defaults["init_images"] = [torch.rand(3, 128, 128, generator=source)]
        return super().processing(kind, prompt=prompt, **{**defaults, **attributes})

    def generate(
        self,
        kind: str = "txt2img",
        prompt: Any = "a frog",
        *,
        alwayson: Mapping[str, Sequence[Any]] | None = None,
        args: Sequence[Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        interrupt_after: int | None = None,
        thread: bool = False,
        is_api: bool = True,
        **attributes: Any,
    ) -> Result:
        """Generate.

        Args:
            kind: "txt2img" or "img2img".
            alwayson: script title → arguments, as the API takes them.
            args: the same for the only script there is.
            settings: options for this generation alone.
            interrupt_after: the user interrupts after so many evaluations.
            thread: run in a thread of its own, as the page does.
            is_api: whether it comes from the API.
            attributes: of p.
        """
        if args is not None:
            (only,) = self.runner(kind).title_map
            alwayson = {only: args}
        values = self.script_args(kind, alwayson or {})

        def run() -> Result:
            with closing(self.processing(kind, prompt, **attributes)) as p:
                p.is_api, p.scripts = is_api, self.runner(kind)
                return self.run(p, values)

        with self._settings(settings or {}), self._interrupt(interrupt_after):
            if not thread:
                return run()
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(run).result()

    def run(self, p: Any, script_args: tuple[Any, ...] = (0,)) -> Result:
        """Generate with a p of one's own."""
        journal = self.journal
        before = [len(part) for part in (journal.hooks, journal.calls, journal.swallowed, journal.latents)]
        processed = self.process(p, script_args)
        hooks, calls, swallowed, latents = (
            part[begin:]
            for part, begin in zip((journal.hooks, journal.calls, journal.swallowed, journal.latents), before)
        )
        return Result(
            latents=torch.cat(latents) if latents else torch.empty(0),
            images=processed.images,
            infotext={key: value for key, value in p.extra_generation_params.items() if value is not None},
            infotexts=processed.infotexts,
            comments=list(p.comments),
            hook_log=hooks,
            calls=calls,
            swallowed=swallowed,
            p=p,
        )

    @contextmanager
    def _settings(self, settings: Mapping[str, Any]) -> Iterator[None]:
        before = dict(self.opts.data)
        for key, value in settings.items():
            setattr(self.opts, key, value)
        try:
            yield
        finally:
            self.opts.data.update(before)

    @contextmanager
    def _interrupt(self, after: int | None) -> Iterator[None]:
        evaluations: list[object] = []

        def count(params: object) -> None:
            evaluations.append(params)
            if len(evaluations) == after:
                self.state.interrupt()

        self.callbacks.on_cfg_after_cfg(count)
        try:
            yield
        finally:
            self.callbacks.remove_callbacks_for_function(count)


def install(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    like: str,
    checkpoints: Mapping[str, Checkpoint],
    large: str,
    fake_gradio: bool,
) -> Host:
    """Put a WebUI's modules into `sys.modules` and checkpoints into its folder, until the test ends.

    Args:
        like: "a1111", "forge" or "ersatz".
        checkpoints: file name, with or without ending → file, network or architecture.
        large: which of them is the current one.
        fake_gradio: put a gradio there that shows nothing; False needs the real one.
    """
    found = standin.finder(like, [FAKES] if fake_gradio else [])
    others = (module for family in ("forge", "a1111") for module in standin.finder(family).names())
    for module in {*found.names(), *others}:
        monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]  # so that it is gone afterwards
        del sys.modules[module]  # another stand-in may be there, and is again afterwards
    finders = [finder for finder in sys.meta_path if not isinstance(finder, standin.Finder)]
    monkeypatch.setattr(sys, "meta_path", finders)
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True, exist_ok=True)
    for title, source in checkpoints.items():
        target = folder / (
            title if Path(title).suffix in (".safetensors", ".gguf", ".ckpt") else f"{title}.safetensors"
        )
        if isinstance(source, (MMDiT, MMDiTConfig)):
            write_checkpoint(target, source)
        else:
            shutil.copyfile(source, target)
    standin.enter(found, like, HashCodec(), folder)
    sys.modules["modules.paths"].data_path = str(tmp_path)
    host = Host(like)
    host.choose(large)
    return host
