"""`generate CLIP PROMPT`: joined to the clip or alone, kept in a folder, refused in one sentence."""

import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from clips import clip, number_of, tone
from longtake.cli import main
from longtake.cli.outputs import free_names
from longtake.job import Job
from longtake.pipeline import footage
from longtake.spans import Clip
from longtake.video import read_metadata, read_video, stream_video

MAKE = ["generate", "walk.mp4", "It walks.", "--frames", "20", "--sampling", "vanilla"]


@pytest.fixture
def walk(pipeline, place, monkeypatch):
    """A clip of forty frames, whose latents cost nothing."""

    def with_latents(seen, networks):
        latents = np.full((1, 4, seen.count, seen.size[1] // 8, seen.size[0] // 8), seen.first[0, 0, 0], "f4")
        return replace(seen, latents=latents)

    monkeypatch.setattr(footage, "with_latents", with_latents)
    return clip(place / "walk.mp4", 40, size=(96, 72))


def said(capsys, words, code=0):
    assert main(words) == code
    return capsys.readouterr()


def test_a_clip_and_what_comes_behind_it_are_one_video(pipeline, walk, capsys):
    text = said(capsys, [*MAKE, "-o", "out.mp4"]).out
    assert "out.mp4: 20 frames, 64 x 48, 0.7 s" in text and "joined to walk.mp4" in text
    frames = list(stream_video("out.mp4"))
    assert [number_of(frame) for frame in frames[:40]] == list(range(40)) and len(frames) == 60
    assert all(np.array_equal(a, b) for a, b in zip(frames, stream_video("walk.mp4"), strict=False))
    assert np.abs(frames[-1].astype(int) - 90).max() < 4
    # Ten latent frames are what the clip has, of the twenty that a section would see.
    assert pipeline.job.clip == Clip("walk.mp4", 10) and pipeline.inputs.clip.count == 10
    assert read_metadata("out.mp4").job == pipeline.job
    assert not pipeline.inputs.pictures


def test_backwards_it_comes_before_the_clip(pipeline, walk, capsys):
    words = [*MAKE[:-1], "inverted", "-o", "out.mp4"]
    assert "begins with the clip's first frame" in said(capsys, words).err
    frames = list(stream_video("out.mp4"))
    assert [number_of(frame) for frame in frames[-40:]] == list(range(40))
    assert list(pipeline.inputs.pictures) == [0] and pipeline.inputs.clip.behind


def test_the_new_frames_can_be_written_alone(pipeline, walk, capsys):
    said(capsys, [*MAKE, "--new-only", "--zoom", "2"])
    frames, _ = read_video("walk-2.mp4")
    assert frames.shape == (20, 96, 128, 3)


def test_a_frame_of_a_clip_is_a_picture(pipeline, walk, capsys):
    words = ["generate", "walk.mp4@0.5s", "It walks.", "--last-image", "walk.mp4@end"]
    said(capsys, words)
    first, last = (np.asarray(pipeline.inputs.pictures[at]) for at in (0, "end"))
    assert (number_of(first), number_of(last)) == (15, 39)
    assert pipeline.job.clip is None and pipeline.job.picture == "walk.mp4@0.5s"
    assert Path("walk-2.mp4").exists()
    assert (
        next(free_names("walk.mp4@3.2s")) == "walk.mp4" and next(free_names("me@home.png")) == "me@home.mp4"
    )


def test_a_job_keeps_what_it_sees_of_its_clip(pipeline, walk, capsys):
    pipeline.numbers = 1
    words = [*MAKE, "--frames", "50", "--job", "job"]
    assert "The power is out." in said(capsys, words, 2).err
    pipeline.numbers = None
    assert "section 1/2 kept" in said(capsys, ["resume", "job"]).err
    assert len(list(stream_video("job/video.mp4"))) == 90
    assert pipeline.inputs.clip.count == 10 and pipeline.inputs.clip.frames is None
    assert pipeline.job == replace(pipeline.job, clip=Clip(str(walk), 10))

    shutil.copy(walk, "same.mp4")
    clip(walk, 41, size=(96, 72))
    assert "is not the clip any more" in said(capsys, ["resume", "job"], 2).err
    walk.unlink()
    assert "There is no clip" in said(capsys, ["resume", "job"], 2).err
    shutil.copy("same.mp4", walk)
    assert "section 2/2 kept" in said(capsys, ["resume", "job"]).err


def test_a_job_of_the_new_frames_alone_needs_the_clip_no_more(pipeline, walk, capsys):
    said(capsys, [*MAKE, "--job", "job", "--new-only"])
    walk.unlink()
    Path("job/video.mp4").unlink()
    said(capsys, ["resume", "job"])
    assert len(list(stream_video("job/video.mp4"))) == 20


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("none.mp4 Go.", "There is no file none.mp4"),
        ("folder.mp4 Go.", "folder.mp4 is a folder, not a clip"),
        ("https://a.b/c.mp4 Go.", "no address is fetched for it"),
        ("walk.mp4", "walk.mp4 is a clip; what happens is missing"),
        ("walk.mp4 Go. -o out.webm", "joined to its clip is an .mp4"),
        ("walk.mp4 Go. -o walk.mp4", "would take the place of its clip"),
        ("walk.mp4 Go. --zoom 2", "has the clip's size; leave --zoom out"),
        ("walk.mp4 Go. --size 64x128", "whose shape is quite another"),
        ("walk.mp4 Go. --reference", "The reference knows a first and a last picture alone"),
        ("walk.mp4 Go. --loop", "A loop ends where it begins"),
        ("a.png Go. --new-only", "there is none"),
        ("walk.mp4@9s Go.", "there is no frame at 9 s"),
        ("none.mp4@1s Go.", "There is no file none.mp4"),
        ("sound.mp4 Go.", "sound.mp4 has no video in it"),
        ("text.mp4 Go.", "cannot be read as a video"),
    ],
)
def test_what_cannot_be_is_one_sentence_before_a_model_loads(place, capsys, words, sentence):
    clip(place / "walk.mp4", 9)
    Path("text.mp4").write_text("no video")
    with av.open("sound.mp4", "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        container.mux(list(tone(stream, 1)))
    sampling = ["--sampling", "inverted"] if "--loop" in words else []
    err = said(capsys, ["generate", *words.split(), *sampling], 2).err
    assert sentence in err and err.count("\n") == 1


def test_a_clip_that_an_mp4_cannot_hold_is_said_to_be_encoded_anew(pipeline, walk, place, capsys):
    clip(place / "b.webm", 20, codec="libvpx-vp9")
    words = ["generate", "b.webm", "It walks.", "--frames", "20", "--sampling", "vanilla", "-o", "out.mp4"]
    told = said(capsys, words).err
    assert told.count("frames of b.webm are encoded anew, since it is vp9 and not H.264") == 1
    assert len(list(stream_video("out.mp4"))) == 40


def test_a_joined_video_is_made_again_and_made_longer(pipeline, walk, capsys):
    said(capsys, [*MAKE, "--job", "job", "-o", "out.mp4"])
    said(capsys, ["generate", "--like", "out.mp4", "-o", "again.mp4"])
    assert Path("again.mp4").read_bytes() == Path("out.mp4").read_bytes()
    assert "walk.mp4" in said(capsys, ["show", "out.mp4"]).out
    said(capsys, ["extend", "job", "--frames", "60", "-o", "out.mp4"])
    assert len(list(stream_video("out.mp4"))) == 40 + 20 + 60
    said(capsys, ["redo", "job", "--section", "0", "--seed", "5", "-o", "out.mp4"])
    assert pipeline.job.clip.latents == 10


def test_a_clip_passes_through_json():
    job = Job("It walks.", clip=Clip("walk.mp4", 3), sampling="vanilla")
    assert Job.from_json(job.to_json()) == job
