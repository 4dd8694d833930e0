import contextlib
import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from longtake.errors import JobError, LongtakeWarning, PictureError
from longtake.job import Job
from longtake.video import (
    VideoWriter,
    check_writable,
    export_to_video,
    read_metadata,
    read_video,
)


def moving(frames=8, height=48, width=64):
    """A smooth picture that moves: what a codec and 4:2:0 keep well."""
    t, y, x = np.ogrid[:frames, :height, :width]
    channels = (x * 3 + t * 2 + y * 0, y * 4 + x * 0 + t, 128 + 60 * np.sin((x + y + 3 * t) / 15))
    return (
        np.stack([np.broadcast_to(c, (frames, height, width)) for c in channels], -1)
        .clip(0, 255)
        .astype(np.uint8)
    )


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


# ------------------------------------------------------------------------------------------------ videos


def test_frames_come_back(tmp_path):
    frames = moving()
    path = export_to_video(frames, tmp_path / "a.mp4", fps=30)
    back, fps = read_video(path)
    assert fps == 30
    assert back.shape == frames.shape and back.dtype == np.uint8
    # Measured 43 dB; a wrong colour matrix or swapped channels lie below 30.
    assert psnr(back, frames) > 38


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)]
)
def test_colours_are_kept(tmp_path, colour):
    frames = np.broadcast_to(np.array(colour, np.uint8), (3, 32, 32, 3))
    back, _ = read_video(export_to_video(frames, tmp_path / "a.mp4"))
    # 8-bit limited-range YUV has steps of up to 2 in RGB; BT.601 taken for BT.709 is off by more than 10.
    assert np.abs(back.astype(int) - colour).max() <= 4


def test_all_kinds_of_frames_make_the_same_video(tmp_path):
    frames = moving(4)
    kinds = {
        "array": frames,
        "array again": frames,
        "arrays": list(frames),
        "pictures": [Image.fromarray(frame) for frame in frames],
        "floats": (frames / 255).astype(np.float32),
        "list of floats": list(frames / 255),
        "generator": (frame for frame in frames),
    }
    files = {kind: export_to_video(value, tmp_path / f"{kind}.mp4") for kind, value in kinds.items()}
    data = {kind: Path(file).read_bytes() for kind, file in files.items()}
    assert len(set(data.values())) == 1
    # and every file plays while it loads: the index comes before the data
    assert data["array"].index(b"moov") < data["array"].index(b"mdat")


def test_memory_that_was_never_written_has_no_say(tmp_path):
    # MALLOC_PERTURB_ fills fresh memory (glibc alone): x264's macroblock tree made other files of it.
    script = "import sys, numpy, longtake as lt; lt.export_to_video(numpy.load(sys.argv[1]), sys.argv[2])"
    np.save(tmp_path / "frames.npy", moving(4))
    for filler in ("1", "170"):
        words = [sys.executable, "-c", script, str(tmp_path / "frames.npy"), str(tmp_path / f"{filler}.mp4")]
        subprocess.run(words, check=True, timeout=120, env={**os.environ, "MALLOC_PERTURB_": filler})
    assert (tmp_path / "1.mp4").read_bytes() == (tmp_path / "170.mp4").read_bytes()


def test_tensors_are_frames_too(tmp_path):
    torch = pytest.importorskip("torch")
    frames = torch.from_numpy(moving(3))
    assert read_video(export_to_video(frames, tmp_path / "a.mp4"))[0].shape == (3, 48, 64, 3)
    assert read_video(export_to_video(list(frames / 255), tmp_path / "b.mp4"))[0].shape == (3, 48, 64, 3)
    # As pipelines return them with output_type="pt": channels first, in their own precision.
    first = (frames.movedim(-1, 1) / 255).requires_grad_()
    for kind, given in {"tensor": first, "half": first.bfloat16(), "list": list(first)}.items():
        back, _ = read_video(export_to_video(given, tmp_path / f"{kind}.mp4"))
        assert psnr(back, moving(3)) > 38, kind


