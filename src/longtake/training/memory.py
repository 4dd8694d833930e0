"""The memory that a training needs, counted from the transformer's config before anything is loaded. Pure.

    run = Run(Work(832, 480, rows=2), quantize="int8", learns=rank_numbers, rank=32)
    found = needs(PUBLISHED["framepack"], run)
    found.total, found.activations, found.unchecked     # bytes; the last: activations if nothing were recomputed
    most_rows(PUBLISHED["framepack"], run, 80 * GB)      # the largest batch that fits

Counted from the networks' own code, in the tensors that PyTorch keeps for the gradient; the comment at each number says
which. What PyTorch takes is from 1 percent more to a fifth less (`benchmarks/training_memory.py --measure`).

Letters: D width, H hidden width, v bytes of a value, tokens those of the packed sequence with picture and text.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace
from typing import Any

from longtake.pipeline.budget import RESERVE, SPARE
from longtake.pipeline.flops import PICTURE
from longtake.pipeline.sizes import WIDTHS, Sizes, Tensor, sizes_of
from longtake.pipeline.working import Work
from longtake.training.shapes import shapes_of, width_of

WIDE = 4
"""Bytes of a float32, which all that learns is, and its gradient."""
MOMENTS = {"adamw": 2, "muon": 1}
"""Numbers that an optimiser keeps for each that learns."""
LAST = 0.7
"""The part of a block that its keys and values are not."""
MOST_ROWS = 4096


@dataclass(frozen=True)
class Run:
    """The demand of a training on the memory of one device.

    `work` has the size, what a section makes and sees, and as `rows` the sections at a time. `dtype` is that of the
    weights that stay as they are, `quantize` the form of the blocks' ones, `learns` how many numbers learn: of a LoRA
    of that `rank`, or (`rank` 0) all of the network's, in float32. `computes` is the dtype of the arithmetic.
    `shared` is the number of devices that one copy of the weights, and all that is kept for each, is shared between.
    """

    work: Work = field(default_factory=Work)
    dtype: str = "bfloat16"
    quantize: str = "none"
    learns: int = 0
    rank: int = 0
    computes: str = "bfloat16"
    optimiser: str = "adamw"
    averages: bool = False
    recomputes: bool = True
    on_cpu: bool = False
    shared: int = 1

    @property
    def whole(self) -> bool:
        """All of the network learns."""
        return self.rank == 0


@dataclass(frozen=True)
class Needs:
    """Bytes of one device, by what they are for; `unchecked` and `checked`: the activations without and with
    recomputing, of which `activations` are the ones that are asked for."""

    weights: int
    gradients: int
    optimiser: int
    averages: int
    activations: int
    unchecked: int
    checked: int

    @property
    def kept(self) -> int:
        """All that does not grow with the batch."""
        return self.weights + self.gradients + self.optimiser + self.averages

    @property
    def total(self) -> int:
        """All of it, with an allocator's holes and what is not ours to count."""
        return self.kept + int(SPARE * self.activations) + RESERVE


