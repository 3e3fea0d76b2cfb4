"""Forge, ersatzForge and their kin: models behind a patcher whose clone a run may change, and a memory manager.

The engine sits in the clone's model function wrapper. The host works in denoised pictures (x0) there, the engine in
velocities: v = (x − x0) / σ.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib_hybridstitch.engine.evaluation import UNCOND, Evaluation, Model, Prediction
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.errors import CheckpointError, StitchError
from lib_hybridstitch.hosts import forge_loader
from lib_hybridstitch.hosts import shared as common
from lib_hybridstitch.hosts.base import CheckpointFile, LargeModel, SmallModel
from lib_hybridstitch.hosts.rows import ChunkLabels
from lib_hybridstitch.mmdit import checkpoint
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.prediction.memory import Budget, Memory, activation_bytes
from lib_hybridstitch.prediction.operations import Setup
from lib_hybridstitch.settings import CURRENT, StitchSettings

WRAPPER = "model_function_wrapper"
OURS = "hybridstitch_previous"
"""Attribute that marks our wrapper; it holds the one that was there before."""

ApplyModel = Callable[..., Tensor]
HostPass = Callable[[Mapping[str, Any]], Tensor]
"""The host's own pass: the wrapper's arguments → x0."""


class ForgeLarge:
    """The host's current model as the large one.

    Args:
        unet: the host's patcher.
    """

    hosts_own = True

    def __init__(self, unet: Any) -> None:
        network = unet.model.diffusion_model
        self.config = MMDiTConfig.from_module(network, "the current checkpoint")
        self.model = Model(network, dtype=unet.model.computation_dtype, guided_by_layers=True)

    def rest(self) -> None:
        """There is nothing to let go of."""


class ForgeSmall:
    """A second model of the host's own kind, known to its memory manager.

    Args:
        patcher: the host's patcher around it.
        parks: whether it leaves the device between runs.
    """

    def __init__(self, patcher: Any, parks: bool) -> None:
        self.patcher, self._parks = patcher, parks
        self.config = MMDiTConfig.from_module(patcher.model.diffusion_model, "the small checkpoint")

    def model(self) -> Model:
        """How the engine calls it."""
        inner = self.patcher.model
        return Model(inner.diffusion_model, self._own_pass, inner.computation_dtype, self.patcher.load_device)

    def _own_pass(self, call: Evaluation) -> Prediction:
        """The host's own pass of it; it knows no skipped layers and no residuals."""
        device = self.patcher.load_device
        x, sigma, context, pooled = (tensor.to(device) for tensor in (call.x, call.sigma, call.context, call.pooled))
        denoised = self.patcher.model.apply_model(x, sigma, c_crossattn=context, y=pooled, transformer_options={})
        return _prediction(call, denoised.to(call.x.device))

    def rest(self) -> None:
        """Leave the device when that is wanted; otherwise the memory manager decides."""
        if self._parks:
            forge_loader.unload(self.patcher)

    def release(self) -> None:
        """Take it from the memory manager, and give its memory back."""
        forge_loader.unload(self.patcher)


