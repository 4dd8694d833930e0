"""FramePack's transformer: HunyuanVideo's two-stream DiT over a packed sequence of clean and noisy latents.

The sequence is [4x | 2x | 1x | window | picture | text]: clean frames packed by kernels that grow with their
distance, the noisy window, SigLIP tokens of the picture, refined text. It opens at three joints:
`embed` (everything that is not a block), `run_blocks` (nearly all of the cost; no branch depends on data) and `head`.

Sources: FramePack (arXiv 2504.12626), HunyuanVideo (arXiv 2412.03603); equal to diffusers'
`HunyuanVideoFramepackTransformer3DModel`, with its weight names.

Shapes: B batch, C channels, T H W latents, D width, L packed latent tokens, N picture and text tokens, H heads,
E channels of a head, R rows of times (1 or B).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longtake.backend import nn, ops
from longtake.config import TransformerConfig
from longtake.errors import JobError, ModelError
from longtake.models import rope
from longtake.models.layers import (
    EmbeddingMLP,
    FeedForward,
    Modulation,
    RMSNorm,
    attend,
    beside,
    gelu_tanh,
    modulate,
    rotate,
    sinusoid,
)
from longtake.models.outputs import Sample
from longtake.models.pretrained import PretrainedModel

Tensor = Any
Rotary = tuple[Tensor, Tensor]
# Latent frames' positions, (T,) or one row per video (B, T), in a list, an array or a tensor.
Times = Any
# The slots of clean frames in the order of `embed`, each prepended to those before.
SLOTS = {1: "latents_clean", 2: "latents_history_2x", 4: "latents_history_4x"}


@dataclass(frozen=True)
class Tokens:
    """What the blocks work on, and what `head` needs to undo the packing."""

    latents: Tensor
    """(B, L, D): clean frames, most packed first, then the window."""
    text: Tensor
    """(B, N, D): the picture's tokens, then the text's."""
    conditioning: Tensor
    """(B, D): timestep + guidance + pooled text."""
    rotary: Rotary
    """Cosine and sine (R, L + N, 1, E), float32; picture and text are not turned."""
    mask: Tensor | None
    """(B, 1, 1, L + N), True where a key may be seen; None where all may."""
    grid: tuple[int, int, int]
    """The window's tokens in time, height and width."""


