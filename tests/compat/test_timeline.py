"""`pipe(..., timeline=…, loop=…)`: the same frames as a job from JSON, and what cannot be done in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake.compat.framepack import HunyuanVideoFramepackPipeline
from longtake.errors import JobError
from longtake.events import FramesReady
from longtake.job import Job
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks

CALL: dict[str, Any] = {
    "num_frames": 22,
    "latent_window_size": 2,
    "num_inference_steps": 1,
    "generator": 1,
    "output_type": "np",
}
TIMELINE: dict[str, Any] = {
    "prompt": "a small blue bird",
    "prompts": [{"from": 0.4, "to": None, "text": "a red ball bounces"}],
    "keyframes": [{"at": 0.3, "image": "key.png", "strength": 0.5}],
    "blend": 1,
    "loop": True,
}


@pytest.fixture
def files(tmp_path: Path, picture: Image.Image, last_picture: Image.Image) -> Path:
    """A folder with pictures, and timelines beside them."""
    picture.save(tmp_path / "first.png")
    last_picture.save(tmp_path / "key.png")
    return tmp_path


def with_image(image: Any) -> dict[str, Any]:
    return {**TIMELINE, "keyframes": [{**TIMELINE["keyframes"][0], "image": image}]}


def test_a_call_gives_the_frames_of_the_job_from_json(
    pipe: Any, networks: Networks, files: Path, last_picture: Image.Image
) -> None:
    first = str(files / "first.png")
    values = {
        **with_image(str(files / "key.png")),
        "frames": 22,
        "window": 2,
        "steps": 1,
        "seed": 1,
        "guidance": 6.0,
        "width": 48,
        "height": 32,
    }
    values["keyframes"].append({"at": 0, "image": first})
    events = generate(Job.from_json(json.dumps(values)), networks)
    expected = np.concatenate([event.frames for event in events if isinstance(event, FramesReady)], axis=1)
    (files / "timeline.json").write_text(json.dumps(with_image(str(files / "key.png"))))
    timelines = (
        with_image(last_picture),
        str(files / "timeline.json"),
        json.dumps(with_image(str(files / "key.png"))),
    )
    for timeline in timelines:
        found = pipe(first, timeline=timeline, **CALL).frames
        np.testing.assert_array_equal(np.rint(found * 255).astype(np.uint8), expected)
    plain = {**TIMELINE, "keyframes": [], "loop": False, "blend": 0}
    found = pipe(first, timeline="a small blue bird [0.4s: a red ball bounces]", **CALL).frames
    np.testing.assert_array_equal(found, pipe(first, timeline=plain, **CALL).frames)
    assert not np.array_equal(found, pipe(first, prompt="a small blue bird", **CALL).frames)


def test_a_loop_by_its_own_word(pipe: Any, picture: Image.Image) -> None:
    call = {**CALL, "prompt": "a small blue bird", "num_frames": 9}
    loop = pipe(picture, loop=True, **call).frames
    np.testing.assert_array_equal(loop, pipe(picture, timeline={"loop": True}, **call).frames)
    with pytest.raises(JobError, match="A loop needs a sampling that sees the end"):
        pipe(picture, loop=True, sampling_type="vanilla", **call)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"timeline": 7}, "A timeline is a dict, a text or the file of one; int was given"),
        ({"timeline": {"key": 1}}, "A timeline has no key 'key'"),
        ({"timeline": {"keyframes": [{"at": 0.3, "image": None}]}}, "must be a text"),
        ({"timeline": Path("nowhere.json")}, "The timeline nowhere.json cannot be read"),
        ({"timeline": TIMELINE, "prompt": "another"}, "says prompt, and so does"),
        (
            {"timeline": {"prompts": [{"from": 0, "to": None, "text": "a"}]}, "prompt": ["a", "b"]},
            "Prompts in time go with one prompt",
        ),
        ({"timeline": {"loop": False}}, "There is no prompt"),
        ({"timeline": with_image(Image.new("RGB", (8, 8))), "sampling_type": "vanilla"}, "sees the end"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    changes: dict[str, Any], words: str, pipe: Any, picture: Image.Image
) -> None:
    with pytest.raises(JobError, match=words):
        pipe(picture, **{**CALL, **changes})


def test_without_an_image_a_model_of_text_makes_it(networks: Networks, picture: Image.Image) -> None:
    settings = {**networks.settings, "from_text": True}
    pipe = HunyuanVideoFramepackPipeline(**networks.components, settings=settings)
    pipe.set_progress_bar_config(disable=True)
    call = {**CALL, "prompt": "a small blue bird", "num_frames": 9}
    frames = pipe(**call).frames
    assert frames.shape == (1, 9, 32, 48, 3)
    latents = pipe(**{**call, "output_type": "latent"}).frames
    assert [stage.shape[2] for stage in latents] == [1, 3]


def test_a_patched_encode_image_is_asked_for_each_picture(
    pipe: Any, picture: Image.Image, last_picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = {
        **CALL,
        "prompt": "a small blue bird",
        "timeline": {"keyframes": [{"at": 0.3, "image": last_picture}]},
    }
    plain = pipe(picture, **call).frames
    asked, own = [], pipe.encode_image

    def encode_image(image: Any, **options: Any) -> Any:
        asked.append(image)
        return own(image, **options)

    monkeypatch.setattr(pipe, "encode_image", encode_image)
    np.testing.assert_array_equal(pipe(picture, **call).frames, plain)
    assert len(asked) == 2
