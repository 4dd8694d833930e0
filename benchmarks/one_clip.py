"""Fine-tune a LoRA on one clip, and measure how much nearer to the clip its own first picture then leads.

    python benchmarks/one_clip.py VIDEO "what happens in it" --steps 300 --frames 73

The same picture, prompt and seeds with and without the LoRA; mean absolute error of the frames behind the first, of
255, against the clip in the model's size. Beside it stand the clip through the autoencoder, which is the floor, and the
first frame repeated.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from longtake.backend import ops, runtime
from longtake.events import FramesReady
from longtake.job import Job, Lora
from longtake.picture import cover
from longtake.pipeline.decode import from_frames, to_frames
from longtake.pipeline.loading import load_networks
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks
from longtake.pipeline.prepare import Inputs
from longtake.training.course import Learnt
from longtake.training.finetune import finetune
from longtake.training.settings import Settings
from longtake.video import read_video


def error(found: np.ndarray, true: np.ndarray) -> float:
    """Of the frames behind the first, which is given."""
    return float(np.abs(found[1:].astype(float) - true[1:].astype(float)).mean())


def made(networks: Networks, job: Job, picture: Image.Image) -> np.ndarray:
    """The video of a job."""
    events = generate(job, networks, Inputs(picture))
    return np.concatenate([event.frames[0] for event in events if isinstance(event, FramesReady)])


def main() -> None:
    """Train, make, measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--sampling", default="inverted")
    parser.add_argument("--frames", type=int, default=73)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    networks = load_networks(args.model)
    width, height = networks.default_size
    frames, _ = read_video(args.video)
    true = np.stack(
        [np.asarray(cover(Image.fromarray(frame), width, height)) for frame in frames[: args.frames]]
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "data").mkdir()
        (folder / "data" / args.video.name).symlink_to(args.video.resolve())
        settings = Settings(
            rank=args.rank, lr=args.lr, steps=args.steps, batch=args.batch, sampling=args.sampling, caption=args.prompt,
            max_frames=args.frames, every_frame=True, schedule="cosine", average=0.98, save_every=10**6,
            cache=str(folder / "cache"),
        )  # fmt: skip
        begun = time.monotonic()
        losses = [
            event.loss
            for event in finetune(args.model, str(folder / "data"), folder / "lora", settings)
            if isinstance(event, Learnt)
        ]
        seconds = time.monotonic() - begun
        picture = Image.fromarray(true[0])
        errors: dict[str, list[float]] = {"without": [], "with": []}
        for seed in range(args.seeds):
            job = Job(args.prompt, model=args.model, frames=args.frames, sampling=args.sampling, seed=seed)
            errors["without"].append(error(made(networks, job, picture), true))
            lora = Job(**{**vars(job), "loras": (Lora(str(folder / "lora")),)})
            errors["with"].append(error(made(networks, lora, picture), true))
    with runtime.no_grad():
        latents = networks.vae.encode(ops.from_numpy(from_frames(true[None]))).latent_dist.mean
        floor = to_frames(networks.vae.decode(latents).sample)[0]
    tenth = max(1, len(losses) // 10)
    print(
        f"{args.video.name}: {len(true)} frames of {width} x {height}; {args.steps} steps in {seconds:.0f} s"
    )
    print(f"loss: {np.mean(losses[:tenth]):.3f} -> {np.mean(losses[-tenth:]):.3f}")
    for name, found in errors.items():
        print(f"{name} the LoRA: {np.mean(found):.1f} of 255 ({', '.join(f'{each:.1f}' for each in found)})")
    still = true[:1].repeat(len(true), 0)
    print(f"through the autoencoder: {error(floor, true):.1f}; standing still: {error(still, true):.1f}")


if __name__ == "__main__":
    main()
