"""The end, the beginning and one frame of a video: at any rate, by a jump, from every awkward kind."""

from fractions import Fraction

import numpy as np
import pytest

from clips import clip, number_of
from longtake import picture
from longtake.errors import PictureError
from longtake.video import edges, timed
from longtake.video.edges import load_picture, numbers_at, read_edge, still


def edge(path, count, fps=30, end=True):
    return [number_of(frame) for frame in read_edge(path, count, fps, end)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_the_edges_of_a_video_of_our_rate_are_its_own_frames(tmp_path, name):
    made = clip(tmp_path / name, 130)
    assert edge(made, 17) == [number % 60 for number in range(113, 130)]
    assert edge(made, 17, end=False) == list(range(17))


@pytest.mark.parametrize("rate", [12, 24, 25, Fraction(30000, 1001), 50, 60])
def test_other_rates_keep_the_edge_itself_and_the_pace(tmp_path, rate):
    made = clip(tmp_path / "a.mp4", 100, rate)
    last = edge(made, 9)
    steps = np.unwrap(last, period=60)
    assert last[-1] == 99 - 60
    assert np.abs((steps - steps[-1]) + np.arange(9)[::-1] * float(rate) / 30).max() <= 1
    first = edge(made, 9, end=False)
    assert first[0] == 0 and np.abs(first - np.arange(9) * float(rate) / 30).max() <= 1


def test_variable_rates_are_read_by_their_times(tmp_path):
    # Twenty frames of 1/50 s, then ten of 1/10 s.
    marks = [20 * number for number in range(20)] + [400 + 100 * number for number in range(10)]
    made = clip(tmp_path / "a.mkv", 30, marks=marks)
    assert edge(made, 5, fps=10) == [25, 26, 27, 28, 29]
    assert edge(made, 5, fps=25, end=False) == [0, 2, 4, 6, 8]


def test_a_short_video_gives_what_latent_frames_hold_whole(tmp_path):
    assert edge(clip(tmp_path / "a.mp4", 7), 77) == [2, 3, 4, 5, 6]
    assert edge(clip(tmp_path / "b.mp4", 1), 77, end=False) == [0]


def test_the_end_is_reached_by_a_jump(tmp_path, monkeypatch):
    made = clip(tmp_path / "a.mp4", 300, options={"g": "30"})
    decoded = []
    upright = timed.pixels
    monkeypatch.setattr(
        timed, "pixels", lambda frame, *size: decoded.append(frame.pts) or upright(frame, *size)
    )
    monkeypatch.setattr(edges, "outline", lambda path: pytest.fail("the whole file was gone through"))
    assert edge(made, 9) == [number % 60 for number in range(291, 300)]
    assert len(decoded) == 9
    assert number_of(still(made, 8.0)) == 240 % 60


def test_a_sound_that_ends_much_later_does_not_hide_the_end(tmp_path):
    made = clip(tmp_path / "a.mkv", 130, sound="aac", lasts=6, options={"g": "30"})
    known = timed.outline(made)
    found = edges.ending(made, 1.0)
    assert found.partial and found.seconds < 1.1
    assert found.marks[-1] == known.marks[-1]


def test_frames_come_upright_and_with_square_pixels(tmp_path):
    made = clip(tmp_path / "a.mp4", 9, turn=(90, False), size=(96, 48))
    assert read_edge(made, 5, 30, True).shape == (5, 96, 48, 3)
    wide = clip(tmp_path / "b.mp4", 9, shape=Fraction(2, 1))
    assert read_edge(wide, 5, 30, True).shape == (5, 64, 192, 3)


def test_a_frame_of_a_video_is_a_picture(tmp_path):
    made = clip(tmp_path / "a clip@2s.mp4", 90)
    numbers = [
        number_of(np.asarray(load_picture(f"{made}@{at}"))) for at in ("0s", "1.5s", "1.51", ".1s", "end")
    ]
    assert numbers == [0, 45, 45, 3, 29]
    with pytest.raises(PictureError, match=r"is 3\.00 s long; there is no frame at 3 s"):
        load_picture(f"{made}@3s")
    with pytest.raises(PictureError, match="There is no file"):
        load_picture(tmp_path / "none.mp4@1s")


def test_a_picture_whose_own_name_is_so_stays_one(tmp_path):
    named = tmp_path / "a@2s"
    picture.save_picture(picture.load_image(np.zeros((8, 8, 3), np.uint8)), named)
    assert load_picture(named).size == (8, 8)


def test_what_is_no_video_or_damaged_is_one_sentence(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(PictureError, match="it is no MP4"):
        read_edge(tmp_path / "a.mp4", 5, 30, True)
    whole = clip(tmp_path / "b.mp4", 60, options={"bf": "0"}).read_bytes()
    end = whole.rindex(b"moov") - 4
    (tmp_path / "c.mp4").write_bytes(whole[: end - 400] + bytes(400) + whole[end:])
    with pytest.raises(PictureError, match="damaged"):
        read_edge(tmp_path / "c.mp4", 5, 30, True)


def test_numbers_at_repeat_what_is_shown_longer():
    known = timed.Outline(8, 8, np.array([0.0, 0.5]), 0.5, None)
    assert numbers_at(known, 5, 4, True) == [1]
    assert numbers_at(known, 5, 8, True) == [0, 1, 1, 1, 1]
