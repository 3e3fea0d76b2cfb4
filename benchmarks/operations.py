"""Counted operations of diffusers' SD3 network: what its layers really did, whatever a cache left out.

Counted as `lib_hybridstitch.prediction.operations.pass_flops` counts: two per multiply-add of linear layers,
convolutions and attention products; norms, activations, modulations and a cache's own arithmetic are left out on both
sides. A hook on every layer does the counting, because torch's `FlopCounterMode` knows no cost for attention on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import Tensor, nn


@dataclass
class Operations:
    """What has been counted so far.

    Args:
        total: floating-point operations.
        tokens: attention module → tokens that its queries were computed for, until its product is counted.
    """

    total: int = 0
    tokens: dict[str, int] = field(default_factory=dict)

    def linear(self, layer: nn.Linear, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Count a linear layer; output (..., out features)."""
        self.total += 2 * output.numel() * layer.in_features

    def convolution(self, layer: nn.Conv2d, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Count a convolution; output (rows, channels, H, W)."""
        self.total += 2 * output.numel() * prod(layer.kernel_size) * layer.in_channels // layer.groups

    def queries(self, attention: str) -> Callable[[nn.Module, Any, Tensor], None]:
        """A hook for a layer that makes queries (rows, tokens, width) of the attention of that name."""

        def note(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            self.tokens[attention] = self.tokens.get(attention, 0) + output.shape[1]

        return note

    def product(self, attention: str) -> Callable[[nn.Module, Any, Tensor], None]:
        """A hook for the layer behind an attention: scores and weighted values, 4 · rows · tokens² · width."""

        def note(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            self.total += 4 * output.shape[0] * self.tokens.pop(attention) ** 2 * output.shape[2]

        return note


@contextmanager
def counted(network: nn.Module) -> Iterator[Operations]:
    """Count what diffusers' network does inside the `with` block."""
    operations = Operations()
    handles = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear):
            handles.append(layer.register_forward_hook(operations.linear))
        if isinstance(layer, nn.Conv2d):
            handles.append(layer.register_forward_hook(operations.convolution))
        attention, _, leaf = name.rpartition(".")
        if leaf in ("to_q", "add_q_proj"):
            handles.append(layer.register_forward_hook(operations.queries(attention)))
        if name.endswith(".to_out.0"):
            handles.append(layer.register_forward_hook(operations.product(name.removesuffix(".to_out.0"))))
    try:
        yield operations
    finally:
        for handle in handles:
            handle.remove()
