"""Train the demo's autoencoder and pair; every command resumes from its last checkpoint.

    python -m hybridstitch_demo.training autoencoder --minutes 12
    python -m hybridstitch_demo.training large --minutes 70
    python -m hybridstitch_demo.training small --minutes 70
    python -m hybridstitch_demo.training export
    python -m hybridstitch_demo.training judge --minutes 12

Rectified flow (Liu et al., arXiv 2209.03003) with the logit-normal noise levels of SD3 (arXiv 2403.03206), AdamW, and
an exponential average of the weights.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hybridstitch_demo.autoencoder import CHANNELS, PAIR, Autoencoder, load_autoencoder
from hybridstitch_demo.clock import Clock, descend
from hybridstitch_demo.graphs import capture, on_stream
from hybridstitch_demo.judge_training import train_judge
from hybridstitch_demo.scenes import COUNTS, SIZE, SceneMaker, default_cache
from hybridstitch_demo.words import WIDTH, encode
from lib_hybridstitch.mmdit.checkpoint import load
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.kv_cache import FP8, FP8_LARGEST
from lib_hybridstitch.mmdit.model import MMDiT

CPU = torch.device("cpu")
FRESH = 8
"""Scenes that are drawn and encoded at a time."""
POSITIONS = 32
NOISE_LOGIT = 0.4
"""Mean of the logit-normal noise levels: somewhat above the middle, where drawings find their shape."""
LARGE = MMDiTConfig(
    depth=5,
    patch_size=2,
    in_channels=CHANNELS,
    out_channels=CHANNELS,
    context_dim=WIDTH,
    pooled_dim=WIDTH,
    pos_embed_size=POSITIONS,
    qk_norm=True,
)


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    Args:
        config: its architecture.
        rate: peak learning rate.
        batch: scenes of 128 pixels per step; of larger ones, as many as have as many tokens.
        sizes: edges of the scenes in pixels, one step after another.
        counts: how many drawings a scene has, each as often as it stands there.
        workers: processes that draw the scenes of a size; 0 draws them between the steps.
        caption_dropout: share of captions left empty, for classifier-free guidance.
        average: time constant of the weights' exponential average, in steps.
    """

    config: MMDiTConfig
    rate: float = 1e-3
    batch: int = 32
    sizes: tuple[int, ...] = (SIZE,)
    counts: tuple[int, ...] = COUNTS
    workers: int = 0
    caption_dropout: float = 0.1
    average: float = 300.0


RECIPES: dict[str, Recipe] = {
    "large": Recipe(LARGE),
    "small": Recipe(replace(LARGE, depth=3, dual_attention=(0, 1))),
}