class HunyuanVideoFramepackTransformer3DModel(PretrainedModel):
    """The velocity (noise - clean) of one window of latents, given the clean frames around it, picture and text."""

    config_class = TransformerConfig

    def __init__(self, config: Any = None, **fields: Any) -> None:
        super().__init__(config, **fields)
        c = self.config
        _check(c)
        width = c.num_attention_heads * c.attention_head_dim
        block = (width, c.num_attention_heads, int(width * c.mlp_ratio), c.qk_norm)
        patch = (c.patch_size_t, c.patch_size, c.patch_size)
        self.x_embedder = PatchEmbedding(c.in_channels, width, patch)
        self.clean_x_embedder = CleanEmbedding(c.in_channels, width) if c.has_clean_x_embedder else None
        self.context_embedder = TextRefiner(
            c.text_embed_dim, width, c.num_attention_heads, c.num_refiner_layers
        )
        self.image_projection = ImageProjection(c.image_proj_dim, width) if c.has_image_proj else None
        self.time_text_embed = Conditioning(width, c.pooled_projection_dim, c.guidance_embeds)
        self.transformer_blocks = nn.ModuleList([DoubleBlock(*block) for _ in range(c.num_layers)])
        self.single_transformer_blocks = nn.ModuleList(
            [SingleBlock(*block) for _ in range(c.num_single_layers)]
        )
        self.norm_out = Modulation(width, 2)
        self.last_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.proj_out = nn.Linear(width, (c.out_channels or c.in_channels) * c.patch_size**2 * c.patch_size_t)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        pooled_projections: Tensor | None = None,
        image_embeds: Tensor | None = None,
        indices_latents: Times = None,
        guidance: Tensor | None = None,
        latents_clean: Tensor | None = None,
        indices_latents_clean: Times = None,
        latents_history_2x: Tensor | None = None,
        indices_latents_history_2x: Times = None,
        latents_history_4x: Tensor | None = None,
        indices_latents_history_4x: Times = None,
        attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
    ) -> Sample | tuple[Tensor]:
        """Velocity (B, C, T, H, W) of `hidden_states` (B, C, T, H, W), called as diffusers' class is.

        `timestep` and `guidance` are (B,) or (1,), in thousandths; text (B, N, text_embed_dim) with its mask
        (B, N); `image_embeds` (B, N, image_proj_dim), not looked at by a model without an image projection.
        Raises JobError where shapes do not fit together.

        Unlike the reference: clean latents, picture and mask (all of the text is valid then) may be None, times may be
        None for the window (0, 1, …) and may differ by row (B, T), and a text mask may have holes or stand on the left.
        """
        tokens = self.embed(
            hidden_states,
            timestep,
            encoder_hidden_states,
            encoder_attention_mask,
            pooled_projections,
            image_embeds,
            indices_latents,
            guidance,
            (
                (latents_clean, indices_latents_clean),
                (latents_history_2x, indices_latents_history_2x),
                (latents_history_4x, indices_latents_history_4x),
            ),
        )
        velocity = self.head(self.run_blocks(tokens), tokens)
        return Sample(velocity) if return_dict else (velocity,)

    def embed(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        text_mask: Tensor | None,
        pooled_text: Tensor,
        picture: Tensor | None,
        times: Times,
        guidance: Tensor | None,
        clean: Sequence[tuple[Tensor | None, Times]] = (),
    ) -> Tokens:
        """Everything before the blocks; `clean` holds (latents, times) of the slots of scale 1, 2 and 4."""
        dtype = self.x_embedder.proj.weight.dtype
        _check_rows(latents.shape[0], encoder_hidden_states=text, pooled_projections=pooled_text)
        packed, tables, grid = self._pack(latents.to(dtype), times, clean)
        text, counts = valid_tokens(text.to(dtype), text_mask)
        wave = sinusoid(timestep.reshape(-1)).to(dtype)
        conditioning = self.time_text_embed(wave, pooled_text.to(dtype), guidance)
        words = self.context_embedder(text, wave, counts)
        if self.image_projection is not None and picture is not None:
            # The picture stands before the text, so that what is masked stands at the end.
            words = ops.cat([self.image_projection(picture.to(dtype)), words], 1)
        length = packed.shape[1] + words.shape[1]
        cos, sin = (beside(table[:, :, None], packed) for table in rope.joined(tables, words.shape[1]))
        mask = key_mask(counts + (length - text.shape[1]), length, packed)
        return Tokens(packed, words, conditioning, (cos, sin), mask, grid)

    def run_blocks(self, tokens: Tokens) -> Tensor:
        """The packed latents' tokens (B, L, D) after all blocks."""
        latents, text = tokens.latents, tokens.text
        length = latents.shape[1]
        for block in self.transformer_blocks:
            latents, text = block(latents, text, tokens.conditioning, tokens.rotary, tokens.mask)
        joint = ops.cat([latents, text], 1)
        for block in self.single_transformer_blocks:
            joint = block(joint, tokens.conditioning, tokens.rotary, tokens.mask)
        return joint[:, :length]

    def head(self, latents: Tensor, tokens: Tokens) -> Tensor:
        """The window's velocity (B, C, T, H, W) from the tokens (B, L, D) that left the blocks."""
        (time, height, width), pt, p = tokens.grid, self.config.patch_size_t, self.config.patch_size
        window = latents[:, latents.shape[1] - time * height * width :]
        # Here, and only here, the scale comes before the shift.
        scale, shift = self.norm_out(tokens.conditioning)
        x = self.proj_out(modulate(self.last_norm(window), shift, scale))
        x = x.reshape(x.shape[0], time, height, width, -1, pt, p, p).permute(0, 4, 1, 5, 2, 6, 3, 7)
        return x.reshape(x.shape[0], x.shape[1], time * pt, height * p, width * p)

    def _pack(
        self, latents: Tensor, times: Times, clean: Sequence[tuple[Tensor | None, Times]]
    ) -> tuple[Tensor, list[rope.Table], tuple[int, int, int]]:
        """All latents as tokens (B, L, D), their rotary tables, and the window's grid."""
        c = self.config
        batch, _, frames, height, width = latents.shape
        if height % c.patch_size or width % c.patch_size:
            raise JobError(
                f"Latents of {height} x {width} cannot be cut into patches of {c.patch_size} x {c.patch_size}; "
                "both sides must be multiples of it."
            )
        grid = (frames // c.patch_size_t, height // c.patch_size, width // c.patch_size)
        space, axes, theta = grid[1:], c.rope_axes_dim, c.rope_theta
        tokens = [self.x_embedder(latents)]
        window = np.arange(frames)[None] if times is None else _times(times, frames, batch, "indices_latents")
        tables = [rope.rotary(window, *space, axes, theta)]
        for (scale, name), (slot, slot_times) in zip(SLOTS.items(), clean, strict=False):
            if slot is None:
                continue
            if self.clean_x_embedder is None:
                raise JobError(
                    f"This transformer takes no {name}: its config says has_clean_x_embedder false."
                )
            if slot.shape[0] != batch or tuple(slot.shape[3:]) != (height, width):
                raise JobError(
                    f"{name} is {tuple(slot.shape)}, which does not go with latents {tuple(latents.shape)}."
                )
            positions = _times(slot_times, slot.shape[2], batch, f"indices_{name}")
            tokens.insert(0, self.clean_x_embedder(slot.to(latents.dtype), scale))
            tables.insert(0, rope.rotary(positions, *space, axes, theta, scale))
        return ops.cat(tokens, 1), tables, grid


class PatchEmbedding(nn.Module):
    """Patches of latents -> tokens."""

    def __init__(self, channels: int, width: int, patch: tuple[int, int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, width, patch, stride=patch)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, L, D)."""
        return _flat(self.proj(latents))


class CleanEmbedding(nn.Module):
    """Clean frames -> tokens, by kernels of 1·2·2, 2·4·4 and 4·8·8."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj, self.proj_2x, self.proj_4x = (
            nn.Conv3d(channels, width, kernel, stride=kernel) for kernel in ((1, 2, 2), (2, 4, 4), (4, 8, 8))
        )

    def forward(self, latents: Tensor, scale: int) -> Tensor:
        """(B, C, T, H, W) -> (B, L, D); the last frame, row and column are repeated to fill the kernel."""
        kernel = (scale, 2 * scale, 2 * scale)
        t, h, w = (-size % side for size, side in zip(latents.shape[2:], kernel, strict=True))
        if t or h or w:
            latents = ops.pad(latents, (0, w, 0, h, 0, t), mode="replicate")
        return _flat({1: self.proj, 2: self.proj_2x, 4: self.proj_4x}[scale](latents))


