"""Install a stand-in, load scripts into it, and generate with it."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from fastapi import FastAPI
from safetensors.torch import save_file
from torch import Tensor

from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.model import MMDiT
from tests.networks import LARGE, MEDIUM, random_network

TREES = Path(__file__).resolve().parent / "webui"
PREFIX = "model.diffusion_model."
CHECKPOINTS: dict[str, MMDiTConfig] = {"sd3.5_large": LARGE, "sd3.5_medium": MEDIUM}
Checkpoint = str | Path | MMDiT | MMDiTConfig


def write_checkpoint(path: Path, source: MMDiT | MMDiTConfig, prefix: str = PREFIX, dtype: Any = None) -> Path:
    """Write a checkpoint of a network, or of a random one of an architecture (its seed is the file's name's length)."""
    network = random_network(source, len(path.stem)) if isinstance(source, MMDiTConfig) else source
    tensors = {prefix + name: tensor.to(dtype or tensor.dtype).clone() for name, tensor in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path))
    return path


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


class Finder:
    """Finds the host's modules in the stand-in's folders, the family's own first."""

    def __init__(self, roots: Sequence[Path], without: Sequence[str]) -> None:
        self.roots, self.without = roots, without

    def names(self) -> list[str]:
        """Every module, packages before what is in them."""
        files = [path.relative_to(root) for root in self.roots for path in root.rglob("*.py")]
        found = {".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files}
        return sorted(found - set(self.without))

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Called by Python's import."""
        for root in self.roots if name not in self.without else ():
            base = root.joinpath(*name.split("."))
            if base.with_suffix(".py").is_file():
                return spec_from_file_location(name, base.with_suffix(".py"))
            if (base / "__init__.py").is_file():
                return spec_from_file_location(name, base / "__init__.py", submodule_search_locations=[])
        return None


class Host:
    """An installed stand-in.

    Args:
        name: "a1111", "forge" or "ersatz".
        permanent_path: whether extensions' folders stay on Python's path.
    """

    def __init__(self, name: str, permanent_path: bool) -> None:
        self.name, self._permanent_path = name, permanent_path
        self.journal = self.module("modules.standin").journal
        self.shared, self.callbacks = self.module("modules.shared"), self.module("modules.script_callbacks")
        self.scripts, self.sd_models = self.module("modules.scripts"), self.module("modules.sd_models")
        self.opts, self.state = self.shared.opts, self.shared.state
        self.app = FastAPI()

    def module(self, name: str) -> Any:
        """One of the host's modules."""
        return sys.modules[name]

    @property
    def sd_model(self) -> Any:
        """The current model."""
        return self.shared.sd_model

    @property
    def network(self) -> Any:
        """The current model's transformer; Forge has none before the first generation or `load`."""
        model = self.sd_model
        return model.model.diffusion_model if self.name == "a1111" else model.forge_objects.unet.model.diffusion_model

    def load(self) -> Any:
        """Load the current checkpoint, as a generation does at its start; returns its transformer."""
        self.module("modules.processing_host").load_model(None)
        return self.network

    # Scripts

    def load_script(self, *paths: str | Path) -> ModuleType:
        """Start the UI with further script files (each in `<extension>/scripts/`); returns the last one's module."""
        self.scripts.script_files.extend(Path(path).resolve() for path in paths)
        self.start()
        return self.module("modules.script_loading").loaded_scripts.get(str(self.scripts.script_files[-1]))

    def start(self) -> None:
        """What a host does at start and again after Reload UI: scripts, before_ui, settings, controls, app_started."""
        self.sd_models.list_models()
        self.scripts.load_scripts(self._permanent_path)
        self.callbacks.before_ui_callback()
        gradio = importlib.import_module("gradio")
        with gradio.Blocks() as self.shared.demo:
            self.callbacks.ui_settings_callback()
            for runner, is_img2img in ((self.scripts.scripts_txt2img, False), (self.scripts.scripts_img2img, True)):
                runner.initialize_scripts(is_img2img)
                runner.setup_ui()
        self.callbacks.app_started_callback(self.shared.demo, self.app)

    def reload_ui(self) -> None:
        """Reload UI: the scripts are told, and their files run again; the model and imported libraries stay."""
        self.callbacks.app_reload_callback()
        self.callbacks.script_unloaded_callback()
        self.start()

    def script(self, title: str, kind: str = "txt2img") -> Any:
        """The object of a script in a tab."""
        return self.runner(kind).script(title)

    def runner(self, kind: str) -> Any:
        """The scripts of a tab."""
        return self.scripts.scripts_img2img if kind == "img2img" else self.scripts.scripts_txt2img

    def script_args(self, kind: str, alwayson: Mapping[str, Sequence[Any]]) -> tuple[Any, ...]:
        """Arguments of all scripts as the API fills them: by position, the rest from the controls, surplus dropped.

        Raises:
            KeyError: a script that does not exist; the API answers 422.
        """
        runner = self.runner(kind)
        values = [getattr(control, "value", None) for control in runner.inputs]
        values[0] = 0
        for title, given in alwayson.items():
            script = runner.script(title)
            if script is None:
                raise KeyError(f"always on script {title} not found")
            for index, value in zip(range(script.args_from, script.args_to), given):
                values[index] = value
        return tuple(values)

    # Generations

    def processing(self, kind: str = "txt2img", prompt: Any = "a frog", **attributes: Any) -> Any:
        """A p without scripts; width, height, steps and seed are small by default."""
        processing = self.module("modules.processing")
        defaults: dict[str, Any] = {"steps": 4, "width": 128, "height": 128, "seed": 1, "cfg_scale": 3.0}
        defaults.update(sampler_name="Euler", scheduler="Simple")
        if kind == "img2img":
            source = torch.Generator().manual_seed(5)
            defaults["init_images"] = [torch.rand(3, 128, 128, generator=source)]
        name = "StableDiffusionProcessingImg2Img" if kind == "img2img" else "StableDiffusionProcessingTxt2Img"
        known = {one.name for one in fields(getattr(processing, name)) if one.init}
        p = getattr(processing, name)(
            prompt=prompt, **{**defaults, **{k: v for k, v in attributes.items() if k in known}}
        )
        for key in attributes.keys() - known:  # what other extensions put there
            setattr(p, key, attributes[key])
        return p

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
        self.state.begin()
        try:
            p.script_args = script_args
            processed = self.module("modules.processing").process_images(p)
        finally:
            self.state.end()
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
    name: str,
    checkpoints: Mapping[str, Checkpoint],
    large: str,
    fake_gradio: bool,
) -> Host:
    """Put a family's modules into `sys.modules` and checkpoints into its folder, until the test ends.

    Args:
        name: "a1111", "forge" or "ersatz".
        checkpoints: file name, with or without ending → file, network or architecture.
        large: which of them is the current one.
        fake_gradio: put a gradio there that shows nothing; False needs the real one.
    """
    family = "a1111" if name == "a1111" else "forge"
    finder = Finder([TREES / family, TREES / "common"], () if fake_gradio else ("gradio",))
    for module in finder.names():
        monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]  # so that it is gone afterwards
        del sys.modules[module]
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    monkeypatch.setattr(sys, "path", list(sys.path))
    for module in finder.names():
        importlib.import_module(module)
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
    sys.modules["modules.sd_checkpoints"].folder.append(folder)
    host = Host(name, permanent_path=family == "forge")
    host.sd_models.list_models()
    info = host.sd_models.get_closet_checkpoint_match(large)
    assert info is not None, f"{large} is not among the checkpoints"
    host.opts.sd_model_checkpoint = info.title
    return host
