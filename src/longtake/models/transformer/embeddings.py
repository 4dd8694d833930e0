"""What stands beside the latents: timestep, guidance, text and picture, made into tokens and one vector.

Shapes: B batch, N tokens, D width, P channels of the pooled text.
"""

from __future__ import annotations

from typing import Any

from longtake.backend import nn, ops
from longtake.models.layers import EmbeddingMLP, FeedForward, Modulation
from longtake.models.transformer.blocks import Attention

Tensor = Any


class ImageProjection(nn.Module):
    """SigLIP tokens -> tokens of the transformer's width."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, 3 * width)
        self.down = nn.Linear(3 * width, width)

    def forward(self, picture: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, D)."""
        return self.down(ops.silu(self.up(picture)))


class TimeTextEmbedding(nn.Module):
    """Timestep + guidance + pooled text, each through an MLP of its own: what all modulations are made of."""

    def __init__(self, width: int, pooled_dim: int, guidance: bool = False) -> None:
        super().__init__()
        self.timestep_embedder = EmbeddingMLP(256, width)
        self.text_embedder = EmbeddingMLP(pooled_dim, width)
        self.guidance_embedder = EmbeddingMLP(256, width) if guidance else None

    def forward(self, wave: Tensor, pooled: Tensor, force: Tensor | None = None) -> Tensor:
        """Sinusoids (B, 256) of timestep and guidance in thousandths, pooled text (B, P) -> (B, D)."""
        total = self.timestep_embedder(wave)
        if self.guidance_embedder is not None and force is not None:
            total = total + self.guidance_embedder(force)
        return total + self.text_embedder(pooled)


class TextRefiner(nn.Module):
    """The text encoder's states, refined by a small transformer that knows the timestep."""

    def __init__(self, dim: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.time_text_embed = TimeTextEmbedding(width, dim)
        self.proj_in = nn.Linear(dim, width)
        self.token_refiner = RefinerBlocks(width, heads, layers)

    def forward(self, text: Tensor, wave: Tensor, share: Tensor, mask: Tensor | None) -> Tensor:
        """text (B, N, dim), each token's share of its row's mean (B, N, 1), the keys' mask -> (B, N, D)."""
        pooled = (text.float() * share).sum(1).to(text.dtype)
        return self.token_refiner(self.proj_in(text), self.time_text_embed(wave, pooled), mask)


class RefinerBlocks(nn.Module):
    """The refiner's blocks, one after the other."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.refiner_blocks = nn.ModuleList([RefinerBlock(width, heads) for _ in range(layers)])

    def forward(self, text: Tensor, conditioning: Tensor, mask: Tensor | None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        for block in self.refiner_blocks:
            text = block(text, conditioning, mask)
        return text


class RefinerBlock(nn.Module):
    """Self-attention and feed-forward with gates, but no shift or scale, from timestep and text."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, qk_norm=None, out=True)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.ff = FeedForward(width, 4 * width, ops.silu)
        self.norm_out = Modulation(width, 2)

    def forward(self, text: Tensor, conditioning: Tensor, mask: Tensor | None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        gate, mlp_gate = self.norm_out(conditioning).chunk(2, -1)
        text = text + gate * self.attn(self.norm1(text), None, mask)
        return text + mlp_gate * self.ff(self.norm2(text))