class ImageProjection(nn.Module):
    """SigLIP tokens -> tokens of the transformer's width."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, 3 * width)
        self.down = nn.Linear(3 * width, width)

    def forward(self, picture: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, D)."""
        return self.down(ops.silu(self.up(picture)))


class Conditioning(nn.Module):
    """Timestep + guidance + pooled text, each through an MLP of its own."""

    def __init__(self, width: int, pooled_dim: int, guidance: bool = False) -> None:
        super().__init__()
        self.timestep_embedder = EmbeddingMLP(256, width)
        self.text_embedder = EmbeddingMLP(pooled_dim, width)
        self.guidance_embedder = EmbeddingMLP(256, width) if guidance else None

    def forward(self, wave: Tensor, pooled: Tensor, guidance: Tensor | None = None) -> Tensor:
        """The timestep's sinusoid (B, 256), pooled text (B, P), guidance in thousandths (B,) -> (B, D)."""
        total = self.timestep_embedder(wave)
        if self.guidance_embedder is not None:
            # Unlike the reference: no guidance means a scale of 1, the plain conditional model (it fails there).
            scale = beside(np.full(1, 1000, np.float32), wave) if guidance is None else guidance.reshape(-1)
            total = total + self.guidance_embedder(sinusoid(scale).to(wave.dtype))
        return total + self.text_embedder(pooled)


