"""What SD3.5 needs on a GPU, computed from the project's own formulas; nothing here is measured."""

from __future__ import annotations

import argparse
from math import prod

from lib_hybridstitch.hosts.base import Sampling
from lib_hybridstitch.hosts.budget import activation_bytes, cache_bytes
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.settings import StitchSettings
from lib_hybridstitch.stitch.plan import make_plan

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

CONTEXT = 333
LATENT_FACTOR = 8
SIZES = (512, 1024, 1536)
SIGMAS = tuple(1 - step / 28 for step in range(28))


def weights(config: MMDiTConfig, itemsize: int) -> int:
    """Bytes of a transformer's weights."""
    return itemsize * sum(prod(shape) for shape in config.expected_shapes().values())


def sampling(size: int) -> Sampling:
    """One square picture with guidance."""
    edge = size // LATENT_FACTOR
    return Sampling(SIGMAS, SIGMAS, (1, 16, edge, edge), 2, CONTEXT, False, None, (), ())


def gigabytes(count: int) -> str:
    """GB with one decimal."""
    return f"{count / 2**30:.1f}"


def table() -> str:
    """The table of the README, in Markdown."""
    plan = make_plan(StitchSettings.from_dict({"preset": "Paper"}), SIGMAS)
    lines = [
        "| GB | large bf16 / fp8 | small bf16 / fp8 | activations | KV cache bf16 / fp8 | "
        "Balanced, fp8 weights | Paper, fp8 weights and cache | Paper, bf16 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size in SIZES:
        run = sampling(size)
        large, small = ([weights(config, width) for width in (2, 1)] for config in (LARGE, MEDIUM))
        cache = [cache_bytes(plan, LARGE, MEDIUM, run, width) for width in (2, 1)]
        active = activation_bytes(LARGE, run, 2)
        pairs = [" / ".join(map(gigabytes, values)) for values in (large, small, cache)]
        totals = (large[1] + active, large[1] + small[1] + cache[1] + active, large[0] + small[0] + cache[0] + active)
        cells = [f"{size}²", *pairs[:2], gigabytes(active), pairs[2], *map(gigabytes, totals)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Print the table."""
    argparse.ArgumentParser(prog="run.py bench memory", description=__doc__).parse_args(arguments)
    print(table())
    return 0
