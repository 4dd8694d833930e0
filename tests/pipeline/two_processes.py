"""One of two processes that compute together: `python two_processes.py RANK FOLDER`; run by test_together.py.

It compares what both make with what it makes alone, and prints the largest difference of each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from longtake.backend import ops, runtime
from longtake.models.pretrained import is_untouched
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.pipeline import together
from longtake.pipeline.networks import Networks


def noise(*shape: int) -> Any:
    return ops.from_numpy(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32))


def velocity(model: Any, rows: int, words: tuple[int, ...], compiled: bool = False) -> Any:
    """A step of a section whose lengths do not divide: 3 x 3 tokens a frame, texts of `words`."""
    model.compile_repeated_blocks(backend="eager") if compiled else None
    text = noise(rows, max(words), 16)
    mask = torch.arange(max(words))[None] < torch.tensor(words)[:, None]
    clean = {scale: (noise(rows, 4, scale, 6, 6), list(range(scale))) for scale in (1, 2, 4)}
    slots = dict(zip(SLOTS, clean.values(), strict=True))
    arguments = {name: value[0] for name, value in slots.items()}
    arguments |= {f"indices_{name}": value[1] for name, value in slots.items()}
    return model(
        noise(rows, 4, 3, 6, 6), torch.full((rows,), 700.0), text, mask, noise(rows, 8),
        noise(rows, 1, 16), [8, 9, 10], torch.full((rows,), 9000.0), return_dict=False, **arguments,
    )[0]  # fmt: skip


SLOTS = ("latents_clean", "latents_history_2x", "latents_history_4x")


def decoded(vae: Any, tiled: bool) -> Any:
    """Seven latent frames of 5 x 6, in tiles of time, or also of space, of which there are no even number."""
    if tiled:
        vae.enable_tiling(32, 32, tile_sample_stride_height=24, tile_sample_stride_width=24)
    else:
        vae.disable_tiling()
    return vae.decode(noise(1, 4, 7, 5, 6), return_dict=False)[0]


def relative(found: Any, wanted: Any) -> float:
    """The largest difference, as a share of the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def main(rank: int, folder: Path) -> None:
    torch.manual_seed(0)
    transformer = HunyuanVideoFramepackTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=4, attention_head_dim=10, num_layers=2,
        num_single_layers=2, num_refiner_layers=1, text_embed_dim=16, pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4), image_proj_dim=16, has_image_proj=True, has_clean_x_embedder=True,
    ).eval()  # fmt: skip
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    ).eval()
    makings = {
        "one row": lambda: velocity(transformer, 1, (6,)),
        "hardly any text": lambda: velocity(transformer, 1, (1,)),
        "rows with a mask": lambda: velocity(transformer, 2, (3, 6)),
        "tiles of time": lambda: decoded(vae, False),
        "tiles of space": lambda: decoded(vae, True),
        "compiled": lambda: velocity(transformer, 1, (6,), compiled=True),
    }
    with runtime.no_grad():
        alone = {name: make() for name, make in makings.items() if name != "compiled"}
        alone["compiled"] = alone["one row"]
        ranks = together.join(rank, 2, "cpu", dist.FileStore(str(folder / "meeting"), 2))
        calls = []
        plain = vae.decode_tile
        networks = together.shared(Networks(transformer=transformer, vae=vae), ranks)
        type(vae).decode_tile = lambda self, z: (calls.append(1), plain(z))[1]  # type: ignore[method-assign]
        apart = {name: relative(make(), alone[name]) for name, make in makings.items()}
    told = together.told(ranks, lambda: {"text": (noise(2, 3), None), "seed": rank})
    assert torch.equal(told["text"][0], noise(2, 3)) and told["text"][1] is None and told["seed"] == 0
    draw = together.told_noise(ranks, lambda *_: np.full(2, rank + 7))
    assert draw(0, (2,), "float32").tolist() == [7, 7]
    assert networks.ranks is ranks and is_untouched(transformer) and is_untouched(vae)
    print(json.dumps({"apart": apart, "tiles": len(calls)}))
    ranks.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