class TextRefiner(nn.Module):
    """The text encoder's states, refined by a small transformer that knows the timestep."""

    def __init__(self, dim: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.time_text_embed = Conditioning(width, dim)
        self.proj_in = nn.Linear(dim, width)
        self.token_refiner = RefinerBlocks(width, heads, layers)

    def forward(self, text: Tensor, wave: Tensor, counts: np.ndarray) -> Tensor:
        """text (B, N, dim), of which row i's first counts[i] tokens are valid -> (B, N, D)."""
        valid = np.arange(text.shape[1]) < counts[:, None]
        # Unlike the reference: an empty text has the mean 0 (it divides by zero there).
        share = (valid / np.maximum(counts, 1)[:, None]).astype(np.float32)
        pooled = (text.float() * beside(share[:, :, None], text)).sum(1).to(text.dtype)
        # A row without text still sees one key, else its softmax has nothing to sum.
        mask = key_mask(np.maximum(counts, 1), text.shape[1], text)
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
    """Self-attention and feed-forward with gates, but no shift or scale, from the conditioning."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, qk_norm=None, out=True)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.ff = FeedForward(width, 4 * width, ops.silu)
        self.norm_out = Modulation(width, 2)

    def forward(self, text: Tensor, conditioning: Tensor, mask: Tensor | None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        gate, mlp_gate = self.norm_out(conditioning)
        text = text + gate * self.attn(self.norm1(text), None, mask)
        return text + mlp_gate * self.ff(self.norm2(text))


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

    def forward(
        self, latents: Tensor, text: Tensor, conditioning: Tensor, rotary: Rotary, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(B, L, D), (B, N, D) -> the same."""
        shift, scale, gate, *mlp = self.norm1(conditioning)
        text_shift, text_scale, text_gate, *text_mlp = self.norm1_context(conditioning)
        seen, text_seen = self.attn(
            modulate(self.norm(latents), shift, scale),
            modulate(self.norm(text), text_shift, text_scale),
            rotary,
            mask,
        )
        latents = latents + gate * seen
        text = text + text_gate * text_seen
        return self._widen(latents, self.ff, *mlp), self._widen(text, self.ff_context, *text_mlp)

    def _widen(self, x: Tensor, ff: FeedForward, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        return x + gate * ff(modulate(self.norm(x), shift, scale))


class SingleBlock(nn.Module):
    """One stream; attention and feed-forward side by side from the same input."""

    def __init__(self, width: int, heads: int, hidden: int, qk_norm: str | None) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm = Modulation(width, 3)
        self.attn = Attention(width, heads, qk_norm, out=False)
        self.proj_mlp = nn.Linear(width, hidden)
        self.proj_out = nn.Linear(width + hidden, width)

    def forward(self, tokens: Tensor, conditioning: Tensor, rotary: Rotary, mask: Tensor | None) -> Tensor:
        """(B, L + N, D) -> the same."""
        shift, scale, gate = self.norm(conditioning)
        x = modulate(self.layer_norm(tokens), shift, scale)
        seen = self.attn(x, rotary, mask)
        return tokens + gate * self.proj_out(ops.cat([seen, gelu_tanh(self.proj_mlp(x))], -1))


class Projections(nn.Module):
    """Queries, keys and values of one sequence, the first two normalised by head."""

    def __init__(self, width: int, heads: int, qk_norm: str | None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.norm_q, self.norm_k = (_head_norm(width // heads, qk_norm) for _ in range(2))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L, D) -> three times (B, L, H, E)."""
        q, k, v = (_heads(linear(x), self.heads) for linear in (self.to_q, self.to_k, self.to_v))
        return self.norm_q(q), self.norm_k(k), v


class Attention(Projections):
    """One sequence that sees itself; in single blocks without an output layer of its own."""

    def __init__(self, width: int, heads: int, qk_norm: str | None, out: bool) -> None:
        super().__init__(width, heads, qk_norm)
        self.to_out = nn.Sequential(nn.Linear(width, width)) if out else nn.Identity()

    def forward(self, x: Tensor, rotary: Rotary | None, mask: Tensor | None) -> Tensor:
        """(B, L, D) -> the same."""
        q, k, v = self.project(x)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
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
        q, k, v = self.project(x)
        linears = (self.add_q_proj, self.add_k_proj, self.add_v_proj)
        text_q, text_k, text_v = (_heads(linear(text), self.heads) for linear in linears)
        q = rotate(ops.cat([q, self.norm_added_q(text_q)], 1), rotary)
        k = rotate(ops.cat([k, self.norm_added_k(text_k)], 1), rotary)
        seen = attend(q, k, ops.cat([v, text_v], 1), mask)
        length = x.shape[1]
        return self.to_out(seen[:, :length]), self.to_add_out(seen[:, length:])


def valid_tokens(text: Tensor, mask: Tensor | None) -> tuple[Tensor, np.ndarray]:
    """The valid tokens of each row, moved to its front and cut at the longest row; how many they are (B,).

    Unlike the reference: it keeps the first `mask.sum()` tokens wherever the ones stand.
    """
    batch, length, dim = text.shape
    if mask is None:
        return text, np.full(batch, length)
    valid = np.asarray(ops.to_numpy(mask) if isinstance(mask, ops.Tensor) else mask) != 0
    if valid.shape != (batch, length):
        raise JobError(
            f"encoder_attention_mask is {valid.shape}; text {tuple(text.shape)} needs {(batch, length)}."
        )
    counts = valid.sum(1)
    # One token stays where no row has any; the mask of the attention hides it.
    longest = max(1, int(counts.max()))
    if (valid == (np.arange(length) < counts[:, None])).all():
        return text[:, :longest], counts
    first = np.argsort(~valid, axis=1, kind="stable")[:, :longest] + np.arange(batch)[:, None] * length
    chosen = ops.index_select(text.reshape(batch * length, dim), 0, beside(first.reshape(-1), text))
    return chosen.reshape(batch, longest, dim), counts


def key_mask(counts: np.ndarray, length: int, like: Tensor) -> Tensor | None:
    """True (B, 1, 1, length) for the first counts[i] keys of row i; None where every row is full."""
    if (counts == length).all():
        return None
    return beside((np.arange(length) < counts[:, None])[:, None, None], like)


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], heads, -1)


def _flat(x: Tensor) -> Tensor:
    """(B, D, T, H, W) -> (B, T·H·W, D)."""
    return x.flatten(2).permute(0, 2, 1)


def _head_norm(dim: int, kind: str | None) -> nn.Module:
    return nn.Identity() if kind is None else RMSNorm(dim)


def _times(times: Times, frames: int, batch: int, name: str) -> np.ndarray:
    """Positions (R, T) of a slot's frames."""
    if times is None:
        raise JobError(
            f"{name} is missing: these latents need the time position of each of their {frames} frames."
        )
    array = np.atleast_2d(ops.to_numpy(times) if isinstance(times, ops.Tensor) else np.asarray(times))
    if array.shape not in ((1, frames), (batch, frames)):
        raise JobError(
            f"{name} has the shape {array.shape}; {frames} frames need {(frames,)} or {(batch, frames)}."
        )
    return array


def _check_rows(batch: int, **inputs: Tensor | None) -> None:
    for name, value in inputs.items():
        if value is None:
            raise JobError(f"The transformer needs {name}; None was given.")
        if value.shape[0] != batch:
            raise JobError(
                f"{name} has {value.shape[0]} rows, the latents have {batch}; give one row per video."
            )


def _check(c: TransformerConfig) -> None:
    """Raise ModelError for what no network can be built from."""
    if c.patch_size_t != 1 or (c.has_clean_x_embedder and c.patch_size != 2):
        raise ModelError(
            f"Patches of {c.patch_size_t} x {c.patch_size} x {c.patch_size} do not go with FramePack's kernels; "
            "patch_size_t must be 1 and patch_size 2."
        )
    if sum(c.rope_axes_dim) != c.attention_head_dim or any(dim % 2 for dim in c.rope_axes_dim):
        raise ModelError(
            f"rope_axes_dim {tuple(c.rope_axes_dim)} must be even numbers that add up to attention_head_dim, "
            f"{c.attention_head_dim}."
        )
    if c.qk_norm not in ("rms_norm", None):
        raise ModelError(f"qk_norm is {c.qk_norm!r}; known: 'rms_norm' and None.")
