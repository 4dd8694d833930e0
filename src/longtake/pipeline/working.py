"""The memory that the parts work in, beside their weights: what lies there at the worst moment of each.

Counted from the networks' own code, in values that live at once; the comment at each number says which. Pure.

Letters: B rows, L tokens, D width, C channels, T H W frames, rows and columns of pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from longtake.plan.layout import KERNELS, LATENT_PIXELS, end_tokens, token_count

TEXT_TOKENS = 256
"""Of a prompt, at most; Llama reads its template, about 100 more, with it."""
TEMPLATE_TOKENS = 100
TILE_FRAMES = 17
"""Frames of a tile of the autoencoder, the one that it begins with included."""
PIECE = 256 * 2**20
"""Bytes of one operation's result in the autoencoder on an accelerator (`ops.piece_values`) …"""
PIECE_ON_CPU = 4 * 2**20
"""… and on a CPU."""


@dataclass(frozen=True)
class Work:
    """The work that a job asks of the networks, as far as memory goes.

    `clean` are the clean frames that a section sees, by scale; `branches` is 2 with a negative prompt; `steps` those
    of a section; `voices` is how many prompts and sets of pictures are mixed in one, at most. The published geometry is
    the default.

    >>> Work(640, 608).tokens(2, 729) > 18_000
    True
    """

    width: int = 640
    height: int = 480
    window: int = 9
    clean: Mapping[int, int] = field(default_factory=lambda: {1: 2, 2: 2, 4: 16})
    rows: int = 1
    branches: int = 1
    steps: int = 25
    text: int = TEXT_TOKENS
    beyond: int = 0
    """Tokens of what lies beyond the clean frames, by patches of 2 x 2."""
    voices: int = 1

    def tokens(self, patch: int, picture: int) -> int:
        """The packed sequence of one row: window and clean frames by patches, picture, text."""
        window = token_count(self.window, self.height, self.width) * 4 // patch**2
        clean = sum(
            token_count(frames, self.height, self.width, scale)
            for scale, frames in self.clean.items()
            if scale in KERNELS
        )
        return window + clean + self.beyond + picture + self.text


def work_of(job: Any, plan: Any, rows: int = 1) -> Work:
    """The work of a job with a size, by its plan: the section that sees most decides."""
    clean: dict[int, int] = {}
    seen = (plan[0], plan[-1], plan[len(plan) // 2])
    beyond = max(end_tokens(section.far, job.height, job.width) for section in seen)
    for section in seen:
        for scale, slot in section.slots.items():
            clean[scale] = max(clean.get(scale, 0), len(slot.frames))
    branches = 1 + (job.cfg_scale > 1)
    # A section is told of two pictures at most, and of the prompt before its own while that fades.
    weak = sum(anchor.strength != 1 for anchor in job.anchors)
    voices = (1 + min(weak, 2)) * (1 + bool(job.blend and job.prompts))
    return Work(
        job.width, job.height, plan.window, clean, rows, branches, job.steps, beyond=beyond, voices=voices
    )


def step_bytes(config: Any, work: Work, value: int, on_cpu: bool = False) -> int:
    """One step of the transformer at its worst moment; `value` bytes for each value."""
    width = config.num_attention_heads * config.attention_head_dim
    picture = 729 if config.has_image_proj else 0
    tokens = work.rows * work.tokens(config.patch_size, picture)
    one = tokens * width
    # A single block widens: the sequence as it came in and as the pass began, what attention read and saw, the wide
    # values, these beside what was seen in one tensor, the result. A CPU widens in pieces; there attention is larger:
    # queries, keys, values, and queries in float32 before and after they are turned.
    wide = (4 + 2 * config.mlp_ratio + 2) * value
    turning = 7 * value + 2 * 4
    tables = (
        tokens * config.attention_head_dim * 4 * 6
    )  # rotary tables of the section and the prompt, and turned ones
    # On a CPU torch's fused attention copies queries, keys and values once more.
    return int(one * (max(turning, 10 * value) if on_cpu else max(wide, turning))) + tables


def kept_bytes(config: Any, work: Work, value: int, depths: tuple[int, int] | None = None) -> int:
    """The bytes that are kept of all timesteps of a job: each block's modulations, and the refined text."""
    width = config.num_attention_heads * config.attention_head_dim
    double, single = depths or (config.num_layers, config.num_single_layers)
    picture = 729 if config.has_image_proj else 0
    each = (12 * double + 3 * single) * width + (work.text + picture) * width
    return each * value * work.steps * work.rows * work.branches * work.voices


def encoder_bytes(config: Any, part: str, work: Work, value: int) -> int:
    """A text or picture encoder over its input."""
    tokens = {"text_encoder": work.text + TEMPLATE_TOKENS, "text_encoder_2": 77, "image_encoder": 729}[part]
    # A layer: its input, queries, keys and values, and the hidden values three times (gate, up, product).
    values = tokens * (6 * config.hidden_size + 3 * config.intermediate_size)
    return work.rows * values * max(value, 4)


def decode_bytes(
    config: Any, width: int, height: int, value: int, rows: int = 1, on_cpu: bool = False
) -> int:
    """The autoencoder's decoder over one tile of `width` x `height` pixels at its worst moment.

    The last block's first resnet: the clip with the channels before, twice those after, and the sum; then the pieces in
    which one operation works: scaled, activated, padded, its result and what the kernel needs.
    """
    before, after = config.block_out_channels[1], config.block_out_channels[0]
    if len(config.block_out_channels) < 2:
        before = after
    clip = rows * TILE_FRAMES * width * height * (before + 2 * after) * value
    pieces = 6 * min(PIECE_ON_CPU if on_cpu else PIECE, clip)
    # The frames that wait to be faded into the next tile's, and those that leave.
    frames = rows * 3 * 2 * TILE_FRAMES * width * height * value
    return clip + pieces + frames


def encode_bytes(config: Any, width: int, height: int, value: int, rows: int = 1) -> int:
    """The autoencoder's encoder over one picture."""
    first = config.block_out_channels[0]
    area = (width // LATENT_PIXELS) * (height // LATENT_PIXELS)
    attention = rows * area * config.block_out_channels[-1] * 6 * value
    return rows * width * height * first * 5 * value + attention
