"""The transformer's blocks: nearly all of its weights and of its cost.

All are called alike, so that one loop runs them, wherever each comes from. The sequence goes through them in pieces:
latents and text in two through the double blocks, joined in one through the single ones.

Shapes: B batch, L tokens of latents, N of picture and text, D width, H heads, E channels of a head.
"""

from __future__ import annotations

from typing import Any, Protocol

from longtake.backend import nn, ops
from longtake.models.layers import (
    FeedForward,
    Modulation,
    RMSNorm,
    attend,
    gelu_tanh,
    modulate,
    rotate,
    rows_at_once,
)

Tensor = Any
Pieces = tuple[Tensor, ...]
Rotary = tuple[Tensor, ...]
Rows = tuple[int, int] | None


class Block(Protocol):
    """A block of the loop: ours, or whatever stands in its place (streamed, shared between devices, skipped)."""

    def __call__(
        self,
        pieces: Pieces,
        conditioning: Tensor,
        rotary: Rotary,
        mask: Tensor | None,
        rows: Rows = None,
        modulation: Tensor | None = None,
    ) -> Pieces:
        """The sequence after the block, in one or two pieces.

        `conditioning` (B, D) is timestep, guidance and pooled text; `modulation` what `modulations` has made of it
        already. With `rows`, the first piece is the tokens rows[0] … rows[1] - 1 of the latents alone.
        """

    def modulations(self, conditioning: Tensor) -> Tensor:
        """Shifts, scales and gates (B, 1, 12 D) or (B, 1, 3 D), which depend on the timestep and the text alone."""


