"""FramePack's transformer: HunyuanVideo's two-stream DiT over a packed sequence of clean and noisy latents.

The sequence is [4x | 2x | 1x | window | picture | text]: clean frames packed by kernels that grow with their
distance, the noisy window, SigLIP tokens of the picture, refined text. It opens at three joints:
`embed` (everything that is not a block), `run_blocks` (nearly all of the cost; no branch depends on data) and `head`.
`embed` is made of what stays the same for a whole job (`prompted`), for one timestep of a job (`moment`: refined text
and all modulations, which every section asks for again) and for one section (`context`), so that a loop over steps
and sections computes each of them once.

Sources: FramePack (arXiv 2504.12626), HunyuanVideo (arXiv 2412.03603); equal to diffusers'
`HunyuanVideoFramepackTransformer3DModel`, with its weight names.

Shapes: B batch, C channels, T H W latents, D width, L packed latent tokens (K of clean frames, W of the window),
N picture and text tokens, H heads, E channels of a head, R rows of times (1 or B).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longtake.backend import nn, ops, runtime
from longtake.config import TransformerConfig
from longtake.errors import JobError, ModelError
from longtake.models import adapters, rope
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
    rows_at_once,
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
class Prompted:
    """The prompt and the picture of a job, as far as they do not depend on the timestep."""

    text: Tensor
    """(B, N, text_embed_dim): the valid tokens of each row, the longest row's number of them."""
    counts: np.ndarray
    """(B,): how many of each row are valid."""
    pooled: Tensor
    """(B, P)."""
    picture: Tensor | None
    """(B, M, D): the picture's tokens; None where the model has no image projection or no picture was given."""

    @property
    def length(self) -> int:
        """Tokens of picture and text."""
        return int(self.text.shape[1]) + (0 if self.picture is None else int(self.picture.shape[1]))


@dataclass(frozen=True)
class Moment:
    """What a timestep makes of the prompt; the same in every section."""

    text: Tensor
    """(B, N, D): the picture's tokens, then the refined text's."""
    conditioning: Tensor
    """(B, D): timestep + guidance + pooled text."""
    modulations: tuple[Tensor, ...]
    """Shifts, scales and gates of each block in turn, (B, 1, 12 D) or (B, 1, 3 D), and of the head, (B, 1, 2 D)."""


@dataclass(frozen=True)
class Context:
    """What one section sees besides its own latents; the same at every step."""

    clean: Tensor | None
    """(B, K, D): clean frames, most packed first."""
    rotary: Rotary
    """Cosine and sine (R, K + W + N, 1, E), float32; picture and text are not turned."""
    mask: Tensor | None
    """(B, 1, 1, K + W + N), True where a key may be seen; None where all may."""
    grid: tuple[int, int, int]
    """The window's tokens in time, height and width."""


