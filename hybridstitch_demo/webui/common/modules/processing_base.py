"""p: what is to be generated. A host has this in `processing`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from modules import extra_networks, processing_host, prompt_parser, sd_samplers, shared


@dataclass(repr=False)
class StableDiffusionProcessing:
    """What is to be generated. A dataclass that compares, and so has no hash."""

    prompt: Any = ""
    negative_prompt: Any = ""
    styles: list[str] | None = None
    seed: int = -1
    subseed: int = -1
    subseed_strength: float = 0
    seed_resize_from_h: int = 0
    seed_resize_from_w: int = 0
    sampler_name: str | None = None
    scheduler: str | None = None
    batch_size: int = 1
    n_iter: int = 1
    steps: int = 50
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    tiling: bool | None = None
    extra_generation_params: dict[str, Any] | None = None
    eta: float | None = None
    denoising_strength: float | None = None
    s_min_uncond: float | None = None
    override_settings: dict[str, Any] | None = None
    override_settings_restore_afterwards: bool = True
    refiner_checkpoint: str | None = None
    refiner_switch_at: float | None = None
    disable_extra_networks: bool = False
    distilled_cfg_scale: float = 3.5
    scripts_value: Any = field(default=None, init=False)
    script_args_value: Any = field(default=None, init=False)
    scripts_setup_complete: bool = field(default=False, init=False)
    comments: Any = None
    sampler: Any = field(default=None, init=False)
    paste_to: Any = field(default=None, init=False)
    is_hr_pass: bool = field(default=False, init=False)
    c: Any = field(default=None, init=False)
    uc: Any = field(default=None, init=False)
    rng: Any = field(default=None, init=False)
    step_multiplier: int = field(default=1, init=False)
    firstpass_steps: int = field(default=0, init=False)
    all_prompts: list[str] | None = field(default=None, init=False)
    all_negative_prompts: list[str] | None = field(default=None, init=False)
    all_seeds: list[int] | None = field(default=None, init=False)
    all_subseeds: list[int] | None = field(default=None, init=False)
    iteration: int = field(default=0, init=False)
    batch_index: int = field(default=0, init=False)
    prompts: list[str] | None = field(default=None, init=False)
    negative_prompts: list[str] | None = field(default=None, init=False)
    seeds: list[int] | None = field(default=None, init=False)
    subseeds: list[int] | None = field(default=None, init=False)
    extra_network_data: Any = field(default=None, init=False)
    sd_model_name: str | None = field(default=None, init=False)
    sd_model_hash: str | None = field(default=None, init=False)
    is_api: bool = field(default=False, init=False)
    modified_noise: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.comments, self.styles = {}, self.styles or []
        self.extra_generation_params = self.extra_generation_params or {}
        self.override_settings = self.override_settings or {}
        self.sampler_noise_scheduler_override: Any = None
        self.refiner_checkpoint_info: Any = None

    @property
    def sd_model(self) -> Any:
        """The current model, whatever p was made with."""
        return shared.sd_model

    @sd_model.setter
    def sd_model(self, value: Any) -> None:
        """Nothing comes of it."""

    @property
    def scripts(self) -> Any:
        """The tab's runner; with the arguments, it starts the `setup` hooks."""
        return self.scripts_value

    @scripts.setter
    def scripts(self, value: Any) -> None:
        """Set before a generation."""
        self.scripts_value = value
        self._setup_when_complete()

    @property
    def script_args(self) -> Any:
        """Values of all controls of all scripts, the selected script's number first."""
        return self.script_args_value

    @script_args.setter
    def script_args(self, value: Any) -> None:
        """Set before a generation."""
        self.script_args_value = value
        self._setup_when_complete()

    def _setup_when_complete(self) -> None:
        if self.scripts_value and self.script_args_value and not self.scripts_setup_complete:
            self.scripts_setup_complete = True
            self.scripts_value.setup_scrips(self, is_ui=not self.is_api)

    def comment(self, text: str) -> None:
        """Show a sentence below the picture."""
        self.comments[text] = 1

    def init(self, all_prompts: Any, all_seeds: Any, all_subseeds: Any) -> None:
        """Called once, before the batches."""

    def setup_prompts(self) -> None:
        """Spread the prompts over all pictures."""
        count = self.batch_size * self.n_iter
        self.all_prompts = self.prompt if isinstance(self.prompt, list) else count * [self.prompt]
        negative = self.negative_prompt
        self.all_negative_prompts = negative if isinstance(negative, list) else len(self.all_prompts) * [negative]

    def parse_extra_network_prompts(self) -> None:
        """Take `<lora:...>` out of the prompts."""
        self.prompts, self.extra_network_data = extra_networks.parse_prompts(self.prompts)

    def encode(self, prompts: Any, negative: Any, steps: int, hires: int | None, cfg: float) -> tuple[Any, Any]:
        """Encode prompts and, where the host wants them, negative prompts."""
        model = shared.sd_model
        negatives = prompt_parser.SdConditioning(negative, is_negative_prompt=True)
        uncond = None
        if processing_host.wants_uncond(cfg):
            uncond = prompt_parser.get_learned_conditioning(model, negatives, steps, hires)
        positives = prompt_parser.SdConditioning(prompts)
        return prompt_parser.get_multicond_learned_conditioning(model, positives, steps, hires), uncond

    def setup_conds(self) -> None:
        """Encode this batch's prompts, over the evaluations that the sampler will make."""
        self.firstpass_steps = sd_samplers.find_sampler_config(self.sampler_name).total_steps(self.steps)
        self.step_multiplier = self.firstpass_steps // self.steps
        self.c, self.uc = self.encode(self.prompts, self.negative_prompts, self.firstpass_steps, None, self.cfg_scale)

    def get_conds(self) -> tuple[Any, Any]:
        """The text of the pass that runs."""
        return self.c, self.uc

    def sample(
        self,
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: Any,
        subseeds: Any,
        subseed_strength: float,
        prompts: Any,
    ) -> Any:
        """Sample one batch: latents, or pictures where they are already decoded."""
        raise NotImplementedError

    def announce(self, **kwargs: Any) -> None:
        """Call the hook before every sampling."""
        if self.scripts is not None:
            self.scripts.process_before_every_sampling(p=self, **kwargs)

    def take_modified_noise(self, noise: Tensor) -> Tensor:
        """Noise that a script put in the place of the host's."""
        changed, self.modified_noise = self.modified_noise, None
        return noise if changed is None else changed

    def close(self) -> None:
        """Let go of what the generation held."""
        self.sampler = self.c = self.uc = None


class DecodedSamples(list[Tensor]):
    """Pictures, as hires returns them."""

    already_decoded = True
