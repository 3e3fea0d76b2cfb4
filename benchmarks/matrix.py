"""The matrix: every preset over settings of all kinds, each against fewer steps of at most its cost.

    python3 run.py bench matrix                             # 45 minutes of one core; goes on where it was interrupted
    python3 run.py bench matrix --only img2img "Euler a"    # the cells whose names have all of these

A cell is one combination of steps, guidance, sampler, shift, kind of generation, strength and size. The reference is
the large model's own picture; presets go through the resolver as in a WebUI, for a model that nobody has measured.
Beside each preset stands the large model with as many steps as the preset's operations pay for, rounded down: plain
fewer steps, or, for Euler and Euler a, the cell's own noise levels with a dense beginning and growing gaps between
them, whichever is nearer on average. Pictures of img2img and inpainting are the large model's own of other prompts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.matrix_cells import CELL_SEED, HIRES, INPAINTING, TXT2IMG, Cell, cells
from benchmarks.matrix_report import report
from benchmarks.passes import Start, sample
from benchmarks.scores import Drawn, interval
from benchmarks.state import State, code_hash, fingerprint, weights_hash
from benchmarks.trials import scenes
from hybridstitch_demo.autoencoder import CHANNELS, FACTOR
from hybridstitch_demo.generate import Pair, Request, generate, load_pair, setup_of
from hybridstitch_demo.measure import PSNR_OF_EQUALS, machine, run_flops
from hybridstitch_demo.metrics import Lpips, psnr, ssim
from lib_hybridstitch import __version__
from lib_hybridstitch.plans.hybridstitch import HybridStitch
from lib_hybridstitch.plans.method import Run
from lib_hybridstitch.plans.placement import placed
from lib_hybridstitch.plans.plan import LARGE, Plan
from lib_hybridstitch.plans.step_cache import StepCache
from lib_hybridstitch.prediction.resolver import resolve
from lib_hybridstitch.settings import StitchSettings

RESULTS = Path(__file__).parent / "results"
PROMPT_SEED = 70411
FIRST_SEED = 704110
SOURCE_SEED = 704910
"""First seed of the pictures that img2img and inpainting begin from."""
SCENES = 8
SOURCE_STEPS, SOURCE_CFG = 28, 4.5
"""Of those pictures, and of the first pass of hires."""
FIRST_PASS = {128: 96, 160: 128}
"""Edge in pixels of hires' second pass → of its first."""
PRESETS = [(method, preset) for method in (HybridStitch, StepCache) for preset in method.presets]


@dataclass(frozen=True)
class Way:
    """One way to draw a cell.

    Args:
        plan: what is done.
        levels: the noise levels, descending to the final 0.
        computed: the steps that are evaluated; see `benchmarks.passes.sample`.
    """

    plan: Plan
    levels: tuple[float, ...]
    computed: tuple[int, ...] | None = None


def large_only(levels: tuple[float, ...], computed: tuple[int, ...] | None = None) -> Way:
    """The large model alone at these levels."""
    return Way(Plan((LARGE,) * (len(levels) - 1), levels[:-1], "large only"), levels, computed)


def prompts(count: int) -> list[str]:
    """Different prompts that were held out of the training; always the same."""
    return scenes(count, PROMPT_SEED)[0]


