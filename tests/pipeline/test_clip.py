"""Going on from a clip, and leading to one: what sections see of it, and no step at the joint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clips import clip, number_of
from longtake.backend import ops
from longtake.errors import JobError, LongtakeWarning, PictureError
from longtake.events import Encoded, FramesReady, Planned, SectionDone
from longtake.job import Job
from longtake.pipeline.footage import Footage, footage_of, with_clip, with_latents, with_size
from longtake.pipeline.joint import Joint
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks
from longtake.pipeline.prepare import Inputs
from longtake.plan.plans import plan_of
from longtake.spans import Clip
from longtake.video.fading import FADE

JOB = Job("a small blue bird takes off", frames=8, window=2, steps=1, seed=3, width=48, height=32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("clips") / "a.mp4", 90)


def job_of(made: Path, sampling: str, **fields: Any) -> Job:
    return replace(JOB, clip=Clip(str(made), 3), sampling=sampling, **fields)


def run(job: Job, networks: Networks, inputs: Inputs | None = None) -> tuple[Any, np.ndarray]:
    events = list(generate(job, networks, inputs))
    assert [event.number for event in events if isinstance(event, SectionDone)]
    frames = [event.frames for event in events if isinstance(event, FramesReady)]
    return events, np.concatenate(frames, axis=1)


def test_a_video_goes_on_from_the_end_of_its_clip(made: Path, networks: Networks) -> None:
    job = job_of(made, "vanilla")
    events, frames = run(job, networks)
    assert frames.shape == (1, 8, 32, 48, 3)
    encoded = next(event for event in events if isinstance(event, Encoded))
    # As one call of the encoder gives them.
    pixels = np.moveaxis(footage_of(job).frames, -1, 0)[None].astype(np.float32) / 127.5 - 1
    vae = networks.part("vae")
    whole = ops.to_numpy(vae.encode(ops.from_numpy(pixels)).latent_dist.mean) * vae.config.scaling_factor
    assert list(encoded.anchors) == [0, 1, 2]
    found = np.concatenate([encoded.anchors[frame] for frame in range(3)], axis=2)
    assert np.allclose(found, whole, atol=1e-5)


def test_a_video_leads_to_the_beginning_of_its_clip(made: Path, networks: Networks) -> None:
    with pytest.warns(LongtakeWarning, match="begins with the clip's first frame"):
        events, frames = run(job_of(made, "inverted"), networks)
    planned = next(event for event in events if isinstance(event, Planned))
    assert frames.shape[1] == planned.frames == 9 and "a clip behind it" in (planned.notice or "")
    encoded = next(event for event in events if isinstance(event, Encoded))
    assert sorted(encoded.anchors) == [0, 3, 4, 5]


def test_sections_see_as_much_of_a_clip_as_their_sampling_says(made: Path) -> None:
    for sampling, frames, edge in (("vanilla", 77, 89), ("inverted", 73, 0), ("endpoint", 77, 89)):
        footage = footage_of(replace(JOB, clip=Clip(str(made)), sampling=sampling))
        assert footage.frames.shape == (frames, 32, 48, 3)
        assert number_of(footage.edge) == edge % 60 and footage.behind == (edge == 0)


@pytest.mark.parametrize("sampling", ["vanilla", "inverted"])
def test_what_is_read_once_need_not_be_read_again(made: Path, networks: Networks, sampling: str) -> None:
    job = job_of(made, sampling)
    inputs = Inputs(picture=np.zeros((8, 8, 3), np.uint8)) if sampling == "inverted" else Inputs()
    _, frames = run(Job.from_json(job.to_json()), networks, inputs)
    known = with_latents(footage_of(job), networks)
    assert known.frames is None
    gone = replace(job, clip=Clip("no longer there.mp4"))
    assert np.array_equal(frames, run(gone, networks, replace(inputs, clip=known))[1])


def test_a_short_clip_gives_what_it_has(tmp_path: Path) -> None:
    short = job_of(clip(tmp_path / "a.mp4", 6), "vanilla")
    assert footage_of(short).count == 2
    assert len(plan_of(with_clip(short, Networks(), None)[0]).anchors) == 2
    one = footage_of(job_of(clip(tmp_path / "b.mp4", 1), "inverted"))
    assert one.count == 1 and one.pair.shape == (2, 32, 48, 3)


def test_several_rows_go_on_from_one_clip(made: Path, networks: Networks) -> None:
    job = job_of(made, "vanilla", frames=8)
    _, frames = run(job, networks, Inputs(videos=2))
    assert frames.shape[:2] == (2, 8) and not np.array_equal(frames[0], frames[1])


def test_the_size_is_the_clips_shape(made: Path, networks: Networks) -> None:
    job = replace(job_of(made, "vanilla"), width=None, height=None)
    model = replace(networks, settings={"width": 64, "height": 64})
    assert (with_size(job, model).width, with_size(job, model).height) == (96, 64)
    buckets = replace(networks, settings={})
    assert (with_size(job, buckets).width, with_size(job, buckets).height) == (768, 512)


def test_what_does_not_go_with_a_clip_is_one_sentence(made: Path, networks: Networks, picture: Any) -> None:
    with pytest.raises(PictureError, match="There is no file"):
        generate(job_of(made.with_name("b.mp4"), "vanilla"), networks)
    with pytest.raises(JobError, match="leave out the picture at 0"):
        generate(job_of(made, "vanilla"), networks, Inputs(picture=picture))
    with pytest.raises(JobError, match="goes on from a picture and from no clip"):
        generate(job_of(made, "vanilla", reference=True, width=640, height=608), networks)
    footage = footage_of(job_of(made, "vanilla"))
    with pytest.raises(JobError, match="fitted to 48 x 32"):
        generate(job_of(made, "vanilla", width=64), networks, Inputs(clip=footage))
    with pytest.raises(JobError, match="names no clip"):
        generate(replace(JOB, sampling="vanilla"), networks, Inputs(clip=footage, picture=picture))


@pytest.mark.parametrize("before", [None, 40])
def test_the_step_at_a_joint_is_that_of_the_motion(before: int | None) -> None:
    # All grow brighter by 2 a frame; what is made is darker by 60.
    values = np.arange(100, 200, 2, dtype=np.float32)
    made, pair = (values[:40] - 60, values[40:42]) if before else (values[2:42] - 60, values[:2])
    joint = Joint(np.broadcast_to(pair[:, None, None, None], (2, 1, 1, 3)).astype(np.uint8), before)
    pieces = []
    for start in range(0, 40, 5):
        piece = np.broadcast_to(made[None, None, start : start + 5, None, None], (1, 3, 5, 1, 1)) / 127.5 - 1
        pieces += joint.passed(ops.from_numpy(piece.astype(np.float32)), start)
    assert [start for start, _ in pieces] == sorted({start for start, _ in pieces})
    shown = (np.concatenate([ops.to_numpy(each) for _, each in pieces], axis=2)[0, 0, :, 0, 0] + 1) * 127.5
    assert shown.shape == (40,)
    step, more = (pair[0] - shown[-1], 60) if before else (shown[0] - pair[1], -60)
    assert step == pytest.approx(2 + more / (FADE + 1), abs=0.01)
    rest = slice(0, 40 - FADE) if before else slice(FADE, 40)
    assert np.allclose(shown[rest], made[rest], atol=0.01)
    assert not list(joint.rest())


def test_frames_that_wait_for_the_joint_come_if_the_video_is_stopped() -> None:
    joint = Joint(np.zeros((2, 1, 1, 3), np.uint8), 40)
    piece = ops.from_numpy(np.zeros((1, 3, 30, 1, 1), np.float32))
    assert [(start, part.shape[2]) for start, part in joint.passed(piece, 0)] == [(0, 40 - FADE)]
    assert [(start, part.shape[2]) for start, part in joint.rest()] == [(40 - FADE, FADE - 10)]


def test_footage_says_how_much_it_is() -> None:
    frames = np.zeros((9, 32, 48, 3), np.uint8)
    footage = Footage(frames[0], frames[-2:], False, frames)
    assert (footage.count, footage.size, footage.edge.shape) == (3, (48, 32), (32, 48, 3))
