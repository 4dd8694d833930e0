"""The same job and seed on PyTorch and on MindSpore, each in a process of its own: one noise, one video."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

if importlib.util.find_spec("mindspore") is None or importlib.util.find_spec("torch") is None:
    pytest.skip("needs both frameworks", allow_module_level=True)
if int(np.__version__.partition(".")[0]) > 1:
    pytest.skip("MindSpore is built against numpy 1", allow_module_level=True)

if os.environ.get("LONGTAKE_BACKEND") != "mindspore":
    pytest.skip(
        "runs with MindSpore's half of the tests: LONGTAKE_BACKEND=mindspore", allow_module_level=True
    )

DRIVER = """
import sys
import numpy as np
from longtake import toyworld
from longtake.events import FramesReady, SectionDone
from longtake.job import Job
from longtake.pipeline.loop import generate
from longtake.pipeline.loading import load_networks
from longtake.pipeline.noise import noise_source
from longtake.pipeline.prepare import Inputs

sampling, frames, steps, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
prompt = "A penguin dances in the snow."
picture = toyworld.render(toyworld.scene_from_text(prompt), range(1))[0]
job = Job(prompt=prompt, frames=frames, sampling=sampling, steps=steps, seed=3)
latents, video = {}, []
for event in generate(job, load_networks("embedded"), Inputs(picture)):
    if isinstance(event, SectionDone):
        latents[f"section_{event.number}"] = event.latents
    if isinstance(event, FramesReady):
        video.append(event.frames[0])
noise = noise_source(3)(1, (1, 4, 2, 2, 2), "float32")
np.savez(out, noise=noise, video=np.concatenate(video), **latents)
"""


def made(framework: str, sampling: str, frames: int, steps: int, place: Path) -> dict[str, np.ndarray]:
    """What one framework makes of the job; of few steps eagerly, since compiling would take longer."""
    out = place / f"{framework}.npz"
    command = [sys.executable, "-c", DRIVER, sampling, str(frames), str(steps), str(out)]
    environment = {**os.environ, "LONGTAKE_BACKEND": framework}
    if steps < 10:
        environment["LONGTAKE_GRAPH"] = "0"
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(out))


@pytest.mark.parametrize(
    ("sampling", "frames", "steps"),
    [
        ("vanilla", 37, 3),
        pytest.param("vanilla", 145, 25, marks=pytest.mark.slow),
        pytest.param("inverted", 145, 25, marks=pytest.mark.slow),
    ],
)
def test_one_job_is_one_video(sampling: str, frames: int, steps: int, tmp_path: Path) -> None:
    ours, theirs = (made(name, sampling, frames, steps, tmp_path) for name in ("torch", "mindspore"))
    assert ours.keys() == theirs.keys()
    np.testing.assert_array_equal(ours["noise"], theirs["noise"])
    sections = [name for name in ours if name.startswith("section")]
    worst = max(float(np.abs(ours[name] - theirs[name]).max()) for name in sections)
    difference = ours["video"].astype(float) - theirs["video"]
    psnr = 10 * np.log10(255**2 / max(float((difference**2).mean()), 1e-9))
    print(f"{sampling}, {frames} frames, {steps} steps: latents {worst:.1e} apart, frames {psnr:.1f} dB")
    # exp inside softmax is off by 2e-6 on MindSpore; latents have a size of about 1, and every section starts
    # from those before it. Frames differ where a value lies at the border of two of 256 steps.
    assert worst < 1e-3
    assert psnr > 50
