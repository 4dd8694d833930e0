"""Videos read at their own times: turned, of odd rates and pixels, damaged, and reached by a jump."""

import shutil
from fractions import Fraction

import av
import numpy as np
import pytest

from clips import HEIGHT, WIDTH, clip, number_of
from longtake.errors import PictureError
from longtake.video.timed import frames, outline


def shown(path, wanted=None):
    known = outline(path)
    wanted = range(len(known.times)) if wanted is None else wanted
    return known, list(frames(path, known, wanted))


def corner(frame):
    """The quarter of the red corner: (row, column)."""
    height, width = frame.shape[:2]
    red = [
        (frame[y, x, 0].astype(int) - frame[y, x, 2], (y > height // 2, x > width // 2))
        for y in (height // 8, height - 1 - height // 8)
        for x in (width // 8, width - 1 - width // 8)
    ]
    return max(red)[1]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("plain.mp4", {}),
        ("deep.mp4", {"pix_fmt": "yuv420p10le"}),
        ("full.mkv", {"pix_fmt": "yuv444p"}),
        ("old.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    ],
)
def test_every_frame_is_read_in_its_place(tmp_path, name, kind):
    known, read = shown(clip(tmp_path / name, 40, **kind))
    assert (known.width, known.height, len(known.times)) == (WIDTH, HEIGHT, 40)
    assert known.rate == pytest.approx(30, rel=0.002)  # Matroska rounds times to thousandths
    assert [number_of(frame) for frame in read] == list(range(40))


@pytest.mark.parametrize(
    ("turn", "where"),
    [
        ((0, True), (False, True)),
        ((90, False), (True, False)),
        ((180, False), (True, True)),
        ((-90, False), (False, True)),
    ],
)
def test_videos_are_turned_and_mirrored_as_players_show_them(tmp_path, turn, where):
    if not hasattr(av.VideoFrame, "side_data") or not hasattr(
        av.video.stream.VideoStream, "set_display_rotation"
    ):
        pytest.skip("this PyAV writes no turns")
    known, read = shown(clip(tmp_path / "phone.mp4", 3, turn=turn))
    size = (WIDTH, HEIGHT) if turn[0] % 180 == 0 else (HEIGHT, WIDTH)
    assert (known.width, known.height) == size
    assert read[0].shape == (size[1], size[0], 3)
    assert corner(read[0]) == where


def test_pixels_become_square(tmp_path):
    known, read = shown(clip(tmp_path / "tv.mp4", 3, shape=Fraction(3, 2)))
    assert (known.width, known.height) == (144, 64) and read[0].shape == (64, 144, 3)


def test_times_are_the_files_own(tmp_path):
    marks = [number * 20 if number < 20 else 400 + (number - 20) * 100 for number in range(30)]
    known, read = shown(clip(tmp_path / "vfr.mp4", 30, marks=marks))
    np.testing.assert_allclose(known.times * 1000, marks, atol=1)
    assert [number_of(frame) for frame in read] == list(range(30))


def test_a_jump_gives_what_decoding_from_the_beginning_gives(tmp_path):
    file = clip(tmp_path / "long.mp4", 150, options={"g": "12"})
    _, every = shown(file)
    _, some = shown(file, [95, 95, 96, 120])
    np.testing.assert_array_equal(some, [every[n] for n in (95, 95, 96, 120)])
    assert len(shown(file, [149])[1]) == 1 and shown(file, [])[1] == []


def test_what_is_damaged_gives_the_frames_before(tmp_path):
    file = clip(tmp_path / "whole.mp4", 120, options={"g": "12"})
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = np.random.default_rng(0).integers(0, 256, 400, np.uint8).tobytes()
    (tmp_path / "damaged.mp4").write_bytes(data)
    known = outline(tmp_path / "damaged.mp4")
    came = []
    with pytest.raises(PictureError, match=r"damaged|cannot be read"):
        for frame in frames(tmp_path / "damaged.mp4", known, range(120)):
            came.append(number_of(frame))
    assert 30 < len(came) < 90 and came == [number % 60 for number in range(len(came))]


def test_what_was_cut_off_is_shorter(tmp_path):
    file = clip(tmp_path / "whole.mkv", 120, options={"g": "12"})
    (tmp_path / "cut.mkv").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    known = outline(tmp_path / "cut.mkv")
    assert 20 < len(known.times) < 110


@pytest.mark.parametrize("content", [b"", b"no video", b"\0\0\0\x18ftypmp42" + bytes(100)])
def test_what_is_no_video_is_refused(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(PictureError, match=r"a\.mp4"):
        outline(tmp_path / "a.mp4")


def test_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate = 44100
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    with pytest.raises(PictureError, match="has no video in it"):
        outline(tmp_path / "a.mp4")


def test_links_and_names_in_any_script(tmp_path):
    file = clip(tmp_path / "ペンギン 🐧.mp4", 3)
    (tmp_path / "link.mp4").symlink_to(file)
    assert len(shown(tmp_path / "link.mp4")[1]) == 3
    shutil.move(file, tmp_path / "moved.mp4")
    with pytest.raises(PictureError, match="There is no file"):
        outline(tmp_path / "link.mp4")
