"""FramePack's transformer: HunyuanVideo's two-stream DiT over a packed sequence of clean and noisy latents.

The sequence is [4x | 2x | 1x | window | picture | text]: clean frames packed by kernels that grow with their
distance, the noisy window, SigLIP tokens of the picture, refined text. What lies beyond the packed frames comes before
them, where a plan keeps it.

`forward` is the network as it is published. As long as nobody has hooked or patched it, a caller may also run its
parts and compute once what repeats: `prompted` once a prompt, `moment` once a timestep of a prompt, `context` once a
section, `sight` once a section and prompt; then `tokens`, `run_blocks` and `head` at each step.

Sources: FramePack (arXiv 2504.12626), HunyuanVideo (arXiv 2412.03603); equal to diffusers'
`HunyuanVideoFramepackTransformer3DModel`, with its weight names.

Shapes: B batch, C channels, T H W latents, D width, K tokens of clean frames, W of the window, N of picture and text,
M of the picture alone, P channels of the pooled text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longtake.backend import kernels, modules, nn, ops, runtime
from longtake.config import TransformerConfig
from longtake.errors import JobError, ModelError
from longtake.models import adapters, rope
from longtake.models.layers import Modulation, modulate, sinusoid
from longtake.models.outputs import Sample
from longtake.models.pretrained import MODULATIONS, PretrainedModel, needing
from longtake.models.running import Running
from longtake.models.transformer import packing
from longtake.models.transformer.blocks import Block, DoubleBlock, SingleBlock
from longtake.models.transformer.embeddings import ImageProjection, TextRefiner, TimeTextEmbedding
from longtake.models.transformer.packing import (
    SLOTS,
    Beyond,
    Clean,
    CleanEmbedding,
    Context,
    PatchEmbedding,
    Sight,
    Tensor,
    Times,
)
from longtake.plan.layout import check_scales
from longtake.sampling.configs import text_of


@dataclass(frozen=True)
class Prompted:
    """A prompt and a picture, as far as they do not depend on the timestep."""

    text: Tensor
    """(B, N - M, text_embed_dim): the valid tokens of each row, the longest row's number of them."""
    valid: Tensor | None
    """(B, N - M): which of them are valid; None if all are."""
    share: Tensor
    """(B, N - M, 1): each token's share of the mean over its row."""
    pooled: Tensor
    """(B, P)."""
    picture: Tensor | None
    """(B, M, D): the picture's tokens; None if the model has no image projection or no picture was given."""

    @property
    def length(self) -> int:
        """Tokens of picture and text, N."""
        return int(self.text.shape[1]) + (0 if self.picture is None else int(self.picture.shape[1]))


@dataclass(frozen=True)
class Moment:
    """A prompt at one timestep; the same in every section."""

    text: Tensor
    """(B, N, D): the picture's tokens, then the refined text's."""
    conditioning: Tensor
    """(B, D): timestep + guidance + pooled text."""
    modulations: dict[int, Tensor] | None = None
    """Those of each block that has run at this moment, kept for the next run; None if each block makes its own."""


@dataclass(frozen=True)
class Tokens:
    """The sequence for the blocks, and what `head` needs to undo the packing."""

    latents: Tensor
    """(B, K + W, D): clean frames, most packed first, then the window."""
    moment: Moment
    context: Context
    sight: Sight


