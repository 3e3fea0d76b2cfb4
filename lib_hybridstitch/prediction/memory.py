"""Whether a run fits into memory, asked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from lib_hybridstitch.hosts.base import Memory, Sampling
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.kv_cache import needed_bytes
from lib_hybridstitch.plans.plan import Plan, Stage


@dataclass(frozen=True)
class Budget:
    """What a stitched pass needs on the device beside the large model and its own activations, in bytes.

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

    def shortage(self, memory: Memory, movable: int = 0) -> str:
        """One sentence saying what to change when it does not fit, else "".

        Args:
            memory: of the device.
            movable: bytes that the host can make free by moving other models away.
        """
        if self.total <= memory.free + movable:
            return ""
        parts = (
            (self.large, "large model", "choose an fp8 file as large checkpoint"),
            (self.small, "small model", "choose an fp8 file as small checkpoint"),
            (self.cache, "KV cache", "set KV cache to fp8 or off"),
            (self.activations, "activations", "lower the size of the picture or of the batch"),
        )
        needed = ", ".join(f"{gigabytes(size)} {name}" for size, name, _ in parts if size)
        change = ", or ".join(advice for size, _, advice in parts if size)
        return (
            f"the run needs {gigabytes(self.total)} more memory ({needed}) and {gigabytes(memory.free + movable)} are "
            f"free: {change}"
        )


def gigabytes(count: int) -> str:
    """A number of bytes as people read it."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 / 20 else f"{count / 2**20:.1f} MB"


def cache_bytes(plan: Plan, large: MMDiTConfig, small: MMDiTConfig | None, sampling: Sampling, itemsize: int) -> int:
    """Memory that the caches of a plan will take; 0 when it has none.

    Args:
        itemsize: bytes per cached number (fp32 4, bf16 and fp16 2, fp8 1).
    """
    rule = plan.hybrid
    if Stage.HYBRID not in plan.stages or not 0 < rule.mask_ratio < 1 or itemsize == 0:
        return 0
    images, _, height, width = sampling.latent
    tokens = (height // large.patch_size) * (width // large.patch_size)
    rows = images * sampling.streams
    total = needed_bytes(large, tokens, sampling.context, rows, itemsize)
    if rule.fills_small_cache and small is not None:
        total += needed_bytes(small, tokens, sampling.context, rows, itemsize)
    return total


def activation_bytes(config: MMDiTConfig, sampling: Sampling, itemsize: int) -> int:
    """Memory that a full pass of a network takes beside its weights, at its widest point.

    Counted in widths of the network. In the image's MLP every image token has its input before and after attention,
    that input modulated, attention's result, and the 4 + 4 of the MLP (12); the text is there before and after its
    own block, and in attention's result (3). In attention every token has its input, the projection to q, k and v
    (3) and its normalised q and k (2), text and image put together (3), and the result in two layouts (2); a second
    attention's projection waits beside.
    """
    images, _, height, width = sampling.latent
    tokens, text = (height // config.patch_size) * (width // config.patch_size), sampling.context
    projected = 5 if config.qk_norm else 3
    in_mlp = 12 * tokens + 3 * text
    in_attention = (6 + projected) * (tokens + text) + (projected * tokens if config.dual_attention else 0)
    return images * sampling.streams * config.hidden * max(in_mlp, in_attention) * itemsize
