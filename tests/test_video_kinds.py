"""Videos of every kind that a name can ask for: whole or not there, growing where they can, with their job."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from longtake.errors import JobError, PictureError
from longtake.job import Job
from longtake.video import check_output, export_to_video, read_metadata, read_video, writer_for
from longtake.video.gif import read_comment
from longtake.video.numbered import numbered

KINDS = ("a.mp4", "a.webm", "a.mov", "a.gif", "frames/")
GROWING = {"a.mp4": 5, "a.webm": 10, "a.mov": 1}
"""Frames that each is behind."""
# More than a QuickTime tag holds, and in no 8-bit code page.
JOB = Job(prompt='Ein Pinguin: "☃" \\ 🐧\n' * 4000, width=64, height=48, seed=7, fps=24)


def moving(frames=8, height=48, width=64):
    """A smooth picture that moves."""
    t, y, x = np.ogrid[:frames, :height, :width]
    channels = (x * 3 + t * 2 + y * 0, y * 4 + x * 0 + t, 128 + 60 * np.sin((x + y + 3 * t) / 15))
    every = [np.broadcast_to(c, (frames, height, width)) for c in channels]
    return np.stack(every, -1).clip(0, 255).astype(np.uint8)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def frames_in(path):
    """The frames of a video of any kind, with what independent of us reads it: PyAV, Pillow."""
    if Path(path).is_dir():
        return np.stack([np.asarray(Image.open(file)) for file in sorted(Path(path).iterdir())])
    return read_video(path)[0]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_holds_its_frames_and_its_job(name):
    frames = moving(13)
    with writer_for(name, 24, job=JOB, growing=True) as writer:
        writer.write(frames[:5])
        writer.write(frames[5:])
    assert os.listdir() == [name.rstrip("/")]
    back = frames_in(name)
    assert back.shape == frames.shape
    # Measured 43 (H.264), 45 (VP9), 49 (ProRes), 33 (256 colours), infinite (PNG).
    least = {"a.gif": 32, "frames/": 200}.get(name, 40)
    assert np.array_equal(back, frames) or psnr(back, frames) > least
    meta = read_metadata(name)
    assert meta.job == JOB
    assert (meta.width, meta.height, meta.frames) == (64, 48, 13)
    assert meta.fps == pytest.approx(24, rel=0.01)  # a GIF counts hundredths of a second
    kinds = {"a.mp4": ("h264", "yuv420p"), "a.webm": ("vp9", "yuv420p"), "a.mov": ("prores", "yuv422p10le")}
    assert (meta.codec, meta.pixel_format) == kinds.get(name, (meta.codec, meta.pixel_format))


@pytest.mark.parametrize("name", KINDS)
def test_the_same_frames_make_the_same_video_in_any_pieces(name):
    made = []
    for step in (1, 7):
        with writer_for(name, 30, growing=True) as writer:
            for begin in range(0, 14, step):
                writer.write(moving(14)[begin : begin + step])
        files = sorted(Path(name).iterdir()) if name.endswith("/") else [Path(name)]
        made.append([file.read_bytes() for file in files])
    assert made[0] == made[1]


@pytest.mark.parametrize("name", KINDS)
def test_what_fails_leaves_what_was_there(name):
    export_to_video(moving(3), name)
    before = frames_in(name)
    with pytest.raises(ZeroDivisionError), writer_for(name) as writer:
        writer.write(moving(2, 16, 16))
        raise ZeroDivisionError
    assert np.array_equal(frames_in(name), before) and len(os.listdir()) == 1
    with pytest.raises(PictureError, match="no frames"), writer_for(name):
        pass
    with pytest.raises(PictureError, match="one size"):
        export_to_video([moving(1)[0], moving(1, 16, 16)[0]], name)
    assert np.array_equal(frames_in(name), before) and len(os.listdir()) == 1
    export_to_video(moving(1), name)  # and then in its place
    assert len(frames_in(name)) == 1 and len(os.listdir()) == 1


@pytest.mark.parametrize("name", GROWING)
def test_it_plays_while_it_grows(name):
    job = Job("grows")
    with writer_for(name, 24, job=job, growing=True) as writer:
        for begin in range(0, 40, 13):
            writer.write(moving(40)[begin : begin + 13])
            meta = read_metadata(writer.partial)
            assert (meta.fps, meta.job) == (24, job)
            seen, _ = read_video(writer.partial)
            assert len(seen) >= writer.frames - GROWING[name]
            assert psnr(seen, moving(40)[: len(seen)]) > 38
    assert os.listdir() == [name]


@pytest.mark.parametrize("name", [*GROWING, "frames/"])
def test_what_is_finished_stays_where_the_rest_never_comes(name):
    with pytest.raises(KeyboardInterrupt), writer_for(name, growing=True) as writer:
        writer.write(moving(20))
        raise KeyboardInterrupt
    assert os.listdir() == [writer.partial.name]
    assert len(frames_in(writer.partial)) == 20
    with writer_for(name, growing=True) as writer:  # the next one begins anew
        writer.write(moving(3))
    assert os.listdir() == [name.rstrip("/")] and len(frames_in(name)) == 3


def test_numbered_pictures_are_named_as_asked():
    for name, first in (
        ("a/", "00000.png"),
        ("b/shot-%03d.png", "shot-000.png"),
        ("c/####_x.png", "0000_x.png"),
        ("d/%d.png", "0.png"),
    ):
        export_to_video(moving(12), name, job=Job("x"))
        folder = Path(name).parent if name.endswith(".png") else Path(name)
        assert sorted(os.listdir(folder))[0] == first
        files = [file.name for file in numbered(folder)]
        assert len(files) == 12 and int("".join(filter(str.isdigit, files[-1]))) == 11
        assert read_metadata(folder / first).job == Job("x")  # each of them tells
    assert read_metadata("b/shot-%03d.png").frames == 12


def test_a_folder_with_anything_else_in_it_is_left_alone():
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    with pytest.raises(PictureError, match=r"folder of their own.*notes\.txt"):
        check_output("mine/")
    with pytest.raises(PictureError, match="has others in it"), writer_for("frames/") as writer:
        writer.write(moving(1))
        Path("frames").mkdir()
        Path("frames/late.txt").touch()
    assert os.listdir("frames") == ["late.txt"] and sorted(os.listdir()) == ["frames", "mine"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.avi", r"must end in \.mp4, \.webm, \.mov, \.gif, or a folder of PNGs"),
        ("a", "must end in"),
        ("a.png", "must end in"),
        ("none/a.webm", "no folder"),
        ("none/there/", "There is no folder"),
        ("a/%05d-%05d.png", "one place for the number"),
        ("file/%05d.png", "is a file"),
        ("x" * 300 + "/", "cannot be written"),
    ],
)
def test_names_that_cannot_be_written(name, words):
    Path("file").touch()
    with pytest.raises(PictureError, match=words):
        check_output(name)
    assert os.listdir() == ["file"]


def test_a_quality_is_a_choice_where_there_is_one():
    noise = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
    sizes = [os.path.getsize(export_to_video(noise, "a.webm", crf=crf)) for crf in (1, 17, 51)]
    assert sizes == sorted(sizes, reverse=True)
    for name in ("a.mov", "a.gif", "frames/"):
        with pytest.raises(JobError, match="no quality"):
            writer_for(name, crf=20)
    with pytest.raises(JobError, match=r"between 1 .best. and 51"):
        writer_for("a.webm", crf=0)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mov", "a.gif"])
@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 255), (200, 120, 40)])
def test_colours_are_kept(name, colour):
    frames = np.broadcast_to(np.array(colour, np.uint8), (2, 32, 32, 3))
    back, _ = read_video(export_to_video(frames, name))
    # 8-bit limited-range YUV has steps of up to 2 in RGB; BT.601 taken for BT.709 is off by more than 10.
    assert np.abs(back.astype(int) - colour).max() <= 4


def test_a_gif_shows_what_stays_as_it_was():
    frames = np.repeat(moving(1), 4, 0)
    frames[2, 10:20, 30:40] = 255  # a box comes and goes; at last nothing changes
    export_to_video(frames, "a.gif", 25)
    with Image.open("a.gif") as gif:
        assert (gif.n_frames, gif.info["loop"]) == (4, 0)
        for number in range(4):
            gif.seek(number)
            assert psnr(np.asarray(gif.convert("RGB")), frames[number]) > 32
    whole = os.path.getsize(export_to_video(moving(4), "b.gif", 25))
    assert os.path.getsize("a.gif") < whole / 2


def test_a_stranger_s_comment_is_no_trap():
    head = b"GIF89a\x01\x00\x01\x00\x00\x00\x00"
    for rest, comment in (
        (b"", ""),
        (b"!\xfe" + b"\xff" * 2**26, 2**24),
        (b"!\xfe\x05ab", "ab"),
        (b"!\xff\x01x\0!\xfe\x02{}\0,", "{}"),
    ):
        Path("a.gif").write_bytes(head + rest)
        found = read_comment("a.gif")
        assert found == comment or len(found) < comment + 256
    Path("a.png").write_bytes(b"\x89PNG\r\n\x1a\nnot quite")
    for name in ("a.png", "none.png", "empty/"):
        Path("empty").mkdir(exist_ok=True)
        with pytest.raises(PictureError):
            read_metadata(name)


def test_a_killed_process_leaves_what_is_finished():
    script = """