def test_a_gif(tmp_path):
    frames = moving(31)
    path = export_to_video(frames, tmp_path / "a.gif", fps=30, zoom=2)
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (31, (128, 96), 0)
        times = [gif.seek(number) or gif.info["duration"] for number in range(31)]
    assert sum(times) == 1030 and set(times) == {30, 40}, "as long as 31 frames at 30 a second"
    back, _ = read_video(path)
    assert back.shape == (31, 96, 128, 3)
    for options, words in (
        ({"fps": 60}, "up to 50"),
        ({"crf": 20}, "no quality"),
    ):
        with pytest.raises(JobError, match=words):
            export_to_video(frames, tmp_path / "b.gif", **options)
    with pytest.raises(PictureError, match="one size"):
        export_to_video([frames[0], frames[0, :16]], tmp_path / "b.gif")
    with pytest.raises(PictureError, match="no frames"):
        export_to_video([], tmp_path / "b.gif")
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


def test_the_defaults_are_the_fields(tmp_path):
    diffusers = pytest.importorskip("diffusers.utils")
    stock = inspect.signature(diffusers.export_to_video).parameters
    ours = inspect.signature(export_to_video).parameters
    assert list(ours)[: len(stock)] == list(stock)
    assert ours["fps"].default == stock["fps"].default
    assert read_metadata(export_to_video(moving(), tmp_path / "a.mp4")).fps == stock["fps"].default
    with pytest.raises(JobError, match="no bitrate is kept"):
        export_to_video(moving(), tmp_path / "b.mp4", bitrate=1000)
    with pytest.raises(JobError, match="both were given"):
        export_to_video(moving(), tmp_path / "b.mp4", quality=5, crf=20)
    export_to_video(moving(), tmp_path / "b.mp4", macro_block_size=16)
    with pytest.warns(LongtakeWarning, match="no multiples of macro_block_size=16"):
        export_to_video(moving(2, 40, 40), tmp_path / "b.mp4", macro_block_size=16)


def test_the_job_travels_in_the_file(tmp_path):
    job = Job(prompt='Ein Pinguin tanzt: "☃" \\ 🐧\n' * 200, width=64, height=48, seed=7)
    meta = read_metadata(export_to_video(moving(), tmp_path / "a.mp4", fps=24, job=job))
    assert meta.job == job
    assert (meta.width, meta.height, meta.frames, meta.fps) == (64, 48, 8, 24)
    assert (meta.codec, meta.pixel_format) == ("h264", "yuv420p")
    plain = read_metadata(export_to_video(moving(), tmp_path / "b.mp4"))
    assert plain.job is None and plain.comment == ""
    other = read_metadata(export_to_video(moving(), tmp_path / "c.mp4", job={"anything": 1}))
    assert other.job is None and json.loads(other.comment) == {"anything": 1}


def test_one_frame_is_a_video(tmp_path):
    assert read_video(export_to_video(moving(1), tmp_path / "a.mp4"))[0].shape[0] == 1


@pytest.mark.parametrize("size", [(33, 35), (1, 1), (32, 35)])
def test_an_odd_size_grows_by_one(tmp_path, size):
    frames = moving(3, *size)
    back, _ = read_video(export_to_video(frames, tmp_path / "a.mp4", fps=29.97))
    assert back.shape[1:3] == tuple(edge + edge % 2 for edge in size)


def test_zoom_enlarges(tmp_path):
    frames = moving(4)
    back, _ = read_video(export_to_video(frames, tmp_path / "a.mp4", zoom=4))
    assert back.shape == (4, 192, 256, 3)
    smaller = np.stack([np.asarray(Image.fromarray(f).reduce(4)) for f in back])
    # Measured 42 dB: what Lanczos and the codec change.
    assert psnr(smaller, frames) > 36