@dataclass(frozen=True)
class Tokens:
    """What the blocks work on, and what `head` needs to undo the packing."""

    latents: Tensor
    """(B, L, D): clean frames, most packed first, then the window."""
    moment: Moment
    context: Context


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
        (B, N); `image_embeds` (B, N, image_proj_dim), not looked at by a model without an image projection;
        `attention_kwargs={"scale": s}` multiplies what adapters add.
        Raises JobError where shapes do not fit together.

        Unlike the reference: clean latents, picture and mask (all of the text is valid then) may be None, times may be
        None for the window (0, 1, …) and may differ by row (B, T), and a text mask may have holes or stand on the left.
        """
        clean = (
            (latents_clean, indices_latents_clean),
            (latents_history_2x, indices_latents_history_2x),
            (latents_history_4x, indices_latents_history_4x),
        )
        with adapters.scaled(self, attention_kwargs):
            tokens = self.embed(
                hidden_states,
                timestep,
                encoder_hidden_states,
                encoder_attention_mask,
                pooled_projections,
                image_embeds,
                indices_latents,
                guidance,
                clean,
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
        _check_rows(latents.shape[0], encoder_hidden_states=text, pooled_projections=pooled_text)
        prompted = self.prompted(text, text_mask, pooled_text, picture)
        context = self.context(tuple(latents.shape), times, clean, prompted)
        return self.tokens(latents, context, self.moment(prompted, timestep, guidance))

    def prompted(
        self, text: Tensor, text_mask: Tensor | None, pooled_text: Tensor, picture: Tensor | None
    ) -> Prompted:
        """What a whole job has in common."""
        dtype = self.x_embedder.proj.weight.dtype
        _check_rows(None, encoder_hidden_states=text, pooled_projections=pooled_text)
        valid, counts = valid_tokens(text.to(dtype), text_mask)
        seen = None
        if self.image_projection is not None and picture is not None:
            seen = self.image_projection(picture.to(dtype))
        return Prompted(valid, counts, pooled_text.to(dtype), seen)

    def moment(self, prompted: Prompted, timestep: Tensor, guidance: Tensor | None) -> Moment:
        """What a timestep (B,) or (1,), in thousandths, makes of the prompt; guidance likewise."""
        dtype = prompted.text.dtype
        wave = sinusoid(timestep.reshape(-1)).to(dtype)
        force = None
        if self.time_text_embed.guidance_embedder is not None:
            # Unlike the reference: no guidance means a scale of 1, the plain conditional model (it fails there).
            scale = beside(np.full(1, 1000, np.float32), wave) if guidance is None else guidance.reshape(-1)
            force = sinusoid(scale).to(dtype)
        length = prompted.text.shape[1]
        share = beside(_shares(prompted.counts, length), wave)
        # A row without text still sees one key, else its softmax has nothing to sum.
        mask = key_mask(np.maximum(prompted.counts, 1), length, wave)
        words, conditioning, *modulations = runtime.compiled(self, "conditioned")(
            prompted.text, wave, force, prompted.pooled, share, mask
        )
        if prompted.picture is not None:
            # The picture stands before the text, so that what is masked stands at the end.
            words = ops.cat([prompted.picture, words], 1)
        return Moment(words, conditioning, tuple(modulations))

    def conditioned(
        self,
        text: Tensor,
        wave: Tensor,
        force: Tensor | None,
        pooled: Tensor,
        share: Tensor,
        mask: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """`moment` over tensors alone: the refined text, the conditioning, the modulations."""
        conditioning = self.time_text_embed(wave, pooled, force)
        double: Any = self.transformer_blocks
        single: Any = self.single_transformer_blocks
        modulations: tuple[Tensor, ...] = ()
        for block in double:
            modulations += (ops.cat([block.norm1(conditioning), block.norm1_context(conditioning)], -1),)
        for block in single:
            modulations += (block.norm(conditioning),)
        words = self.context_embedder(text, wave, share, mask)
        return (words, conditioning, *modulations, self.norm_out(conditioning))

    def context(
        self,
        shape: tuple[int, ...],
        times: Times,
        clean: Sequence[tuple[Tensor | None, Times]],
        prompted: Prompted,
    ) -> Context:
        """What a section sees, whose latents are of `shape` (B, C, T, H, W): clean tokens, rotary tables, mask."""
        c = self.config
        batch, _, frames, height, width = shape
        if height % c.patch_size or width % c.patch_size:
            raise JobError(
                f"Latents of {height} x {width} cannot be cut into patches of {c.patch_size} x {c.patch_size}; "
                "both sides must be multiples of it."
            )
        grid = (frames // c.patch_size_t, height // c.patch_size, width // c.patch_size)
        space, axes, theta = grid[1:], c.rope_axes_dim, c.rope_theta
        tokens: list[Tensor] = []
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
                    f"{name} is {tuple(slot.shape)}, which does not go with latents {tuple(shape)}."
                )
            positions = _times(slot_times, slot.shape[2], batch, f"indices_{name}")
            tokens.insert(0, self.clean_x_embedder(slot.to(prompted.text.dtype), scale))
            tables.insert(0, rope.rotary(positions, *space, axes, theta, scale))
        cos, sin = (
            beside(table[:, :, None], prompted.text) for table in rope.joined(tables, prompted.length)
        )
        length = int(cos.shape[1])
        mask = key_mask(prompted.counts + (length - prompted.text.shape[1]), length, prompted.text)
        return Context(ops.cat(tokens, 1) if tokens else None, (cos, sin), mask, grid)

    def tokens(self, latents: Tensor, context: Context, moment: Moment) -> Tokens:
        """All that the blocks need, from the window's latents (B, C, T, H, W)."""
        window = runtime.compiled(self.x_embedder, "forward")(latents.to(moment.text.dtype))
        packed = window if context.clean is None else ops.cat([context.clean, window], 1)
        return Tokens(packed, moment, context)

    def run_blocks(self, tokens: Tokens) -> Tensor:
        """The window's tokens (B, W, D) after all blocks, in graph mode where the framework has one."""
        blocks = runtime.compiled(self, "blocks")
        context, moment = tokens.context, tokens.moment
        clean = 0 if context.clean is None else int(context.clean.shape[1])
        return blocks(
            tokens.latents, moment.text, *context.rotary, context.mask, clean, *moment.modulations[:-1]
        )

    def blocks(
        self,
        latents: Tensor,
        text: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
        clean: int,
        *modulations: Tensor,
    ) -> Tensor:
        """`run_blocks` over tensors alone; `clean` counts the tokens in front of the window."""
        length = latents.shape[1]
        number = 0
        for block in self.transformer_blocks:
            latents, text = block(latents, text, modulations[number], (cos, sin), mask)
            number += 1
        if not self.config.num_single_layers:
            return latents[:, clean:]
        joint = ops.cat([latents, text], 1)
        for block in self.single_transformer_blocks:
            # Of the last block only the window is read: it need not ask, or answer, for the rest.
            last = number == self.config.num_layers + self.config.num_single_layers - 1
            rows = (clean, length) if last else None
            joint = block(joint, modulations[number], (cos, sin), mask, rows)
            number += 1
        return joint

    def head(self, window: Tensor, tokens: Tokens) -> Tensor:
        """The window's velocity (B, C, T, H, W) from its tokens (B, W, D) that left the blocks."""
        return runtime.compiled(self, "unpacked")(window, tokens.moment.modulations[-1], *tokens.context.grid)

    def unpacked(self, window: Tensor, modulation: Tensor, time: int, height: int, width: int) -> Tensor:
        """`head` over tensors and the window's tokens in time, height and width."""
        pt, p = self.config.patch_size_t, self.config.patch_size
        # Here, and only here, the scale comes before the shift.
        scale, shift = modulation.chunk(2, -1)
        x = self.proj_out(modulate(self.last_norm(window), shift, scale))
        x = x.reshape(x.shape[0], time, height, width, -1, pt, p, p).permute(0, 4, 1, 5, 2, 6, 3, 7)
        return x.reshape(x.shape[0], x.shape[1], time * pt, height * p, width * p)


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
        self.time_text_embed = Conditioning(width, dim)
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
        gate, mlp_gate = self.norm_out(conditioning).chunk(2, -1)
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
        self, latents: Tensor, text: Tensor, modulation: Tensor, rotary: Rotary, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(B, L, D), (B, N, D) -> the same; `modulation` (B, 1, 12 D) is the latents' six parts, then the text's."""
        parts = modulation.chunk(12, -1)
        shift, scale, gate = parts[0], parts[1], parts[2]
        text_shift, text_scale, text_gate = parts[6], parts[7], parts[8]
        seen, text_seen = self.attn(
            modulate(self.norm(latents), shift, scale),
            modulate(self.norm(text), text_shift, text_scale),
            rotary,
            mask,
        )
        latents = ops.scale_shift(seen, gate, latents)
        text = ops.scale_shift(text_seen, text_gate, text)
        return self._widen(latents, self.ff, parts[3:6]), self._widen(text, self.ff_context, parts[9:])

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

    def forward(
        self,
        tokens: Tensor,
        modulation: Tensor,
        rotary: Rotary,
        mask: Tensor | None,
        rows: tuple[int, int] | None = None,
    ) -> Tensor:
        """(B, L + N, D) -> the same, or the tokens rows[0] … rows[1] - 1 alone; `modulation` is (B, 1, 3 D)."""
        shift, scale, gate = modulation.chunk(3, -1)
        x = modulate(self.layer_norm(tokens), shift, scale)
        seen = self.attn(x, rotary, mask, rows)
        if rows is not None:
            x, tokens = x[:, rows[0] : rows[1]], tokens[:, rows[0] : rows[1]]
        length, step = x.shape[1], rows_at_once(x, self.hidden)
        made = []
        for start in range(0, length, step):
            end = min(start + step, length)
            wide = gelu_tanh(self.proj_mlp(x[:, start:end]))
            made.append(self.proj_out(ops.cat([seen[:, start:end], wide], -1)))
        return ops.scale_shift(ops.cat(made, 1) if len(made) > 1 else made[0], gate, tokens)


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

    def forward(
        self, x: Tensor, rotary: Rotary | None, mask: Tensor | None, rows: tuple[int, int] | None = None
    ) -> Tensor:
        """(B, L, D) -> the same, or what the tokens rows[0] … rows[1] - 1 alone have seen."""
        asking = x if rows is None else x[:, rows[0] : rows[1]]
        q, k, v = self.project(x, asking)
        if rotary is not None:
            cos, sin = rotary
            here = rotary if rows is None else (cos[:, rows[0] : rows[1]], sin[:, rows[0] : rows[1]])
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


def _shares(counts: np.ndarray, length: int) -> np.ndarray:
    """Each token's share (B, length, 1) of the mean over its row's valid ones.

    Unlike the reference: an empty text has the mean 0 (it divides by zero there).
    """
    valid = np.arange(length) < counts[:, None]
    return (valid / np.maximum(counts, 1)[:, None]).astype(np.float32)[:, :, None]


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


def _check_rows(batch: int | None, **inputs: Tensor | None) -> None:
    for name, value in inputs.items():
        if value is None:
            raise JobError(f"The transformer needs {name}; None was given.")
        if batch is not None and value.shape[0] != batch:
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
