"""The race's tables and its plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import OURS
from benchmarks.markdown import document
from benchmarks.scores import AXES, Comparison, nearest_peers
from lib_hybridstitch.settings import PRESETS

Row = Mapping[str, Any]
COLOURS = ("#4269d0", "#efb118", "#3ca951", "#97bbf5", "#9c6b4e", "#a463f2", "#9498a0", "#6cc5b0")
MARKERS = "os^Dv"
FLOOR = 2e-3
"""The smallest LPIPS in the plot."""
OUR_COLOURS = dict(zip(OURS, ("#d62f2f", "#e377c2")))
THICK: Mapping[str, Any] = {"linewidth": 2.8, "marker": "o", "markersize": 7, "markeredgecolor": "white"}
NAMED = frozenset(PRESETS)
"""The settings that stand beside their points."""


def report(head: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """race.md: what was measured how, the two tables, and who did not run."""
    machine = head["machine"]
    words = (
        f"{head['scenes']} scenes that the pair never saw, {head['rounds']} timed rounds of {head['batch']} pictures, "
        f"{head['steps']} steps, guidance {head['cfg']:g}, shift {head['shift']:g}, {head['size']} × {head['size']} "
        f"pixels, fp32, {machine['processor']}, {machine['threads']} threads."
    )
    parts = [
        "# Race",
        words,
        "Distances are to the large model's picture of the same seed; in brackets quartiles of the rounds, and the "
        "bootstrap interval (95 %). Obeyed is the share of scenes in which a classifier finds everything asked for.",
        table(found["rows"]),
        "## Who is nearer at equal speed",
        "Each of ours against the peer whose curve comes nearest at that speed, its settings interpolated linearly; "
        "the interval is a paired bootstrap of the difference in LPIPS, below 0 where ours is nearer. All pairs are in "
        "race.json.",
        comparison_table([Comparison(**one) for one in found["comparisons"]]),
    ]
    parts += [
        "## Each peer at its own speed",
        "Against the curves of our methods at the same counted speed-up; the interval is of ours less the peer's.",
        peer_table(found["beside_ours"]),
    ]
    if found["not_run"]:
        parts.append("## Not run")
        parts.append("\n".join(f"- {one['method']}, {one['setting']}: {one['why']}" for one in found["not_run"]))
    return document(parts)


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| method | setting | speed-up, clock | counted | LPIPS (95 %) | PSNR | SSIM | obeyed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["speedup_wall_quartiles"]
        name = f"**{row['method']}**" if row["method"].startswith(OURS) else row["method"]
        lines.append(
            f"| {name} | {row['setting']} | {row['speedup_wall']:.2f}x ({low:.2f}–{high:.2f}) "
            f"| {row['speedup_flops']:.2f}x | {row['lpips']:.3f} ({row['lpips_low']:.3f}–{row['lpips_high']:.3f}) "
            f"| {row['psnr']:.1f} | {row['ssim']:.3f} | {row['obeyed']:.0%} |"
        )
    return "\n".join(lines)


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Each of ours beside its best peer as a Markdown table, with how all the curves stand that reach the speed."""
    lines = [
        "| ours | speed-up | LPIPS | best peer there | its LPIPS | difference (95 %) | ours is | all curves |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for best in nearest_peers(comparisons):
        name = f"{best.ours}, {best.setting} | {best.speedup:.2f}x {best.axis} | {best.lpips:.3f}"
        same = (best.ours, best.setting, best.axis)
        verdicts = [one.verdict for one in comparisons if (one.ours, one.setting, one.axis) == same]
        counts = ", ".join(f"{word} {verdicts.count(word)}" for word in dict.fromkeys(sorted(verdicts)))
        if best.peer_lpips is None:
            lines.append(f"| {name} | none reaches it | – | – | – | {counts} |")
            continue
        lines.append(
            f"| {name} | {best.peer} | {best.peer_lpips:.3f} | {best.lpips - best.peer_lpips:+.4f} "
            f"({best.low:+.4f} to {best.high:+.4f}) | {best.verdict} | {counts} |"
        )
    return "\n".join(lines)


def peer_table(rows: Sequence[Row]) -> str:
    """`scores.beside_ours` as a Markdown table."""
    lines = ["| peer | setting | counted | LPIPS | ours | LPIPS | difference (95 %) | ours is |", "|---" * 8 + "|"]
    for row in sorted(rows, key=lambda row: row["speedup_flops"]):
        difference = row["ours_lpips"] - row["peer_lpips"]
        lines.append(
            f"| {row['peer']} | {row['setting']} | {row['speedup_flops']:.2f}x | {row['peer_lpips']:.4f} "
            f"| {row['ours']} | {row['ours_lpips']:.4f} | {difference:+.4f} ({row['low']:+.4f} to {row['high']:+.4f}) "
            f"| {row['verdict']} |"
        )
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path) -> str:
    """Draw speed-up against LPIPS, by the clock and counted, a line per method; returns a sentence for the user."""
    try:
        import matplotlib
    except ImportError:
        return "No plot: matplotlib cannot be imported; install benchmarks/requirements.txt."
    matplotlib.use("svg")
    import matplotlib.pyplot as pyplot

    shown = [
        {**row, "lpips": max(row["lpips"], FLOOR)} for row in rows if not row["method"].startswith("large only")
    ]  # the reference has no place on a logarithmic scale
    style: Any = {"svg.hashsalt": "race", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with pyplot.rc_context(style):
        figure, panels = pyplot.subplots(1, 2, figsize=(14, 6.5), sharey=True, layout="constrained")
        for panel, axis, words in zip(panels, AXES.values(), ("by the clock", "counted operations")):
            _panel(panel, shown, axis)
            panel.set(xlabel=f"speed-up over the large model, {words}", yscale="log")
            panel.grid(alpha=0.25, which="both", linewidth=0.5)
        panels[0].set_ylabel("LPIPS to the large model's picture; lower is nearer")
        panels[0].set_ylim(bottom=FLOOR)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
        figure.savefig(path, facecolor="white", metadata={"Date": None})
        pyplot.close(figure)
    return f"The plot is {path}."


def _panel(panel: Any, rows: Sequence[Row], axis: str) -> None:
    """Draw every method's line into a panel, ours last and thickest; points of one method are joined by speed."""
    methods: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row[axis]):
        methods.setdefault(row["method"], []).append(row)
    peers = sorted(name for name in methods if not name.startswith(OURS))
    for index, name in enumerate(peers):
        look: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
        look["linestyle"] = ("-", "--", ":")[index // len(COLOURS) % 3]
        _line(panel, methods[name], axis, label=name, linewidth=1.1, markersize=4.5, **look)
    for name in sorted(set(methods) - set(peers)):
        colour = next(colour for own, colour in OUR_COLOURS.items() if name.startswith(own))
        look = {**THICK, "marker": "o" if name in OURS else "X"}
        _line(panel, methods[name], axis, label=name, color=colour, zorder=5, **look)
        for row in (row for row in methods[name] if row["setting"] in NAMED):
            place = {"textcoords": "offset points", "xytext": (6, -14), "zorder": 6}
            panel.annotate(row["setting"], (row[axis], row["lpips"]), color=colour, weight="bold", **place)


def _line(panel: Any, rows: Sequence[Row], axis: str, **look: Any) -> None:
    panel.plot([row[axis] for row in rows], [row["lpips"] for row in rows], **look)
