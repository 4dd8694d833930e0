"""Video files: measured without truth, against themselves or another video."""

import numpy as np
import pytest

from longtake.errors import JobError, PictureError
from longtake.evaluation.clips import ClipArm, clip_arm, evaluate_clips
from longtake.evaluation.making import Progressed
from longtake.evaluation.records import Keep, Record
from longtake.job import Job
from longtake.toyworld import Scene, render
from longtake.video import export_to_video, read_video, stream_video


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two videos: one as it is, and one that fades from its second half on; the first one is of a job."""
    folder = tmp_path_factory.mktemp("clips")
    frames = render(Scene("ball", "red", place="grass", motion="dances"), range(60))
    faded = frames.copy()
    faded[30:] = faded[30:] // 2
    job = Job("", frames=60, window=4, sampling="vanilla")
    export_to_video(frames, folder / "plain.mp4", 30, crf=10, job=job)
    export_to_video(faded, folder / "faded.mp4", 30, crf=10)
    return folder


def records_of(arms, **options):
    return {record.scene: record for record in evaluate_clips(arms, **options) if isinstance(record, Record)}


def test_a_video_is_streamed_as_it_is_read(place):
    frames, fps = read_video(place / "plain.mp4")
    assert fps == 30 and np.array_equal(frames, list(stream_video(place / "plain.mp4")))


def test_a_fade_is_drift(place):
    found = records_of([clip_arm(place)])
    assert list(found) == ["faded.mp4", "plain.mp4"]
    plain, faded = found["plain.mp4"], found["faded.mp4"]
    assert faded.figure("luma", "drift") > 0.2 and plain.figure("luma", "drift") < 0.01
    assert faded.figure("colours", "end") > 0.2 and faded.figure("sharpness", "end") < 0.5
    assert plain.figure("sharpness", "start") == pytest.approx(1, abs=0.1)
    assert plain.asked is None and plain.lost is None and "size" not in plain.summaries


def test_seams_are_those_of_the_job_or_of_a_window(place):
    found = records_of([clip_arm(place)], window=7)
    assert found["plain.mp4"].curves["seam"].at.tolist() == [17, 33, 49]
    assert found["faded.mp4"].curves["seam"].at.tolist() == [29, 57]
    assert "seam" not in records_of([clip_arm(place / "faded.mp4")])["faded.mp4"].curves


def test_a_reference_is_what_others_are_compared_with(place):
    found = records_of([clip_arm(place)], reference=place / "plain.mp4")
    faded = found["faded.mp4"]
    assert found["plain.mp4"].figure("psnr", "mean") > 59
    assert faded.figure("psnr", "start") > 35 and faded.figure("psnr", "end") < 12
    assert faded.figure("colours", "end") > 0.2
    assert found["plain.mp4"].figure("sharpness", "mean") == pytest.approx(1)


def test_stills_and_progress(place):
    told = list(evaluate_clips([clip_arm(place / "plain.mp4")], stills=4))
    assert told[-1] == Progressed("plain.mp4", 1, 1)
    (record,) = [each for each in told if isinstance(each, Record)]
    assert record.stills.shape == (4, 64, 64, 3)


def test_kept_files_are_measured_again_when_they_change(place, tmp_path):
    keep, file = Keep(tmp_path / "kept"), tmp_path / "a.gif"
    scene = Scene(motion="dances")
    export_to_video(render(scene, range(9)), file, 10)
    arms = [ClipArm("a", (file,))]
    counts = []
    for _ in range(2):
        counts.append(len(list(evaluate_clips(arms, keep=keep))))
    assert counts[1] == 2 < counts[0] and records_of(arms, keep=keep)["a.gif"].frames == 9
    export_to_video(render(scene, range(12)), file, 10)
    assert records_of(arms, keep=keep)["a.gif"].frames == 12


def test_what_is_no_video_is_refused(place, tmp_path):
    with pytest.raises(JobError, match="neither a model, nor videos"):
        clip_arm(tmp_path)
    with pytest.raises(PictureError, match="There is no file"):
        list(evaluate_clips([clip_arm(tmp_path / "a.mp4")]))
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(PictureError, match="cannot be read as a video"):
        list(evaluate_clips([clip_arm(tmp_path / "a.mp4")]))
