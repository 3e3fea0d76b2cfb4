"""Architecture of an SD3-shaped transformer, read from tensor shapes and never from names of files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from lib_hybridstitch.errors import CheckpointError, PairError

HEAD_WIDTH = 64
TIME_FREQUENCIES = 256
MLP_RATIO = 4

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class MMDiTConfig:
    """What distinguishes one SD3-shaped transformer from another.

    Args:
        depth: joint blocks, which is also the number of attention heads.
        patch_size: edge of a token in latent pixels.
        in_channels: latent channels read.
        out_channels: latent channels predicted.
        context_dim: width of a text token before the context embedder.
        pooled_dim: width of the pooled text vector.
        pos_embed_size: edge of the square grid of positions, in tokens.
        qk_norm: whether queries and keys are RMS-normalised per head (SD3.5).
        dual_attention: blocks whose image side carries a second attention, `attn2` (SD3.5-Medium).
    """

    depth: int
    patch_size: int
    in_channels: int
    out_channels: int
    context_dim: int
    pooled_dim: int
    pos_embed_size: int
    qk_norm: bool
    dual_attention: tuple[int, ...] = ()

    @property
    def hidden(self) -> int:
        """Width of a token inside the network."""
        return HEAD_WIDTH * self.depth

    @property
    def heads(self) -> int:
        """Attention heads per block."""
        return self.depth

    @property
    def family(self) -> str:
        """A readable name of the architecture: "SD3", "SD3.5-Large-like" or "SD3.5-Medium-like"."""
        if not self.qk_norm:
            return "SD3-like"
        return "SD3.5-Medium-like" if self.dual_attention else "SD3.5-Large-like"

    @classmethod
    def from_tensors(cls, shapes: Shapes, source: str = "these tensors") -> MMDiTConfig:
        """Recognise the architecture from tensor shapes.

        Args:
            shapes: tensor name → shape, in Stability's naming, without the `model.diffusion_model.` prefix.
            source: the file's name, for messages.

        Raises:
            CheckpointError: in one sentence, with the file, the tensor and what was expected.
        """
        config = cls._read(shapes, source)
        config.check(shapes, source)
        return config

    @classmethod
    def from_module(cls, network: Any, source: str = "this network") -> MMDiTConfig:
        """Recognise the architecture of a network of the reference structure, whoever built it.

        Weights may be quantised: GGUF and bitsandbytes parameters carry the shape they stand for.

        Raises:
            CheckpointError: when it is no SD3-shaped transformer.
        """
        tensors = chain(network.named_parameters(), network.named_buffers())
        shapes = {name: tuple(getattr(getattr(t, "quant_state", t), "shape", t.shape)) for name, t in tensors}
        return cls._read(shapes, source)

    @classmethod
    def _read(cls, shapes: Shapes, source: str) -> MMDiTConfig:
        hidden, in_channels, patch, _ = _shape(shapes, "x_embedder.proj.weight", 4, source)
        if hidden == 0 or hidden % HEAD_WIDTH:
            raise CheckpointError(
                f"{source}: x_embedder.proj.weight has {hidden} output channels, expected a multiple of {HEAD_WIDTH}."
            )
        _, positions, _ = _shape(shapes, "pos_embed", 3, source)
        side = int(positions**0.5 + 0.5)
        if side == 0 or side * side != positions:
            raise CheckpointError(f"{source}: pos_embed has {positions} positions, expected a square number.")
        out_width, _ = _shape(shapes, "final_layer.linear.weight", 2, source)
        if patch == 0 or out_width % (patch * patch):
            raise CheckpointError(
                f"{source}: final_layer.linear.weight has {out_width} rows, expected a multiple of {patch * patch}."
            )
        blocks = {name.split(".")[1] for name in shapes if name.startswith("joint_blocks.")}
        depth = hidden // HEAD_WIDTH
        if len(blocks) != depth or blocks != {str(index) for index in range(depth)}:
            raise CheckpointError(
                f"{source}: found {len(blocks)} joint_blocks, expected {depth} for a width of {hidden} (64 per block)."
            )
        second = re.compile(r"joint_blocks\.(\d+)\.x_block\.attn2\.qkv\.weight").fullmatch
        dual = {int(found[1]) for found in map(second, shapes) if found}
        return cls(
            depth=depth,
            patch_size=patch,
            in_channels=in_channels,
            out_channels=out_width // (patch * patch),
            context_dim=_shape(shapes, "context_embedder.weight", 2, source)[1],
            pooled_dim=_shape(shapes, "y_embedder.mlp.0.weight", 2, source)[1],
            pos_embed_size=side,
            qk_norm="joint_blocks.0.x_block.attn.ln_q.weight" in shapes,
            dual_attention=tuple(sorted(dual)),
        )

    def check(self, shapes: Shapes, source: str) -> None:
        """Compare every tensor with what this architecture expects.

        Raises:
            CheckpointError: for the first tensor that is missing, misshapen or not part of the architecture.
        """
        for name, shape in self._named_shapes():  # one after the other: a hostile file announces any depth
            if name not in shapes:
                raise CheckpointError(f"{source}: {name} is missing, expected a tensor of shape {list(shape)}.")
            if tuple(shapes[name]) != shape:
                raise CheckpointError(
                    f"{source}: {name} has shape {list(shapes[name])}, expected {list(shape)} "
                    f"for {self.depth} joint blocks."
                )
        expected = self.expected_shapes()
        for name in shapes:
            if name not in expected:
                raise CheckpointError(
                    f"{source}: {name} is not part of an SD3-shaped transformer, expected no such tensor."
                )

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of this architecture."""
        return dict(self._named_shapes())

    def _named_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from self._outer_shapes().items()
        for index in range(self.depth):
            prefix = f"joint_blocks.{index}"
            last = index == self.depth - 1
            modulations = 9 if index in self.dual_attention else 6
            yield from self._block_shapes(f"{prefix}.x_block", modulations, index in self.dual_attention).items()
            yield from self._block_shapes(f"{prefix}.context_block", 2 if last else 6, False).items()

    def _outer_shapes(self) -> dict[str, tuple[int, ...]]:
        width, patch = self.hidden, self.patch_size
        out_width = patch * patch * self.out_channels
        return {
            "pos_embed": (1, self.pos_embed_size**2, width),
            "x_embedder.proj.weight": (width, self.in_channels, patch, patch),
            "x_embedder.proj.bias": (width,),
            **_linear("t_embedder.mlp.0", width, TIME_FREQUENCIES),
            **_linear("t_embedder.mlp.2", width, width),
            **_linear("y_embedder.mlp.0", width, self.pooled_dim),
            **_linear("y_embedder.mlp.2", width, width),
            **_linear("context_embedder", width, self.context_dim),
            **_linear("final_layer.linear", out_width, width),
            **_linear("final_layer.adaLN_modulation.1", 2 * width, width),
        }

    def _block_shapes(self, prefix: str, modulations: int, dual: bool) -> dict[str, tuple[int, ...]]:
        width, inner = self.hidden, MLP_RATIO * self.hidden
        shapes = _linear(f"{prefix}.adaLN_modulation.1", modulations * width, width)
        pre_only = modulations == 2
        for attention in ("attn", "attn2") if dual else ("attn",):
            shapes.update(_linear(f"{prefix}.{attention}.qkv", 3 * width, width))
            if not pre_only:
                shapes.update(_linear(f"{prefix}.{attention}.proj", width, width))
            if self.qk_norm:
                shapes[f"{prefix}.{attention}.ln_q.weight"] = (HEAD_WIDTH,)
                shapes[f"{prefix}.{attention}.ln_k.weight"] = (HEAD_WIDTH,)
        if not pre_only:
            shapes.update(_linear(f"{prefix}.mlp.fc1", inner, width))
            shapes.update(_linear(f"{prefix}.mlp.fc2", width, inner))
        return shapes

    def check_pair(
        self, small: MMDiTConfig, large_name: str = "the large model", small_name: str = "the small model"
    ) -> None:
        """Make sure that `small` can be stitched to this (large) network.

        Raises:
            PairError: naming the first property in which the two differ.
        """
        for label, field in (
            ("latent channels", "in_channels"),
            ("predicted channels", "out_channels"),
            ("patch size", "patch_size"),
            ("text width", "context_dim"),
            ("pooled text width", "pooled_dim"),
        ):
            ours, theirs = getattr(self, field), getattr(small, field)
            if ours != theirs:
                raise PairError(
                    f"{large_name} and {small_name} cannot be stitched: {label} are {ours} and {theirs}; "
                    "choose two checkpoints of the SD3 family."
                )


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _shape(shapes: Shapes, name: str, dimensions: int, source: str) -> tuple[int, ...]:
    if name not in shapes:
        raise CheckpointError(
            f"{source}: {name} is missing, expected an SD3 or SD3.5 transformer; "
            "checkpoints of other families (SD1.5, SDXL, Flux) cannot be stitched."
        )
    shape = tuple(int(size) for size in shapes[name])
    if len(shape) != dimensions:
        raise CheckpointError(f"{source}: {name} has shape {list(shape)}, expected {dimensions} dimensions.")
    return shape