@dataclass
class Studio:
    """What all cells share.

    Args:
        pair: the networks.
        scenes: pictures per cell.
        state: what was drawn before.
        weights, code: hashes of what decides drawings; the code decides those of our plans alone.
    """

    pair: Pair
    scenes: int
    state: State
    weights: str
    code: str = field(default_factory=code_hash)
    distance: Lpips = field(default_factory=Lpips)
    _starts: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def start(self, cell: Cell) -> Start:
        """What a cell's passes begin from; the pictures are drawn once per size."""
        edge = cell.size // FACTOR
        if cell.kind == TXT2IMG:
            return Start(torch.zeros(self.scenes, CHANNELS, edge, edge))
        of = (HIRES if cell.kind == HIRES else "source", cell.size)
        if of not in self._starts:
            self._starts[of] = self._first_pass(cell.size) if cell.kind == HIRES else self._source(cell.size)
        paint = None
        if cell.kind == INPAINTING:
            paint = torch.zeros(edge, edge)
            paint[:, edge // 4 * 2 :] = 1  # the right half, on a border of tokens
        return Start(self._starts[of], paint)

    @torch.inference_mode()
    def _source(self, size: int) -> Tensor:
        """Latents of pictures that the large model drew of other prompts, by way of their pixels."""
        others = prompts(2 * self.scenes)[self.scenes :]
        request = self._request(others, SOURCE_SEED, SOURCE_CFG, size)
        return self.pair.autoencoder.encode(generate(self.pair, request).pictures)

    def _first_pass(self, size: int) -> Tensor:
        """Latents of the same prompts and seeds from the large model, enlarged as the WebUI's "Latent" does it."""
        request = self._request(prompts(self.scenes), FIRST_SEED, SOURCE_CFG, FIRST_PASS[size])
        edge = size // FACTOR
        return torch.nn.functional.interpolate(generate(self.pair, request).latents, size=(edge, edge), mode="bilinear")

    def _request(self, texts: Sequence[str], seed: int, cfg: float, size: int) -> Request:
        return Request(tuple(texts), tuple(range(seed, seed + len(texts))), SOURCE_STEPS, cfg, size)


@dataclass
class Bench:
    """One cell while it is measured."""

    studio: Studio
    cell: Cell

    @cached_property
    def request(self) -> Request:
        """Prompts, seeds, guidance and size of the cell."""
        studio = self.studio
        seeds = tuple(range(FIRST_SEED, FIRST_SEED + studio.scenes))
        return Request(tuple(prompts(studio.scenes)), seeds, cfg=self.cell.guidance, size=self.cell.size)

    @cached_property
    def run(self) -> Run:
        """What a method is told of the pass."""
        return Run(self.cell.levels()[:-1], self.cell.guidance != 1, self.cell.sampler == "Euler a")

    @cached_property
    def reference(self) -> Tensor:
        """The large model's own pictures."""
        return self._draw(large_only(self.cell.levels()))[0]

    @torch.inference_mode()
    def _draw(self, way: Way) -> tuple[Tensor, float]:
        """Pictures (scenes, 3, size, size), and operations per picture."""
        pair, start = self.studio.pair, self.studio.start(self.cell)
        latents, done = sample(pair, self.request, self.cell.sampler, way.plan, way.levels, start, way.computed)
        return pair.autoencoder.decode(latents), run_flops(pair, done) / self.studio.scenes

    def drawn(self, way: Way) -> Drawn:
        """How one way stands beside the reference, from the state where it is known."""
        studio = self.studio
        code = "" if set(way.plan.steps) == {LARGE} else studio.code
        drawn = (self.cell, str(way.plan), way.levels, way.computed, studio.scenes)
        key = fingerprint(*drawn, PROMPT_SEED, FIRST_SEED, SOURCE_SEED, studio.weights, code)
        found = studio.state.drawing(key)
        if found is None:
            (pictures, operations), reference = self._draw(way), self.reference
            found = Drawn(
                lpips=studio.distance(pictures, reference).tolist(),
                psnr=psnr(pictures, reference).clamp(max=PSNR_OF_EQUALS).tolist(),
                ssim=ssim(pictures, reference).tolist(),
                obeyed=[],
                operations=operations,
            )
            studio.state.record_drawing(key, found)
        return found

    def fewer_steps(self, evaluations: int) -> Drawn:
        """The large model with at most so many evaluations, by the way that is nearer on average."""
        heun = self.cell.sampler == "Heun"
        most = max((evaluations + 1) // 2 if heun else evaluations, 1)
        levels = self.cell.levels()
        if most >= self.run.steps:
            return self.drawn(large_only(levels))
        ways = [large_only(self.cell.fewer(most))]
        if self.cell.sampler.startswith("Euler"):
            chosen = placed(self.run, most)
            if len(chosen) <= most:
                ways.append(large_only(levels, chosen))
        return min(map(self.drawn, ways), key=lambda one: statistics.fmean(one.lpips))

    def rows(self) -> list[dict[str, Any]]:
        """One row per preset."""
        whole = self.drawn(large_only(self.cell.levels()))
        each = whole.operations / (self.run.steps * 2 - 1 if self.cell.sampler == "Heun" else self.run.steps)
        found = []
        for method, preset in PRESETS:
            settings = StitchSettings.from_dict(
                {"method": method.name, "preset": preset, "small_checkpoint": "small" * (method is HybridStitch)}
            )
            setup = setup_of(self.studio.pair, self.request)
            plan = resolve(settings, self.run, setup, hires=self.cell.kind == HIRES).plan
            own = self.drawn(Way(plan, self.cell.levels()))
            peer = self.fewer_steps(int(own.operations / each + 1e-6))
            low, high = interval(torch.tensor(own.lpips) - torch.tensor(peer.lpips))
            found.append(
                {
                    "steps": self.cell.steps,
                    "guidance": self.cell.guidance,
                    "sampler": self.cell.sampler,
                    "shift": self.cell.shift,
                    "kind": self.cell.kind,
                    "strength": self.cell.strength,
                    "size": self.cell.size,
                    "method": method.name,
                    "preset": preset,
                    "speedup_flops": round(whole.operations / own.operations, 3),
                    "lpips": round(statistics.fmean(own.lpips), 5),
                    "lpips_fewer_steps": round(statistics.fmean(peer.lpips), 5),
                    "n": self.studio.scenes,
                    "plan": str(plan),
                    "lpips_low": round(low, 5),
                    "lpips_high": round(high, 5),
                }
            )
        return found


def commit() -> str:
    """The commit of the working tree, with "-dirty" behind it where files differ; "unknown" outside a repository."""
    call = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(call, cwd=RESULTS, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def settings(scenes: int, weights: str, started: float) -> dict[str, Any]:
    """What the matrix was measured with."""
    return {
        "version": __version__,
        "commit": commit(),
        "machine": machine(),
        "weights": weights,
        "scenes": scenes,
        "seeds": [FIRST_SEED, FIRST_SEED + scenes - 1],
        "prompt_seed": PROMPT_SEED,
        "cell_seed": CELL_SEED,
        "minutes": round((time.time() - started) / 60, 1),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the matrix and write matrix.json and matrix.md."""
    parser = argparse.ArgumentParser(prog="run.py bench matrix", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--scenes", type=int, default=SCENES, help="pictures per cell (%(default)s)")
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="cells with all of these in their names")
    parser.add_argument("--out", type=Path, help="folder for the results; benchmarks/results[/quick] if left out")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run left in matrix-state")
    options = parser.parse_args(arguments)
    chosen = [cell for cell in cells() if all(text in cell.name for text in options.only)]
    if not chosen:
        parser.error(f"no cell has {' and '.join(map(repr, options.only))} in its name, such as {cells()[0].name!r}")
    out = options.out or (RESULTS / "quick" if options.only or options.scenes < SCENES else RESULTS)
    started, weights = time.time(), weights_hash()
    studio = Studio(load_pair(), options.scenes, State(out / "matrix-state", options.fresh), weights)
    rows = [
        row for cell in tqdm(chosen, desc="matrix", unit="cell", file=sys.stderr) for row in Bench(studio, cell).rows()
    ]
    text = report(settings(options.scenes, weights, started), rows)
    out.mkdir(parents=True, exist_ok=True)
    (out / "matrix.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (out / "matrix.md").write_text(text, encoding="utf-8")
    print(text)
    return 0
