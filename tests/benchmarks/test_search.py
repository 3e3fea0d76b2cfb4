"""Trials share what plans begin with and draw what a run draws; the search keeps to its rules and goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import search, staleness
from benchmarks.search import FEWER_STEPS, Rules, Search
from benchmarks.trials import CFG, Trials, cost, scenes, written
from hybridstitch_demo.generate import Pair, Request, generate, load_pair
from lib_hybridstitch.plans.hybridstitch import HybridStitch
from lib_hybridstitch.plans.plan import Kind, Plan
from lib_hybridstitch.plans.step_cache import StepCache

STEPS = 8


@pytest.fixture(scope="module")
def pair() -> Pair:
    return load_pair()


@pytest.fixture(scope="module")
def trials(pair: Pair) -> Trials:
    prompts, seeds = scenes(2)
    return Trials(pair, prompts, seeds, STEPS)


def planned(trials: Trials, text: str) -> Plan:
    found = written(text)
    return trials.plan(found.steps, found.score, found.hold)


@pytest.mark.parametrize("text", ["3L M30 X M50 S L", "4L X C X L", "3L X L X L X hold"])
def test_a_plan_that_begins_like_another_is_drawn_as_if_it_were_alone(pair: Pair, trials: Trials, text: str) -> None:
    plan = planned(trials, text)
    prompts, seeds = scenes(2)
    alone = generate(pair, Request(tuple(prompts), tuple(seeds), STEPS, CFG), plan).latents
    for other in ("3L M30 X M50 S S", "4L X C X S", "3L X L X L L hold", text):
        trials.distance(planned(trials, other))
    shared = trials.batches[0].draw(plan)
    assert float((shared - alone).abs().max()) < 1e-3 < float((alone - trials.reference[0]).abs().max())
    assert float(trials.distance(plan).rms.max()) > 0


def test_the_large_models_own_plan_is_no_distance_away(trials: Trials) -> None:
    found = trials.distance(planned(trials, "8L"))
    assert float(found.rms.max()) == float(found.lpips.max()) == found.tipped == 0


def test_a_bound_ends_a_trial_early(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.trials.BATCH", 1)
    small = Trials(pair, *scenes(2), STEPS)
    plan = planned(small, "8S")
    assert len(small.distance(plan).lpips) == 2
    assert len(small.distance(plan, bound=1e-6).lpips) == 1


def test_what_a_plan_costs_is_counted_in_large_steps(trials: Trials) -> None:
    assert cost(planned(trials, "8L")) == 8
    assert cost(planned(trials, "3L C 4X")) == pytest.approx(3.5)
    assert 3.3 < cost(planned(trials, "3L S 4X")) < 3.4


@pytest.mark.parametrize("method", [HybridStitch.name, StepCache.name, FEWER_STEPS])
def test_every_change_is_of_the_methods_alphabet_and_rules_are_kept(method: str, pair: Pair) -> None:
    found = Trials(pair, *scenes(1))
    rules = Rules(method, 14.0, 13.0)
    lookup = Search(rules, found, Path("nowhere.jsonl"), 3, "")
    steps = lookup._start()
    for _ in range(20):
        steps = lookup._neighbour(steps)
        plan = lookup._plan(steps)
        assert 13 <= cost(plan) <= 14 and set(steps) <= {*rules.kinds}
        if method == HybridStitch.name:
            assert sum(step.kind is Kind.MASKED for step in steps) >= search.LEAST_MASKED
            assert sum(plan.calls_small(index) for index in range(len(steps))) >= search.LEAST_SMALL
    assert plan.hold == (method == FEWER_STEPS)


def test_a_search_writes_down_what_it_tries_and_goes_on_from_there(
    trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "STEPS", STEPS)
    log, rules = tmp_path / "log.jsonl", Rules(StepCache.name, 6.0, 4.0)
    start = "4L X L X L"
    found = list(Search(rules, trials, log, 0, start).go(minutes=0.01))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert found[0][0] == lines[0]["plan"] == start and len(lines) > 1
    assert [distance for _, distance in found] == sorted((distance for _, distance in found), reverse=True)
    again = Search(rules, trials, log, 0, start)
    assert again.tried == {line["plan"]: line["distance"] for line in lines}


def test_exact_masks_undo_more_than_no_keys(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one scene: that the trial tells good from bad, not by how much."""
    monkeypatch.setattr(staleness, "FIRST", 4)
    bench = staleness.Bench(pair, 1, 1)
    exact, none = (
        bench.shares(staleness.Variant("", ratio=0.5, score="exact", keys=keys)) for keys in ("exact", "none")
    )
    assert exact.undone > none.undone and exact.computed == none.computed == 0.5
