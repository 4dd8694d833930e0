"""The file that `--preview` writes: in its place, whole at any moment, at a cost that has a limit."""

import argparse
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from longtake.cli import preview as cli
from longtake.cli.captions import of_frames, of_sections
from longtake.errors import LongtakeWarning, PictureError
from longtake.events import Planned, Preview, SectionDone
from longtake.job import Anchor, Job, PromptSpan
from longtake.picture import CAPTION, contact_sheet
from longtake.plan import timeline
from longtake.plan.plans import plan_of
from longtake.video import read_metadata, read_video


def section(number, frames=9, height=8, width=16):
    """A preview whose pictures are of one grey: the section's number in tens, modulo 256."""
    return Preview(number, np.full((1, frames, height, width, 3), 10 * (number + 1) % 256, np.uint8))


def options(*words):
    parser = argparse.ArgumentParser()
    parser.add_argument("picture")
    cli.add_options(parser)
    return parser.parse_args(["in.png", *words])


def test_a_sheet_fills_up_from_the_end(tmp_path):
    file = cli.PreviewWriter(tmp_path / "a.png", Job("x"))
    file.tell(Planned(4, 145, 25))
    file.tell(SectionDone(0, 3, np.zeros((1, 4, 9, 2, 2))))  # for others
    assert not list(tmp_path.iterdir())
    seen = []
    for number in (3, 2, 1, 0):
        file.tell(section(number))
        file.write()  # what a viewer sees in the end, however quick the sections come
        with Image.open(tmp_path / "a.png") as sheet:
            assert sheet.size == (9 * 130 + 2, 4 * 66 + 2)
            seen.append([sheet.getpixel((60, 66 * row + 30))[0] for row in range(4)])
    assert seen == [[200, 200, 200, 40], [200, 200, 30, 40], [200, 20, 30, 40], [10, 20, 30, 40]]
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_video_of_what_is_there_is_as_long_as_that(tmp_path):
    file = cli.PreviewWriter(tmp_path / "a.mp4", Job("x"))
    file.tell(Planned(4, 145, 25))
    for number, seconds in ((3, 1.2), (2, 2.4), (1, 3.6), (0, 4.8)):
        file.tell(section(number))
        file.write()
        meta = read_metadata(tmp_path / "a.mp4")
        assert meta.frames / meta.fps == pytest.approx(seconds)
        assert (meta.width, meta.height) == (256, 128)
    frames, _ = read_video(tmp_path / "a.mp4")
    # 8-bit limited-range YUV has steps of up to 2.
    assert np.abs(frames[[0, 9, 18, 27], 50, 50, 0].astype(int) - (10, 20, 30, 40)).max() <= 3


@pytest.mark.parametrize("suffix", [".png", ".mp4"])
@pytest.mark.parametrize("frames", [9, 36])
def test_what_it_holds_does_not_grow_with_the_video(tmp_path, monkeypatch, suffix, frames):
    monkeypatch.setattr(cli.PreviewWriter, "write", lambda self: None)
    for sections in (1, 20, 119, 1000):
        file = cli.PreviewWriter(tmp_path / f"a{suffix}", Job("x", frames=1 + 36 * sections))
        file.tell(Planned(sections, 1 + 36 * sections, 25))
        for number in reversed(range(sections)):
            file.tell(section(number, frames, height=4, width=4))
        held = sum(len(pictures) for pictures in file._pictures.values())
        assert min(sections, 100) <= held <= cli.PICTURES[suffix]


def test_writing_takes_a_small_part_of_the_time(tmp_path, monkeypatch):
    now, written = [0.0], []
    file = cli.PreviewWriter(tmp_path / "a.png", Job("x", frames=3601), clock=lambda: now[0])

    def write():
        written.append(now[0])
        now[0] += 1.0  # slow

    monkeypatch.setattr(file, "_write_sheet", write)
    file.tell(Planned(100, 3601, 25))
    for number in reversed(range(100)):
        now[0] += 0.5
        file.tell(section(number))
    assert written[0] == 0.5 and 5 <= len(written) <= 8
    assert written[-1] + 1 == now[0]  # the last section is there
    file.write()
    assert written[-1] + 1 == now[0]  # and nothing is written twice


def wanted(words, video, *others):
    args = options(*words)
    return cli.preview_file(args.preview, args.preview_decode, video, *others)


