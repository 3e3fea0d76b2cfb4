"""Our own MMDiT-X, the transformer of SD3-medium, SD3.5-Large and SD3.5-Medium.

The structure (module names, `pre_attention`, `post_attention` and their shapes) is that of Stability's reference,
so that one partial pass serves this network and the hosts' own. Source: Esser et al., "Scaling Rectified Flow
Transformers", arXiv 2403.03206, and the SD3.5 release for `attn2`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib_hybridstitch.mmdit.config import HEAD_WIDTH, MLP_RATIO, TIME_FREQUENCIES, MMDiTConfig

QKV = tuple[Tensor, Tensor, Tensor]


class Linear(nn.Linear):
    """A linear layer whose weight may be stored in another dtype than it computes in.

    `scale_weight`, where a checkpoint has one, multiplies an fp8 weight: a single fp32 number, so that it is rounded
    only once, in the product.
    """

    scale_weight: Tensor | None

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("scale_weight", None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out) in x's dtype."""
        weight = self.weight.to(x.dtype)
        if self.scale_weight is not None:
            weight = weight * self.scale_weight
        return functional.linear(x, weight, self.bias.to(x.dtype))


class PatchEmbed(nn.Module):
    """Cut a latent into patches and embed each as a token."""

    proj: nn.Conv2d

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.patch_size = (config.patch_size, config.patch_size)
        self.proj = nn.Conv2d(config.in_channels, config.hidden, self.patch_size, self.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map a latent (rows, channels, H, W) to tokens (rows, H/p · W/p, hidden), token after token in memory.

        Left as the convolution has them, channel after channel, every block's sums would keep that layout, and every
        norm would first copy its input.
        """
        bias = None if self.proj.bias is None else self.proj.bias.to(x.dtype)
        x = functional.conv2d(x, self.proj.weight.to(x.dtype), bias, stride=self.patch_size)
        return x.flatten(2).transpose(1, 2).contiguous()


def _two_layers(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(Linear(inputs, hidden), nn.SiLU(), Linear(hidden, hidden))


class TimestepEmbedder(nn.Module):
    """Embed t = 1000·σ as in Vaswani et al., arXiv 1706.03762, followed by two linear layers."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mlp = _two_layers(TIME_FREQUENCIES, hidden)

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """Map t (rows,) to (rows, hidden) in `dtype`; the frequencies are computed in fp32."""
        half = TIME_FREQUENCIES // 2
        exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
        angles = t[:, None].float() * torch.exp(-math.log(10000.0) * exponents)[None]
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype))


class VectorEmbedder(nn.Module):
    """Embed the pooled text vector."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.mlp = _two_layers(inputs, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, pooled) to (rows, hidden)."""
        return self.mlp(x)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a learned scale; Zhang and Sennrich, arXiv 1910.07467."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of x."""
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return normed * self.weight.to(x.dtype)


class SelfAttention(nn.Module):
    """The projections around an attention; the attention itself is computed by the caller."""

    def __init__(self, hidden: int, pre_only: bool, qk_norm: bool) -> None:
        super().__init__()
        self.num_heads = hidden // HEAD_WIDTH
        self.qkv = Linear(hidden, 3 * hidden)
        if not pre_only:
            self.proj = Linear(hidden, hidden)
        self.ln_q: nn.Module = RMSNorm(HEAD_WIDTH) if qk_norm else nn.Identity()
        self.ln_k: nn.Module = RMSNorm(HEAD_WIDTH) if qk_norm else nn.Identity()

    def pre_attention(self, x: Tensor) -> QKV:
        """Project (rows, L, hidden) to q and k of (rows, L, hidden) and v of (rows, L, heads, 64).

        The shape of v differs from that of q and k because it does in the reference; hosts rely on it.
        """
        rows, length, _ = x.shape
        q, k, v = self.qkv(x).view(rows, length, 3, self.num_heads, HEAD_WIDTH).unbind(2)
        return self.ln_q(q).flatten(2), self.ln_k(k).flatten(2), v

    def post_attention(self, x: Tensor) -> Tensor:
        """Project the attention's result (rows, L, hidden)."""
        return self.proj(x)


