"""The matrix' tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from benchmarks.markdown import document, table
from benchmarks.matrix_cells import Cell
from benchmarks.scores import quartiles

Row = Mapping[str, Any]
MARGIN = 0.002
"""A preset may be so much farther in LPIPS than fewer steps of its cost."""
FACTORS = ("kind", "strength", "sampler", "steps", "guidance", "shift", "size")


def difference(row: Row) -> float:
    """How much farther a preset is than fewer steps of its cost; below 0 it is nearer."""
    return float(row["lpips"] - row["lpips_fewer_steps"])


def cell_of(row: Row) -> str:
    """What a row's cell is called."""
    return Cell(**{item.name: row[item.name] for item in fields(Cell)}).name


def report(head: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """matrix.md: what was measured how, the presets, the rows that are farther, and every cell."""
    machine = head["machine"]
    farther = sorted((row for row in rows if difference(row) > MARGIN), key=difference, reverse=True)
    named = len({cell_of(row) for row in rows})
    parts = [
        "# Matrix",
        f"{named} cells of {head['scenes']} pictures each, fp32, {machine['processor']}, {machine['threads']} "
        f"thread(s), Python {machine['python']}, torch {machine['torch']}. Version {head['version']}, commit "
        f"{head['commit']}, weights {head['weights']}. Prompts are held-out combinations of generator seed "
        f"{head['prompt_seed']}, noise seeds {head['seeds'][0]} to {head['seeds'][1]}, cells of seed "
        f"{head['cell_seed']}; {head['minutes']} minutes since the last start.",
        "Distances are LPIPS to the large model's own picture of the same noise; in brackets quartiles of the cells. "
        'Presets are made for a model that nobody has measured (profile "generic"), whole runs through the resolver. '
        '"Fewer steps" is the large model alone with at most the preset\'s counted operations: plain fewer steps, '
        "or for Euler and Euler a the cell's own levels, dense first and with growing gaps, whichever is nearer on "
        "average. Euler a with plain fewer steps meets other noise than with all of them; with placed ones it gets the "
        "same. In hires, first passes are the large model's, and the second is measured.",
        "## Presets",
        presets_table(rows),
        f"## Farther than fewer steps by more than {MARGIN:g}",
        f"{len(farther)} of {len(rows)} rows, {sum(row['lpips_low'] > 0 for row in farther)} of them with an interval "
        "above 0. In brackets the bootstrap interval (95 %) of the paired difference: among so few pictures one that "
        "tips into another layout decides a mean.",
    ]
    if farther:
        parts.append(farther_table(farther))
    parts += ["## By setting", factors_table(rows), "## Every cell", LEGEND, cells_table(rows)]
    return document(parts)


LEGEND = "Counted speed-up, LPIPS / LPIPS of fewer steps of that cost; bold where farther by more than the margin."


def presets_table(rows: Sequence[Row]) -> str:
    """A row per preset."""
    found = []
    for name, own in grouped(rows, "method", "preset").items():
        speedups, lpips = [row["speedup_flops"] for row in own], [row["lpips"] for row in own]
        (slow, fast), (near, far) = quartiles(speedups), quartiles(lpips)
        fewer = [row["lpips_fewer_steps"] for row in own]
        worst = max(own, key=difference)
        found.append(
            [
                name,
                f"{statistics.median(speedups):.2f}x ({slow:.2f}–{fast:.2f})",
                f"{statistics.fmean(lpips):.4f}",
                f"{statistics.median(lpips):.4f} ({near:.4f}–{far:.4f})",
                f"{statistics.fmean(fewer):.4f}",
                f"{statistics.median(fewer):.4f}",
                *_counts(own),
                f"{difference(worst):+.4f}, {cell_of(worst)}",
            ]
        )
    head = ["preset", "counted speed-up, median", "LPIPS, mean", "median", "fewer steps, mean", "median"]
    return table([*head, "nearer", "level", "farther", "worst difference"], found)


def farther_table(rows: Sequence[Row]) -> str:
    """A row per row that is farther."""
    found = [
        [
            cell_of(row),
            f"{row['method']} {row['preset']}",
            f"{row['speedup_flops']:.2f}x",
            f"{row['lpips']:.4f}",
            f"{row['lpips_fewer_steps']:.4f}",
            f"{difference(row):+.4f} ({row['lpips_low']:+.4f} to {row['lpips_high']:+.4f})",
            f"`{row['plan']}`",
        ]
        for row in rows
    ]
    return table(["cell", "preset", "counted", "LPIPS", "fewer steps", "difference", "plan"], found)


def factors_table(rows: Sequence[Row]) -> str:
    """A row per value of every factor, over all presets."""
    found = []
    for factor in FACTORS:
        for value, own in sorted(grouped(rows, factor).items(), key=lambda item: _number(item[0])):
            mean = statistics.fmean(map(difference, own))
            found.append([factor, value, str(len(own)), *_counts(own), f"{mean:+.4f}"])
    return table(["setting", "value", "rows", "nearer", "level", "farther", "difference, mean"], found)


def cells_table(rows: Sequence[Row]) -> str:
    """A row per cell, a column per preset."""
    presets = list(grouped(rows, "method", "preset"))
    found = []
    for row in {cell_of(row): row for row in rows}.values():
        texts = {}
        for one in (one for one in rows if cell_of(one) == cell_of(row)):
            text = f"{one['speedup_flops']:.2f}x {one['lpips']:.4f} / {one['lpips_fewer_steps']:.4f}"
            texts[f"{one['method']} {one['preset']}"] = f"**{text}**" if difference(one) > MARGIN else text
        found.append([cell_of(row), *(texts[name] for name in presets)])
    return table(["cell", *presets], found)


def grouped(rows: Sequence[Row], *keys: str) -> dict[str, list[Row]]:
    """Rows by the values of some keys, as text, in the order of their first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(" ".join(f"{row[key]}" for key in keys), []).append(row)
    return found


def _counts(rows: Sequence[Row]) -> list[str]:
    """How many rows are nearer, level and farther."""
    farther = sum(difference(row) > MARGIN for row in rows)
    nearer = sum(difference(row) < -MARGIN for row in rows)
    return [str(nearer), str(len(rows) - nearer - farther), str(farther)]


def _number(text: str) -> tuple[float, str]:
    """Numbers by size, words by themselves."""
    try:
        return float(text), ""
    except ValueError:
        return 0.0, text