def sincos_positions(side: int, width: int) -> Tensor:
    """Return fixed 2-D sine-cosine positions (1, side², width), as in Dosovitskiy et al., arXiv 2010.11929."""
    quarter = width // 4
    rates = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = torch.arange(side, dtype=torch.float64)[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    across = line[None].expand(side, side, -1)
    down = line[:, None].expand(side, side, -1)
    return torch.cat([across, down], dim=-1).reshape(1, side * side, width).float()


def new_network(config: MMDiTConfig) -> MMDiT:
    """Build a network with the usual initialisation of a diffusion transformer: gates and output start at zero."""
    network = MMDiT(config)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for name, parameter in network.named_parameters():
        if "adaLN_modulation" in name or name.startswith("final_layer.linear"):
            nn.init.zeros_(parameter)
    network.pos_embed.copy_(sincos_positions(config.pos_embed_size, config.hidden))
    return network


class Lesson(NamedTuple):
    """Encoded scenes: latents (rows, 16, h, w), text (rows, LENGTH, WIDTH), pooled text (rows, WIDTH)."""

    latents: Tensor
    context: Tensor
    pooled: Tensor


class Drawn(NamedTuple):
    """Scenes as drawn, on the CPU: pictures (rows, 3, size, size), text (rows, LENGTH, WIDTH), pooled (rows, WIDTH)."""

    pictures: Tensor
    context: Tensor
    pooled: Tensor


class SceneStream(IterableDataset[Drawn]):
    """Scenes without end, `FRESH` at a time; every worker process draws others."""

    def __init__(self, maker: SceneMaker, seed: int) -> None:
        self.maker, self.seed = maker, seed

    def __iter__(self) -> Iterator[Drawn]:
        worker = get_worker_info()
        source = random.Random(self.seed if worker is None else f"{self.seed} {worker.id}")
        while True:
            pictures, captions = zip(*(self.maker.make(source) for _ in range(FRESH)))
            yield Drawn(torch.stack(pictures), *encode(list(captions)))


class LatentPool:
    """Encoded scenes, a few of them replaced at every draw, so that encoding costs little beside training.

    The scenes are drawn on the CPU; where the autoencoder computes, the latents and texts are.
    """

    def __init__(
        self, maker: SceneMaker, autoencoder: Autoencoder, seed: int, workers: int = 0, size: int = 6144
    ) -> None:
        self.autoencoder, self.size = autoencoder, size
        self.device = autoencoder.mean.device
        loader = DataLoader(
            SceneStream(maker, seed), batch_size=None, num_workers=workers, pin_memory=self.device.type == "cuda"
        )
        self.stream = iter(loader)
        self.random = random.Random(seed)
        parts = [self._encode() for _ in range(0, size, FRESH)]
        self.kept = Lesson(*(torch.cat(tensors)[:size] for tensors in zip(*parts)))
        self.next = 0

    @torch.no_grad()
    def _encode(self) -> Lesson:
        pictures, context, pooled = (tensor.to(self.device, non_blocking=True) for tensor in next(self.stream))
        return Lesson(self.autoencoder.encode(pictures), context, pooled)

    def draw(self, batch: int) -> Lesson:
        """Return a batch, after replacing `FRESH` entries by new scenes."""
        places = (torch.arange(FRESH) + self.next) % self.size
        chosen = torch.tensor(self.random.sample(range(self.size), batch))
        self.next = (self.next + FRESH) % self.size
        for kept, tensor in zip(self.kept, self._encode()):
            kept[places] = tensor
        return Lesson(*(kept[chosen] for kept in self.kept))


def train_autoencoder(minutes: float, work: Path, cache: Path) -> None:
    """Train on 64-pixel crops of scenes, their drawings of any size and place; see `_picture_loss`."""
    torch.manual_seed(0)
    source = random.Random(1)
    maker = SceneMaker(cache, edges=(40, 48, 56, 64))
    model = Autoencoder()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0, betas=(0.9, 0.99))
    clock = Clock(work / "autoencoder.pt", minutes, model, optimiser)
    scenes = torch.stack([maker.make(source, grid=1)[0] for _ in range(1500)])
    for _ in clock.steps():
        chosen = torch.randint(0, len(scenes), (24,))
        top, left = (int(torch.randint(0, 65, ())) for _ in range(2))
        crops = scenes[chosen, :, top : top + 64, left : left + 64]
        latents = model.encoder(crops * 2 - 1)
        noisy = latents + 0.05 * torch.randn_like(latents)
        rebuilt = model.decoder(noisy) / 2 + 0.5
        spread = latents.pow(2).mean((0, 2, 3))
        loss = _picture_loss(rebuilt, crops) + 1e-4 * (spread - 1).pow(2).mean()
        clock.note(descend(loss, optimiser))
    _finish_autoencoder(model, scenes, maker, work)


def _picture_loss(rebuilt: Tensor, target: Tensor) -> Tensor:
    """Absolute and squared error, and the absolute error of neighbouring pixels' differences."""
    error = rebuilt - target
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 4 * error.pow(2).mean() + 0.5 * edges