class ForgeHost(common.SharedHost):
    """The adapter of the Forge family; it keeps nothing between runs."""

    default_context = 333

    def __init__(self, name: str = "Forge") -> None:
        self.name = name

    def version(self) -> str:
        """The host's own version, or ""."""
        from modules_forge import forge_version

        return str(getattr(forge_version, "version", ""))

    # --- models ------------------------------------------------------------------------------------------------------

    def large_config(self, settings: StitchSettings) -> MMDiTConfig | None:
        """Architecture of the loaded model, else of the chosen file's header."""
        from modules import sd_models, shared

        unet = _unet(sd_models.model_data.sd_model)
        if unet is not None:
            return MMDiTConfig.from_module(unet.model.diffusion_model, "the current checkpoint")
        try:
            return checkpoint.inspect(self.find_checkpoint(shared.opts.sd_model_checkpoint).path).config
        except CheckpointError:
            return None

    def large(self, p: Any, settings: StitchSettings) -> LargeModel:
        """The host's current model.

        Raises:
            StitchError: when it is not of the SD3 family, or when another file is asked for.
        """
        if settings.large_checkpoint != CURRENT:
            raise StitchError(
                f"large_checkpoint is {settings.large_checkpoint}, but {self.name} runs SD3.5 by itself: choose that "
                "file as the WebUI's checkpoint and leave large_checkpoint at current"
            )
        unet = _unet(p.sd_model)
        if unet is None or not hasattr(unet.model.diffusion_model, "joint_blocks"):
            raise StitchError("the current checkpoint is not of the SD3 family; choose an SD3 or SD3.5 checkpoint")
        return ForgeLarge(unet)

    def small_key(self, file: CheckpointFile, settings: StitchSettings) -> Hashable:
        """File, its time, and where it computes and waits."""
        device = self.small_device(settings)
        return (file.path, file.path.stat().st_mtime_ns, device, settings.small_device)

    def small_device(self, settings: StitchSettings) -> torch.device:
        """The host's device, or the second one."""
        from backend import memory_management

        if settings.small_device == "second":
            return self.second_device()
        device: torch.device = memory_management.get_torch_device()
        return device

    def small_budget(self, p: Any, file: CheckpointFile, settings: StitchSettings, setup: Setup) -> Budget:
        """Weights and activations of the small model; caches are asked for apart."""
        weights = forge_loader.bytes_to_load(file)
        unet = _unet(p.sd_model)
        itemsize = torch.empty((), dtype=unet.model.computation_dtype).element_size()
        # Where only the host's loader knows what is in the file, the large model's need is a safe guess.
        config = forge_loader.config_of(file) or MMDiTConfig.from_module(unet.model.diffusion_model)
        return Budget(small=weights, activations=activation_bytes(config, setup, itemsize))

    def load_small(self, file: CheckpointFile, settings: StitchSettings) -> SmallModel:
        """Load a checkpoint's transformer through the host's own loader, beside the current model."""
        patcher = forge_loader.load(file)
        if settings.small_device == "second":
            patcher.load_device = self.second_device()
        return ForgeSmall(patcher, parks=settings.small_device == "park")

    def memory(self, device: torch.device) -> Memory:
        """Memory of a device, as the host's memory manager counts it; it moves other models away by itself."""
        from backend import memory_management

        free, total = memory_management.get_free_memory(device), memory_management.get_total_memory(device)
        movable = sum(int(loaded.model.model_size()) for loaded in memory_management.current_loaded_models)
        return Memory(int(free), int(total), movable)

    # --- the pass ----------------------------------------------------------------------------------------------------

    def install(
        self,
        p: Any,
        large: LargeModel,
        small: SmallModel | None,
        reserve: int,
        engine: Stitcher,
    ) -> Callable[[], None]:
        """Give the host a clone of its patcher whose wrapper asks the engine.

        The wrapper is a plain closure, since clones deep-copy it, and holds the engine only until it is undone, since
        the host keeps the last clone.
        """
        objects = p.sd_model.forge_objects
        before = objects.unet
        unet = before.clone()
        if isinstance(small, ForgeSmall):
            unet.add_extra_model_patcher_during_sampling(small.patcher)
        if reserve:
            unet.add_extra_preserved_memory_during_sampling(reserve)
        prompts = p.hr_c if getattr(p, "is_hr_pass", False) else p.c
        labels = ChunkLabels(max((len(image) for image in prompts.batch), default=1))
        previous = unet.model_options.get(WRAPPER)
        live = [engine]

        def wrapper(apply_model: ApplyModel, arguments: Mapping[str, Any]) -> Tensor:
            def host_pass(changed: Mapping[str, Any]) -> Tensor:
                if previous is not None:
                    return previous(apply_model, changed)
                return apply_model(changed["input"], changed["timestep"], **changed["c"])

            for running in tuple(live):  # another thread may undo it between two looks
                return _stitched(running, labels, host_pass, arguments)
            return host_pass(arguments)

        setattr(wrapper, OURS, previous)
        unet.set_model_unet_function_wrapper(wrapper)
        objects.unet = unet

        def undo() -> None:
            live.clear()
            if objects.unet is unet:
                objects.unet = before

        return undo

    def heal(self) -> None:
        """Strip a wrapper of ours that an earlier run left in the current patcher."""
        from modules import sd_models

        unet = _unet(sd_models.model_data.sd_model)
        while unet is not None and hasattr(unet.model_options.get(WRAPPER), OURS):
            previous = getattr(unet.model_options.pop(WRAPPER), OURS)
            if previous is not None:
                unet.model_options[WRAPPER] = previous

    def on_cfg_denoiser(self, params: Any) -> None:
        """Nothing to note: every call says which rows it brings."""

    def release(self) -> bool:
        """There is no large model of our own here."""
        return False

    def _guidance(self, p: Any, hires: bool) -> float:
        return float(p.hr_cfg if hires else p.cfg_scale)

    def _has_uncond(self, p: Any, hires: bool) -> bool:
        return self._guidance(p, hires) != 1

    def _loras(self, p: Any) -> tuple[str, ...]:
        patches = p.sd_model.forge_objects.unet.lora_patches
        return tuple(Path(str(key[0])).stem for key in patches)

    def _notes(self, p: Any) -> tuple[str, ...]:
        unet = p.sd_model.forge_objects.unet
        network = unet.model.diffusion_model
        modules = [common.foreign_forward(network, network.forward)]
        previous = unet.model_options.get(WRAPPER)
        if previous is not None and not hasattr(previous, OURS):
            modules.append(str(getattr(previous, "__module__", "") or "unknown"))
        return (*super()._notes(p), *(common.foreign_note(module) for module in modules if module))


