"""Whether a run fits into memory, asked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.kv_cache import needed_bytes
from lib_hybridstitch.plans.plan import Plan
from lib_hybridstitch.prediction.operations import Setup


@dataclass(frozen=True)
class Memory:
    """Memory of a device in bytes.

    Args:
        free: what can be had without moving anything.
        total: all there is.
        movable: what the host makes free by itself, by moving other models away.
    """

    free: int
    total: int
    movable: int = 0


@dataclass(frozen=True)
class Budget:
    """What a pass needs on the device beside the host's own model and its activations, in bytes.

    Args:
        small: weights of the small model that are still to be loaded there.
        cache: keys and values.
        activations: of the small model's full pass, at its widest.
        large: weights of a large model of our own that are still to be loaded there.
    """

    small: int = 0
    cache: int = 0
    activations: int = 0
    large: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.small + self.cache + self.activations + self.large

    def shortage(self, memory: Memory) -> str:
        """One sentence saying what to change when it does not fit, else ""."""
        available = memory.free + memory.movable
        if self.total <= available:
            return ""
        parts = (
            (self.large, "large model", "choose an fp8 file as large checkpoint"),
            (self.small, "small model", "choose an fp8 file as small checkpoint"),
            (self.cache, "KV cache", "set KV cache to fp8 or off"),
            (self.activations, "activations", "lower the size of the picture or of the batch"),
        )
        needed = ", ".join(f"{gigabytes(size)} {name}" for size, name, _ in parts if size)
        change = ", or ".join(advice for size, _, advice in parts if size)
        return f"the run needs {gigabytes(self.total)} more memory ({needed}), {gigabytes(available)} is free: {change}"


def gigabytes(count: int) -> str:
    """A number of bytes as people read it."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 / 20 else f"{count / 2**20:.1f} MB"


def cache_bytes(plan: Plan, setup: Setup, itemsize: int) -> int:
    """Memory that the cache of a plan will take; 0 when it has none.

    Args:
        itemsize: bytes per cached number (fp32 4, bf16 and fp16 2, fp8 1, none 0).
    """
    if not plan.mask_ratio:
        return 0
    return needed_bytes(setup.large, setup.tokens, setup.context, setup.rows, itemsize)


def activation_bytes(config: MMDiTConfig, setup: Setup, itemsize: int) -> int:
    """Memory that a full pass of a network takes beside its weights, at its widest point.

    Counted in widths of the network. In the image's MLP every image token has its input before and after attention,
    that input modulated, attention's result, and the 4 + 4 of the MLP (12); the text is there before and after its
    own block, and in attention's result (3). In attention every token has its input, the projection to q, k and v
    (3) and its normalised q and k (2), text and image put together (3), and the result in two layouts (2); a second
    attention's projection waits beside.
    """
    tokens, text = setup.tokens, setup.context
    projected = 5 if config.qk_norm else 3
    in_mlp = 12 * tokens + 3 * text
    in_attention = (6 + projected) * (tokens + text) + (projected * tokens if config.dual_attention else 0)
    return setup.rows * config.hidden * max(in_mlp, in_attention) * itemsize
