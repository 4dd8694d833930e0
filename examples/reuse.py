"""One set of networks in memory, two pipelines: another scheduler, and fewer steps for a first look."""

import numpy as np

from longtake import HunyuanVideoFramepackPipeline, UniPCMultistepScheduler, export_to_video, load_image
from longtake.toyworld import render, scene_from_text

pipe = HunyuanVideoFramepackPipeline.from_pretrained("embedded")
# The same as HunyuanVideoFramepackPipeline(**{**pipe.components, "scheduler": …}); no weight is copied.
quick = HunyuanVideoFramepackPipeline.from_pipe(
    pipe,
    scheduler=UniPCMultistepScheduler.from_config(pipe.scheduler.config),
)
assert quick.transformer is pipe.transformer

call = {
    "image": load_image(render(scene_from_text("a small red ball on the beach"), [0], 64, 64)[0]),
    "prompt": "A small red ball bounces on the beach.",
    "num_frames": 37,
    "sampling_type": "vanilla",
}
for name, each, steps in (("quick", quick, 8), ("output", pipe, 25)):
    generator = np.random.Generator(np.random.PCG64(seed=0))
    frames = each(**call, num_inference_steps=steps, generator=generator).frames[0]
    export_to_video(frames, f"{name}.mp4", fps=30)
