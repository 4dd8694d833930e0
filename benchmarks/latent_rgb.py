"""Fit the map from latents to colours that previews use, and measure it on held-out scenes.

    python benchmarks/latent_rgb.py [--model embedded] [--scenes 120] [--detail 2] [--sheet FILE.png] [--write]

Cartoons are encoded, and the colours of each latent pixel (detail x detail of them) are fitted to their latents by
least squares. Prints the share of the variance explained (R2) and the PSNR against the true frames, averaged to the
preview's size and enlarged to the video's; last one line of JSON. --write puts the projection into the settings of
the model's folder; --sheet shows true frames above previews.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from longtake import toyworld
from longtake.backend import ops, runtime
from longtake.picture import contact_sheet
from longtake.pipeline.decode import from_frames
from longtake.pipeline.loading import load_networks
from longtake.pipeline.networks import SETTINGS, Networks
from longtake.pipeline.preview import LATENT_RGB, Projection, colours, fit, shown_by
from longtake.plan.lengths import video_frames
from longtake.toy import judge as toy
from longtake.weights.folder import find_model

SHOWN = 8  # scenes on the sheet
SEED = 7


def main() -> None:
    """Fit, measure, and write where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--scenes", type=int, default=120)
    parser.add_argument("--held-out", type=int, default=28)
    parser.add_argument("--detail", type=int, default=2)
    parser.add_argument("--sheet")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    networks = load_networks(args.model)
    rng = np.random.default_rng(SEED)
    latents, frames = encoded(networks, [toyworld.random_scene(rng) for _ in range(args.scenes)])
    fitted = fit(latents, frames, args.detail)
    projection = Projection.of(fitted.to_settings())  # as it will be read
    latents, frames = encoded(networks, toy.held_out_scenes(args.held_out))
    figures = measured(projection, latents, frames)
    print(
        f"{args.scenes} scenes fitted, {args.held_out} held-out scenes measured, of {frames.shape[1]} frames"
    )
    print(f"R2 {figures['r2']:.3f}, PSNR {figures['psnr']:.2f} dB at the preview's size")
    print(f"PSNR {figures['enlarged_psnr']:.2f} dB at the video's size, against each latent's last frame")
    if args.sheet:
        sheet(projection, latents, frames).save(args.sheet)
    if args.write:
        write(find_model(args.model) / "model_index.json", projection)
    print(json.dumps({"detail": args.detail, "scenes": args.scenes, "held_out": args.held_out, **figures}))


def encoded(networks: Networks, scenes: Sequence[toyworld.Scene]) -> tuple[np.ndarray, np.ndarray]:
    """Scaled latents (N, C, t, h, w) and the frames (N, T, H, W, 3) of a section of each scene."""
    width, height = networks.default_size
    frames, latents = [], []
    for scene in scenes:
        video = toyworld.render(scene, range(video_frames(1)), width, height)
        with runtime.no_grad():
            mean = networks.vae.encode(ops.from_numpy(from_frames(video[None]))).latent_dist.mean
        frames.append(video)
        latents.append(ops.to_numpy(mean)[0] * networks.vae.config.scaling_factor)
    return np.stack(latents), np.stack(frames)


def measured(projection: Projection, latents: np.ndarray, frames: np.ndarray) -> dict[str, float]:
    """How near the previews are to the truth."""
    shown = colours(latents, projection)
    true = shown_by(frames, shown.shape[2])
    errors = shown / 127.5 - 1 - true
    spread = true - true.mean(axis=(0, 1, 2, 3))
    last = frames[:, ::4].astype(np.float64)
    return {
        "r2": round(1 - float((errors**2).sum() / (spread**2).sum()), 4),
        "psnr": round(10 * float(np.log10(4 / (errors**2).mean())), 2),
        "enlarged_psnr": round(
            10 * float(np.log10(255**2 / ((enlarged(shown, frames) - last) ** 2).mean())), 2
        ),
    }


def enlarged(shown: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Previews at the size of the frames."""
    size = frames.shape[3], frames.shape[2]
    videos = [
        [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in video] for video in shown
    ]
    return np.stack([[np.asarray(frame) for frame in video] for video in videos])


def sheet(projection: Projection, latents: np.ndarray, frames: np.ndarray) -> Image.Image:
    """For each scene a row of true frames and a row of previews of them."""
    some = slice(0, SHOWN)
    shown = enlarged(colours(latents[some], projection), frames)
    rows = np.stack([frames[some, ::4], shown], axis=1)
    return contact_sheet(rows.reshape(-1, *rows.shape[3:]), columns=rows.shape[2], zoom=2)


def write(file: Path, projection: Projection) -> None:
    """Put the projection into a model's settings, a row of numbers on a line."""
    index = json.loads(file.read_text())
    index[SETTINGS] = {**index.get(SETTINGS, {}), LATENT_RGB: projection.to_settings()}
    text = json.dumps(index, indent=2, ensure_ascii=False)
    text = re.sub(
        r"\[[-\d.,\se]+\]",
        lambda row: re.sub(r"\s+", " ", row[0]).replace("[ ", "[").replace(" ]", "]"),
        text,
    )
    file.write_text(text + "\n")


if __name__ == "__main__":
    main()
