"""Scenes, and training that goes on where it stopped; on drawings that are plain squares."""

from __future__ import annotations

import contextlib
import io
import json
import random
import tarfile
import types
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from hybridstitch_demo import clock as clocks
from hybridstitch_demo import training
from hybridstitch_demo.autoencoder import Autoencoder
from hybridstitch_demo.generate import load_pair
from hybridstitch_demo.scenes import GRADIENTS, ICONS, PLAIN, SceneMaker, ground
from hybridstitch_demo.words import DRAWINGS, GROUNDS, read


@pytest.fixture
def cache(tmp_path):
    """A package of drawings as npm delivers it: every drawing is a full black square."""
    names = [ICONS.get(name, name.replace(" ", "-")) for name in DRAWINGS]
    body = '<rect width="32" height="32" fill="#000"/>'
    data = json.dumps({"width": 32, "icons": {name: {"body": body} for name in names}}).encode()
    with tarfile.open(tmp_path / "drawings.tgz", "w:gz") as tar:
        entry = tarfile.TarInfo("package/icons.json")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return tmp_path


def test_a_scene_shows_what_its_caption_says_at_places_the_seed_decides(cache):
    maker = SceneMaker(cache)
    seen = set()
    for seed in range(30):
        picture, caption = maker.make(random.Random(seed))
        *drawings, ground_name = read(caption).names
        assert ground_name in GROUNDS and all(name in DRAWINGS for name in drawings)
        assert picture.shape == (3, 128, 128) and float(picture.min()) >= 0 and float(picture.max()) <= 1
        black = picture.sum(0) == 0
        assert int(black.sum()) == len(drawings) * 48 * 48, "drawings overlap or miss"
        assert torch.equal(picture[:, ~black], ground(ground_name, 128)[:, ~black])
        seen.add(tuple(black[8::16, 8::16].flatten().tolist()))
    assert len(seen) > 20
    again = maker.make(random.Random(3))
    assert torch.equal(again[0], maker.make(random.Random(3))[0])


def test_grounds_are_what_they_are_called():
    assert ground("blue", 4)[:, 0, 0].mul(255).round().tolist() == list(PLAIN["blue"])
    top, bottom = GRADIENTS["night"]
    night = ground("night", 8)
    assert night[:, 0, 5].mul(255).round().tolist() == list(top)
    assert night[:, 7, 2].mul(255).round().tolist() == list(bottom)
    assert len({tuple(pixel) for pixel in ground("checks", 64).flatten(1).T.tolist()}) == 2


def test_autoencoder_makes_latents_of_an_eighth_and_pictures_of_their_size():
    model = Autoencoder(width=16)
    latents = model.encode(torch.rand(2, 3, 32, 48))
    assert latents.shape == (2, 16, 4, 6)
    assert model.decode(latents).shape == (2, 3, 32, 48)
    model.mean.fill_(3.0)
    model.deviation.fill_(2.0)
    assert torch.allclose(
        model.encode(torch.zeros(1, 3, 8, 8)) * 2 + 3, model.encoder(-torch.ones(1, 3, 8, 8)), atol=1e-5
    )


def steps_of(path, model, budget_steps, monkeypatch):
    """Train `model` until a clock of one minute per step has run `budget_steps` minutes."""
    now = [0.0]
    monkeypatch.setattr(clocks.time, "monotonic", lambda: now[0])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    clock = clocks.Clock(path, budget_steps, model, optimiser, {"weight": torch.zeros(1, 1)})
    done = []
    for step in clock.steps():
        clock.note(clocks.descend((model.weight - 1).pow(2).sum(), optimiser))
        done.append((step, optimiser.param_groups[0]["lr"]))
        now[0] += 60
    return clock, done


def test_training_resumes_where_it_stopped(tmp_path, monkeypatch):
    first = torch.nn.Linear(1, 1, bias=False)
    _, done = steps_of(tmp_path / "x.pt", first, 3, monkeypatch)
    assert [step for step, _ in done] == [0, 1, 2]
    second = torch.nn.Linear(1, 1, bias=False)
    clock, more = steps_of(tmp_path / "x.pt", second, 5, monkeypatch)
    assert [step for step, _ in more] == [3, 4]
    assert clock.used == 5 * 60
    assert not torch.equal(first.weight, second.weight)
    third = torch.nn.Linear(1, 1, bias=False)
    assert steps_of(tmp_path / "x.pt", third, 5, monkeypatch)[1] == []
    assert torch.equal(third.weight, second.weight)


def test_rates_warm_up_and_fade(tmp_path, monkeypatch):
    _, done = steps_of(tmp_path / "x.pt", torch.nn.Linear(1, 1, bias=False), 500, monkeypatch)
    rates = [rate for _, rate in done]
    assert rates[0] == pytest.approx(0.001) and rates[99] == pytest.approx(0.1) and rates[299] == pytest.approx(0.1)
    assert rates[400] == pytest.approx(0.1 * (1 - 400 / 500) / 0.4) and rates[-1] < 0.001


