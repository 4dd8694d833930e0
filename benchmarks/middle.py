"""The middle geometry of the benchmarks: between the embedded model and the published one, random weights."""

from __future__ import annotations

from typing import Any

TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 8,
    "attention_head_dim": 64,
    "num_layers": 4,
    "num_single_layers": 8,
    "num_refiner_layers": 2,
    "rope_axes_dim": (8, 28, 28),
    "in_channels": 16,
    "out_channels": 16,
}
AUTOENCODER: dict[str, Any] = {"block_out_channels": (32, 64, 128, 128), "layers_per_block": 2}