import contextlib, sys
import numpy as np
from longtake.video import writer_for
frames = np.load("frames.npy")
with contextlib.ExitStack() as stack:
    writers = [stack.enter_context(writer_for(name, growing=True)) for name in sys.argv[1:]]
    for round in range(10**6):
        for writer in writers:
            writer.write(frames)
        print(writers[0].frames, flush=True)
"""
    np.save("frames.npy", moving(12))
    names = ["a.webm", "a.mov", "frames/", "a.gif"]
    with subprocess.Popen(
        [sys.executable, "-c", script, *names], stdout=subprocess.PIPE, text=True
    ) as process:
        said = [int(process.stdout.readline()) for _ in range(3)][-1]
        process.send_signal(signal.SIGKILL)  # in the middle of whatever it does now
        process.wait(timeout=60)
    for name in ("a.partial.webm", "a.partial.mov"):
        assert len(read_video(name)[0]) >= said - 10
    assert len(numbered("frames.partial")) >= said
    assert not any(Path(name).exists() for name in names)
    # A name that was cut off in the middle is in nobody's way.
    Path("frames.partial/.00099.png.12345678.part").write_bytes(b"cut")
    with writer_for("frames/", growing=True) as writer:
        writer.write(moving(2))
    assert sorted(os.listdir("frames")) == ["00000.png", "00001.png"] and not Path("frames.partial").exists()


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.webm", {"codec_name": "vp9", "pix_fmt": "yuv420p", "color_range": "tv"}),
        ("a.mov", {"codec_name": "prores", "profile": "HQ", "pix_fmt": "yuv422p10le"}),
        ("a.gif", {"codec_name": "gif"}),
    ],
)
def test_another_reader_agrees(name, expected):
    job = Job("x")
    export_to_video(moving(), name, 25, job=job)
    words = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json", name]
    facts = json.loads(subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout)
    expected = {**expected, "width": 64, "height": 48, "avg_frame_rate": "25/1", "nb_read_frames": "8"}
    if name != "a.gif":
        expected |= {"color_space": "bt709", "color_primaries": "bt709", "color_transfer": "bt709"}
        tags = {key.lower(): value for key, value in facts["format"]["tags"].items()}
        assert Job.from_json(tags["comment"]) == job
    stream = facts["streams"][0]
    assert {key: stream[key] for key in expected} == expected


def test_a_webm_can_be_entered_in_the_middle():
    with writer_for("a.webm", 30, growing=True) as writer:
        writer.write(moving(300, 16, 16))
    with av.open("a.webm") as video:
        stream = video.streams.video[0]
        assert float(video.duration / av.time_base) == pytest.approx(10, abs=0.05)
        video.seek(int(6 / stream.time_base), stream=stream)
        first = next(video.decode(stream))
        assert 2 < first.time <= 6