class DoubleBlock(nn.Module):
    """Latents and text with weights of their own, joined in attention."""

    def __init__(self, width: int, heads: int, hidden: int, qk_norm: str | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm1 = Modulation(width, 6)
        self.norm1_context = Modulation(width, 6)
        self.attn = JointAttention(width, heads, qk_norm)
        self.ff = FeedForward(width, hidden)
        self.ff_context = FeedForward(width, hidden)

    def modulations(self, conditioning: Tensor) -> Tensor:
        """(B, D) -> (B, 1, 12 D): the latents' six parts, then the text's."""
        return ops.cat([self.norm1(conditioning), self.norm1_context(conditioning)], -1)

    def forward(
        self,
        pieces: Pieces,
        conditioning: Tensor,
        rotary: Rotary,
        mask: Tensor | None,
        rows: Rows = None,
        modulation: Tensor | None = None,
    ) -> Pieces:
        """Latents (B, L, D) and text (B, N, D) -> the same."""
        latents, text = pieces
        parts = (self.modulations(conditioning) if modulation is None else modulation).chunk(12, -1)
        shift, scale, gate = parts[0], parts[1], parts[2]
        text_shift, text_scale, text_gate = parts[6], parts[7], parts[8]
        seen, text_seen = self.attn(
            modulate(self.norm(latents), shift, scale),
            modulate(self.norm(text), text_shift, text_scale),
            rotary,
            mask,
        )
        latents = self._widen(ops.scale_shift(seen, gate, latents), self.ff, parts[3:6])
        text = self._widen(ops.scale_shift(text_seen, text_gate, text), self.ff_context, parts[9:])
        return latents if rows is None else latents[:, rows[0] : rows[1]], text

    def _widen(self, x: Tensor, ff: FeedForward, parts: tuple[Tensor, ...]) -> Tensor:
        shift, scale, gate = parts
        return ops.scale_shift(ff(modulate(self.norm(x), shift, scale)), gate, x)


class SingleBlock(nn.Module):
    """One stream; attention and feed-forward side by side from the same input."""

    def __init__(self, width: int, heads: int, hidden: int, qk_norm: str | None) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm = Modulation(width, 3)
        self.attn = Attention(width, heads, qk_norm, out=False)
        self.hidden = hidden
        self.proj_mlp = nn.Linear(width, hidden)
        self.proj_out = nn.Linear(width + hidden, width)

    def modulations(self, conditioning: Tensor) -> Tensor:
        """(B, D) -> (B, 1, 3 D)."""
        return self.norm(conditioning)

    def forward(
        self,
        pieces: Pieces,
        conditioning: Tensor,
        rotary: Rotary,
        mask: Tensor | None,
        rows: Rows = None,
        modulation: Tensor | None = None,
    ) -> Pieces:
        """The whole sequence (B, L + N, D), in one piece or in two -> the same in one, or `rows` of it alone."""
        tokens = ops.cat(pieces, 1) if len(pieces) > 1 else pieces[0]
        parts = self.modulations(conditioning) if modulation is None else modulation
        shift, scale, gate = parts.chunk(3, -1)
        x = modulate(self.layer_norm(tokens), shift, scale)
        seen = self.attn(x, rotary, mask, rows)
        if rows is not None:
            x, tokens = x[:, rows[0] : rows[1]], tokens[:, rows[0] : rows[1]]
        length, step = x.shape[1], rows_at_once(x, self.hidden)
        if length <= step:
            return (ops.scale_shift(self._widened(x, seen), gate, tokens),)
        made = []
        for start in range(0, length, step):
            end = min(start + step, length)
            made.append(self._widened(x[:, start:end], seen[:, start:end]))
        return (ops.scale_shift(ops.cat(made, 1), gate, tokens),)

    def _widened(self, x: Tensor, seen: Tensor) -> Tensor:
        """The feed-forward of tokens, together with what they have seen."""
        return self.proj_out(ops.cat([seen, gelu_tanh(self.proj_mlp(x))], -1))


class Projections(nn.Module):
    """Queries, keys and values of one sequence, the first two normalised by head."""

    def __init__(self, width: int, heads: int, qk_norm: str | None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.norm_q, self.norm_k = (_head_norm(width // heads, qk_norm) for _ in range(2))

    def project(self, x: Tensor, asking: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of `asking`, keys and values of `x`: (B, L, D) -> (B, L, H, E)."""
        q = self.norm_q(_heads(self.to_q(asking), self.heads))
        return q, self.norm_k(_heads(self.to_k(x), self.heads)), _heads(self.to_v(x), self.heads)


class Attention(Projections):
    """One sequence that sees itself; in single blocks without an output layer of its own."""

    def __init__(self, width: int, heads: int, qk_norm: str | None, out: bool) -> None:
        super().__init__(width, heads, qk_norm)
        self.to_out = nn.Sequential(nn.Linear(width, width)) if out else nn.Identity()

    def forward(self, x: Tensor, rotary: Rotary | None, mask: Tensor | None, rows: Rows = None) -> Tensor:
        """(B, L, D) -> the same, or what the tokens rows[0] … rows[1] - 1 alone have seen."""
        asking = x if rows is None else x[:, rows[0] : rows[1]]
        q, k, v = self.project(x, asking)
        if rotary is not None:
            here = rotary if rows is None else tuple(table[:, rows[0] : rows[1]] for table in rotary)
            q, k = rotate(q, here), rotate(k, rotary)
        return self.to_out(attend(q, k, v, mask))


class JointAttention(Projections):
    """Two sequences, each with projections of its own, that see each other and themselves."""

    def __init__(self, width: int, heads: int, qk_norm: str | None) -> None:
        super().__init__(width, heads, qk_norm)
        self.add_q_proj, self.add_k_proj, self.add_v_proj = (nn.Linear(width, width) for _ in range(3))
        self.norm_added_q, self.norm_added_k = (_head_norm(width // heads, qk_norm) for _ in range(2))
        self.to_out = nn.Sequential(nn.Linear(width, width))
        self.to_add_out = nn.Linear(width, width)

    def forward(self, x: Tensor, text: Tensor, rotary: Rotary, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, L, D), (B, N, D) -> what each has seen of both, in the same shapes."""
        q, k, v = self.project(x, x)
        linears = (self.add_q_proj, self.add_k_proj, self.add_v_proj)
        text_q, text_k, text_v = (_heads(linear(text), self.heads) for linear in linears)
        q = rotate(ops.cat([q, self.norm_added_q(text_q)], 1), rotary)
        k = rotate(ops.cat([k, self.norm_added_k(text_k)], 1), rotary)
        seen = attend(q, k, ops.cat([v, text_v], 1), mask)
        length = x.shape[1]
        return self.to_out(seen[:, :length]), self.to_add_out(seen[:, length:])


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], heads, -1)


def _head_norm(dim: int, kind: str | None) -> nn.Module:
    return nn.Identity() if kind is None else RMSNorm(dim)