@torch.no_grad()
def _finish_autoencoder(model: Autoencoder, scenes: Tensor, maker: SceneMaker, work: Path) -> None:
    latents = torch.cat([model.encoder(batch * 2 - 1) for batch in scenes.split(50)])
    model.mean.copy_(latents.mean((0, 2, 3), keepdim=True))
    model.deviation.copy_(latents.std((0, 2, 3), keepdim=True))
    source = random.Random(999)
    unseen = torch.stack([maker.make(source)[0] for _ in range(64)])
    error = (model.decode(model.encode(unseen)) - unseen).pow(2).mean((1, 2, 3))
    print(json.dumps({"psnr_unseen_scenes": round(float((-10 * error.log10()).mean()), 2)}), flush=True)
    save_file(model.state_dict(), work / "autoencoder.safetensors")


def train_network(
    name: str,
    recipe: Recipe,
    minutes: float,
    work: Path,
    cache: Path,
    fuse: bool,
    start: Path | None = None,
    device: torch.device = CPU,
) -> None:
    """Train `large` or `small` by rectified flow on scenes.

    Args:
        fuse: compile the network (needs a C++ compiler).
        start: folder of a stored pair to go on from, with its autoencoder; None for new weights.
        device: where it computes; a checkpoint may go on on another one.
    """
    torch.manual_seed(0)
    autoencoder = load_autoencoder((start or work) / "autoencoder.safetensors").to(device)
    network = new_network(recipe.config).to(device)
    if start is not None:
        stored = load(start / f"{name}.safetensors", dtype=torch.float32)
        network.load_state_dict(stored.state_dict())
    averaged = {key: value.clone() for key, value in network.state_dict().items()}
    current = list(network.state_dict().values())
    on_gpu = device.type == "cuda"
    rate = torch.tensor(recipe.rate, device=device) if on_gpu else recipe.rate
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.0, betas=(0.9, 0.99), capturable=on_gpu)
    clock = Clock(work / f"{name}.pt", minutes, network, optimiser, averaged)
    compiled = torch.compile(network) if fuse else network
    torch.manual_seed(1 + clock.step)
    pools = {
        size: LatentPool(SceneMaker(cache, size, counts=recipe.counts), autoencoder, clock.step, recipe.workers)
        for size in recipe.sizes
    }
    nothing = Lesson(torch.empty(0), *(text.to(device) for text in encode([""])))

    def learn(lesson: Lesson) -> Tensor:
        return descend(_flow_loss(compiled, lesson, nothing, recipe.caption_dropout), optimiser)

    take = Replayed(learn) if on_gpu else learn
    for step in clock.steps():
        size = recipe.sizes[step % len(recipe.sizes)]
        clock.note(take(pools[size].draw(max(1, recipe.batch * SIZE**2 // size**2))))
        multi_average = get_ema_multi_avg_fn(1 - 1 / min(recipe.average, 1 + step / 10))
        multi_average(list(averaged.values()), current, step)


def _flow_loss(network: Callable[..., Tensor], lesson: Lesson, nothing: Lesson, dropout: float) -> Tensor:
    """Mean squared error of the velocity; in bf16 on a GPU, whose matrix units want it, and in fp32 elsewhere.

    Args:
        nothing: the empty caption, in place of a share `dropout` of the captions.
    """
    latents = lesson.latents
    rows, device = len(latents), latents.device
    dropped = torch.rand(rows, device=device) < dropout
    context = torch.where(dropped[:, None, None], nothing.context, lesson.context)
    pooled = torch.where(dropped[:, None], nothing.pooled, lesson.pooled)
    sigma = torch.sigmoid(torch.randn(rows, device=device) + NOISE_LOGIT)
    noise = torch.randn_like(latents)
    mix = sigma[:, None, None, None]
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        velocity = network((1 - mix) * latents + mix * noise, 1000 * sigma, pooled, context)
    return functional.mse_loss(velocity.float(), noise - latents)


class Replayed:
    """A step of training as the replay of a CUDA graph per shape, since a GPU outruns Python at networks this small.

    Args:
        learn: takes the step and returns its loss; nothing in it may wait for the GPU.
    """

    def __init__(self, learn: Callable[[Lesson], Tensor]) -> None:
        self.learn = learn
        self.aside = torch.cuda.Stream()
        self.met: Counter[torch.Size] = Counter()
        self.graphs: dict[torch.Size, tuple[Callable[[], object], Lesson, Tensor]] = {}

    def __call__(self, lesson: Lesson) -> Tensor:
        """Take a step; the first three of a shape are no replays, as PyTorch's notes on CUDA graphs want it."""
        shape = lesson.latents.shape
        self.met[shape] += 1
        if self.met[shape] <= 3:
            with on_stream(self.aside):
                return self.learn(lesson)
        if shape not in self.graphs:
            replay, loss = capture(lambda: self.learn(lesson))
            self.graphs[shape] = replay, lesson, loss
        replay, read, loss = self.graphs[shape]
        for tensor, given in zip(read, lesson):
            tensor.copy_(given)
        replay()
        return loss.clone()


def export(work: Path, folder: Path) -> None:
    """Store what was trained, small enough for a repository: the matrices in fp8 with a scale each, the rest in fp16.

    Reads the averaged weights of the last checkpoints in `work`, finished or not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encoder = load_file(work / "autoencoder.safetensors")
    save_file({name: value.half() for name, value in encoder.items()}, folder / "autoencoder.safetensors")
    for name in RECIPES:
        saved = torch.load(work / f"{name}.pt", map_location=CPU, weights_only=True)
        stored: dict[str, Tensor] = {}
        for key, value in saved["averaged"].items():
            if value.ndim == 2 and key.startswith("joint_blocks."):
                scale = (value.abs().max() / FP8_LARGEST).clamp(min=1e-12)  # a matrix may be all zeros
                stored[key] = (value / scale).to(FP8)
                stored[key.removesuffix("weight") + "scale_weight"] = scale.float()
            else:
                stored[key] = value.half()
        save_file(stored, folder / f"{name}.safetensors", metadata={"steps": str(saved["step"])})
        size = (folder / f"{name}.safetensors").stat().st_size
        print(f"{name}: {saved['step']} steps, {size / 1e6:.1f} MB")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("autoencoder", "large", "small", "export", "judge"))
    parser.add_argument("--minutes", type=float, default=60.0, help="time of training, earlier runs included")
    parser.add_argument("--work", type=Path, default=Path("training"))
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--threads", type=int, default=0, help="0 for PyTorch's own choice")
    parser.add_argument("--to", type=Path, default=PAIR, help="export, judge: folder of the stored pair")
    parser.add_argument("--start", type=Path, help="large, small: folder of a stored pair to go on from")
    parser.add_argument("--device", type=torch.device, default=CPU, help="large, small: cpu or cuda")
    parser.add_argument("--batch", type=int, help="large, small: pictures per step, instead of the recipe's")
    parser.add_argument("--sizes", type=int, nargs="+", default=[SIZE], help="large, small: edges of scenes in turn")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="large, small: drawings in a scene")
    parser.add_argument("--workers", type=int, default=0, help="large, small: processes that draw scenes")
    parser.add_argument("--compile", action="store_true", help="fuse operations; about 1.4 times as fast here")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.what == "export":
        export(options.work, options.to)
    elif options.what == "judge":
        train_judge(options.minutes, options.work, options.cache, options.to)
    elif options.what == "autoencoder":
        train_autoencoder(options.minutes, options.work, options.cache)
    else:
        recipe = RECIPES[options.what]
        recipe = replace(
            recipe,
            batch=options.batch or recipe.batch,
            sizes=tuple(options.sizes),
            counts=tuple(options.counts),
            workers=options.workers,
        )
        train_network(
            options.what,
            recipe,
            options.minutes,
            options.work,
            options.cache,
            options.compile,
            options.start,
            options.device,
        )


if __name__ == "__main__":
    main()
