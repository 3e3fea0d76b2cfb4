"""SD3.5's true sizes: the counts are PyTorch's, the bytes are the caches' own, and the timing runs without a GPU."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import __main__ as entry
from benchmarks import counted, overhead, timed, truesize
from benchmarks.alive import Alive
from benchmarks.sd35 import SD3_MEDIUM, SMALL_MODELS, TOY, TRUE
from benchmarks.stopwatch import Stopwatch, over, spread
from lib_hybridstitch.engine.evaluation import Model
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.plans.plan import Kind, parse
from lib_hybridstitch.prediction.memory import activation_bytes, cache_bytes
from lib_hybridstitch.prediction.operations import pass_flops
from lib_hybridstitch.prediction.resolver import resolve

CPU = torch.device("cpu")
PRESETS = [*(f"HybridStitch {name}" for name in ("Quality", "Balanced", "Fast", "Paper"))]
PRESETS += [f"Step cache {name}" for name in ("Quality", "Balanced", "Fast")]


@pytest.mark.parametrize("config", [TRUE.large, TRUE.small, SD3_MEDIUM], ids=["large", "medium", "SD3-medium"])
def test_counts_at_true_size_are_pytorchs(config):
    """A full pass and one over 10 % of the tokens of 1024², on the meta device."""
    tokens = TRUE.tokens(1024)
    for kept, seen in zip((tokens, 410), counted.counted_by_torch(TRUE, config, 1024, [410])):
        assert pass_flops(config, kept, tokens, TRUE.context, rows=2) == pytest.approx(seen, rel=0.02)


@pytest.mark.parametrize("config", [TRUE.large, TRUE.small, SD3_MEDIUM], ids=["large", "medium", "SD3-medium"])
@pytest.mark.parametrize("size", [512, 1536])
def test_activations_at_true_size_are_what_is_alive(config, size, monkeypatch):
    """Three blocks are as wide as all of them, since nothing of a block outlives it but its tokens."""
    whole = counted.meta_network

    def shallow(of):
        network = whole(of)
        del network.joint_blocks[2:-1]
        return network

    monkeypatch.setattr(counted, "meta_network", shallow)
    alive = counted.activations_alive(TRUE, config, size)
    assert activation_bytes(config, TRUE.setup(size), 2) == pytest.approx(alive, rel=0.01)


def test_alive_counts_what_is_held_and_not_what_is_gone():
    weight = torch.zeros(10)
    with Alive([weight]) as alive:
        first = torch.ones(100)  # 400 bytes
        view = first[10:]
        second = view + 1  # 360 bytes more
        del first, second
        assert alive.now == 400, "the view keeps all of it"
        torch.zeros(20)
        weight.view(2, 5)
    assert alive.peak == 760
    del view
    assert alive.now == 0


def test_meta_network_has_no_memory():
    assert all(tensor.is_meta for tensor in counted.meta_network(TOY.large).state_dict().values())


def test_operations_of_1024_are_what_is_known_of_them():
    found = counted.operations_of(TRUE, 1024)
    assert found["tokens"] == 4096
    # Linear layers: 2 · 2 rows · 4429 tokens · 38 blocks · 12 · 2432² are 48e12 at the most; attention's 18e12 on top.
    assert 60e12 < found["large"] < 66e12
    assert list(found["partial_of_large"]) == ["0.1", "0.2", "0.3", "0.5"]
    assert all(float(ratio) < share < float(ratio) + 0.10 for ratio, share in found["partial_of_large"].items())
    for name, plan in found["plan"].items():
        assert len(parse(plan)[0].steps) == 28, name
    by_hand = 28 / (14 + 14 * found["small_of_large"])
    assert found["speedup"]["T-Stitch, 50% small"] == pytest.approx(by_hand, abs=1e-3)


def test_the_caches_formula_is_what_a_masked_run_holds():
    setup, plan = TOY.setup(128), counted.plans(TOY, 128)["HybridStitch Paper"].plan
    large, small = (Model(timed.random_network(config, torch.float32, CPU)) for config in (TOY.large, TOY.small))
    call = TOY.inputs(128, CPU, large.full_pass)
    engine = Stitcher(large, small, plan)
    for sigma in plan.sigmas:
        engine.velocity(replace(call, sigma=torch.full((2,), sigma)))
    assert not engine.report.failure
    assert engine.report.cache_bytes == pytest.approx(cache_bytes(plan, setup, 4), rel=0.05)


@pytest.mark.parametrize("preset", ["Quality", "Balanced", "Fast", "Paper"])
def test_sd3_medium_is_a_small_model_for_the_engine(preset):
    """No norms of queries and keys and no second attention, beside a large model that has the norms."""
    older = replace(TOY.large, depth=2, qk_norm=False)
    TOY.large.check_pair(older)
    large, small = (Model(timed.random_network(config, torch.float32, CPU)) for config in (TOY.large, older))
    run = replace(TOY, steps=16).run
    settings = counted.settings_of({"method": "HybridStitch", "preset": preset})
    plan = resolve(settings, run, replace(TOY.setup(64), small=older)).plan
    engine, call = Stitcher(large, small, plan), TOY.inputs(64, CPU, large.full_pass)
    for sigma, step in zip(plan.sigmas, plan.steps):
        evaluation = replace(call, sigma=torch.full((2,), sigma))
        found, own = engine.velocity(evaluation).velocity, small.full_pass(evaluation).velocity
        if step.kind is Kind.SMALL:
            assert torch.equal(found, own)
        elif step.kind is Kind.MASKED:
            same = (found == own).all(1).float().mean()
            assert 0.5 < float(same) < 0.9, "the background is the small model's"
    assert not engine.report.failure
    assert {Kind.SMALL, Kind.MASKED} <= {record.kind for record in engine.report.evaluations()}


def test_sd3_medium_is_recognised_by_its_tensors_and_pairs_with_large():
    assert MMDiTConfig.from_tensors(SD3_MEDIUM.expected_shapes()) == SD3_MEDIUM
    assert SD3_MEDIUM.family == "SD3-like" and not SD3_MEDIUM.dual_attention
    TRUE.large.check_pair(SD3_MEDIUM)
    assert TRUE.tokens(1536) <= SD3_MEDIUM.pos_embed_size**2


def test_a_plans_need_is_the_sum_of_its_parts():
    need = counted.memory_of(TRUE, 1024)
    stitched = need["large_bf16"] + need["small_bf16"] + need["cache_bf16"] + need["activations"]
    assert {need["plans"][name]["bf16"] for name in PRESETS[:4]} == {stitched}
    assert {need["plans"][name]["fp8"] for name in PRESETS[4:]} == {need["large_fp8"] + need["activations"]}


def test_the_results_that_lie_here_are_of_the_plans_that_there_are():
    stored = json.loads((truesize.RESULTS / "truesize.json").read_text())
    for part, scale in zip(("counted", "other_small"), SMALL_MODELS.values()):
        now = json.loads(json.dumps(counted.operations_of(scale, 1024)))
        assert stored[part]["operations"]["1024"] == now, "run `python3 run.py bench truesize` again"


def test_without_a_gpu_it_counts_and_says_that_nothing_was_timed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(truesize, "verification", lambda scale, size: {})
    monkeypatch.setattr(truesize, "verified_activations", lambda scale, size: {})
    assert entry.main(["truesize", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "truesize.md").read_text()
    assert text in capsys.readouterr().out
    assert "Nothing was timed" in text and "## Timed" not in text and "## Which small model" in text
    found = json.loads((tmp_path / "truesize.json").read_text())
    assert found["timed"] is None and found["machine"]["processor"]
    assert list(found["counted"]["operations"]) == ["512", "768", "1024", "1280", "1536"]


def test_dry_run_on_the_cpu_goes_through_everything_but_the_gpu(tmp_path, capsys):
    options = ["truesize", "--device", "cpu", "--toy", "--sizes", "64", "--rounds", "2", "--out", str(tmp_path)]
    assert entry.main(options) == 0
    found = json.loads((tmp_path / "truesize.json").read_text())
    assert "no figure here says anything about SD3.5" in capsys.readouterr().out
    assert found["timed"]["left_out"] == {} and list(found["timed"]["sizes"]) == ["64"]
    verified = found["counted"]["formula_over_pytorch"]
    assert verified["size"] == 64 and set(verified["passes"].values()) == {1}
    for size in found["timed"]["sizes"].values():
        assert size["passes"]["rows"]["large"]["ratio"] == 1
        assert {"large, 10%", "large, 50%", "small"} < size["passes"]["rows"].keys()
        assert size["passes"]["cache"]["bytes"] == size["passes"]["cache"]["formula"]
        assert list(size["runs"]) == ["large alone", *PRESETS]
        assert all(run["ms"] > 0 and run["peak"]["ratio"] is None for run in size["runs"].values())
        assert [row["step"] for row in size["bookkeeping"]] == list(overhead.STEPS)


def test_the_compiled_pass_is_timed_where_asked_for(monkeypatch):
    backends = []
    monkeypatch.setattr(torch, "compile", lambda network, backend: backends.append(backend) or network)
    bench = timed.Bench.of(TOY, CPU, rounds=1, compiler="chosen")
    row = bench.passes(64, until=0)["passes"]["rows"]["large, compiled"]
    assert backends == ["chosen"] and row["ms"] > 0 and row["rounds"] == 1


def test_graphs_and_streams_are_told_beside_the_plain_passes():
    cells = {"ms": 2.0, "ratio": 0.5, "ratio_quartiles": [0.4, 0.6], "rounds": 3}
    names = ("large", "partial", "large, from a CUDA graph", "partial beside small, on two streams")
    row = {
        "passes": {"rows": {"large": cells}},
        "at_once": {"ratio": 0.3, "rows": dict.fromkeys(names, cells)},
        "bookkeeping": [],
    }
    text = truesize.timed_tables({"sizes": {"512": row}, "left_out": {"runs of 512²": "no time"}})
    told = [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| 512²")]
    assert told == ["large", "large, from a CUDA graph", "large, 30% beside small, on two streams"]
    assert text.endswith("Left out: runs of 512²: no time.")


def test_sizes_beyond_the_time_are_left_out_and_named():
    bench = timed.Bench.of(TOY, CPU, rounds=1)
    found, left_out = timed.sizes_in_time(bench, (64, 128), minutes=0)
    assert list(found) == ["64"] and found["64"]["passes"] and found["64"]["runs"]
    assert "no time left" in left_out["passes of 128²"] and "no time left" in left_out["runs of 128²"]


def test_a_run_whose_engine_gave_up_is_no_figure():
    bench = timed.Bench.of(TOY, CPU, rounds=1)
    bench.small.pos_embed.fill_(float("nan"))
    with pytest.raises(RuntimeError, match=r"HybridStitch: the small model's velocity at sigma .* is not finite"):
        bench.whole_run(counted.plans(TOY, 64)["HybridStitch Paper"].plan, TOY.inputs(64, CPU))
    found, left_out = timed.sizes_in_time(bench, (64,), minutes=1)
    assert "runs" not in found["64"] and "not finite" in left_out["runs of 64²"]


@pytest.mark.parametrize(
    "options", [["--device", "cpu"], ["--sizes", "1000"], ["--sizes", "4096"], ["--toy", "--sizes", "512"]]
)
def test_what_cannot_be_timed_is_refused(options, capsys):
    with pytest.raises(SystemExit):
        entry.main(["truesize", *options])
    assert "usage" in capsys.readouterr().err


def test_rounds_end_with_the_time_but_one_is_certain():
    calls: list[str] = []
    works = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    times = Stopwatch(until=0).clock(works, rounds=9)
    assert "".join(calls) == "abab"
    assert {name: len(spent) for name, spent in times.items()} == {"a": 1, "b": 1}


def test_ratios_are_of_the_same_round():
    found = over({"whole": [10.0, 20.0, 30.0], "half": [5.0, 10.0, 15.0]}, "whole")
    assert found["half"] == {"ms": 10.0, "ratio": 0.5, "ratio_quartiles": [0.5, 0.5], "rounds": 3}
    assert spread([3.0]) == (3.0, [3.0, 3.0])
    assert spread([1.0, 2.0]) == (1.5, [1.25, 1.75])
