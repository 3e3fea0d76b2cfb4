"""How long a training goes on: by the minutes it used, with learning rate, log and checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

LOGGED = 50
"""Steps between two lines of the log."""


def descend(loss: Tensor, optimiser: torch.optim.Optimizer) -> Tensor:
    """Take one optimiser step down the gradient of `loss`, its norm at most 1; returns the loss, detached."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([weight for group in optimiser.param_groups for weight in group["params"]], 1.0)
    optimiser.step()
    return loss.detach()


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
        self.step, self.used, self.losses = 0, 0.0, list[Tensor]()
        self.peak = float(optimiser.param_groups[0]["lr"])
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            saved = torch.load(path, map_location="cpu", weights_only=True)
            model.load_state_dict(saved["model"])
            for group, mine in zip(saved["optimiser"]["param_groups"], optimiser.param_groups):
                group.update({key: mine[key] for key in ("lr", "capturable") if key in mine})  # these are the device's
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
                if isinstance(group["lr"], Tensor):  # a CUDA graph reads it where it lies
                    group["lr"].fill_(self.peak * rate)
                else:
                    group["lr"] = self.peak * rate
            yield self.step
            self.step += 1
            self.used += time.monotonic() - started
            if self.step % LOGGED == 0:
                self._log()
                if time.monotonic() - last_save > 240:
                    self.save()
                    last_save = time.monotonic()
        if self.losses:
            self._log()
        self.save()

    def note(self, loss: Tensor) -> None:
        """Keep a step's loss for the log; a GPU is not waited for."""
        self.losses.append(loss.detach())

    def _log(self) -> None:
        loss = float(torch.stack(self.losses).mean())
        self.losses.clear()
        if not math.isfinite(loss):
            raise RuntimeError(
                f"the loss became {loss} before step {self.step}; resume from {self.path} with a lower rate"
            )
        line = json.dumps({"step": self.step, "minutes": round(self.used / 60, 2), "loss": round(loss, 4)})
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