class Mlp(nn.Module):
    """Two linear layers with a tanh-approximated GELU between them."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(hidden, MLP_RATIO * hidden)
        self.fc2 = Linear(MLP_RATIO * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, L, hidden) to the same shape."""
        return self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return x · (1 + scale) + shift for x (rows, L, hidden) and per-row shift, scale (rows, hidden)."""
    return torch.addcmul(shift.unsqueeze(1), x, 1 + scale.unsqueeze(1))


class DismantledBlock(nn.Module):
    """One side (context or image) of a joint block, opened before and after its attention."""

    def __init__(self, config: MMDiTConfig, pre_only: bool, dual: bool) -> None:
        super().__init__()
        hidden = config.hidden
        self.pre_only = pre_only
        self.x_block_self_attn = dual
        self.norm1 = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.attn = SelfAttention(hidden, pre_only, config.qk_norm)
        if dual:
            self.attn2 = SelfAttention(hidden, False, config.qk_norm)
        if not pre_only:
            self.norm2 = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
            self.mlp = Mlp(hidden)
        modulations = 2 if pre_only else 9 if dual else 6
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(hidden, modulations * hidden))

    def pre_attention(self, x: Tensor, c: Tensor) -> tuple[QKV, tuple[Tensor, ...] | None]:
        """Return q, k, v of x (rows, L, hidden) and what `post_attention` needs later; c is (rows, hidden)."""
        if self.pre_only:
            shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
            return self.attn.pre_attention(modulate(self.norm1(x), shift, scale)), None
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.adaLN_modulation(c).chunk(6, dim=1)
        qkv = self.attn.pre_attention(modulate(self.norm1(x), shift, scale))
        return qkv, (x, gate, shift_mlp, scale_mlp, gate_mlp)

    def post_attention(
        self, attn: Tensor, x: Tensor, gate: Tensor, shift_mlp: Tensor, scale_mlp: Tensor, gate_mlp: Tensor
    ) -> Tensor:
        """Add the attention's result and the MLP to x (rows, L, hidden)."""
        x = torch.addcmul(x, gate.unsqueeze(1), self.attn.post_attention(attn))
        return torch.addcmul(x, gate_mlp.unsqueeze(1), self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp)))

    def pre_attention_x(self, x: Tensor, c: Tensor) -> tuple[QKV, QKV, tuple[Tensor, ...]]:
        """Like `pre_attention`, for a block with a second attention."""
        parts = self.adaLN_modulation(c).chunk(9, dim=1)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp, shift2, scale2, gate2 = parts
        normed = self.norm1(x)
        qkv = self.attn.pre_attention(modulate(normed, shift, scale))
        qkv2 = self.attn2.pre_attention(modulate(normed, shift2, scale2))
        return qkv, qkv2, (x, gate, shift_mlp, scale_mlp, gate_mlp, gate2)

    def post_attention_x(
        self,
        attn: Tensor,
        attn2: Tensor,
        x: Tensor,
        gate: Tensor,
        shift_mlp: Tensor,
        scale_mlp: Tensor,
        gate_mlp: Tensor,
        gate2: Tensor,
    ) -> Tensor:
        """Like `post_attention`, with the second attention's result."""
        x = torch.addcmul(x, gate.unsqueeze(1), self.attn.post_attention(attn))
        x = torch.addcmul(x, gate2.unsqueeze(1), self.attn2.post_attention(attn2))
        return torch.addcmul(x, gate_mlp.unsqueeze(1), self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp)))


