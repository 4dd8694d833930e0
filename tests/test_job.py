import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.errors import JobError
from longtake.events import FramesReady, SectionDone, Stepped
from longtake.job import Job, Lora, SectionChange


@settings(deadline=None)  # a busy machine is no failure
@given(
    prompt=st.text(), frames=st.integers(1, 10**6), guidance=st.floats(0, 100), width=st.none() | st.just(64)
)
def test_a_job_survives_json(prompt, frames, guidance, width):
    job = Job(prompt=prompt, frames=frames, guidance=guidance, width=width)
    assert Job.from_json(job.to_json()) == job
    assert "\n" not in job.to_json()


def test_changes_of_sections_survive_json():
    job = Job("x", changes=(SectionChange(3, seed=7), SectionChange(0, prompt="It ends.")))
    assert Job.from_json(job.to_json()) == job
    assert job.change_of(3) == SectionChange(3, seed=7)
    assert job.change_of(1) == SectionChange(1)


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[1]", "3", "null", '{"prompt": "x", "colour": "red"}', "{}"]
)
def test_what_is_no_job_is_refused(text):
    with pytest.raises(JobError, match="not a job"):
        Job.from_json(text)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": 65}, "width must be a positive multiple of 16; 65"),
        ({"height": 0}, "height must be a positive multiple of 16; 0"),
        ({"height": -16}, "height"),
        ({"frames": 0}, "frames must be at least 1; 0"),
        ({"fps": 0}, "fps must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"window": 0}, "window must be at least 1"),
        ({"sampling": "sideways"}, "sideways.*inverted, vanilla"),
        ({"sampling": "vanilla", "last_picture": "end.png"}, "inverted"),
        ({"seed": -1}, "seed must not be negative; -1"),
        ({"changes": (SectionChange(-1),)}, "numbered from 0"),
        (
            {"changes": (SectionChange(1, seed=-1),)},
            "seed must not be negative; -1 was asked for in section 1",
        ),
        ({"changes": (SectionChange(1, prompt=3),)}, "prompt of section 1 must be a text"),
        ({"changes": (SectionChange(1), SectionChange(1))}, "one of them twice"),
        ({"changes": (SectionChange(1),), "reference": True}, "one stream"),
    ],
)
def test_check_says_what_cannot_be_done(fields, words):
    with pytest.raises(JobError, match=words) as error:
        Job(prompt="x", **fields).check()
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    "fields", [{}, {"width": 64, "height": 96}, {"last_picture": "end.png"}, {"frames": 1}]
)
def test_check_lets_pass_what_can_be_done(fields):
    Job(prompt="", **fields).check()


def test_a_job_is_a_value():
    job = Job(prompt="x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.prompt = "y"
    assert dataclasses.replace(job, seed=1) != job
    assert hash(job) == hash(Job(prompt="x"))


def test_events_do_not_print_their_arrays():
    array = np.zeros((1, 2, 3, 4, 5))
    for event in (Stepped(0, 0, 1, 1.0, array, array), SectionDone(0, 0, array), FramesReady(0, array)):
        assert "array" not in repr(event)


def test_loras_survive_json():
    job = Job("x", loras=(Lora("walk.safetensors"), Lora("own/er:x", (0.5, 0.0, -1.0))))
    assert Job.from_json(job.to_json()) == job
    assert Job.from_json('{"prompt": "x", "loras": ["x.safetensors"]}') == Job(
        "x", loras=(Lora("x.safetensors"),)
    )
    job.check()


@pytest.mark.parametrize(
    "loras", ['[{"weights": [1]}]', "[3]", '[{"path": "x", "weights": 1}]', "{}3", '"x"']
)
def test_what_is_no_lora_is_refused(loras):
    with pytest.raises(JobError):
        Job.from_json(f'{{"prompt": "x", "loras": {loras}}}').check()


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        (Lora(""), "needs the path"),
        (Lora("x", ()), "has no weight"),
        (Lora("x", (1.0, float("nan"))), "finite number; nan"),
        (Lora("x", ("1",)), "finite number; '1'"),
    ],
)
def test_loras_are_checked(lora, words):
    with pytest.raises(JobError, match=words):
        Job("x", loras=(lora,)).check()
