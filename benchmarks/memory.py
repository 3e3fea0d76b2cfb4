"""What SD3.5 needs on a GPU, computed from the project's own formulas; nothing here is measured."""

from __future__ import annotations

import argparse

from benchmarks.counted import MASKED, UNMASKED, memory_of
from benchmarks.sd35 import TRUE

SIZES = (512, 1024, 1536)


def gigabytes(count: float) -> str:
    """GB with one decimal."""
    return f"{count / 2**30:.1f}"


def table() -> str:
    """The table of the README, in Markdown; sizes beside these are in the results of `bench truesize`."""
    lines = [
        "| GB | large bf16 / fp8 | small bf16 / fp8 | activations | KV cache bf16 / fp8 | "
        "Step cache, fp8 weights | HybridStitch, fp8 weights and cache | HybridStitch, bf16 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size in SIZES:
        need = memory_of(TRUE, size)
        pairs = [
            " / ".join(gigabytes(need[f"{name}_{kind}"]) for kind in ("bf16", "fp8"))
            for name in ("large", "small", "cache")
        ]
        totals = (need["plans"][name][kind] for name, kind in ((UNMASKED, "fp8"), (MASKED, "fp8"), (MASKED, "bf16")))
        cells = [f"{size}²", *pairs[:2], gigabytes(need["activations"]), pairs[2], *map(gigabytes, totals)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Print the table."""
    argparse.ArgumentParser(prog="run.py bench memory", description=__doc__).parse_args(arguments)
    print(table())
    return 0