def test_a_loss_that_is_not_a_number_stops_training(tmp_path):
    model = torch.nn.Linear(1, 1)
    clock = clocks.Clock(tmp_path / "x.pt", 1, model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(RuntimeError, match=r"nan.*x\.pt"):
        for _ in clock.steps():
            clock.note(model.weight.sum() * float("nan"))
    assert not (tmp_path / "x.pt").exists()


def test_a_pair_is_trained_exported_and_loaded(cache, tmp_path, monkeypatch):
    tiny = replace(training.LARGE, depth=2, pos_embed_size=8)
    recipes = {
        "large": training.Recipe(tiny, batch=2),
        "small": training.Recipe(replace(tiny, depth=1, dual_attention=()), batch=2),
    }
    monkeypatch.setattr(training, "RECIPES", recipes)
    monkeypatch.setattr(training.LatentPool.__init__, "__defaults__", (0, 8))
    work = tmp_path / "work"
    work.mkdir()
    save_file(Autoencoder().state_dict(), work / "autoencoder.safetensors")
    for name, recipe in recipes.items():
        training.train_network(name, recipe, 0.02, work, cache, fuse=False)
    training.export(work, tmp_path / "pair")
    pair = load_pair(tmp_path / "pair")
    trained = torch.load(work / "large.pt", weights_only=True)["averaged"]
    for name, tensor in pair.large.state_dict().items():
        assert torch.allclose(tensor, trained[name], atol=0.07 * float(trained[name].abs().max()) + 1e-6), name
    assert sum(file.stat().st_size for file in (tmp_path / "pair").iterdir()) < 5_000_000


def test_every_worker_draws_other_scenes_and_the_same_again(cache):
    def first(workers):
        pool = training.LatentPool(SceneMaker(cache), Autoencoder(), 5, workers, size=32)
        return pool.kept.pooled

    alone, together, again = first(0), first(2), first(2)
    assert torch.equal(together, again)
    assert len({tuple(row.tolist()) for row in together}) > 24, "workers draw the same scenes"
    assert not torch.equal(alone, together)


def test_scenes_have_as_many_drawings_as_asked(cache):
    maker, source = SceneMaker(cache, counts=(3, 4)), random.Random(2)
    found = {len(read(maker.make(source)[1]).names) - 1 for _ in range(20)}
    assert found == {3, 4}


class Graph:
    """A CUDA graph on the CPU: a replay computes on the tensors that were there at its capture."""

    def __init__(self) -> None:
        self.replay = None


def test_a_gpu_replays_the_step_of_every_shape_on_the_scenes_it_is_given(monkeypatch):
    said, capturing = [], []

    @contextlib.contextmanager
    def capture(graph, capture_error_mode):
        capturing.append(graph)
        yield
        capturing.pop()

    def learn(lesson):
        loss = torch.zeros(())

        def compute():
            loss.copy_(lesson.latents.sum() + lesson.context.sum() + lesson.pooled.sum())

        if capturing:
            capturing[-1].replay = lambda: (said.append("replayed"), compute())
        else:
            said.append("computed")
            compute()
        return loss

    stream = types.SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda chosen: contextlib.nullcontext(),
        "CUDAGraph": Graph,
        "graph": capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    take = training.Replayed(learn)
    losses = []
    for number in range(1, 7):
        for rows in (1, 2):
            losses.append(take(training.Lesson(*(torch.full((rows, 1), float(number)) for _ in range(3)))))
    assert [float(loss) for loss in losses] == [3.0 * number * rows for number in range(1, 7) for rows in (1, 2)]
    assert said == ["computed"] * 6 + ["replayed"] * 6


def test_scenes_of_several_sizes_take_turns_with_as_many_tokens(cache, tmp_path, monkeypatch):
    shapes = []
    flow_loss = training._flow_loss
    monkeypatch.setattr(
        training, "_flow_loss", lambda *given: shapes.append(tuple(given[1].latents.shape)) or flow_loss(*given)
    )
    monkeypatch.setattr(training.LatentPool.__init__, "__defaults__", (0, 8))
    save_file(Autoencoder().state_dict(), tmp_path / "autoencoder.safetensors")
    tiny = replace(training.LARGE, depth=1, pos_embed_size=16)
    training.train_network("x", training.Recipe(tiny, batch=4, sizes=(128, 256)), 0.05, tmp_path, cache, fuse=False)
    assert shapes[:2] == [(4, 16, 16, 16), (1, 16, 32, 32)]


def test_a_larger_scene_is_the_same_scene_drawn_as_sharp(cache):
    small, large = (SceneMaker(cache, size) for size in (128, 256))
    assert large.edges == (96,) and large.grounds["checks"].shape == (3, 256, 256)
    for name in GROUNDS:
        halved = torch.nn.functional.avg_pool2d(large.grounds[name], 2)
        assert float((halved - small.grounds[name]).abs().max()) < (0.2 if name == "dots" else 0.01), name
