"""Jobs on disk: begun, stopped, resumed, made longer, changed."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from longtake.cli import main
from longtake.cli.extend import longer
from longtake.errors import JobError, RunError
from longtake.events import Planned
from longtake.job import Anchor, Job, SectionChange
from longtake.video import read_metadata

BEGIN = ["generate", "a.png", "It moves.", "--frames", "100", "--steps", "2", "--job", "job"]


def said(capsys, words, code=0):
    assert main(words) == code
    return capsys.readouterr()


def sections(folder="job"):
    return {
        int(file.stem): file.stat().st_mtime_ns for file in Path(folder, "sections").glob("*.safetensors")
    }


def test_a_job_is_begun_stopped_and_resumed(pipeline, place, capsys, monkeypatch):
    pipeline.numbers = 2
    words = [*BEGIN, "--seed", "4", "--crf", "20", "--zoom", "2"]
    assert "The power is out." in said(capsys, words, 2).err
    assert sorted(sections()) == [1, 2] and not Path("job/video.mp4").exists()
    text = said(capsys, ["info", "job"]).out
    assert "sections done    1 2" in text and "sections missing 0" in text and "It moves." in text

    assert "job holds a job already; go on with it by: longtake resume job" in said(capsys, words, 2).err
    Path("a.png").unlink()
    monkeypatch.chdir("job")
    pipeline.numbers, before = None, sections(".")
    resumed = said(capsys, ["resume", "."])
    lines = [line.split(" in ")[0] for line in resumed.err.splitlines()]
    assert lines == ["100 frames", "section 1/3 kept", "section 2/3 kept", "section 3/3 done"]
    assert "video.mp4: 100 frames, 64 x 48 (enlarged 2 times, to 128 x 96)" in resumed.out
    assert pipeline.inputs.picture.size == (64, 64) and pipeline.inputs.last_picture is None
    assert {number: sections(".")[number] for number in before} == before
    meta = read_metadata("video.mp4")
    assert (meta.width, meta.frames, meta.job) == (128, 100, pipeline.job)
    assert (pipeline.job.seed, pipeline.job.width) == (4, 64)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RunError("The memory is full.")])
def test_what_stops_says_how_to_go_on(pipeline, place, capsys, error):
    folder = place / "a job"

    def stopped(folder, numbers):
        yield Planned(3, 100, 2)
        raise error

    pipeline.job_events = stopped
    words = ["generate", "a.png", "It moves.", "--frames", "100", "--job", "a job"]
    code = 130 if isinstance(error, KeyboardInterrupt) else 1
    assert f"go on by: longtake resume '{folder}'\n" in said(capsys, words, code).err
    events = [json.loads(line) for line in said(capsys, ["resume", "a job", "--json"], code).out.splitlines()]
    assert [event["event"] for event in events[-2:]] == ["stopped", "error"]
    assert events[-2]["folder"] == str(folder)


def test_a_refusal_says_nothing_of_going_on(pipeline, capsys):
    said(capsys, BEGIN)
    assert "go on by" not in said(capsys, ["extend", "job", "--frames", "1"], 2).err


def test_a_part_may_be_elsewhere_by_now(pipeline, capsys):
    said(capsys, BEGIN)
    said(capsys, ["resume", "job", "--part", "vae=embedded"])
    assert pipeline.parts == {"vae": "embedded"}


def test_a_video_elsewhere_is_named_again_to_go_on(pipeline, place, capsys):
    said(capsys, [*BEGIN, "-o", "out.mp4"])
    assert Path("out.mp4").exists() and not Path("job/video.mp4").exists()
    # The folder may be a stranger's, and out.mp4 somebody else's by now.
    before = Path("out.mp4").stat().st_mtime_ns
    told = said(capsys, ["resume", "job"]).err
    assert "out.mp4, which lies outside of its folder and is left alone" in told and told.startswith("note: ")
    assert Path("job/video.mp4").exists() and Path("out.mp4").stat().st_mtime_ns == before
    said(capsys, ["resume", "job", "-o", "other.mp4"])
    assert Path("other.mp4").exists()


def test_resuming_for_machines(pipeline, capsys):
    said(capsys, BEGIN)
    events = [json.loads(line) for line in said(capsys, ["resume", "job", "--json"]).out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds == ["loading", "loaded", "planned", *["section_done"] * 3, "frames_ready", "done"]
    assert [event["kept"] for event in events if event["event"] == "section_done"] == [True] * 3
    assert events[-1]["folder"] == os.path.realpath("job")
    assert events[-1]["file"] == os.path.realpath("job/video.mp4")


def test_a_job_is_extended(pipeline, capsys):
    said(capsys, [*BEGIN, "--sampling", "vanilla"])
    before = sections()
    assert "frames, 64 x 48" in said(capsys, ["extend", "job", "--seconds", "1.5"]).out
    assert pipeline.job.frames == 145 and sorted(sections()) == [0, 1, 2, 3]
    assert {number: sections()[number] for number in before} == before
    assert "at least one frame; -3 were" in said(capsys, ["extend", "job", "--frames", "-3"], 2).err
    assert read_metadata("job/video.mp4").frames == 145


def test_a_planned_job_is_extended_where_no_end_moves():
    job = Job("It moves.", sampling="planned", frames=8 * 36 + 1)
    assert longer(job, 5).frames == job.frames + 5
    for changed in (replace(job, frames=9 * 36), replace(job, anchors=(Anchor("end", "last.png"),))):
        with pytest.raises(JobError, match="every 4 sections have an end that is made first"):
            longer(changed, 5)
    with pytest.raises(
        JobError, match="cannot move afterwards; extend is for jobs with --sampling vanilla, anchored"
    ):
        longer(replace(job, sampling="endpoint"), 5)


def test_an_inverted_job_is_not_extended(pipeline, capsys):
    said(capsys, BEGIN)
    assert "cannot move afterwards" in said(capsys, ["extend", "job", "--seconds", "1"], 2).err
    assert len(sections()) == 3 and json.loads(Path("job/job.json").read_text())["job"]["frames"] == 100


def test_a_section_is_made_again(pipeline, capsys):
    said(capsys, [*BEGIN, "--seed", "3"])
    before = sections()
    told = said(capsys, ["redo", "job", "--section", "1", "--seed", "7", "--prompt", "It jumps."])
    assert "sections to make again: 0, 1; kept: 1\n" in told.err
    assert pipeline.job.changes == (SectionChange(1, 7, "It jumps."),)
    assert [sections()[number] == before[number] for number in range(3)] == [False, False, True]
    for words, sentence in (
        (["--section", "1", "--seed", "7"], "made with this seed and prompt already"),
        (["--section", "1"], "made with this seed and prompt already"),
        (["--section", "3", "--seed", "1"], "no section 3; this video has the sections 0 to 2"),
        (["--section", "-1", "--seed", "1"], "no section -1"),
        (["--section", "1", "--seed", "-1"], "must be at least 0; -1"),
    ):
        assert sentence in said(capsys, ["redo", "job", *words], 2).err
    assert len(sections()) == 3
    # What is not given stays; the job's own values take a change back.
    said(capsys, ["redo", "job", "--section", "1", "--seed", "3"])
    assert pipeline.job.changes == (SectionChange(1, None, "It jumps."),)
    said(capsys, ["redo", "job", "--section", "1", "--prompt", "It moves."])
    assert pipeline.job.changes == ()


def test_a_job_of_another_model_or_a_newer_version_is_refused(pipeline, place, capsys):
    said(capsys, BEGIN)
    file = Path("job/job.json")
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "model": "another"}))
    assert "begun with another model than embedded is now" in said(capsys, ["resume", "job"], 2).err
    file.write_text(json.dumps({**values, "longtake": "9.0", "format": 99}))
    for words in (["resume", "job"], ["extend", "job", "--seconds", "1"], ["info", "job"]):
        assert "begun by longtake 9.0, which is newer" in said(capsys, words, 2).err
    file.write_text("{")
    assert "job.json is damaged" in said(capsys, ["resume", "job"], 2).err
