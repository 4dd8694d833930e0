"""Options are the job's fields: what stands there is what the command line takes and says."""

import argparse

import pytest

from longtake.cli.options import OPTIONS, add_job_options, job_of
from longtake.cli.outputs import CRF
from longtake.errors import JobError
from longtake.job import Anchor, Job, Lora
from longtake.video import CRF as WRITER_CRF
from longtake.video import VideoWriter


def job(*words):
    parser = argparse.ArgumentParser()
    add_job_options(parser)
    return job_of(parser.parse_args(words))


def test_every_field_with_a_group_is_an_option():
    parser = argparse.ArgumentParser()
    add_job_options(parser)
    taken = {action.dest for action in parser._actions}
    assert taken >= {name for name, option in OPTIONS.items() if option.group}
    assert "prompts" not in taken and "changes" not in taken


def test_defaults_are_the_job_s():
    assert job() == Job("")


def test_lengths():
    assert job("--seconds", "2").frames == 2 * Job("").fps
    assert job("--seconds", "2", "--fps", "10").frames == 20
    assert job("--frames", "7", "--fps", "10").frames == 7


def test_what_is_not_one_field():
    asked = job("--size", "64x32", "--last-image", "b.png", "--part", "vae=x", "--part", "tokenizer=y/z")
    assert (asked.width, asked.height) == (64, 32)
    assert asked.anchors == (Anchor("end", "b.png"),)
    assert asked.parts == {"vae": "x", "tokenizer": "y/z"}
    assert job("--lora", "a:0.5", "--lora", "b").loras == (Lora("a", (0.5,)), Lora("b"))


def test_options_of_some_fields_alone():
    parser = argparse.ArgumentParser()
    add_job_options(parser, ("frames", "window"))
    assert {action.dest for action in parser._actions} == {"help", "frames", "seconds", "window"}


def test_the_quality_of_videos_is_the_writer_s_own():
    assert CRF == WRITER_CRF


def test_a_video_that_is_too_large_is_refused_before_its_file_is_there(tmp_path):
    import numpy as np

    frames = np.zeros((1, 64, 64, 3), np.uint8)
    for zoom in (257, 100):  # one side of 16448, and 6400 x 6400 in all
        with (
            pytest.raises(JobError, match=f"64 x 64, enlarged {zoom} times"),
            VideoWriter(tmp_path / "a.mp4", zoom=zoom) as writer,
        ):
            writer.write(frames)
    assert not list(tmp_path.iterdir())
