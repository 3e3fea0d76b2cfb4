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

from lib_hybridstitch.engine.evaluation import Evaluation, Side
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.errors import CheckpointError, StitchError, in_words
from lib_hybridstitch.hosts import forge_loader
from lib_hybridstitch.hosts import shared as common
from lib_hybridstitch.hosts.base import CheckpointFile, LargeModel, Memory, Sampling, SmallModel
from lib_hybridstitch.hosts.rows import ChunkLabels
from lib_hybridstitch.mmdit import checkpoint
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.prediction.memory import Budget, activation_bytes
from lib_hybridstitch.settings import StitchSettings

WRAPPER = "model_function_wrapper"
OURS = "hybridstitch_previous"
"""Attribute that marks our wrapper; it holds the one that was there before."""

ApplyModel = Callable[..., Tensor]


class Translator:
    """Full passes in the host's own terms, and the way back without a rounding.

    What the host's model answers is x0. The engine gets the velocity of it, and where it hands that very tensor back
    the host gets its own x0 again, so that a run of full steps is the host's run, bit for bit.
    """

    def __init__(self) -> None:
        self._answers: dict[int, tuple[Tensor, Tensor]] = {}

    def velocity(self, call: Evaluation, denoised: Tensor) -> Tensor:
        """Velocity of a full pass that answered x0 (rows, channels, H, W)."""
        velocity = (call.x - denoised) / call.sigma.view(-1, 1, 1, 1)
        self._answers[id(velocity)] = (velocity, denoised)
        return velocity

    def denoised(self, call: Evaluation, velocity: Tensor) -> Tensor:
        """x0 (rows, channels, H, W) of a velocity; forgets all answers."""
        known = self._answers.get(id(velocity))
        self._answers.clear()
        return known[1] if known is not None else call.x - velocity * call.sigma.view(-1, 1, 1, 1)


class ForgeLarge:
    """The host's current model as the large one.

    Args:
        unet: the host's patcher.
    """

    hosts_own = True

    def __init__(self, unet: Any) -> None:
        network = unet.model.diffusion_model
        self.config = MMDiTConfig.from_module(network, "the current checkpoint")
        self.side = Side(network, forward=self.full, dtype=unet.model.computation_dtype)
        self.translator = Translator()
        self.current: tuple[Evaluation, Callable[[Tensor, Tensor, Mapping[str, Any]], Tensor], Mapping[str, Any]] | None
        self.current = None
        self.answer: Tensor | None = None
        """x0 of the last call, where the host's own model has computed it"""

    def full(self, call: Evaluation) -> Tensor:
        """Velocity (rows, channels, H, W) by the host's own model, and by whatever wraps it."""
        assert self.current is not None, "only called from inside the host's call"
        whole, model, conditions = self.current
        if call.x is not whole.x:
            conditions = {**conditions, "c_crossattn": call.context, "y": call.pooled}
            if call.control is not None:
                conditions["control"] = call.control
        denoised = model(call.x, call.sigma, conditions)
        if call.x is whole.x:
            self.answer = denoised
        return self.translator.velocity(call, denoised)

    def rest(self) -> None:
        """Let go of the last call's tensors."""
        self.current = self.answer = None


