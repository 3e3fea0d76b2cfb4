"""How long a training goes on: by the minutes it used, with learning rate, log and checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn


class Clock:
    """Steps until the time is used up: warm-up, constant rate, linear decay over the last 40 %; log and checkpoints."""

    def __init__(
        self,
        path: Path,
        minutes: float,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        averaged: dict[str, Tensor] | None = None,
    ) -> None:
        self.path, self.budget, self.model, self.optimiser = path, 60 * minutes, model, optimiser
        self.averaged = averaged if averaged is not None else {}
        self.step, self.used, self.losses = 0, 0.0, list[float]()
        self.peak = optimiser.param_groups[0]["lr"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            saved = torch.load(path, map_location="cpu", weights_only=True)
            model.load_state_dict(saved["model"])
            optimiser.load_state_dict(saved["optimiser"])
            for key, value in saved["averaged"].items():
                self.averaged[key].copy_(value)
            self.step, self.used = saved["step"], saved["used"]

    def steps(self) -> Iterator[int]:
        """Yield step numbers, setting the learning rate before each."""
        last_save = time.monotonic()
        while self.used < self.budget:
            started = time.monotonic()
            rate = min(1.0, (self.step + 1) / 100, (1 - self.used / self.budget) / 0.4)
            for group in self.optimiser.param_groups:
                group["lr"] = self.peak * rate
            yield self.step
            self.step += 1
            self.used += time.monotonic() - started
            if self.step % 50 == 0:
                self._log()
            if time.monotonic() - last_save > 240:
                self.save()
                last_save = time.monotonic()
        self.save()

    def update(self, loss: Tensor) -> None:
        """Take one optimiser step down the gradient of `loss`."""
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RuntimeError(
                f"the loss became {value} at step {self.step}; resume from {self.path} with a lower rate"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.losses.append(value)

    def _log(self) -> None:
        entry = {
            "step": self.step,
            "minutes": round(self.used / 60, 2),
            "loss": round(sum(self.losses) / len(self.losses), 4),
        }
        self.losses.clear()
        line = json.dumps(entry)
        print(line, flush=True)
        with (self.path.with_suffix(".jsonl")).open("a") as log:
            log.write(line + "\n")

    def save(self) -> None:
        """Write a checkpoint; an interrupted write leaves the previous one."""
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "averaged": self.averaged,
            "step": self.step,
            "used": self.used,
        }
        fresh = self.path.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self.path)
