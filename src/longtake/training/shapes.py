"""The shapes of a transformer's weights, from its config alone. Pure.

    sum(map(math.prod, shapes_of(PUBLISHED["framepack"]).values()))     # 12 879 …: the published 13B

Letters: D width, H the hidden width of a block, E features of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from longtake.plan.layout import KERNELS

Shape = tuple[int, ...]


def shapes_of(config: Any) -> dict[str, Shape]:
    """The shape of each weight by its published name."""
    return dict(_all(config))


def width_of(config: Any) -> int:
    """D."""
    return int(config.num_attention_heads * config.attention_head_dim)


def is_linear(name: str, shape: Shape) -> bool:
    """Tell if this is the matrix of a linear layer."""
    return len(shape) == 2 and name.endswith(".weight")


def _all(c: Any) -> Iterator[tuple[str, Shape]]:
    width, patch = width_of(c), (c.patch_size_t, c.patch_size, c.patch_size)
    yield from _layer("x_embedder.proj", (width, c.in_channels, *patch))
    if c.has_clean_x_embedder:
        for name, kernel in zip(("proj", "proj_2x", "proj_4x"), KERNELS.values(), strict=False):
            yield from _layer(f"clean_x_embedder.{name}", (width, c.in_channels, *kernel))
    yield from _refiner(c, width)
    if c.has_image_proj:
        yield from _layer("image_projection.up", (3 * width, c.image_proj_dim))
        yield from _layer("image_projection.down", (width, 3 * width))
    yield from _times("time_text_embed", width, c.pooled_projection_dim, c.guidance_embeds)
    hidden = int(width * c.mlp_ratio)
    for number in range(c.num_layers):
        yield from _double(f"transformer_blocks.{number}", c, width, hidden)
    for number in range(c.num_single_layers):
        yield from _single(f"single_transformer_blocks.{number}", c, width, hidden)
    yield from _layer("norm_out.linear", (2 * width, width))
    pixels = c.patch_size**2 * c.patch_size_t
    yield from _layer("proj_out", ((c.out_channels or c.in_channels) * pixels, width))


def _layer(name: str, shape: Shape) -> Iterator[tuple[str, Shape]]:
    """A linear layer or a convolution, with its bias."""
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _layers(start: str, out: int, into: int, *names: str) -> Iterator[tuple[str, Shape]]:
    for name in names:
        yield from _layer(f"{start}.{name}", (out, into))


def _times(start: str, width: int, pooled: int, guidance: bool) -> Iterator[tuple[str, Shape]]:
    """Timestep, pooled text and guidance, each by two layers."""
    for name, into in {"timestep": 256, "text": pooled, **({"guidance": 256} if guidance else {})}.items():
        yield from _layer(f"{start}.{name}_embedder.linear_1", (width, into))
        yield from _layer(f"{start}.{name}_embedder.linear_2", (width, width))


def _refiner(c: Any, width: int) -> Iterator[tuple[str, Shape]]:
    yield from _times("context_embedder.time_text_embed", width, c.text_embed_dim, False)
    yield from _layer("context_embedder.proj_in", (width, c.text_embed_dim))
    for number in range(c.num_refiner_layers):
        start = f"context_embedder.token_refiner.refiner_blocks.{number}"
        for norm in ("norm1", "norm2"):
            yield f"{start}.{norm}.weight", (width,)
            yield f"{start}.{norm}.bias", (width,)
        yield from _layers(start, width, width, "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
        yield from _widening(f"{start}.ff", width, 4 * width)
        yield from _layer(f"{start}.norm_out.linear", (2 * width, width))


def _double(start: str, c: Any, width: int, hidden: int) -> Iterator[tuple[str, Shape]]:
    yield from _layers(start, 6 * width, width, "norm1.linear", "norm1_context.linear")
    own = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
    text = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out")
    yield from _layers(start, width, width, *own, *text)
    yield from _norms(start, c, "norm_q", "norm_k", "norm_added_q", "norm_added_k")
    yield from _widening(f"{start}.ff", width, hidden)
    yield from _widening(f"{start}.ff_context", width, hidden)


def _single(start: str, c: Any, width: int, hidden: int) -> Iterator[tuple[str, Shape]]:
    yield from _layer(f"{start}.norm.linear", (3 * width, width))
    yield from _layers(start, width, width, "attn.to_q", "attn.to_k", "attn.to_v")
    yield from _norms(start, c, "norm_q", "norm_k")
    yield from _layer(f"{start}.proj_mlp", (hidden, width))
    yield from _layer(f"{start}.proj_out", (width, width + hidden))


def _norms(start: str, c: Any, *names: str) -> Iterator[tuple[str, Shape]]:
    for name in names if c.qk_norm else ():
        yield f"{start}.attn.{name}.weight", (c.attention_head_dim,)


def _widening(start: str, width: int, hidden: int) -> Iterator[tuple[str, Shape]]:
    yield from _layer(f"{start}.net.0.proj", (hidden, width))
    yield from _layer(f"{start}.net.2", (width, hidden))