class ForgeSmall:
    """A second model of the host's own kind, known to its memory manager.

    Args:
        patcher: the host's patcher around it.
        parks: whether it leaves the device between runs.
    """

    def __init__(self, patcher: Any, parks: bool) -> None:
        self.patcher, self._parks = patcher, parks
        self.config = MMDiTConfig.from_module(patcher.model.diffusion_model, "the small checkpoint")
        self._translator: Translator | None = None

    def bytes(self) -> int:
        """Memory of its weights."""
        return int(self.patcher.model_size())

    def side(self) -> Side:
        """How the engine calls it."""
        model = self.patcher.model
        return Side(
            model.diffusion_model, forward=self.full, dtype=model.computation_dtype, device=self.patcher.load_device
        )

    def answer_through(self, translator: Translator) -> None:
        """Let full passes be answered with the host's own x0."""
        self._translator = translator

    def full(self, call: Evaluation) -> Tensor:
        """Velocity (rows, channels, H, W) by the host's own model; it knows no skipped layers and no residuals."""
        assert self._translator is not None, "installed before it is called"
        device = self.patcher.load_device
        x, sigma, context, pooled = (tensor.to(device) for tensor in (call.x, call.sigma, call.context, call.pooled))
        denoised = self.patcher.model.apply_model(x, sigma, c_crossattn=context, y=pooled, transformer_options={})
        return self._translator.velocity(call, denoised.to(call.x.device))

    def rest(self) -> None:
        """Leave the device when that is wanted; otherwise the memory manager decides."""
        self._translator = None
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
        if settings.large_checkpoint != "current":
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

    def small_budget(self, p: Any, file: CheckpointFile, settings: StitchSettings, sampling: Sampling) -> Budget:
        """Weights and activations of the small model; caches are asked for apart."""
        weights = forge_loader.bytes_to_load(file)
        unet = _unet(p.sd_model)
        itemsize = torch.empty((), dtype=unet.model.computation_dtype).element_size()
        # Where only the host's loader knows what is in the file, the large model's need is a safe guess.
        config = forge_loader.config_of(file) or MMDiTConfig.from_module(unet.model.diffusion_model)
        return Budget(small=weights, activations=activation_bytes(config, sampling, itemsize))

    def load_small(self, file: CheckpointFile, settings: StitchSettings) -> SmallModel:
        """Load a checkpoint's transformer through the host's own loader, beside the current model."""
        patcher = forge_loader.load(file)
        if settings.small_device == "second":
            patcher.load_device = self.second_device()
        return ForgeSmall(patcher, parks=settings.small_device == "park")

    def movable(self) -> int:
        """What the memory manager holds on its device; it moves other models away, or swaps layers of this one."""
        from backend import memory_management

        return sum(int(loaded.model.model_size()) for loaded in memory_management.current_loaded_models)

    def memory(self, device: torch.device) -> Memory:
        """Memory of a device, as the host's memory manager counts it."""
        from backend import memory_management

        total = memory_management.get_total_memory(device)
        return Memory(int(memory_management.get_free_memory(device)), int(total))

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
        assert isinstance(large, ForgeLarge), "made by this adapter"
        objects = p.sd_model.forge_objects
        before = objects.unet
        unet = before.clone()
        if isinstance(small, ForgeSmall):
            small.answer_through(large.translator)
            unet.add_extra_model_patcher_during_sampling(small.patcher)
        if reserve:
            unet.add_extra_preserved_memory_during_sampling(reserve)
        prompts = p.hr_c if getattr(p, "is_hr_pass", False) else p.c
        labels = ChunkLabels(max((len(image) for image in prompts.batch), default=1))
        previous = unet.model_options.get(WRAPPER)
        live: list[Callable[[ApplyModel, Mapping[str, Any]], Tensor]] = []
        live.append(lambda apply, arguments: _stitched(large, labels, engine, previous, apply, arguments))

        def wrapper(apply_model: ApplyModel, arguments: Mapping[str, Any]) -> Tensor:
            for stitched in tuple(live):  # another thread may undo it between two looks
                return stitched(apply_model, arguments)
            return _host_pass(previous, apply_model, arguments)

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

    def _has_uncond(self, p: Any, hires: bool) -> bool:
        return bool((p.hr_cfg if hires else p.cfg_scale) != 1)

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


def _stitched(
    large: ForgeLarge,
    labels: ChunkLabels,
    engine: Stitcher,
    previous: Callable[..., Tensor] | None,
    apply_model: ApplyModel,
    arguments: Mapping[str, Any],
) -> Tensor:
    """One call of the host's model through the engine; takes and returns what the host's wrapper slot does."""

    def model(x: Tensor, sigma: Tensor, conditions: Mapping[str, Any]) -> Tensor:
        return _host_pass(previous, apply_model, {**arguments, "input": x, "timestep": sigma, "c": conditions})

    call = large.answer = None
    with engine.guarded():
        call = _evaluation(labels, arguments)
        large.current = (call, model, arguments["c"])
    if call is None:
        return _host_pass(previous, apply_model, arguments)
    try:
        return large.translator.denoised(call, engine.velocity(call))
    except Exception as error:
        if large.answer is None:
            raise  # the host's own
        engine.give_up(in_words(error))
        return large.answer


def _evaluation(labels: ChunkLabels, arguments: Mapping[str, Any]) -> Evaluation:
    """A call of the host's model as the engine takes it."""
    conditions: Mapping[str, Any] = arguments["c"]
    context, pooled = conditions["c_crossattn"], conditions["y"]
    skipped = tuple((conditions.get("transformer_options") or {}).get("skip_layers") or ())
    rows = labels.of(arguments["cond_or_uncond"], context, pooled, skipped)
    return Evaluation(
        arguments["input"], arguments["timestep"], context, pooled, rows, skipped, conditions.get("control")
    )


def _host_pass(previous: Callable[..., Tensor] | None, apply_model: ApplyModel, arguments: Mapping[str, Any]) -> Tensor:
    """The host's own pass, through the wrapper that was there before us."""
    if previous is not None:
        return previous(apply_model, arguments)
    return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])


def _unet(model: Any) -> Any:
    """The patcher of the host's model, or None while a placeholder stands in its place."""
    return getattr(getattr(model, "forge_objects", None), "unet", None)