class HunyuanVideoFramepackTransformer3DModel(PretrainedModel, Running):
    """The velocity (noise - clean) of one window of latents, given the clean frames around it, picture and text."""

    config_class = TransformerConfig
    block_lists = ("transformer_blocks", "single_transformer_blocks")
    cache: str = ""
    """The step cache of the videos that are made with it, by its text; the network itself knows nothing of it."""

    def __init__(self, config: Any = None, **fields: Any) -> None:
        super().__init__(config, **fields)
        c = self.config
        _check(c)
        heads, width = c.num_attention_heads, c.num_attention_heads * c.attention_head_dim
        block = (width, heads, int(width * c.mlp_ratio), c.qk_norm)
        patch = (c.patch_size_t, c.patch_size, c.patch_size)
        self.x_embedder = PatchEmbedding(c.in_channels, width, patch)
        self.clean_x_embedder = CleanEmbedding(c.in_channels, width) if c.has_clean_x_embedder else None
        self.context_embedder = TextRefiner(c.text_embed_dim, width, heads, c.num_refiner_layers)
        self.image_projection = ImageProjection(c.image_proj_dim, width) if c.has_image_proj else None
        self.time_text_embed = TimeTextEmbedding(width, c.pooled_projection_dim, c.guidance_embeds)
        self.transformer_blocks = nn.ModuleList([DoubleBlock(*block) for _ in range(c.num_layers)])
        self.single_transformer_blocks = nn.ModuleList(
            [SingleBlock(*block) for _ in range(c.num_single_layers)]
        )
        self.norm_out = Modulation(width, 2)
        self.last_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.proj_out = nn.Linear(width, (c.out_channels or c.in_channels) * c.patch_size**2 * c.patch_size_t)

    @property
    def blocks(self) -> Sequence[Any]:
        """All blocks, in the order in which they run."""
        double: Any = self.transformer_blocks
        single: Any = self.single_transformer_blocks
        return (*double, *single)

    @property
    def is_cache_enabled(self) -> bool:
        """Tell if `enable_cache` was called."""
        return bool(self.cache)

    def enable_cache(self, config: Any) -> None:
        """Make videos with a step cache from now on: a text such as "easy:0.05", or one of diffusers' configs.

        It serves jobs that name no other (`Job.cache`). Raises JobError for a cache that is not made here, and if there
        is one already.
        """
        if self.cache:
            raise JobError(
                f"There is the cache {self.cache!r} already; disable_cache comes before another one."
            )
        self.cache = text_of(config)

    def disable_cache(self) -> None:
        """Compute every step again."""
        self.cache = ""

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
        latents_beyond: Tensor | None = None,
        indices_latents_beyond: Times = None,
        scale_beyond: int = 1,
    ) -> Sample | tuple[Tensor]:
        """Velocity (B, C, T, H, W) of `hidden_states` (B, C, T, H, W), called as diffusers' class is.

        `timestep` and `guidance` are (B,) or (1,), in thousandths; text (B, N, text_embed_dim) with its mask
        (B, N); `image_embeds` (B, N, image_proj_dim), not looked at by a model without an image projection;
        `attention_kwargs={"scale": s}` multiplies what adapters add.
        Raises JobError if shapes do not fit together.

        Unlike the reference: clean latents, picture and mask (all of the text is valid then) may be None, times may be
        None for the window (0, 1, …) and may differ by row (B, T), and a text mask may have holes or stand on the left.
        `latents_beyond` are the history's far end, packed by `scale_beyond`, of the window's size or of fewer cells.
        """
        clean = {
            1: (latents_clean, indices_latents_clean),
            2: (latents_history_2x, indices_latents_history_2x),
            4: (latents_history_4x, indices_latents_history_4x),
        }
        with self.at_work(), adapters.scaled(self, attention_kwargs):
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
                None
                if latents_beyond is None
                else Beyond(latents_beyond, indices_latents_beyond, scale_beyond),
            )
            velocity = self.head(self.run_blocks(tokens), tokens)
        return Sample(velocity) if return_dict else (velocity,)

    def embed(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        text_mask: Tensor | None,
        pooled_text: Tensor | None,
        picture: Tensor | None,
        times: Times = None,
        guidance: Tensor | None = None,
        clean: Clean | None = None,
        beyond: Beyond | None = None,
    ) -> Tokens:
        """Everything before the blocks; `clean` holds (latents, times) by scale."""
        _check_rows(latents.shape[0], encoder_hidden_states=text, pooled_projections=pooled_text)
        prompted = self.prompted(text, text_mask, pooled_text, picture)
        context = self.context(tuple(latents.shape), times, clean or {}, beyond)
        moment = self.moment(prompted, timestep, guidance)
        return self.tokens(latents, moment, context, self.sight(context, prompted))

    def prompted(
        self, text: Tensor, text_mask: Tensor | None, pooled_text: Tensor | None, picture: Tensor | None
    ) -> Prompted:
        """The prompt and the picture, prepared once for all steps and sections."""
        if text is None or pooled_text is None:
            missing = "encoder_hidden_states" if text is None else "pooled_projections"
            raise JobError(f"The transformer needs {missing}; None was given.")
        dtype = self.dtype
        words, valid = packing.valid_tokens(text.to(dtype), text_mask)
        seen = None
        if self.image_projection is not None and picture is not None:
            seen = self.image_projection(picture.to(dtype))
        return Prompted(words, valid, packing.shares(words, valid), pooled_text.to(dtype), seen)

    def moment(
        self, prompted: Prompted, timestep: Tensor, guidance: Tensor | None, keep: bool = False
    ) -> Moment:
        """The prompt at a timestep (B,) or (1,), in thousandths; guidance has the same form.

        With `keep`, the blocks' modulations are computed at the first run of the blocks and kept for later ones: at 13B
        they take 2.2 MB for one timestep, and their weights, which are then not needed again, 6.84 GB.
        """
        dtype = prompted.text.dtype
        timestep = timestep.reshape(-1)
        wave, force = sinusoid(timestep).to(dtype), None
        if self.time_text_embed.guidance_embedder is not None:
            # Unlike the reference: no guidance means a scale of 1, the plain conditional model (it fails there).
            scale = timestep.float() * 0.0 + 1000.0 if guidance is None else guidance.reshape(-1)
            force = sinusoid(scale).to(dtype)
        conditioning = self.time_text_embed(wave, prompted.pooled, force)
        mask = packing.refiner_mask(prompted.valid)
        text = runtime.compiled(self.context_embedder)(prompted.text, wave, prompted.share, mask)
        if prompted.picture is not None:
            # The picture stands before the text, so that what is masked stands at the end.
            text = ops.cat([prompted.picture, text], 1)
        return Moment(text, conditioning, {} if keep else None)

    def modulate(self, moments: Sequence[Moment]) -> None:
        """Compute all modulations that these moments keep, in one pass over the blocks that needs nothing else of them.

        Afterwards the blocks run without the weights of their modulations: a third of the network's blocks.
        """
        with needing(self, MODULATIONS):
            for number, block in enumerate(self.brought(self.blocks)):
                for moment in moments:
                    _kept(moment, block, number)

    def context(
        self, shape: tuple[int, ...], times: Times, clean: Clean, beyond: Beyond | None = None
    ) -> Context:
        """The context of a section whose latents are of `shape` (B, C, T, H, W): its clean frames, given by scale.

        `beyond` is the far end of the history, if it is seen.
        """
        c = self.config
        batch, _, frames, height, width = shape
        if height % c.patch_size or width % c.patch_size:
            raise JobError(
                f"Latents of {height} x {width} cannot be cut into patches of {c.patch_size} x {c.patch_size}; "
                "both sides must be multiples of it."
            )
        grid = (frames // c.patch_size_t, height // c.patch_size, width // c.patch_size)
        turn = (*grid[1:], c.rope_axes_dim, c.rope_theta)
        tokens: list[Tensor] = []
        tables: list[rope.Table] = []
        check_scales(clean)
        if beyond is not None and beyond.latents.shape[2]:
            check_scales([beyond.scale])
            far = beyond.latents
            place = packing.positions(beyond.times, far.shape[2], batch, "indices_latents_beyond")
            tokens.append(self._packed(far, beyond.scale, (*shape[:3], *far.shape[3:])))
            if tuple(far.shape[3:]) == (height, width):
                tables.append(rope.rotary(place, *turn, beyond.scale))
            else:
                cells = (int(far.shape[3]) // 2, int(far.shape[4]) // 2)
                tables.append(rope.coarse(place, grid[1:], cells, *turn[2:]))
        for scale in sorted(clean, reverse=True):
            slot, slot_times = clean[scale]
            if slot is not None:
                place = packing.positions(slot_times, slot.shape[2], batch, f"indices_{SLOTS[scale]}")
                tokens.append(self._packed(slot, scale, shape))
                tables.append(rope.rotary(place, *turn, scale))
        window = np.arange(frames)[None]
        if times is not None:
            window = packing.positions(times, frames, batch, "indices_latents")
        tables.append(rope.rotary(window, *turn))
        rotary = packing.on_device(rope.sequence(tables), modules.placed(self))
        return Context(ops.cat(tokens, 1) if tokens else None, rotary, grid)

    def sight(self, context: Context, prompted: Prompted) -> Sight:
        """The tables and the mask for attention in one section with one prompt."""
        cos, sin = context.rotary
        before = int(cos.shape[1]) + prompted.length - int(prompted.text.shape[1])
        still = (
            packing.unturned(cos, 1.0, prompted.length),
            packing.unturned(sin, 0.0, prompted.length),
        )
        return Sight(still, packing.key_mask(prompted.valid, before))

    def tokens(self, latents: Tensor, moment: Moment, context: Context, sight: Sight) -> Tokens:
        """All that the blocks need, from the window's latents (B, C, T, H, W)."""
        window = self.x_embedder(latents.to(moment.text.dtype))
        packed = window if context.clean is None else ops.cat([context.clean, window], 1)
        return Tokens(packed, moment, context, sight)

    def run_blocks(self, tokens: Tokens, blocks: Iterable[Block] | None = None) -> Tensor:
        """The window's tokens (B, W, D) after all blocks.

        `blocks` are those of the network, or a callable in the place of each (`Block`), in their order. Each may be
        made when it is asked for: the loop goes through them once, and holds on to none. The network's own go by its
        `walks`. What a moment keeps of their modulations is computed in this same pass; a callable without
        `modulations` makes its own at each run. Blocks that are modules are compiled one by one if that was asked for,
        and their attention runs on the network's `kernel`.
        """
        moment, rows = tokens.moment, tokens.context.rows
        rotary = ops.turning(*tokens.sight.rotary, fused=runtime.compiles(self.blocks[0]))
        pieces: tuple[Tensor, ...] = (tokens.latents, moment.text)
        depth, done = len(self.blocks), 0
        with kernels.attending(self.kernel, tokens.latents.device):
            for walked in self.walked(self.blocks) if blocks is None else blocks:
                block = runtime.compiled(walked)
                # Only the window is read of the last block's result, so the block makes nothing else.
                wanted = rows if done == depth - 1 else None
                modulation = _kept(moment, block, done)
                pieces = block(pieces, moment.conditioning, rotary, tokens.sight.mask, wanted, modulation)
                done += 1
        if done != depth:
            raise ModelError(
                f"The transformer has {depth} blocks and was run with {done}; give one for each."
            )
        return pieces[0]

    def head(self, window: Tensor, tokens: Tokens) -> Tensor:
        """The window's velocity (B, C, T, H, W) from its tokens (B, W, D) that left the blocks."""
        c = self.config
        time, height, width = tokens.context.grid
        # Here, and only here, the scale comes before the shift.
        scale, shift = self.norm_out(tokens.moment.conditioning).chunk(2, -1)
        x = self.proj_out(modulate(self.last_norm(window), shift, scale))
        x = x.reshape(x.shape[0], time, height, width, -1, c.patch_size_t, c.patch_size, c.patch_size)
        x = x.permute(0, 4, 1, 5, 2, 6, 3, 7)
        return x.reshape(
            x.shape[0], x.shape[1], time * c.patch_size_t, height * c.patch_size, width * c.patch_size
        )

    def _packed(self, slot: Tensor, scale: int, shape: tuple[int, ...]) -> Tensor:
        """Tokens of the clean frames of one scale."""
        if self.clean_x_embedder is None:
            raise JobError(
                f"This transformer takes no {SLOTS[scale]}: its config says has_clean_x_embedder false."
            )
        packing.check_slot(SLOTS[scale], slot, shape)
        return self.clean_x_embedder(slot.to(self.dtype), scale)


def _kept(moment: Moment, block: Any, number: int) -> Tensor | None:
    """The block's modulation at this moment, computed once; None if the block makes its own."""
    kept = moment.modulations
    if kept is None or not hasattr(block, "modulations"):
        return None
    if number not in kept:
        kept[number] = block.modulations(moment.conditioning)
    return kept[number]


def _check_rows(batch: int, **inputs: Tensor | None) -> None:
    for name, value in inputs.items():
        if value is not None and value.shape[0] != batch:
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
