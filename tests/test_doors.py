"""One directed video through each door: the command line, a job from JSON and the field's call give the same frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake.cli import main
from longtake.errors import LongtakeWarning
from longtake.events import FramesReady
from longtake.job import Job
from longtake.jobs.folder import JobFolder
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks, save_networks

PROMPT, LATER, AT = "a small blue bird", "a red ball bounces", 0.3
TIMELINE: dict[str, Any] = {
    "prompt": PROMPT,
    "prompts": [{"from": 0.4, "to": None, "text": LATER}],
    "keyframes": [{"at": AT, "image": "key.png", "strength": 0.5}],
    "blend": 1,
    "loop": True,
}
OPTIONS = [
    "--frames",
    "22",
    "--window",
    "2",
    "--steps",
    "1",
    "--seed",
    "1",
    "--guidance",
    "6",
    "--model",
    "model",
    "--zoom",
    "1",
]


@pytest.fixture
def place(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    networks: Networks,
    picture: Image.Image,
    last_picture: Image.Image,
) -> Path:
    """A folder with a model, pictures, and a timeline."""
    monkeypatch.chdir(tmp_path)
    save_networks(networks, "model", "HunyuanVideoFramepackPipeline")
    picture.save("first.png")
    last_picture.save("key.png")
    Path("timeline.json").write_text(json.dumps(TIMELINE))
    return tmp_path


def frames_in(folder: str) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in sorted(Path(folder).glob("*.png"))])


def test_every_door_gives_the_same_frames(place: Path, networks: Networks, pipe: Any) -> None:
    by_call = pipe(
        "first.png", timeline="timeline.json", num_frames=22, latent_window_size=2, num_inference_steps=1,
        generator=1, output_type="np",
    ).frames  # fmt: skip
    expected = np.rint(by_call[0] * 255).astype(np.uint8)
    spoken = [f"{PROMPT} [{AT + 0.1}s: {LATER}]", "--keyframe", f"{AT}=key.png:0.5", "--blend", "1", "--loop"]
    assert main(["generate", "first.png", *spoken, *OPTIONS, "-o", "spoken/"]) == 0
    np.testing.assert_array_equal(frames_in("spoken"), expected)
    told = [PROMPT, "--timeline", "timeline.json", "--job", "job", "--decoding", "exact"]
    assert main(["generate", "first.png", *told, *OPTIONS, "-o", "told/"]) == 0
    np.testing.assert_array_equal(frames_in("told"), expected)
    # The numbered pictures lie beside the folder.
    with pytest.warns(LongtakeWarning, match="outside of its folder"), JobFolder.open("job") as folder:
        assert {file.name for file in folder.path.glob("*.png")} == {"first.png", "picture-00000300.png"}
        job = Job.from_json(folder.job.to_json())
        events = list(generate(job, networks, folder.inputs))
    frames = np.concatenate([event.frames for event in events if isinstance(event, FramesReady)], axis=1)
    np.testing.assert_array_equal(frames[0], expected)