class JointBlock(nn.Module):
    """A context side and an image side that attend to one another."""

    def __init__(self, config: MMDiTConfig, index: int) -> None:
        super().__init__()
        self.context_block = DismantledBlock(config, index == config.depth - 1, False)
        self.x_block = DismantledBlock(config, False, index in config.dual_attention)

    def forward(self, context: Tensor, x: Tensor, c: Tensor) -> tuple[Tensor | None, Tensor]:
        """Map context (rows, L, hidden) and x (rows, N, hidden) to the next block's; c is (rows, hidden)."""
        text, image = self.context_block, self.x_block
        text_qkv, text_rest = text.pre_attention(context, c)
        image_rest: tuple[Tensor, ...] | None
        if image.x_block_self_attn:
            image_qkv, qkv2, image_rest = image.pre_attention_x(x, c)
        else:
            image_qkv, image_rest = image.pre_attention(x, c)
        assert image_rest is not None, "only the last block's text side ends early"
        q, k, v = (torch.cat(pair, dim=1) for pair in zip(text_qkv, image_qkv))
        joined = attention(q, k, v, image.attn.num_heads)
        del q, k, v, text_qkv, image_qkv  # a pass is widest in the MLP, which needs none of them
        split = context.shape[1]
        next_context = None if text_rest is None else text.post_attention(joined[:, :split], *text_rest)
        if image.x_block_self_attn:
            second = attention(*qkv2, image.attn2.num_heads)
            del qkv2
            return next_context, image.post_attention_x(joined[:, split:], second, *image_rest)
        return next_context, image.post_attention(joined[:, split:], *image_rest)


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention; q and k (rows, L, heads·64), v alike or (rows, L, heads, 64).

    Returns:
        (rows, L of q, heads·64).
    """
    rows = q.shape[0]
    q, k, v = (t.reshape(rows, -1, heads, q.shape[-1] // heads).transpose(1, 2) for t in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class FinalLayer(nn.Module):
    """Turn tokens into patches of velocity."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(config.hidden, elementwise_affine=False, eps=1e-6)
        self.linear = Linear(config.hidden, config.patch_size**2 * config.out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(config.hidden, 2 * config.hidden))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Map tokens (rows, L, hidden) to (rows, L, patch² · channels)."""
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class MMDiT(nn.Module):
    """An SD3-shaped transformer predicting velocity.

    Args:
        config: the architecture.
    """

    pos_embed: Tensor

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.config = config
        self.out_channels = config.out_channels
        self.x_embedder = PatchEmbed(config)
        self.t_embedder = TimestepEmbedder(config.hidden)
        self.y_embedder = VectorEmbedder(config.pooled_dim, config.hidden)
        self.context_embedder = Linear(config.context_dim, config.hidden)
        self.register_buffer("pos_embed", torch.zeros(1, config.pos_embed_size**2, config.hidden))
        self.joint_blocks = nn.ModuleList(JointBlock(config, index) for index in range(config.depth))
        self.final_layer = FinalLayer(config)

    def cropped_pos_embed(self, hw: tuple[int, int]) -> Tensor:
        """Return the centre crop (1, N, hidden) of the positions for a latent of height and width `hw`."""
        side, patch = self.config.pos_embed_size, self.config.patch_size
        height, width = hw[0] // patch, hw[1] // patch
        if height > side or width > side:
            raise ValueError(
                f"a latent of {hw[0]}×{hw[1]} needs {height}×{width} positions, this network has {side}×{side}"
            )
        top, left = (side - height) // 2, (side - width) // 2
        grid = self.pos_embed.view(1, side, side, -1)[:, top : top + height, left : left + width]
        return grid.reshape(1, height * width, -1)

    def unpatchify(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Arrange patches (rows, N, patch² · channels) as a latent (rows, channels, H, W)."""
        patch = self.config.patch_size
        rows, height, width = x.shape[0], hw[0] // patch, hw[1] // patch
        x = x.view(rows, height, width, patch, patch, self.out_channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(rows, self.out_channels, height * patch, width * patch)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, context: Tensor) -> Tensor:
        """Predict the velocity of a latent.

        Args:
            x: latent (rows, channels, H, W).
            t: 1000·σ, (rows,).
            y: pooled text (rows, pooled).
            context: text tokens (rows, L, context width).

        Returns:
            velocity (rows, channels, H, W) in x's dtype.
        """
        hw = (x.shape[-2], x.shape[-1])
        c = self.t_embedder(t, dtype=x.dtype) + self.y_embedder(y)
        tokens = self.x_embedder(x) + self.cropped_pos_embed(hw).to(x.dtype)
        text: Tensor | None = self.context_embedder(context)
        for block in self.joint_blocks:
            text, tokens = block(text, tokens, c=c)
        return self.unpatchify(self.final_layer(tokens, c), hw)
