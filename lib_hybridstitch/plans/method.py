"""What a method is: a few settings, presets, and a function that writes a list of steps.

A new method is one file beside this one, with a subclass of `Method`, and one line in `methods.py`. The panel,
infotext, API and X/Y/Z axes take its settings from the fields of the class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, ClassVar

from lib_hybridstitch.fields import FieldSpec, Scalar
from lib_hybridstitch.plans.plan import Plan
from lib_hybridstitch.plans.profile import Profile

FULL_NOISE = 0.95
SHORT = 12
USUAL_RUN = 28
FEW_STEPS = 1.2
LAST_POINT = 10_000
SHARES = tuple(round(percent / 100, 2) for percent in range(98, 18, -2))


@dataclass(frozen=True)
class Run:
    """What a method knows of the sampling pass that it plans.

    Args:
        sigmas: the noise levels that are sampled, descending, without the final 0.
        guided: whether there are rows without the prompt.
        ancestral: whether the sampler adds fresh noise in every step.
        profile: what is known of this large model; None for a model that nobody has measured.
    """

    sigmas: tuple[float, ...]
    guided: bool = True
    ancestral: bool = False
    profile: Profile | None = None

    @property
    def steps(self) -> int:
        """How many steps are sampled."""
        return len(self.sigmas)

    @property
    def from_picture(self) -> bool:
        """Whether the pass begins from a picture, below full noise: img2img, inpainting, the second pass of hires."""
        return self.sigmas[0] < FULL_NOISE

    @property
    def short(self) -> bool:
        """Whether there are so few steps that much changes from one to the next."""
        return self.steps < SHORT


@dataclass(frozen=True)
class Method:
    """Base of the methods; the fields of a subclass are its settings.

    `presets` holds, per name, the settings that differ from the fields' defaults.
    """

    name: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Scalar]]] = {}

    def plan(self, run: Run) -> Plan:
        """Write the plan of a pass; `safety.secured` goes over it afterwards."""
        raise NotImplementedError

    def faster(self) -> Iterator[Mapping[str, Scalar]]:
        """Settings to try for a target speed-up, from the nearest to the large model to the fastest."""
        yield {}

    def set_by_target(self) -> frozenset[str]:
        """The settings that a target speed-up picks."""
        return frozenset(name for values in self.faster() for name in values)

    @classmethod
    def specs(cls) -> dict[str, FieldSpec]:
        """The description of every setting of this method, by name."""
        return {item.name: item.metadata["spec"] for item in fields(cls)}

    @classmethod
    def preset(cls, name: str) -> dict[str, Scalar]:
        """The value of every setting under a preset; the defaults where the method has no such preset."""
        defaults: dict[str, Any] = {item.name: item.default for item in fields(cls)}
        return {**defaults, **cls.presets.get(name, {})}


def setting(default: Scalar, label: str, text: str, **more: Any) -> Any:
    """A field of a method: an axis of X/Y/Z plots, recorded in infotext under its name."""
    spec = FieldSpec(type(default), label, text, axis=True, **more)
    return field(default=default, metadata={"spec": spec})


def point(default: float, label: str, text: str) -> Any:
    """A field that is a point of the pass: below 1 a fraction of the sampled steps, from 1 on whole steps."""
    span: dict[str, Any] = {"minimum": 0, "maximum": LAST_POINT, "step": 0.01, "whole_from_one": True}
    return setting(default, label, text, **span)


def share(default: float, label: str, text: str) -> Any:
    """A field that is a share from 0 to 1."""
    return setting(default, label, text, minimum=0, maximum=1, step=0.01)


def switch(default: float) -> Any:
    """The field `switch_step`, which several methods have."""
    return point(default, "Switch step", "Where the first model hands over: a step, or below 1 a fraction of the run.")


def mask(default: float) -> Any:
    """The field `mask_ratio`, which several methods have."""
    return share(default, "Mask ratio", "Share of the picture that the large model refines in a masked step.")


def computed(default: float) -> Any:
    """The field `computed_share`, which several methods have."""
    return share(default, "Computed share", "Share of the steps that a model computes; the others are extrapolated.")


def cautious_index(value: float, run: Run) -> int:
    """`step_index` where a fraction counts for more in a pass of few steps that begins from noise.

    The layout takes a number of steps to settle, however few there are.
    """
    if value >= 1 or run.from_picture:
        return step_index(value, run.steps)
    return min(step_index(value, max(run.steps, min(USUAL_RUN, int(FEW_STEPS * run.steps)))), run.steps)


def step_index(value: float, steps: int) -> int:
    """The step, in 0..`steps`, that a point stands for in a pass of `steps` steps.

    A fraction is rounded half up as it is written in decimal: 0.29 of 50 steps is 15.
    """
    if value >= 1:
        return min(int(value), steps)
    return int((Decimal(str(value)) * steps).to_integral_value(ROUND_HALF_UP))