def needs(config: Any, run: Run) -> Needs:
    """The memory of a training step at its worst moment."""
    weights = weights_of(config, run)
    learns = run.learns or (numbers_of(config) if run.whole else 0)
    each = -(-WIDE * learns // run.shared)
    checked, unchecked = (activations(config, replace(run, recomputes=value)) for value in (True, False))
    return Needs(
        weights=_share(weights, run) + (0 if run.whole else each),
        gradients=each,
        optimiser=MOMENTS[run.optimiser] * each,
        averages=each if run.averages else 0,
        activations=checked if run.recomputes else unchecked,
        unchecked=unchecked,
        checked=checked,
    )


@functools.lru_cache(32)
def numbers_of(config: Any) -> int:
    """The count of the network's numbers.

    >>> from longtake.config import PUBLISHED
    >>> numbers_of(PUBLISHED["framepack"])
    12874314816
    """
    return sum(map(math.prod, shapes_of(config).values()))


def weights_of(config: Any, run: Run) -> Sizes:
    """The network's own weights, in the form in which they stay."""
    return _weights(config, "float32" if run.whole else run.dtype, run.quantize)


@functools.lru_cache(32)
def _weights(config: Any, dtype: str, quantize: str) -> Sizes:
    each = WIDTHS[dtype]
    entries = {
        name: Tensor(dtype, shape, each * math.prod(shape)) for name, shape in shapes_of(config).items()
    }
    return sizes_of("transformer", entries, dtype, quantize, config)


def _share(weights: Sizes, run: Run) -> int:
    if run.shared == 1:
        return weights.whole
    # Two blocks are gathered at once, the one at work and the next, in the dtype of the arithmetic.
    return weights.whole // run.shared + 2 * weights.largest


def tokens_of(config: Any, work: Work) -> int:
    """Tokens of all rows in a block."""
    return work.rows * work.tokens(config.patch_size, PICTURE if config.has_image_proj else 0)


def activations(config: Any, run: Run) -> int:
    """The bytes kept for the gradient at the worst moment, when the first of the blocks' gradients are made."""
    width, tokens = width_of(config), tokens_of(config, run.work)
    value = WIDTHS[run.computes]
    double, single = (tokens * (of(config, run) + _low(run, value)) for of in (double_bytes, single_bytes))
    depth = config.num_layers + config.num_single_layers
    blocks = config.num_layers * double + config.num_single_layers * single
    # Of the last block's tokens only the window's are made; of the others it has keys and values.
    made = (
        tokens_of(config, replace(run.work, clean={}, text=0))
        - run.work.rows * PICTURE * config.has_image_proj
    )
    last = single if config.num_single_layers else double
    blocks -= int(last * (1 - made / tokens) * LAST)
    if run.recomputes:
        # What enters each block, and everything of the one that is at work.
        blocks = depth * tokens * width * value + max(double, single)
    # Gradients of the widest place: of the hidden values after the activation and before it. If all learns, that of a
    # matrix before it is added to the others.
    passing = int(tokens * value * 2 * width * config.mlp_ratio)
    passing += 2 * WIDE * int(width**2 * (1 + config.mlp_ratio)) if run.whole else 0
    tables = tokens * config.attention_head_dim * WIDE * 3  # cosine, sine, and both as complex numbers
    # The sequence as it is packed, with text and picture, before the first block.
    begins = 2 * tokens * width * value
    return int(blocks + passing + tables + begins + _copies(config, run))


def double_bytes(config: Any, run: Run) -> int:
    """The values that a double block keeps of a token, of latents or of text."""
    width, value, norm = width_of(config), WIDTHS[run.computes], _norm(run)
    hidden = width * config.mlp_ratio
    # The stream at both norms.
    kept = 2 * width * norm
    # What each linear layer reads: modulated for queries, keys and values at once, and for the feed-forward; the hidden
    # values after their activation, which keeps them before it. What was seen is kept by attention too.
    inputs = 4 if norm != value else 2
    kept += inputs * width * value + 2 * hidden * value
    kept += _attention(config, run)
    if run.whole:
        # Scales learn from what they scale, gates from what they let through; a CPU takes both in float32.
        kept += 2 * width * WIDE + 2 * width * (WIDE if run.on_cpu else value)
    # Of several rows what was seen is cut into latents and text by a copy.
    kept += width * value if run.work.rows > 1 else 0
    return int(kept)


def single_bytes(config: Any, run: Run) -> int:
    """The values that a single block keeps of a token."""
    width, value, norm = width_of(config), WIDTHS[run.computes], _norm(run)
    hidden = width * config.mlp_ratio
    # The stream; what queries, keys, values and the hidden values are made of; the latter before their activation; what
    # was seen and they in one tensor.
    inputs = 4 if norm != value else 1
    kept = width * norm + inputs * width * value + hidden * value + (width + hidden) * value
    kept += _attention(config, run)
    if run.whole:
        kept += width * WIDE + width * (WIDE if run.on_cpu else value)
    return int(kept)


def _attention(config: Any, run: Run) -> int:
    """Queries, keys, values and what they have seen; queries and keys in float32 before their norm."""
    width, value = width_of(config), WIDTHS[run.computes]
    norms = 2 * width * WIDE if config.qk_norm else 0
    if config.qk_norm and run.whole:
        norms += 2 * width * WIDE  # and behind it, for its weight
    return 4 * width * value + norms


def _norm(run: Run) -> int:
    """Bytes of a value in a norm: mixed precision takes them in float32, but for a CPU."""
    return WIDE if run.whole and not run.on_cpu else WIDTHS[run.computes]


def _low(run: Run, value: int) -> int:
    """The values that a LoRA keeps of a token in a block: the low-rank ones of the six layers that it is on."""
    return 6 * run.rank * value


def _copies(config: Any, run: Run) -> int:
    """Weights in the dtype of the arithmetic, where they lie in another: each is kept for the gradient of its input."""
    own = "float32" if run.whole else run.dtype
    weights = weights_of(config, replace(run, quantize="none", dtype=run.computes, rank=1))
    if run.quantize != "none" and not run.whole:
        return weights.largest // 4  # widened one layer at a time, twice
    if own == run.computes:
        return 0
    return weights.largest if run.recomputes or run.shared > 1 else weights.whole


def most_rows(config: Any, run: Run, allowed: float) -> int:
    """The largest number of sections at a time within `allowed` bytes; 0 if not one fits."""
    low, high = 0, MOST_ROWS
    while low < high:
        middle = (low + high + 1) // 2
        fits = needs(config, replace(run, work=replace(run.work, rows=middle))).total <= allowed
        low, high = (middle, high) if fits else (low, middle - 1)
    return low
