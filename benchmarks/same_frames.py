"""Twelve jobs by this checkout and by another one: which frames are the same, byte for byte?

    python benchmarks/same_frames.py OTHER_CHECKOUT [JOB …]

Each job runs in processes of its own, once with each checkout's src/ on the path and otherwise in the same
environment. Videos are made by the command line or by `pipe(...)`, which are the doors that do not change, and compared
as decoded frames (or as the floats that the pipeline returns, or the latents of a job's sections). The last line is
JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
PROMPT = "A penguin dances in the snow."
SHORT = ["--frames", "109", "--steps", "3", "--seed", "5"]

PIPE = """
import hashlib, sys
import numpy as np
from PIL import Image
from longtake import HunyuanVideoFramepackPipeline
pipe = HunyuanVideoFramepackPipeline.from_pretrained("embedded")
pipe.set_progress_bar_config(disable=True)
image, last = Image.open("first.png"), Image.open("last.png")
call = dict(num_frames=73, num_inference_steps=3, height=64, width=64, generator=5, output_type="np")
frames = pipe(image=image, **call, **dict({options})).frames
print(hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest(), frames.shape)
"""

SAME_FRAMES = {
    "inverted": ["generate", "first.png", PROMPT, *SHORT],
    "vanilla": ["generate", "first.png", PROMPT, *SHORT, "--sampling", "vanilla"],
    "last picture": ["generate", "first.png", PROMPT, *SHORT, "--last-image", "last.png"],
    "LoRA by section": ["generate", "first.png", PROMPT, *SHORT, "--lora", "lora.safetensors:1,0.5,0"],
    "changes": ["generate", "first.png", PROMPT, *SHORT, "--sampling", "vanilla", "--job", "job"],
    "CFG": [
        "generate",
        "first.png",
        PROMPT,
        *SHORT,
        "--cfg",
        "2.5",
        "--negative",
        "a red ball",
        "--cfg-rescale",
        "0.5",
    ],
    "UniPC": ["generate", "first.png", PROMPT, *SHORT, "--solver", "unipc", "--decoding", "causal"],
    "bfloat16": ["generate", "first.png", PROMPT, *SHORT, "--dtype", "bfloat16"],
    "several rows": f"prompt=[{PROMPT!r}, 'a red ball bounces'], num_videos_per_prompt=2, true_cfg_scale=2.0",
    "reference": f"prompt={PROMPT!r}, reference=True, sampling_type='vanilla'",
    "reference, last picture": f"prompt={PROMPT!r}, last_image=last, reference=True",
    "MindSpore": ["generate", "first.png", PROMPT, *SHORT, "--sampling", "vanilla", "--cfg", "2"],
}
# A second command over the first one's folder: another seed and another prompt for one section.
THEN = {"changes": ["redo", "job", "--section", "1", "--seed", "9", "--prompt", "A penguin stands still."]}


def materials(folder: Path) -> None:
    """Two pictures and a LoRA that fits the embedded model."""
    import numpy as np
    from safetensors.numpy import save_file

    for name, text in (("first", "a penguin in the snow"), ("last", "a penguin on the beach")):
        words = [sys.executable, "-m", "longtake", "scene", text, "-o", str(folder / f"{name}.png")]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environment(HERE, "torch"))
    rng = np.random.default_rng(0)
    modules = ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.3.attn.to_v")
    tensors = {
        f"transformer.{module}.lora_{side}.weight": 0.2 * rng.standard_normal(shape, np.float32)
        for module in modules
        for side, shape in (("A", (4, 256)), ("B", (256, 4)))
    }
    save_file(tensors, folder / "lora.safetensors")


def environment(checkout: Path, framework: str) -> dict[str, str]:
    """The process's own, with the checkout's package first."""
    return {
        **os.environ,
        "PYTHONPATH": str(checkout / "src"),
        "LONGTAKE_BACKEND": framework,
        "HF_HUB_OFFLINE": "1",
    }


def made(name: str, checkout: Path, folder: Path) -> str:
    """What identifies the frames of a job: a hash and their shape."""
    framework = "mindspore" if name == "MindSpore" else "torch"
    what, settings = SAME_FRAMES[name], {"env": environment(checkout, framework), "cwd": folder}
    if isinstance(what, str):
        script = PIPE.replace("{options}", what)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, **settings)
        if done.returncode:
            raise SystemExit(f"{name} with {checkout}: {done.stderr[-2000:]}")
        return done.stdout.strip()
    output = folder / "video.mp4"
    for words in (what, THEN.get(name)):
        if words is not None:
            command = [sys.executable, "-m", "longtake", *words, "-o", str(output)]
            done = subprocess.run(command, capture_output=True, text=True, **settings)
            if done.returncode:
                raise SystemExit(f"{name} with {checkout}: {done.stderr[-2000:]}")
    return hash_of_sections(folder / "job") if name in THEN else hash_of(output)


def hash_of_sections(job: Path) -> str:
    """Of the latents: a job's video is encoded in pieces, which an older checkout did not do."""
    from safetensors.numpy import load_file

    digest, files = hashlib.sha256(), sorted((job / "sections").glob("*.safetensors"))
    for file in files:
        digest.update(load_file(file)["latents"].tobytes())
    return f"{digest.hexdigest()} {len(files)} sections"


def hash_of(video: Path) -> str:
    """Of the decoded frames: their number and their bytes."""
    import av

    digest, count = hashlib.sha256(), 0
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            digest.update(frame.to_ndarray(format="yuv420p").tobytes())
            count += 1
    return f"{digest.hexdigest()} {count}"


def main() -> None:
    """Run the jobs, print a line for each and a last line of JSON."""
    other = Path(sys.argv[1]).resolve()
    found = {}
    for name in sys.argv[2:] or SAME_FRAMES:
        begun = time.perf_counter()
        hashes = []
        for checkout in (HERE, other):
            with tempfile.TemporaryDirectory() as folder:
                materials(Path(folder))
                hashes.append(made(name, checkout, Path(folder)))
        found[name] = hashes[0] == hashes[1]
        seconds = time.perf_counter() - begun
        print(
            f"{name:24} {'the same' if found[name] else 'DIFFERENT'}  {hashes[0][:12]}  ({seconds:.0f} s)",
            flush=True,
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
