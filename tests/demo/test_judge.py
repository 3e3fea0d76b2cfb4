"""The judge: what counts as obeyed, what it was taught, and its word on pictures of the pair."""

from __future__ import annotations

import json
import random
from functools import cache

import pytest
import torch
from torch import nn

from hybridstitch_demo import judge_scenes, judge_training
from hybridstitch_demo.autoencoder import PAIR, Autoencoder
from hybridstitch_demo.generate import Request, generate, load_pair
from hybridstitch_demo.judge import FOUND, Judge, Seen, load_judge
from hybridstitch_demo.judge_scenes import ABSENT, FLAWS, PRESENT, UNSURE, Layer, Teacher
from hybridstitch_demo.scenes import ground
from hybridstitch_demo.words import DRAWINGS, GROUNDS

judge = cache(load_judge)


RED = torch.tensor([1.0, 0, 0, 1])[:, None, None].expand(4, 48, 48)


class Squares:
    """Stands in for the maker of scenes: every drawing is a full red square of 48 pixels, at the same places."""

    size = 128

    def __init__(self) -> None:
        self.grounds = {name: ground(name, 128) for name in GROUNDS}
        self.sprites = {(name, 48): RED for name in DRAWINGS}

    def places(self, random_source: random.Random, count: int, grid: int = 16) -> list[tuple[int, int, int]]:
        return [(0, 0, 48), (64, 64, 48), (0, 64, 48), (64, 0, 48)][:count]


def states(layers: list[Layer]) -> torch.Tensor:
    """The states (24, 8, 8) of a scene of these layers."""
    return Teacher(Squares())._compose(layers, "blue").states


def square(name: str, top: int = 0, left: int = 0, **changes: bool) -> Layer:
    return Layer(name, RED, top, left, 48 * 48, **changes)


@pytest.mark.parametrize(
    ("prompt", "obeyed"),
    [
        ("frog on blue", True),
        ("frog and red apple on blue", True),
        ("two apples, zorble", True),  # any ground will do; a word without meaning changes nothing
        ("frog on blue or green", True),
        ("", True),
        ("frog on green", False),
        ("frog and cat on blue", False),
        ("cat", False),
        ("frog, frog, frog, frog, frog and a cat", False),  # the pair drops the sixth name; the prompt still asks
    ],
)
def test_a_prompt_is_obeyed_when_all_it_names_is_seen(prompt, obeyed):
    assert Seen(("frog", "red apple"), "blue").obeys(prompt) is obeyed


def test_logits_above_the_threshold_and_the_likeliest_ground_are_what_is_seen(monkeypatch):
    drawings = torch.full((2, len(DRAWINGS)), FOUND - 0.1)
    drawings[0, DRAWINGS.index("bee")] = drawings[1, DRAWINGS.index("pig")] = FOUND + 0.1
    drawings[1, DRAWINGS.index("owl")] = 3.0
    grounds = torch.eye(len(GROUNDS))[[GROUNDS.index("night"), GROUNDS.index("dots")]] - 5
    network = Judge()
    monkeypatch.setattr(network, "forward", lambda pictures: (drawings, grounds))
    assert network.found(torch.zeros(2, 3, 128, 128)) == [Seen(("bee",), "night"), Seen(("pig", "owl"), "dots")]
    obeyed = network.obeyed(torch.zeros(2, 3, 128, 128), ["bee on night", "bee on dots"])
    assert obeyed.dtype == torch.bool and obeyed.tolist() == [True, False]


def test_every_picture_needs_its_prompt():
    with pytest.raises(ValueError, match="2 pictures with 1 prompts"):
        Judge().obeyed(torch.zeros(2, 3, 128, 128), ["frog"])


def test_the_judge_is_small_to_store():
    assert (PAIR / "judge.safetensors").stat().st_size <= 1.2e6
    assert 200e3 < sum(parameter.numel() for parameter in judge().parameters()) < 600e3


def test_verdicts_are_each_pictures_own():
    pictures = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    together = judge()(pictures)
    for row in range(3):
        for all_rows, alone in zip(together, judge()(pictures[row : row + 1])):
            assert torch.allclose(all_rows[row], alone[0], atol=1e-4)


def test_empty_grounds_are_recognised_and_hold_no_drawing():
    pictures = torch.stack([ground(name, 128) for name in GROUNDS])
    assert judge().found(pictures) == [Seen((), name) for name in GROUNDS]


