"""Arms are made for all scenes and seeds, measured, kept, and not made again."""

import importlib
from dataclasses import replace

import numpy as np
import pytest

from longtake import backend
from longtake.errors import JobError
from longtake.evaluation.making import (
    Arm,
    Progressed,
    evaluate_videos,
    floor_records,
    noise_seed,
    sized,
    true_records,
)
from longtake.evaluation.records import Keep, Record, to_values
from longtake.events import FramesReady
from longtake.job import Job
from longtake.pipeline.loop import generate
from longtake.pipeline.prepare import Inputs
from longtake.toyworld import Scene, prompt, render

SCENES = {3: Scene("ball", "red", place="grass", motion="dances"), 5: Scene("box", "blue", motion="spins")}
JOB = Job("", frames=17, window=2, steps=1, sampling="vanilla")
ARMS = [Arm("one", JOB), Arm("other", replace(JOB, sampling="inverted"))]


once = pytest.mark.skipif(
    backend.name != "torch", reason="no framework is in it, and each making takes MindSpore seconds"
)


def of(told, kind=Record):
    return [each for each in told if isinstance(each, kind)]


@pytest.fixture(scope="module")
def records(networks):
    return of(evaluate_videos(ARMS, lambda job: networks, SCENES, (0, 1), batch=3, stills=4))


def test_each_arm_has_each_scene_and_seed(records):
    found = {(record.arm, record.scene, record.seed) for record in records}
    assert found == {(arm, scene, seed) for arm in ("one", "other") for scene in SCENES for seed in (0, 1)}
    assert len(records) == 8
    for record in records:
        assert record.frames == 17 and record.asked == SCENES[record.scene].motion and record.lost is not None
        assert {"size", "background", "seam", "luma"} <= record.summaries.keys()
    assert {record.stills is None for record in records if record.seed == 1} == {False, True}
    assert all(record.stills.shape == (4, 32, 48, 3) for record in records if record.seed == 0)


def test_a_video_is_the_one_that_its_scene_and_seed_make_alone(records, networks):
    scene = SCENES[5]
    inputs = Inputs(
        picture=render(scene, [0], 32, 48)[0], prompts=[prompt(scene)], generator=noise_seed(0, 5)
    )
    events = generate(JOB, networks, inputs)
    frames = np.concatenate([event.frames for event in events if isinstance(event, FramesReady)], 1)[0]
    record = next(each for each in records if (each.arm, each.scene, each.seed) == ("one", 5, 0))
    # Rows of a batch are rounded otherwise than one alone.
    assert np.abs(record.stills.astype(int) - frames[[0, 5, 11, 16]]).max() <= 1
    assert record.figure("luma", "mean") == pytest.approx(
        (frames @ np.array([0.299, 0.587, 0.114])).mean() / 255, rel=1e-3
    )


@once
def test_what_is_kept_is_not_made_again(records, networks, tmp_path):
    keep = Keep(tmp_path / "videos")
    told = evaluate_videos(ARMS, lambda job: networks, SCENES, (0, 1), batch=2, keep=keep, stills=4)
    before = [
        next(each for each in told if isinstance(each, Record)) for _ in range(3)
    ]  # and then it is killed
    told.close()
    again, loads = [], []
    for each in evaluate_videos(
        ARMS, lambda job: loads.append(job) or networks, SCENES, (0, 1), batch=2, keep=keep, stills=4
    ):
        again.append(each)
    first = next(place for place, each in enumerate(again) if isinstance(each, Progressed))
    assert [record.scene for record in again[:first]] == [record.scene for record in before]
    assert len(of(again)) == 8 and [job.sampling for job in loads] == ["vanilla", "inverted"]
    shown = of(again)[0]
    assert to_values(shown) == to_values(before[0]) and np.array_equal(shown.stills, before[0].stills)
    # All is there now, and another job is another video.
    assert not of(evaluate_videos(ARMS, None, SCENES, (0, 1), keep=keep), Progressed)
    longer = [Arm("one", replace(JOB, steps=2))]
    assert of(evaluate_videos(longer, lambda job: networks, {3: SCENES[3]}, keep=keep), Progressed)


@once
def test_a_damaged_record_is_made_again(networks, tmp_path):
    keep, scenes = Keep(tmp_path), {3: SCENES[3]}
    list(evaluate_videos(ARMS[:1], lambda job: networks, scenes, keep=keep))
    (file,) = tmp_path.glob("*.json")
    file.write_text(file.read_text()[:100])
    assert of(evaluate_videos(ARMS[:1], lambda job: networks, scenes, keep=keep), Progressed)


@once
def test_progress_grows_to_the_end(networks):
    told = of(evaluate_videos(ARMS[:1], lambda job: networks, SCENES, batch=1), Progressed)
    done = [each.done for each in told]
    assert done == sorted(done) and 0 < done[0] < 1 and told[-1].done == told[-1].total == 2


@once
def test_true_videos_are_measured_in_parts(tmp_path):
    keep = Keep(tmp_path)
    first = of(true_records(SCENES, 150, (48, 48), keep=keep, stills=3, seams=[37]))
    assert [record.scene for record in first] == [3, 5] and not any(record.lost for record in first)
    assert first[0].seen == "dances" and first[0].stills.shape == (3, 48, 48, 3)
    again = of(true_records(SCENES, 150, (48, 48), keep=keep, stills=3, seams=[37]))
    assert [to_values(record) for record in again] == [to_values(record) for record in first]


def test_the_floor_is_compared_frame_by_frame(networks):
    judge = importlib.import_module("longtake.toy.judge")
    found = of(floor_records(SCENES, 9, (48, 32), lambda true: judge.through_autoencoder(networks.vae, true)))
    assert len(found) == 2 and all(record.frames == 9 for record in found)
    assert all(0 < record.figure("psnr", "mean") < 40 for record in found)
    exact = of(floor_records(SCENES, 9, (48, 32), lambda true: true))
    assert exact[0].figure("psnr", "mean") > 59


def test_a_model_without_a_size_needs_one(networks):
    sizeless = replace(networks, settings={})
    with pytest.raises(JobError, match="no size of its own; say --size"):
        sized(JOB, sizeless)
    assert sized(replace(JOB, width=32, height=16), sizeless).height == 16
