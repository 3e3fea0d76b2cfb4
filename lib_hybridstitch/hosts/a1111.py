"""AUTOMATIC1111's stable-diffusion-webui 1.10.

Its SD3 network is hooked on the instance (`forward` of the diffusion model). It knows neither SD3.5's q/k normalisation
nor MMDiT-X, so SD3.5 runs on this project's own network there, between the host's text encoders and its VAE, which are
the same for the whole family.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib_hybridstitch.engine.evaluation import Evaluation, Model, Prediction
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.errors import CheckpointError, PairError, StitchError
from lib_hybridstitch.hosts import shared as common
from lib_hybridstitch.hosts.base import CheckpointFile, LargeModel, SmallModel
from lib_hybridstitch.hosts.own import OwnModel, bytes_to_load
from lib_hybridstitch.hosts.patch import patch_instance, strip
from lib_hybridstitch.hosts.rows import RowCursor
from lib_hybridstitch.hosts.slot import ModelSlot
from lib_hybridstitch.mmdit import checkpoint
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.prediction.memory import Budget, activation_bytes
from lib_hybridstitch.prediction.operations import Setup
from lib_hybridstitch.settings import CURRENT, StitchSettings


class HostLarge:
    """The host's own diffusion model as the large one.

    Args:
        network: the diffusion model.
        dtype: what it computes in.
    """

    hosts_own = True

    def __init__(self, network: Any, dtype: torch.dtype) -> None:
        self.config = MMDiTConfig.from_module(network, "the current checkpoint")
        self.model = Model(network, dtype=dtype, guided_by_layers=True)

    def rest(self) -> None:
        """There is nothing to let go of."""


class OwnLarge:
    """A file's transformer on our own network as the large model.

    Args:
        own: the model.
        rest: called when the pass is over.
    """

    hosts_own = False

    def __init__(self, own: OwnModel, rest: Callable[[], None]) -> None:
        self.config, self.model = own.config, own.model(guided_by_layers=True)
        self.rest = rest


class A1111Host(common.SharedHost):
    """The adapter; one per load of the extension. Between runs it holds a large model of our own, where one is used."""

    name = "AUTOMATIC1111"
    default_context = 154

    def __init__(self) -> None:
        self._cursor = RowCursor()
        self._own_large: ModelSlot[OwnModel] = ModelSlot()

    def version(self) -> str:
        """The host's version tag, or ""."""
        from modules import launch_utils

        tag = launch_utils.git_tag()
        return "" if tag == "<none>" else str(tag)

    # --- models ------------------------------------------------------------------------------------------------------

    def large_config(self, settings: StitchSettings) -> MMDiTConfig | None:
        """Architecture of the large model, from the loaded one or from a file's header."""
        from modules import sd_models

        if settings.large_checkpoint != CURRENT:
            return checkpoint.inspect(self.find_checkpoint(settings.large_checkpoint).path).config
        model = sd_models.model_data.sd_model
        if model is None:
            return None
        beside = self._beside(model)
        return checkpoint.inspect(beside.path).config if beside else MMDiTConfig.from_module(_network(model))

    def large(self, p: Any, settings: StitchSettings) -> LargeModel:
        """The host's own model, or ours from a file that the host cannot run.

        Raises:
            StitchError: when the current model is not of the SD3 family.
            CheckpointError: when the chosen file cannot be used.
        """
        network = _network(p.sd_model)
        chosen = settings.large_checkpoint
        file = self._beside(p.sd_model) if chosen == CURRENT else self.find_checkpoint(chosen)
        device, dtype = self._device_and_dtype()
        if file is None:
            self._own_large.release()
            return HostLarge(network, dtype)
        key = (file.path, file.path.stat().st_mtime_ns, device, dtype)
        with self.status(f"HybridStitch: loading {file.path.stem}"):
            own = self._own_large.take(key, lambda: self._load_large(file, device, dtype))
        large = OwnLarge(own, self._own_large.free)
        try:
            MMDiTConfig.from_module(network).check_pair(own.config, "the current checkpoint", file.path.name)
        except PairError:
            large.rest()
            raise
        return large

    def _load_large(self, file: CheckpointFile, device: torch.device, dtype: torch.dtype) -> OwnModel:
        need = Budget(large=bytes_to_load(file, dtype))
        if short := need.shortage(self.memory(device)):
            raise StitchError(short)
        return OwnModel(file, device, dtype)

    def _beside(self, model: Any) -> CheckpointFile | None:
        """The current checkpoint's own file where the host has built the wrong network for it, as it does for SD3.5."""
        info = model.sd_checkpoint_info
        file = CheckpointFile(info.title, Path(info.filename))
        try:
            stored = checkpoint.inspect(file.path).config
        except CheckpointError:
            return None
        return file if stored != MMDiTConfig.from_module(_network(model)) else None

    def small_key(self, file: CheckpointFile, settings: StitchSettings) -> Hashable:
        """File, its time, device, dtype and where it waits."""
        _, dtype = self._device_and_dtype()
        device = self.small_device(settings)
        return (file.path, file.path.stat().st_mtime_ns, device, dtype, settings.small_device)

    def small_device(self, settings: StitchSettings) -> torch.device:
        """The host's device, or the second one."""
        return self.second_device() if settings.small_device == "second" else self._device_and_dtype()[0]

    def small_budget(self, p: Any, file: CheckpointFile, settings: StitchSettings, setup: Setup) -> Budget:
        """Weights and activations of the small model; caches are asked for apart."""
        _, dtype = self._device_and_dtype()
        config = checkpoint.inspect(file.path).config
        itemsize = torch.empty((), dtype=dtype).element_size()
        return Budget(small=bytes_to_load(file, dtype), activations=activation_bytes(config, setup, itemsize))

    def load_small(self, file: CheckpointFile, settings: StitchSettings) -> SmallModel:
        """Load a checkpoint's transformer on our own network, outside the host's model."""
        _, dtype = self._device_and_dtype()
        return OwnModel(file, self.small_device(settings), dtype, parks=settings.small_device == "park")

    def _device_and_dtype(self) -> tuple[torch.device, torch.dtype]:
        from modules import devices

        return torch.device(devices.device), devices.dtype

    # --- the pass ----------------------------------------------------------------------------------------------------

    def on_cfg_denoiser(self, params: Any) -> None:
        """Note which rows the evaluation that begins will bring; the host's callback of that name."""
        cond = params.denoiser.sampler.sampler_extra_args["cond"]
        parts = [len(image) for image in cond.batch]
        self._cursor.begin(parts, len(parts))

    def install(
        self,
        p: Any,
        large: LargeModel,
        small: SmallModel | None,
        reserve: int,
        engine: Stitcher,
    ) -> Callable[[], None]:
        """Patch the diffusion model's `forward` on the instance; undoing removes it, and this run's hold on it."""
        network = _network(p.sd_model)
        strip(network, "forward")
        cursor = self._cursor = RowCursor()

        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            def forward(x: Tensor, t: Tensor, y: Tensor, context: Tensor) -> Tensor:
                rows = cursor.take(x.shape[0])

                def own_pass(call: Evaluation) -> Prediction:
                    if call.rows is rows:
                        answer = original(x, t, y=y, context=context)
                    else:  # some rows of it; all are at one noise level
                        answer = original(call.x.to(x.dtype), t[: len(call.rows)], y=call.pooled, context=call.context)
                    return Prediction(answer.float(), answer)

                full_pass = own_pass if large.hosts_own else large.model.full_pass
                call = Evaluation(x.float(), t.float() / 1000, context, y, rows, full_pass)
                prediction = engine.velocity(call)
                return prediction.velocity if prediction.own is None else prediction.own

            return forward

        return patch_instance(network, "forward", make)

    def heal(self) -> None:
        """Strip what an earlier run left on any loaded model; asks for none to be loaded."""
        from modules import sd_models

        data = sd_models.model_data
        for model in (data.sd_model, *data.loaded_sd_models):
            network = getattr(getattr(model, "model", None), "diffusion_model", None)
            if network is not None:
                strip(network, "forward")

    def release(self) -> bool:
        """Give the memory of our own large model back; return whether there was one."""
        return self._own_large.release()

    def _guidance(self, p: Any, hires: bool) -> float:
        return float(p.cfg_scale)

    def _has_uncond(self, p: Any, hires: bool) -> bool:
        return True

    def _loras(self, p: Any) -> tuple[str, ...]:
        return common.loaded_lora_names()

    def _notes(self, p: Any) -> tuple[str, ...]:
        network = _network(p.sd_model)
        module = common.foreign_forward(network, network.forward)
        return (*super()._notes(p), *([common.foreign_note(module)] if module else []))


def _network(model: Any) -> Any:
    """The diffusion model inside the host's model.

    Raises:
        StitchError: when the host's model is not of the SD3 family.
    """
    network = getattr(getattr(model, "model", None), "diffusion_model", None)
    if network is None or not hasattr(network, "joint_blocks"):
        title = getattr(getattr(model, "sd_checkpoint_info", None), "title", "the current checkpoint")
        raise StitchError(f"{title} is not of the SD3 family; choose an SD3 or SD3.5 checkpoint as the WebUI's own")
    return network
