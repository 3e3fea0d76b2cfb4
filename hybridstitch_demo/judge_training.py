"""Train and examine the judge: `python -m hybridstitch_demo.training judge --minutes 12`."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from hybridstitch_demo.autoencoder import PAIR, Autoencoder, load_autoencoder
from hybridstitch_demo.clock import Clock, descend
from hybridstitch_demo.judge import Judge, load_judge
from hybridstitch_demo.judge_scenes import PRESENT, UNSURE, Lesson, Teacher
from hybridstitch_demo.scenes import TOKEN, SceneMaker, caption, combination
from hybridstitch_demo.words import DRAWINGS, GROUNDS

RATE = 2e-3
BATCH = 32
EXAMINED = 250
"""Scenes per question of the examination."""


class Lessons:
    """Lessons of which a few are replaced at every draw; every second one went through the autoencoder.

    Latents get some noise on their way, for a diffusion model never meets them exactly.
    """

    def __init__(self, teacher: Teacher, autoencoder: Autoencoder, seed: int, size: int) -> None:
        self.teacher, self.autoencoder, self.random = teacher, autoencoder, random.Random(seed)
        cells = teacher.maker.size // TOKEN
        self.pictures = torch.zeros(size, 3, teacher.maker.size, teacher.maker.size, dtype=torch.uint8)
        self.states = torch.zeros(size, len(DRAWINGS), cells, cells, dtype=torch.int8)
        self.grounds = torch.zeros(size, dtype=torch.long)
        self.next = 0
        for _ in range(0, size, 50):
            self._replace(50)

    def _lesson(self) -> Lesson:
        names, ground = combination(self.random, wanted=False)
        harm = self.random.choice((0.0, 0.0, 0.4, 0.8))
        harmed = [self.random.random() < harm for _ in names]
        return self.teacher.lesson(self.random, names, ground, harmed, grid=self.random.choice((1, 4, TOKEN)))

    def _replace(self, count: int) -> None:
        lessons = [self._lesson() for _ in range(count)]
        pictures = torch.stack([lesson.picture for lesson in lessons])
        pictures[::2] = through(self.autoencoder, pictures[::2], self.random.uniform(0, 0.3))
        for lesson, picture in zip(lessons, pictures):
            self.pictures[self.next] = picture.mul(255).round().byte()
            self.states[self.next], self.grounds[self.next] = lesson.states, lesson.ground
            self.next = (self.next + 1) % len(self.grounds)

    def draw(self, batch: int = BATCH, fresh: int = 5) -> tuple[Tensor, Tensor, Tensor]:
        """Return pictures (batch, 3, H, W) in 0..1, states (batch, 24, H/16, W/16) and grounds (batch,)."""
        self._replace(fresh)
        chosen = self.random.sample(range(len(self.grounds)), batch)
        return self.pictures[chosen].float() / 255, self.states[chosen], self.grounds[chosen]


@torch.no_grad()
def through(autoencoder: Autoencoder, pictures: Tensor, noise: float = 0.0) -> Tensor:
    """Encode pictures (rows, 3, H, W), add Gaussian noise of that deviation to the latents, and decode."""
    latents = autoencoder.encode(pictures)
    return autoencoder.decode(latents + noise * torch.randn_like(latents))


def disturbed(pictures: Tensor) -> Tensor:
    """Shift colours, blur some and add noise: pictures (rows, 3, H, W) in 0..1, as are those returned."""
    rows = len(pictures)
    gain, shift = 1 + 0.08 * torch.randn(rows, 3, 1, 1), 0.03 * torch.randn(rows, 3, 1, 1)
    blurred = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    mixed = torch.lerp(pictures, blurred, torch.rand(rows, 1, 1, 1))
    noise = torch.rand(rows, 1, 1, 1) * 0.04 * torch.randn_like(pictures)
    return ((mixed - 0.5) * gain + 0.5 + shift + noise).clamp(0, 1)


def judge_loss(judge: Judge, pictures: Tensor, states: Tensor, grounds: Tensor) -> Tensor:
    """Focal loss per cell (Lin et al., arXiv 1708.02002, gamma 2), cross-entropy of presence in the picture and of the
    ground. Cells and pictures whose state is `UNSURE` do not count.
    """
    maps, ground_logits = judge.maps(pictures)
    cells = _entropy(maps, states, focus=2.0).sum() / max(1, int((states == PRESENT).sum()))
    whole = _entropy(maps.amax((2, 3)), states.amax((2, 3)), focus=0.0).sum() / len(pictures)
    return cells + 0.5 * whole + 0.5 * functional.cross_entropy(ground_logits, grounds)


def _entropy(logits: Tensor, states: Tensor, focus: float) -> Tensor:
    """Binary cross-entropy in the logits' shape, weighted by (1 - probability of the truth)^focus, 0 where unsure."""
    entropy = functional.binary_cross_entropy_with_logits(logits, (states == PRESENT).float(), reduction="none")
    return entropy * (1 - torch.exp(-entropy)).pow(focus) * (states != UNSURE)