def test_options_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = tmp_path / "out.mp4"
    assert wanted([], video) is None
    by_default = tmp_path / "out-preview.png"
    assert wanted(["--preview"], video) == cli.PreviewFile(by_default, "rgb")
    assert wanted(["--preview", "b.mp4"], video) == cli.PreviewFile(tmp_path / "b.mp4", "rgb")
    for words in (["--preview-decode"], ["--preview", "--preview-decode"]):
        assert wanted(words, video) == cli.PreviewFile(by_default, "decode")
    for name in ("in.png", "out.mp4", "s.png"):
        with pytest.raises(PictureError, match="would take the place of"):
            wanted(["--preview", name], video, "in.png", None, tmp_path / "s.png")
    with pytest.raises(PictureError, match="no folder"):
        wanted(["--preview", "none/b.mp4"], video)
    with pytest.raises(SystemExit):
        options("--preview", "A penguin dances")


def test_events_are_followed_only_if_it_is_asked_for(tmp_path):
    job, video = Job(prompt="x", frames=73), tmp_path / "out.mp4"
    for words, files in ((["--preview"], ["out-preview.png"]), ([], [])):
        for file in tmp_path.iterdir():
            file.unlink()
        with pytest.raises(KeyboardInterrupt), cli.previewing(wanted(words, video), job) as tell:
            for event in (Planned(2, 73, 25), section(1), section(0)):
                tell(event)
            raise KeyboardInterrupt
        assert [file.name for file in tmp_path.iterdir()] == files


def test_a_preview_that_cannot_be_written_stops_nothing(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    files = [cli.PreviewWriter(folder / name, Job("x", frames=37)) for name in ("a.png", "a.mp4")]
    folder.rmdir()
    for file in files:
        file.tell(Planned(1, 37, 25))
        with pytest.warns(LongtakeWarning, match="No preview this time: .*gone"):
            file.tell(section(0))


def test_a_sheet_says_what_changes_when(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job("A star", prompts=(PromptSpan("it spins", 1.2), PromptSpan("it rests", 3.6)), blend=1)
    job = replace(job, prompts=(replace(job.prompts[0], end=3.6), job.prompts[1]))
    told = of_sections(job, plan_of(job), range(4))
    assert told == {0: "0.0 s: A star", 1: "1.2 s: it spins", 2: "2.4 s", 3: "3.6 s: it rests"}
    for asked in (job, Job("A star")):
        file = cli.PreviewWriter(tmp_path / "a.png", asked)
        file.tell(Planned(4, 145, 25))
        file.tell(section(3))
        file.write()
        with Image.open("a.png") as sheet:
            height = 66 + (CAPTION + 2 if asked is job else 0)
            assert sheet.size == (9 * 130 + 2, 4 * height + 2)
            bands = [np.asarray(sheet.convert("L"))[row * height + 2 :][:CAPTION] for row in range(4)]
            if asked is job:  # dark letters on white
                assert all(band.min() < 100 and band[:, 600:].min() == 255 for band in bands)
                widths = [np.flatnonzero((band < 128).any(0)).max() for band in bands]
                assert widths[2] < widths[0] < widths[3]


def test_key_frames_are_told_where_they_stand(tmp_path):
    job = Job("A star", anchors=(Anchor(0, "a.png"), Anchor(2.0, "there/b.png"), Anchor("end", "c.png")))
    plan = plan_of(job)
    told = of_sections(job, plan, range(plan.count))
    assert [number for number, text in told.items() if "[b.png]" in text] == [
        next(n for n in range(plan.count) if timeline.seconds(job, plan, n)[0] > 2.0)
    ]
    assert "[a.png]" not in "".join(told.values())
    # Where not every section is shown, the next that is tells of what lies between.
    assert "[b.png]" in of_sections(job, plan, [0, plan.count - 1])[plan.count - 1]
    assert [text for text in of_frames(job, plan, [0, 50, 100, 144]).values() if "b.png" in text]


def test_a_caption_fits_its_place():
    tiles = np.full((6, 20, 40, 3), 90, np.uint8)
    sheet = contact_sheet(
        tiles, columns=3, captions={0: "a long text that does not fit", 1: "é", 4: "x\ny " * 50}
    )
    assert sheet.size == (3 * 42 + 2, 2 * (22 + CAPTION + 2) + 2)
    letters = np.asarray(sheet.convert("L")) < 80
    assert letters[:15, :42].any() and not letters[:15, 42:44].any()  # cut off before the next
    assert not letters[37:52, :44].any() and letters[37:52, 100:].any()
