"""Hundreds of generations of all sorts, with faults among them and the extension's routes under fire meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from random import Random
from statistics import linear_regression, quantiles
from typing import Any

import httpx
import psutil
import uvicorn

from lib_hybridstitch.generation import summary
from tests.reliability import faults
from tests.reliability.bench import OURS, Bench, Outcome, same
from tests.reliability.faults import Place

CLIENTS = 16
PAUSE, SHORT_PAUSE = 0.25, 0.5
"""Seconds between two requests of one client, with --long and without; the generation must get its turn."""
SETTINGS: dict[str, tuple[Any, ...]] = {
    "preset": ("Paper", "Quality", "Balanced", "Fast"),
    "method": ("Auto", "HybridStitch", "Step cache", "T-Stitch", "SRDiffusion", "RAS"),
    "switch_step": (0, 1, 2, 0.3),
    "handoff_step": (0.5, 0.8, 0, 3),
    "mask_ratio": (0.0, 0.2, 0.5, 1.0),
    "score": ("disagreement", "change"),
    "computed_share": (0.4, 0.6, 1.0),
    "cfg_cache_from": (0.0, 0.3, 0.5),
    "kv_cache": ("full", "fp8", "off"),
    "target_speedup": (0.0, 0.0, 1.5, 3.0),
    "plan": ("", "", "3L M30 X M30x S X s C", "2L 2S 2X L / hires 1L", "1S"),
    "hires": ("both", "first", "second"),
}
"""All but `small_device`: a change of it loads the small model again, in a generation and not in its repeat."""
REQUESTS: dict[str, tuple[Any, ...]] = {
    "steps": (4, 6, 8, 13),
    "width": (64, 96, 128),
    "height": (64, 96, 160),
    "batch_size": (1, 1, 2),
    "n_iter": (1, 1, 2),
    "cfg_scale": (1.0, 3.0),
    "sampler_name": ("Euler", "Heun", "DPM++ 2M"),
    "enable_hr": (False, False, True),
}


@dataclass
class Fire:
    """What clients got.

    Args:
        port: of the server.
        pause: seconds between two requests of one client.
        status: answers by route and status.
        seconds: how long each took.
        broken: requests that got no answer.
    """

    port: int
    pause: float
    status: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


@contextmanager
def served(app: Any) -> Iterator[int]:
    """Serve an application on the loopback device; gives the port."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def under_fire(app: Any, pause: float) -> Iterator[Fire]:
    """Sixteen clients asking for plans, the schema and the last run, one request after the other."""
    stop = threading.Event()
    with served(app) as port:
        fire = Fire(port, pause)
        clients = [threading.Thread(target=_ask, args=(fire, stop, number)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            yield fire
        finally:
            stop.set()
            for client in clients:
                client.join()


def _ask(fire: Fire, stop: threading.Event, number: int) -> None:
    chance = Random(number)
    with httpx.Client(base_url=f"http://127.0.0.1:{fire.port}/hybridstitch/v1", timeout=60) as client:
        while not stop.is_set():
            route = chance.choice(("plan", "plan", "schema", "last-run"))
            began = time.perf_counter()
            try:
                if route == "plan":
                    body = {
                        "steps": chance.randint(1, 40),
                        "width": 64 * chance.randint(1, 16),
                        "settings": _some(chance),
                    }
                    answer = client.post("/plan", json=body)
                else:
                    answer = client.get(f"/{route}")
                fire.status[f"{route} {answer.status_code}"] += 1
            except httpx.HTTPError as error:
                fire.broken.append(repr(error))
            fire.seconds.append(time.perf_counter() - began)
            stop.wait(fire.pause)


def _some(chance: Random) -> dict[str, Any]:
    settings = {name: chance.choice(values) for name, values in SETTINGS.items() if chance.random() < 0.4}
    return {**settings, "enabled": True}


@dataclass(frozen=True)
class Sort:
    """A generation that can be repeated.

    Args:
        kind: of disturbance.
        what: the request, the settings and the disturbance, to find it again.
        run: generates; gives the outcome, and the evaluation that an error struck in, or -1.
    """

    kind: str
    what: dict[str, Any]
    run: Callable[[], tuple[Outcome, int]]


class Sorts:
    """Generations of all sorts, the same ones for the same seed."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench, self.chance = bench, Random(seed)
        sources: list[faults.Source] = [faults.Torch(), faults.Networks(bench), faults.api(bench)]
        found = [(source, place) for source in sources for place in faults.places(bench, source)]
        self.places = [one for one in found if one[1] != Place("State.__setattr__", 2)]  # it puts the host's words back
        self.parts = list(faults.Networks(bench).parts)

    def next(self) -> Sort:
        """Another one."""
        chance = self.chance
        request = {name: chance.choice(values) for name, values in REQUESTS.items()}
        settings = _some(chance)
        request |= {"seed": chance.randrange(1000), "hr_scale": 1.5, "denoising_strength": 0.6}
        kind = chance.choices(("nothing", "error", "nan", "interrupt"), (6, 3, 1, 1))[0]
        (source, place), part, call = chance.choice(self.places), chance.choice(self.parts), chance.randint(1, 4)

        def disturbed(p: Any, fault: faults.Fault) -> AbstractContextManager[Any]:
            if kind == "error":
                return faults.failing(source, place, fault)(p)
            if kind == "nan":
                parts = faults.Networks(self.bench).parts
                return faults.answering(parts[part], call, float("nan"), lambda _frames: None)
            return self.interrupted(call) if kind == "interrupt" else nullcontext()

        def run() -> tuple[Outcome, int]:
            self.bench.load()
            struck = [-1]
            error = faults.KINDS["exception"]()
            fault = faults.Fault(error, noted=lambda _frames: struck.append(self.bench.done))
            with self.bench.under(settings):
                outcome = self.bench.run(True, lambda p: disturbed(p, fault), **request)
            error.__traceback__ = error.__context__ = None
            return outcome, struck[-1]

        where = {"error": str(place), "nan": part}.get(kind, "")
        return Sort(kind, {**request, **settings, kind: where, "call": call}, run)

    @contextmanager
    def interrupted(self, after: int) -> Iterator[None]:
        """The user interrupts after so many evaluations."""
        bench = self.bench

        def stop(_params: Any) -> None:
            if bench.done == after:
                bench.host.state.interrupt()

        bench.host.callbacks.on_cfg_after_cfg(stop)
        try:
            yield
        finally:
            bench.host.callbacks.remove_callbacks_for_function(stop)


def difference(one: Outcome, other: Outcome) -> str:
    """How a generation and its repeat ended differently; "" where they are alike to the last bit of the picture."""
    if one.latents is None or other.latents is None:
        alike = type(one.raised) is type(other.raised) and one.latents is other.latents
        return "" if alike else f"{one.raised!r} and {other.raised!r}"
    if same(one.latents, other.latents):
        return ""
    if one.latents.shape != other.latents.shape:
        return f"shapes {list(one.latents.shape)} and {list(other.latents.shape)}"
    return f"values, by {float((one.latents - other.latents).abs().max()):.3g}"


def test_hundreds_of_generations_leave_nothing_behind(bench: Bench, long_run: bool) -> None:
    """Each is made twice and both are alike; memory stays flat; every request is answered, and none with a 5xx."""
    pairs = 250 if long_run else 2
    process = psutil.Process()
    sorts, kinds, resident = Sorts(bench, 17), Counter[str](), []
    differing: list[str] = []
    stitched = 0
    began = time.perf_counter()
    with under_fire(bench.host.app, PAUSE if long_run else SHORT_PAUSE) as fire:
        for number in range(pairs):
            sort = sorts.next()
            kinds[sort.kind] += 2
            (one, struck), (other, again) = sort.run(), sort.run()
            stitched += 2 * (summary.HAPPENED in one.infotext)
            if found := f"struck in {struck}, then {again}" if struck != again else difference(one, other):
                differing.append(f"{number}: {found}; {sort.what}")
            if not (bench.host.name == "ersatz" and sort.kind == "interrupt"):  # it unloads its models then
                assert bench.trace() == bench.clean, f"generation {number} left a trace; {sort.what}"
            del one, other
            resident.append(process.memory_info().rss / 2**20)
    seconds = time.perf_counter() - began
    later = resident[len(resident) // 5 :]
    slope = linear_regression(range(len(later)), later).slope / 2
    bench.run(True)
    alive = bench.count()
    figures = {
        "host": bench.host.name,
        "generations": 2 * pairs,
        "kinds": dict(kinds),
        "of them stitched, at least in part": stitched,
        "seconds": round(seconds),
        "differing from their repeat": len(differing),
        "resident MB, first and last": [round(later[0]), round(later[-1])],
        "resident MB per generation": round(slope, 3),
        "tensors, before and after": [bench.baseline["tensors"], alive["tensors"]],
        "requests": len(fire.seconds),
        "answers": dict(sorted(fire.status.items())),
        "p99 ms": round(1000 * quantiles(fire.seconds, n=100)[-1]),
    }
    print(json.dumps(figures))
    assert not differing
    assert stitched > pairs, "most settings are accepted"
    assert not fire.broken
    assert not [answer for answer in fire.status if answer.split()[1].startswith("5")]
    assert sum(alive[kind.__name__] for kind in OURS) == 0
    assert alive["tensors"] <= bench.baseline["tensors"] + 1
    if long_run:
        assert slope < 0.2, "memory grows"
