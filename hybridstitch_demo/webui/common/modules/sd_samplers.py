"""All samplers by name."""

from __future__ import annotations

from typing import Any

from modules import sd_samplers_kdiffusion, sd_samplers_timesteps, sd_schedulers

all_samplers = [
    *sd_samplers_kdiffusion.samplers_data_k_diffusion,
    *sd_samplers_timesteps.samplers_data_timesteps,
]
all_samplers_map = {one.name: one for one in all_samplers}
samplers = samplers_for_img2img = all_samplers
samplers_map = {alias.lower(): one.name for one in all_samplers for alias in (one.name, *one.aliases)}


def find_sampler_config(name: str | None) -> Any:
    """A sampler as it is listed; the first for None."""
    return all_samplers[0] if name is None else all_samplers_map.get(name)


def create_sampler(name: str | None, model: Any) -> Any:
    """A fresh sampler for one pass."""
    config = find_sampler_config(name)
    assert config is not None, f"bad sampler name: {name}"
    sampler = config.constructor(model)
    sampler.config = config
    return sampler


def visible_sampler_names() -> list[str]:
    """Names for drop-downs."""
    return [one.name for one in samplers]


def get_sampler_and_scheduler(
    sampler_name: str | None, scheduler_name: str | None, *, convert_automatic: bool = True
) -> tuple[str, str]:
    """The nearest existing pair; the schedule may be part of an old sampler's name ("DPM++ 2M Karras")."""
    found = sd_schedulers.schedulers_map.get(scheduler_name or "", sd_schedulers.schedulers[0])
    name = sampler_name or samplers[0].name
    for scheduler in sd_schedulers.schedulers:
        for option in (scheduler.label, scheduler.name, *(scheduler.aliases or [])):
            if name.endswith(f" {option}"):
                found, name = scheduler, name[: -len(option) - 1]
                break
    sampler = all_samplers_map.get(name, samplers[0])
    if convert_automatic and sampler.options.get("scheduler") == found.name:
        found = sd_schedulers.schedulers[0]
    return sampler.name, found.label


def fix_p_invalid_sampler_and_scheduler(p: Any) -> None:
    """Put existing names into p."""
    p.sampler_name, p.scheduler = get_sampler_and_scheduler(p.sampler_name, p.scheduler, convert_automatic=False)