def test_quality_is_a_choice(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
    sizes = [os.path.getsize(export_to_video(frames, tmp_path / "a.mp4", crf=crf)) for crf in (1, 17, 40)]
    assert sizes == sorted(sizes, reverse=True)
    good, poor = (os.path.getsize(export_to_video(frames, tmp_path / "a.mp4", quality=q)) for q in (10, 1))
    assert good > poor


@pytest.mark.parametrize(
    "options", [{"crf": 0}, {"crf": 52}, {"zoom": 0}, {"fps": 0}, {"fps": -1}, {"quality": 11}]
)
def test_options_out_of_range(tmp_path, options):
    with pytest.raises(JobError):
        export_to_video(moving(), tmp_path / "a.mp4", **options)
    assert not list(tmp_path.iterdir())


def test_without_a_path_a_temporary_file_is_made():
    path = export_to_video(moving(2))
    assert path.endswith(".mp4") and read_video(path)[0].shape[0] == 2
    os.unlink(path)


def test_a_temporary_file_goes_if_nothing_comes_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(PictureError):
        export_to_video([])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "frames",
    [
        [],
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((1, 2, 8, 8, 3), np.uint8),
        [moving(2), moving(2)],
        [[moving(2)[0]]],
        [moving(1)[0], moving(1, 16, 16)[0]],
        ["a.png"],
        "frames",
        Image.new("RGB", (8, 8)),
        None,
    ],
    ids=range(11),
)
def test_what_is_no_video_leaves_no_file(tmp_path, frames):
    with pytest.raises(PictureError):
        export_to_video(frames, tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_the_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    with pytest.raises(ZeroDivisionError), VideoWriter(path) as writer:
        writer.write(moving())
        assert path.read_bytes() == b"older"
        _ = 1 / 0
    assert path.read_bytes() == b"older" and len(list(tmp_path.iterdir())) == 1
    with VideoWriter(path) as writer:
        writer.write(moving(3))
        writer.write(moving(5))
        assert writer.frames == 8
    assert read_metadata(path).frames == 8
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.avi", "must end in .mp4 or .webm or .mov"),
        ("a", "must end in .mp4"),
        ("folder.mp4", "is a folder"),
        ("none/a.mp4", "no folder"),
        ("file/a.mp4", "no folder"),
        ("x" * 300 + ".mp4", "cannot be written"),
        ("a\0.mp4", "cannot be written"),
    ],
)
def test_outputs_that_cannot_be_written(tmp_path, name, words):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(PictureError, match=words):
        VideoWriter(tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before


def test_an_output_on_a_read_only_file_system():
    if not os.path.isdir("/proc/self"):
        pytest.skip("there is no /proc")
    with pytest.raises(PictureError, match="cannot be written"):
        check_writable("/proc/self/a.mp4", ".mp4")


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path):
    # A limit on the size of files stands in for a full disk: both make write() fail.
    script = """
import resource, signal, sys
import numpy as np
from longtake.errors import PictureError
from longtake.video import export_to_video
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
frames = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
try:
    export_to_video(frames, sys.argv[1])
except PictureError as error:
    print(error)
"""
    for limit in ("1000", "100000"):  # in the header; in the middle of the frames
        words = [sys.executable, "-c", script, str(tmp_path / "a.mp4"), limit]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert "a.mp4 cannot be written: File too large." in done.stdout, done.stderr
        assert not list(tmp_path.iterdir())