def train_judge(minutes: float, work: Path, cache: Path, folder: Path = PAIR, pool: int = 1000) -> None:
    """Train on scenes, half of them through the autoencoder in `folder`; store the judge there and examine it.

    Args:
        pool: lessons held ready, of which five are replaced at every step.
    """
    torch.manual_seed(0)
    judge = Judge()
    optimiser = torch.optim.AdamW(judge.parameters(), lr=RATE, weight_decay=1e-2, betas=(0.9, 0.99))
    clock = Clock(work / "judge.pt", minutes, judge, optimiser)
    torch.manual_seed(1 + clock.step)
    autoencoder = load_autoencoder(folder / "autoencoder.safetensors")
    lessons = Lessons(Teacher(SceneMaker(cache, edges=(46, 48, 48, 50))), autoencoder, clock.step, pool)
    for _ in clock.steps():
        pictures, states, grounds = lessons.draw()
        clock.note(descend(judge_loss(judge, disturbed(pictures), states, grounds), optimiser))
    stored = {key: value.half() if value.is_floating_point() else value for key, value in judge.state_dict().items()}
    save_file(stored, folder / "judge.safetensors", metadata={"steps": str(clock.step)})
    line = json.dumps(examine(load_judge(folder), autoencoder, SceneMaker(cache), EXAMINED))
    print(line, flush=True)
    with (work / "judge.jsonl").open("a") as log:
        log.write(line + "\n")


def examine(judge: Judge, autoencoder: Autoencoder, maker: SceneMaker, count: int) -> dict[str, float]:
    """Put the judge to the test on scenes through the autoencoder that it never saw.

    Returns:
        shares in 0..1. `recall` (worst drawing: `recall_worst`), `false_positives` per absent drawing, `ground` and
        `obeyed`, for combinations as in training (`unseen_`) and held out (`held_out_`); `accepted_other` and
        `accepted_torn`: how often a held-out scene passes though one named drawing is another, or torn.
    """
    source = random.Random(4711)
    torch.manual_seed(4711)
    teacher = Teacher(maker, slightly=0.0)
    found: dict[str, float] = {}
    for label, wanted in (("unseen", False), ("held_out", True)):
        asked = [combination(source, wanted) for _ in range(count)]
        lessons = [teacher.lesson(source, names, ground, [False] * len(names)) for names, ground in asked]
        found |= {f"{label}_{key}": value for key, value in _marks(judge, autoencoder, lessons, asked).items()}
    asked = [combination(source, wanted=True) for _ in range(count)]
    others = [[source.choice([name for name in DRAWINGS if name not in names]), *names[1:]] for names, _ in asked]
    lessons = [teacher.lesson(source, names, ground, [False] * len(names)) for names, (_, ground) in zip(others, asked)]
    found["accepted_other"] = _marks(judge, autoencoder, lessons, asked)["obeyed"]
    lessons = [_torn(teacher, source, names, ground) for names, ground in asked]
    found["accepted_torn"] = _marks(judge, autoencoder, lessons, asked)["obeyed"]
    return {key: round(value, 4) for key, value in found.items()}


def _torn(teacher: Teacher, source: random.Random, names: Sequence[str], ground: str) -> Lesson:
    """A scene whose first drawing is harmed so much that it is not there."""
    while True:
        lesson = teacher.lesson(source, names, ground, [True] + [False] * (len(names) - 1))
        if int(lesson.states[DRAWINGS.index(names[0])].max()) < UNSURE:
            return lesson


def _marks(
    judge: Judge, autoencoder: Autoencoder, lessons: Sequence[Lesson], asked: Sequence[tuple[list[str], str]]
) -> dict[str, float]:
    pictures = torch.cat(
        [
            through(autoencoder, torch.stack([lesson.picture for lesson in lessons[start : start + 50]]))
            for start in range(0, len(lessons), 50)
        ]
    )
    seen = judge.found(pictures)
    states = torch.stack([lesson.states.amax((1, 2)) for lesson in lessons])
    claimed = torch.tensor([[name in one.drawings for name in DRAWINGS] for one in seen])
    present, absent = states == PRESENT, states < UNSURE
    recall = (claimed & present).sum(0) / present.sum(0).clamp(min=1)
    return {
        "recall": float((claimed & present).sum() / present.sum()),
        "recall_worst": float(recall[present.any(0)].min()),
        "false_positives": float((claimed & absent).sum() / absent.sum()),
        "ground": sum(GROUNDS.index(one.ground) == lesson.ground for one, lesson in zip(seen, lessons)) / len(seen),
        "obeyed": sum(one.obeys(caption(names, ground)) for one, (names, ground) in zip(seen, asked)) / len(seen),
    }