def test_the_pairs_pictures_obey_their_prompts_and_no_others():
    prompts = ("panda on white", "penguin on night", "frog on blue", "pumpkin and pig on pink")
    wrong = ("penguin on white", "penguin on grey", "turtle on blue", "pumpkin and heart on pink")
    pictures = generate(load_pair(), Request(prompts, (1, 2, 3, 4), steps=14)).pictures
    assert int(judge().obeyed(pictures, prompts).sum()) >= 3  # the pair is not without fault
    assert judge().obeyed(pictures, wrong).tolist() == [False] * 4
    assert judge().obeyed(torch.zeros_like(pictures), prompts).tolist() == [False] * 4
    upside_down = pictures.flip(2)
    assert int(judge().obeyed(upside_down, prompts).sum()) <= 1


def test_a_whole_drawing_is_present_at_its_middle_and_nowhere_else():
    marked = states([square("frog", 16, 32)])
    frog = marked[DRAWINGS.index("frog")]
    assert (frog == PRESENT).nonzero().tolist() == [[2, 3]]  # its middle, (40, 56), is the middle of that cell
    assert (frog == UNSURE).sum() == 8  # the cells around
    assert marked.sum() == frog.sum()


@pytest.mark.parametrize(("offset", "state"), [(4, PRESENT), (8, UNSURE), (14, ABSENT)])
def test_what_is_left_of_a_covered_drawing_decides(offset, state):
    # 44, 40 and 34 of its 48 columns are left
    marked = states([square("cat"), square("car", 0, 48 - offset)])
    assert marked[DRAWINGS.index("cat")].max() == state
    assert marked[DRAWINGS.index("car")].max() == PRESENT


def test_a_whole_copy_beside_a_broken_one_is_enough():
    marked = states([square("owl", 64, 64), square("owl", broken=True)])[DRAWINGS.index("owl")]
    assert marked.max() == PRESENT and marked[:3, :3].max() == ABSENT
    assert states([square("owl", broken=True)]).max() == ABSENT


@pytest.mark.parametrize("flaw", FLAWS)
def test_every_flaw_can_take_a_drawing_away(flaw, monkeypatch):
    monkeypatch.setattr(judge_scenes, "FLAWS", (flaw,))
    teacher = Teacher(Squares())
    found = set()
    for seed in range(60):
        lesson = teacher.lesson(random.Random(seed), ["bee", "pig"], "pink", [True, False])
        assert lesson.picture.shape == (3, 128, 128) and 0 <= lesson.picture.min() <= lesson.picture.max() <= 1
        assert lesson.states[DRAWINGS.index("pig"), 5, 5] == PRESENT and GROUNDS[lesson.ground] == "pink"
        found.add(int(lesson.states[DRAWINGS.index("bee")].max()))
    assert ABSENT in found


def test_unsure_cells_teach_nothing():
    marked = torch.zeros(1, len(DRAWINGS), 8, 8, dtype=torch.int8)
    marked[0, 0, 2, 2] = PRESENT
    marked[0, 1] = UNSURE
    logits = torch.zeros(1, len(DRAWINGS), 8, 8, requires_grad=True)
    judge_training._entropy(logits, marked, focus=2.0).sum().backward()
    assert logits.grad[0, 1].abs().max() == 0
    assert logits.grad[0, 0, 2, 2] < 0 < logits.grad[0, 0, 5, 5]


class Oracle(nn.Module):
    """Sees what it is told to."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def found(self, pictures: torch.Tensor) -> list[Seen]:
        return [self.seen] * len(pictures)


def test_the_examination_gives_marks(monkeypatch):
    everything = judge_training.examine(Oracle(Seen(DRAWINGS, "blue")), Autoencoder(), Squares(), count=40)
    assert everything["unseen_recall"] == everything["held_out_recall_worst"] == 1
    assert everything["unseen_false_positives"] == everything["held_out_false_positives"] == 1
    assert 0 < everything["held_out_ground"] == everything["held_out_obeyed"] < 0.5  # one ground of ten
    assert 0 < everything["accepted_torn"] == everything["accepted_other"] < 0.5
    nothing = judge_training.examine(Oracle(Seen((), "blue")), Autoencoder(), Squares(), count=10)
    assert nothing["unseen_recall"] == nothing["unseen_false_positives"] == nothing["accepted_torn"] == 0


def test_training_writes_a_judge_and_its_marks(tmp_path, monkeypatch):
    monkeypatch.setattr(judge_training, "SceneMaker", lambda *_, **__: Squares())
    monkeypatch.setattr(judge_training, "load_autoencoder", lambda _: Autoencoder())
    monkeypatch.setattr(judge_training, "EXAMINED", 10)
    judge_training.train_judge(0.001, tmp_path, tmp_path, tmp_path, pool=50)
    assert isinstance(load_judge(tmp_path), Judge)
    marks = json.loads((tmp_path / "judge.jsonl").read_text().splitlines()[-1])
    assert marks.keys() >= {"held_out_obeyed", "accepted_torn", "accepted_other", "unseen_recall_worst"}