def test_files_that_are_no_videos(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    for name in ("none.mp4", "text.mp4", "empty.mp4", "."):
        for read in (read_video, read_metadata):
            with pytest.raises(PictureError):
                read(tmp_path / name)


@pytest.fixture
def listener():
    """An address of this machine, and whether anybody came to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)

        def came():
            with contextlib.suppress(TimeoutError):
                server.accept()[0].close()
                return True
            return False

        yield f"127.0.0.1:{server.getsockname()[1]}", came


@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "http:a.mp4"])
@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://{address}/a.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile real.mp4\n",
        "ffconcat version 1.0\nfile http://{address}/a.mp4\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>http://{address}/</BaseURL></MPD>',
    ],
    ids=["hls", "concat", "concat-web", "sdp", "dash"],
)
def test_a_list_of_other_files_is_no_video(tmp_path, listener, content, name, monkeypatch):
    """FFmpeg takes a list for what it lists, whatever its name, and opens that."""
    address, came = listener
    monkeypatch.chdir(tmp_path)
    export_to_video(moving(2), "real.mp4")
    Path(name).write_text(content.format(address=address))
    for read in (read_video, read_metadata):
        with pytest.raises(PictureError, match="it is no MP4"):
            read(name)
    assert not came()


def test_a_name_that_looks_like_an_address_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.mp4", "data:a.mp4", "pipe:0.mp4"):
        export_to_video(moving(2), name)
        assert read_metadata(name).frames == 2


@pytest.mark.parametrize("kind", ["mov", "webm", "avi", "mkv"])
def test_other_containers_are_read(tmp_path, kind):
    codec = "libvpx" if kind == "webm" else "mpeg4"
    with av.open(str(tmp_path / "a.mp4"), "w", format={"mkv": "matroska"}.get(kind, kind)) as out:
        stream = out.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for pixels in moving(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
    assert read_video(tmp_path / "a.mp4")[0].shape == (3, 48, 64, 3)


def test_videos_larger_than_memory_are_refused(tmp_path, monkeypatch):
    path = export_to_video(moving(4), tmp_path / "a.mp4")
    monkeypatch.setattr("longtake.video.reading.MAX_BYTES", 3 * 48 * 64 * 3)
    with pytest.raises(PictureError, match="more frames than are read at once"):
        read_video(path)
    monkeypatch.setattr("longtake.video.reading.MAX_PIXELS", 1000)
    for read in (read_video, read_metadata):
        with pytest.raises(PictureError, match="64 x 48 pixels"):
            read(path)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
def test_another_reader_agrees(tmp_path):
    path = export_to_video(moving(), tmp_path / "a.mp4", job=Job(prompt="x"))
    words = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json", path]
    facts = json.loads(subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout)
    stream = facts["streams"][0]
    expected = {
        "codec_name": "h264",
        "profile": "High",
        "pix_fmt": "yuv420p",
        "width": 64,
        "height": 48,
        "avg_frame_rate": "10/1",  # the default of export_to_video
        "nb_read_frames": "8",
        "color_space": "bt709",
        "color_range": "tv",
    }
    assert {name: stream[name] for name in expected} == expected
    assert Job.from_json(facts["format"]["tags"]["comment"]) == Job(prompt="x")


# ---------------------------------------------------------------------------------------- videos that grow


BEHIND = 5
"""Frames that the encoder keeps back: it looks 3 ahead for B-frames, and a fragment is closed by the next one."""


def boxes(path):
    """The names of an MP4's outermost boxes, in order."""
    data, place, names = Path(path).read_bytes(), 0, []
    while place < len(data):
        names.append(data[place + 4 : place + 8].decode())
        place += int.from_bytes(data[place : place + 4], "big")
    assert place == len(data)
    return names


def packets(path):
    """(pts, duration) in frames of every packet, by pts."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frame = 1 / (stream.time_base * stream.average_rate)
        return sorted(
            (p.pts / frame, p.duration / frame) for p in container.demux(stream) if p.dts is not None
        )


def test_it_plays_at_every_moment_while_it_grows(tmp_path):
    frames, job = moving(100), Job(prompt="grows")
    path = tmp_path / "a.mp4"
    seen = []
    with VideoWriter(path, 24, job=job, growing=True) as writer:
        assert writer.partial == tmp_path / "a.partial.mp4" and not writer.partial.exists()
        for begin in range(0, 100, 9):
            writer.write(frames[begin : begin + 9])
            seen.append(read_video(writer.partial)[0])
            assert len(seen[-1]) >= writer.frames - BEHIND
            meta = read_metadata(writer.partial)
            assert (meta.frames, meta.fps, meta.job) == (len(seen[-1]), 24, job)
            assert not path.exists()
    assert os.listdir(tmp_path) == ["a.mp4"]
    whole, _ = read_video(path)
    assert whole.shape == frames.shape
    for part in seen:
        # The last ones shown may have a gap, where B-frames between them are still to come.
        assert np.array_equal(part[:-3], whole[: len(part) - 3])


@pytest.mark.parametrize("fps", [30, 24, 29.97])
def test_the_finished_file_is_an_ordinary_one(tmp_path, fps):
    frames, job = moving(70), Job(prompt="grows")
    with VideoWriter(tmp_path / "grown.mp4", fps, job=job, growing=True) as writer:
        writer.write(frames[:50])
        assert boxes(writer.partial)[:4] == ["ftyp", "moov", "moof", "mdat"]
        writer.write(frames[50:])
    whole = tmp_path / "grown.mp4"
    assert [name for name in boxes(whole) if name != "free"] == ["ftyp", "moov", "mdat"]
    assert b"moof" not in whole.read_bytes()
    # Frame n lies at n exactly, for as long as a frame: no gap, no shift, no rounding.
    assert packets(whole) == [(n, 1) for n in range(70)]
    meta = read_metadata(whole)
    assert (meta.frames, meta.fps, meta.job) == (70, fps, job)
    # What was encoded once is not encoded again: the same as if it had been written at one go, but for the
    # highest bit rate in the index (3 bytes, at the most), which a reader of fragments does not know.
    at_once = Path(export_to_video(frames, tmp_path / "at once.mp4", fps, job=job)).read_bytes()
    grown = whole.read_bytes()
    assert len(grown) == len(at_once) and sum(a != b for a, b in zip(grown, at_once, strict=True)) <= 4
    assert np.array_equal(read_video(whole)[0], read_video(tmp_path / "at once.mp4")[0])


def test_growing_in_other_pieces_makes_the_same_file(tmp_path):
    frames = moving(40)
    for name, step in (("a.mp4", 1), ("b.mp4", 36), ("c.mp4", 36)):
        with VideoWriter(tmp_path / name, growing=True) as writer:
            for begin in range(0, 40, step):
                writer.write(frames[begin : begin + step])
    assert len({(tmp_path / name).read_bytes() for name in ("a.mp4", "b.mp4", "c.mp4")}) == 1


def test_what_was_finished_stays_where_the_rest_never_comes(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, growing=True) as writer:
        writer.write(moving(20))
        raise KeyboardInterrupt
    assert path.read_bytes() == b"older"
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "a.partial.mp4"]
    # With time to say goodbye the encoder gives its last frames, too.
    assert len(read_video(writer.partial)[0]) == 20
    with VideoWriter(path, growing=True) as writer:  # the next one begins anew
        writer.write(moving(30))
    assert os.listdir(tmp_path) == ["a.mp4"] and read_metadata(path).frames == 30


def test_two_that_grow_under_one_name_do_not_mix(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, growing=True) as first:
        first.write(moving(20))
        with pytest.raises(KeyboardInterrupt), VideoWriter(path, growing=True) as second:
            second.write(moving(30))
            raise KeyboardInterrupt
    assert read_metadata(path).frames == 20
    assert read_metadata(second.partial).frames == 30  # not the first one's to remove


def test_nothing_grows_before_there_is_a_frame(tmp_path):
    with pytest.raises(PictureError, match="no frames"), VideoWriter(tmp_path / "a.mp4", growing=True):
        pass
    (tmp_path / "b.partial.mp4").mkdir()
    with pytest.raises(PictureError, match="is a folder"):
        VideoWriter(tmp_path / "b.mp4", growing=True)
    with pytest.raises(PictureError, match="cannot be written"):
        VideoWriter(tmp_path / ("🐧" * 62 + ".mp4"), growing=True)  # fits, but with .partial it is too long
    assert os.listdir(tmp_path) == ["b.partial.mp4"]


def test_a_killed_process_leaves_what_is_finished(tmp_path):
    script = """
import sys
import numpy as np
from longtake.video import VideoWriter
frames = np.load(sys.argv[1])
with VideoWriter(sys.argv[2], growing=True) as writer:
    for round in range(10**6):
        writer.write(frames)
        print(writer.frames, flush=True)
"""
    np.save(tmp_path / "frames.npy", moving(12))
    words = [sys.executable, "-c", script, str(tmp_path / "frames.npy"), str(tmp_path / "a.mp4")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        said = [int(process.stdout.readline()) for _ in range(4)]
        process.send_signal(signal.SIGKILL)  # in the middle of whatever it does now
        process.wait(timeout=60)
    assert not (tmp_path / "a.mp4").exists()
    left, fps = read_video(tmp_path / "a.partial.mp4")
    assert fps == 30 and len(left) >= said[-1] - BEHIND
    assert set(boxes(tmp_path / "a.partial.mp4")[2:]) == {"moof", "mdat"}  # and none is cut short
    # Measured 43 dB.
    assert psnr(left[:12], moving(12)) > 38


def test_a_full_disk_leaves_whole_fragments(tmp_path):
    script = """
import resource, signal, sys
import numpy as np
from longtake.errors import PictureError
from longtake.video import VideoWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
frames = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
try:
    with VideoWriter(sys.argv[1], growing=True) as writer:
        writer.write(frames)
except PictureError as error:
    print(error)
"""
    for limit in ("500", "1000"):  # in the header; in the first frame
        words = [sys.executable, "-c", script, str(tmp_path / "a.mp4"), limit]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.stdout.endswith("a.mp4 cannot be written: File too large.\n"), done.stderr
        assert not list(tmp_path.iterdir())
    done = subprocess.run([*words[:-1], "60000"], capture_output=True, text=True, timeout=120)
    assert "cannot be written: File too large; what is finished of it is in" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1 and os.listdir(tmp_path) == ["a.partial.mp4"]
    assert boxes(tmp_path / "a.partial.mp4")[-1] == "mdat"
    # 3 kB a frame.
    assert len(read_video(tmp_path / "a.partial.mp4")[0]) > 12


def test_memory_does_not_grow_with_the_video(tmp_path):
    # Resident memory, as Linux tells it; the slow test below writes hours.
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("there is no /proc")
    frames = moving(36, 32, 32)
    with VideoWriter(tmp_path / "a.mp4", growing=True) as writer:
        held = [_resident_kb(writer, frames, rounds) for rounds in (10, 30)]
    # Measured 0; the pages of a muxer that keeps its index would be 100 kB, the pixels 3 MB.
    assert held[1] - held[0] < 1000
    assert read_metadata(tmp_path / "a.mp4").frames == 40 * 36


@pytest.mark.slow
def test_memory_does_not_grow_with_a_long_video(tmp_path):
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("there is no /proc")
    frames = moving(36, 32, 32)
    with VideoWriter(tmp_path / "a.mp4", growing=True) as writer:
        held = [_resident_kb(writer, frames, rounds) for rounds in (20, 540)]
    # Measured 0 over 20,000 frames, and 6.5 MB at the end, where the index of the ordinary file is made.
    assert held[1] - held[0] < 1000
    assert read_metadata(tmp_path / "a.mp4").frames == 560 * 36


def _resident_kb(writer, frames, rounds):
    for _ in range(rounds):
        writer.write(frames)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
def test_another_reader_plays_it_while_it_grows(tmp_path):
    def played(file):
        words = ["ffprobe", "-v", "error", "-count_frames", "-show_entries"]
        words += ["stream=nb_read_frames,avg_frame_rate,start_pts:frame=pts", "-of", "json", str(file)]
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
        assert not done.stderr
        facts = json.loads(done.stdout)
        times = [frame["pts"] for frame in facts["frames"]]
        assert times[0] == facts["streams"][0]["start_pts"] == 0
        assert times == sorted(set(times))
        assert facts["streams"][0]["avg_frame_rate"] == "30/1"
        return int(facts["streams"][0]["nb_read_frames"])

    with VideoWriter(tmp_path / "a.mp4", growing=True) as writer:
        for count in (30, 60):
            writer.write(moving(30))
            assert played(writer.partial) >= count - BEHIND
    assert played(tmp_path / "a.mp4") == 60
