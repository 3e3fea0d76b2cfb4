"""The transformers of SD3.5 and SD3 at their true sizes, and the pictures they are asked for; for the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from lib_hybridstitch.engine.evaluation import Evaluation, Prediction
from lib_hybridstitch.hosts.shared import assumed_schedule
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.plans.method import Run
from lib_hybridstitch.prediction.operations import Setup

LARGE = MMDiTConfig(
    depth=38, patch_size=2, in_channels=16, out_channels=16, context_dim=4096, pooled_dim=2048, pos_embed_size=192,
    qk_norm=True,
)  # fmt: skip
"""SD3.5-Large, as its checkpoint's tensors say."""
MEDIUM = MMDiTConfig(
    depth=24, patch_size=2, in_channels=16, out_channels=16, context_dim=4096, pooled_dim=2048, pos_embed_size=384,
    qk_norm=True, dual_attention=tuple(range(13)),
)  # fmt: skip
"""SD3.5-Medium, as its checkpoint's tensors say."""
SD3_MEDIUM = MMDiTConfig(
    depth=24, patch_size=2, in_channels=16, out_channels=16, context_dim=4096, pooled_dim=2048, pos_embed_size=192,
    qk_norm=False,
)  # fmt: skip
"""SD3-medium, the model before SD3.5, as its checkpoint's tensors say: as wide and deep as SD3.5-Medium, but without
its second attention and its norms of queries and keys; latents and text are SD3.5's."""

FullPass = Callable[[Evaluation], Prediction]
LATENT_FACTOR = 8
ROWS = (0, "cond"), (0, "uncond")
"""One picture with guidance."""


@dataclass(frozen=True)
class Scale:
    """What the figures are computed and timed for: a pair, its pictures, its text.

    Args:
        name: for the head of the results.
        large, small: the two architectures.
        sizes: edges of square pictures, in pixels.
        context: text tokens per row.
        steps: of a run.
        dtype: that the networks compute in.
    """

    name: str
    large: MMDiTConfig
    small: MMDiTConfig
    sizes: tuple[int, ...]
    context: int
    steps: int
    dtype: torch.dtype

    @property
    def run(self) -> Run:
        """SD3's own schedule with guidance, on a model that nobody has measured."""
        return Run(assumed_schedule(self.steps))

    def tokens(self, size: int) -> int:
        """Image tokens per row of a square picture."""
        return (size // (LATENT_FACTOR * self.large.patch_size)) ** 2

    def setup(self, size: int) -> Setup:
        """One square picture with guidance."""
        return Setup(self.large, self.small, self.tokens(size), self.context, 1, len(ROWS))

    def inputs(self, size: int, device: torch.device, full_pass: FullPass | None = None) -> Evaluation:
        """One evaluation of random numbers, both streams of one picture; the latent is fp32, as samplers keep it.

        Args:
            full_pass: the large model's own, where the engine is to be asked.
        """
        source = torch.Generator(device).manual_seed(0) if device.type != "meta" else None

        def noise(*shape: int) -> Tensor:
            return torch.randn(len(ROWS), *shape, generator=source, device=device)

        edge = size // LATENT_FACTOR
        return Evaluation(
            x=noise(self.large.in_channels, edge, edge),
            sigma=torch.full((len(ROWS),), 0.5, device=device),
            context=noise(self.context, self.large.context_dim),
            pooled=noise(self.large.pooled_dim),
            rows=ROWS,
            full_pass=full_pass or _not_asked,
        )


TRUE = Scale("SD3.5-Large and SD3.5-Medium", LARGE, MEDIUM, (512, 768, 1024, 1280, 1536), 333, 28, torch.bfloat16)
SMALL_MODELS = {"SD3.5-Medium": TRUE, "SD3-medium": replace(TRUE, name="SD3.5-Large and SD3-medium", small=SD3_MEDIUM)}
"""Either model that can be the small one beside SD3.5-Large, by name."""
TOY = Scale(
    "toy",
    MMDiTConfig(
        depth=3, patch_size=2, in_channels=4, out_channels=4, context_dim=24, pooled_dim=20, pos_embed_size=16,
        qk_norm=True,
    ),
    MMDiTConfig(
        depth=2, patch_size=2, in_channels=4, out_channels=4, context_dim=24, pooled_dim=20, pos_embed_size=16,
        qk_norm=True, dual_attention=(0,),
    ),
    (64, 128), 5, 8, torch.float32,
)  # fmt: skip
"""A pair that a CPU runs in milliseconds, for a dry run of everything but the GPU."""


def _not_asked(_call: Evaluation) -> Prediction:
    raise AssertionError("nothing here asks the engine, so nothing asks for a full pass of the host's")


def weights(config: MMDiTConfig, itemsize: int) -> int:
    """Bytes of a transformer's weights."""
    return itemsize * sum(prod(shape) for shape in config.expected_shapes().values())
