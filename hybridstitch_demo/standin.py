"""A stand-in for a WebUI: the slice of its modules that an extension meets, under their own names.

Its modules lie in `webui/`: `common`, and what each family has of its own. What extensions trip over is as on the real
programs: the order of hooks, rows and calls, the double hook on hires, patches that stay or vanish, titles that change.
Where a stand-in leaves its host's way, the docstring there says "Stand-in". The page and tests run on it alike.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from fastapi import FastAPI
from safetensors.torch import save_file
from torch import Tensor

from lib_hybridstitch.mmdit.checkpoint import PREFIX
from lib_hybridstitch.mmdit.model import MMDiT

TREES = Path(__file__).resolve().parent / "webui"
ERSATZ_VERSION = "f2.ersatz"
LIKE = ("forge", "ersatz", "a1111")
KINDS = ("txt2img", "img2img")


class Codec(Protocol):
    """Text encoders and VAE.

    Args:
        zeroes_empty: whether Forge's zeros for an empty negative prompt suit its networks.
    """

    zeroes_empty: bool

    def encode(self, texts: Sequence[str], per_chunk: int, once: int, width: int, pooled: int) -> dict[str, Tensor]:
        """Texts as "crossattn" (texts, length, width) and "vector" (texts, pooled).

        Args:
            per_chunk, once: tokens that the host makes of every chunk of words, and beside them.
        """
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (images, C, H, W) as pictures (images, 3, 8·H, 8·W) in -1..1."""
        ...

    def encode_image(self, pictures: Tensor, channels: int) -> Tensor:
        """Pictures (images, 3, H, W) in -1..1 as latents (images, channels, H/8, W/8)."""
        ...


def write_checkpoint(path: Path, network: MMDiT, prefix: str = PREFIX, dtype: Any = None) -> Path:
    """Write a network as a checkpoint, in `dtype` or as it is."""
    tensors = {prefix + name: tensor.to(dtype or tensor.dtype).clone() for name, tensor in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path))
    return path


class Finder:
    """Finds the host's modules in the stand-in's folders, those of the first folder first."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = roots

    def names(self) -> list[str]:
        """Every module, packages before what is in them."""
        files = [path.relative_to(root) for root in self.roots for path in root.rglob("*.py")]
        return sorted({".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files})

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        """Called by Python's import."""
        for root in self.roots:
            base = root.joinpath(*name.split("."))
            if base.with_suffix(".py").is_file():
                return spec_from_file_location(name, base.with_suffix(".py"))
            if (base / "__init__.py").is_file():
                return spec_from_file_location(name, base / "__init__.py", submodule_search_locations=[])
        return None


def finder(like: str, more: Sequence[Path] = ()) -> Finder:
    """Where the modules of a WebUI are found.

    Args:
        like: one of `LIKE`.
        more: further folders of modules.
    """
    assert like in LIKE, f"there is no stand-in like {like}"
    return Finder([TREES / ("a1111" if like == "a1111" else "forge"), TREES / "common", *more])


def enter(found: Finder, like: str, codec: Codec, folder: Path) -> None:
    """Put a WebUI's modules into `sys.modules`, fresh; they are found from now on.

    Args:
        folder: where its checkpoints lie.
    """
    for module in found.names():
        sys.modules.pop(module, None)
    sys.meta_path.insert(0, found)
    made: dict[str, Any] = {module: importlib.import_module(module) for module in found.names()}
    made["modules.standin"].parts.codec = codec
    made["modules.sd_checkpoints"].folder.append(folder)
    if like != "a1111":
        made["modules.devices"].checks_nans = False
        components = made["modules.ui_components"]

        def accordion(value: Any = None, **kwargs: Any) -> Any:
            """Forge's is a function."""
            return components.InputAccordionImpl(value, **kwargs)

        components.InputAccordion = accordion
    if like == "ersatz":
        made["modules_forge.forge_version"].version = ERSATZ_VERSION
    made["modules.sd_models"].list_models()


class Host:
    """The stand-in whose modules are in `sys.modules`.

    Args:
        name: one of `LIKE`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
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

    def load_model(self) -> None:
        """Load the current checkpoint, as a generation does at its start."""
        self.module("modules.processing_host").load_model(None)

    def choose(self, checkpoint: str) -> None:
        """Make a checkpoint of the list the current one, to be loaded when it is needed."""
        info = self.sd_models.get_closet_checkpoint_match(checkpoint)
        assert info is not None, f"{checkpoint} is not among the checkpoints"
        self.opts.sd_model_checkpoint = info.title

    # Scripts

    def load_script(self, *paths: str | Path) -> ModuleType:
        """Start the UI with further script files (each in `<extension>/scripts/`); returns the last one's module."""
        self.scripts.script_files.extend(Path(path).resolve() for path in paths)
        self.start()
        loaded: ModuleType = self.module("modules.script_loading").loaded_scripts.get(
            str(self.scripts.script_files[-1])
        )
        return loaded

    def start(self) -> None:
        """What a host does at start and again after Reload UI."""
        self.begin_start()
        self.build_page()
        self.callbacks.app_started_callback(self.shared.demo, self.app)

    def begin_start(self) -> None:
        """The first part of a start: lists, scripts, before_ui."""
        self.sd_models.list_models()
        self.scripts.load_scripts(permanent_path=self.name != "a1111")
        self.callbacks.before_ui_callback()

    def build_page(self) -> None:
        """The page: settings, and the controls of all scripts in both tabs."""
        gradio = importlib.import_module("gradio")
        with gradio.Blocks() as self.shared.demo:
            self.callbacks.ui_settings_callback()
            for kind in KINDS:
                self.runner(kind).initialize_scripts(kind == "img2img")
                self.runner(kind).setup_ui()

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

    def processing(self, kind: str, **attributes: Any) -> Any:
        """A p without scripts; what its class does not know is set as other extensions do."""
        processing = self.module("modules.processing")
        name = "StableDiffusionProcessingImg2Img" if kind == "img2img" else "StableDiffusionProcessingTxt2Img"
        known = {one.name for one in fields(getattr(processing, name)) if one.init}
        p = getattr(processing, name)(**{key: value for key, value in attributes.items() if key in known})
        for key in attributes.keys() - known:
            setattr(p, key, attributes[key])
        return p

    def process(self, p: Any, script_args: tuple[Any, ...]) -> Any:
        """Generate with a p; returns the host's `Processed`."""
        self.state.begin(self.module("modules.progress").current_task or "scripts")
        try:
            p.script_args = script_args
            return self.module("modules.processing").process_images(p)
        finally:
            self.state.end()