def _stitched(engine: Stitcher, labels: ChunkLabels, host_pass: HostPass, arguments: Mapping[str, Any]) -> Tensor:
    """One call of the host's model through the engine; takes what the wrapper slot does, and returns x0.

    Where the large model has computed the call by itself, its own x0 goes back untouched, so that a run of large steps
    is the host's run, bit for bit.
    """
    x, sigma, conditions = arguments["input"], arguments["timestep"], arguments["c"]
    context, pooled = conditions["c_crossattn"], conditions["y"]
    skipped = tuple((conditions.get("transformer_options") or {}).get("skip_layers") or ())
    rows = labels.of(arguments["cond_or_uncond"], context, pooled, skipped)

    def full_pass(call: Evaluation) -> Prediction:
        if call.rows is rows:
            return _prediction(call, host_pass(arguments))
        own = {**conditions, "c_crossattn": call.context, "y": call.pooled}
        if call.control is not None:
            own["control"] = call.control
        kinds = [int(stream.startswith(UNCOND)) for _, stream in call.rows]
        changed = {"input": call.x, "timestep": call.sigma, "c": own, "cond_or_uncond": kinds}
        return _prediction(call, host_pass({**arguments, **changed}))

    call = Evaluation(x, sigma, context, pooled, rows, full_pass, skipped, conditions.get("control"))
    prediction = engine.velocity(call)
    return x - prediction.velocity * sigma.view(-1, 1, 1, 1) if prediction.own is None else prediction.own


def _prediction(call: Evaluation, denoised: Tensor) -> Prediction:
    """A full pass whose answer is x0: v = (x − x0) / σ."""
    return Prediction((call.x - denoised) / call.sigma.view(-1, 1, 1, 1), denoised)


def _unet(model: Any) -> Any:
    """The patcher of the host's model, or None while a placeholder stands in its place."""
    return getattr(getattr(model, "forge_objects", None), "unet", None)
