import dataclasses
import json
import subprocess
import sys
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.errors import JobError, JobTypeError
from longtake.events import FramesReady, SectionDone, Stepped
from longtake.job import FRAMES, PARTS, Anchor, Clip, Job, Lora, PromptSpan, SectionChange, WeightSpan
from longtake.option import options
from longtake.plan.plans import PLANS
from longtake.sampling.solvers import SOLVERS

NAN, INFINITE = float("nan"), float("inf")
FIRST, END = Anchor(0, "first.png"), Anchor("end", "end.png")
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def starts():
    return st.floats(0, 1e6, allow_subnormal=False)


@st.composite
def spans(draw):
    """Prompts one after the other, with or without a pause."""
    times = sorted(set(draw(st.lists(starts(), max_size=6))))
    made = [PromptSpan(draw(TEXTS), *pair) for pair in zip(times[::2], times[1::2], strict=False)]
    return tuple(made)


JOBS = st.builds(
    Job,
    prompt=TEXTS,
    anchors=st.sampled_from([(), (FIRST,), (FIRST, END), [END]]),
    prompts=spans(),
    model=st.sampled_from(["embedded", "own/er", "ü ☃"]),
    parts=st.dictionaries(st.sampled_from(PARTS), st.just("own/er")),
    frames=st.integers(1, FRAMES),
    fps=st.integers(1, 1000),
    width=st.none() | st.just(64),
    sampling=st.just("inverted"),
    window=st.integers(1, 1000),
    steps=st.integers(1, 1000),
    solver=st.none() | st.sampled_from(sorted(SOLVERS)),
    guidance=st.floats(0, 1000) | st.integers(0, 1000),
    cfg_scale=st.floats(0, 1000),
    cfg_rescale=st.floats(0, 1),
    shift=st.none() | st.floats(0.01, 100),
    seed=st.integers(0, 2**64 - 1),
    dtype=st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
    history=st.sampled_from(["", "noise:0.2", "discrete:8+forget", "sink:4"]),
    loras=st.lists(
        st.builds(
            Lora,
            st.just("x"),
            st.lists(st.floats(-9, 9), min_size=1, max_size=3)
            | st.lists(st.builds(WeightSpan, st.floats(-9, 9), st.just(2.0)), min_size=1, max_size=1),
        ),
        max_size=2,
    ),
    changes=st.lists(
        st.builds(SectionChange, st.integers(0, 9), st.none() | st.integers(0, 9), st.none() | TEXTS),
        max_size=3,
        unique_by=lambda change: change.section,
    ),
)


@given(JOBS)
def test_a_job_survives_json(job):
    job.check()
    assert Job.from_json(job.to_json()) == job == Job.of(job.values())
    assert hash(Job.from_json(job.to_json())) == hash(job)
    assert "\n" not in job.to_json()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = [field.name for field in dataclasses.fields(Job)]


@settings(max_examples=300)
@given(
    ANYTHING | st.dictionaries(st.sampled_from([*NAMES, "picture", "last_picture"]), ANYTHING, max_size=4),
    st.booleans(),
)
def test_any_json_gives_a_job_or_one_sentence(values, prompted):
    if prompted and isinstance(values, dict):
        values["prompt"] = "x"
    try:
        job = Job.from_json(json.dumps(values))
    except JobError as error:
        assert str(error).endswith(".") and len(str(error)) < 500
        str(error).encode()  # it can be printed
    else:
        job.check()
        assert Job.from_json(job.to_json()) == job


@settings(max_examples=300)
@given(st.sampled_from(NAMES), ANYTHING | st.just(np.zeros(3)) | st.just(np.int64(3)) | st.just(10**5000))
def test_any_value_passes_or_is_refused_with_one_sentence(name, value):
    try:
        dataclasses.replace(Job("x"), **{name: value}).check()
    except JobError as error:
        assert str(error).endswith(".") and len(str(error)) < 500


def test_changes_of_sections_survive_json():
    job = Job("x", changes=(SectionChange(3, seed=7), SectionChange(0, prompt="It ends.")))
    assert Job.from_json(job.to_json()) == job
    assert job.change_of(3) == SectionChange(3, seed=7)
    assert job.change_of(1) == SectionChange(1)


def test_the_timeline_in_json_is_canonical():
    text = (
        '{"prompt": "a penguin", "prompts": [{"from": 0, "to": 2.5, "text": "it jumps", "seed": 3}], "keyframes": '
        '[{"at": 2, "image": "b.png", "strength": 0.5}, {"at": "end", "image": "c.png"}], "blend": 2, "loop": false, '
        '"loras": [{"path": "x", "weights": [{"from": 1, "to": null, "weight": 0.5}]}], "unforeseen": "restart"}'
    )
    job = Job.from_json(text)
    assert job == Job(
        "a penguin",
        prompts=(PromptSpan("it jumps", 0, 2.5, 3),),
        anchors=(Anchor(2, "b.png", 0.5), Anchor("end", "c.png")),
        loras=(Lora("x", (WeightSpan(0.5, 1),)),),
        blend=2,
        unforeseen="restart",
    )
    values = job.values()
    assert "anchors" not in values and values["keyframes"][0] == {"at": 2, "image": "b.png", "strength": 0.5}
    assert values["prompts"] == [{"from": 0, "to": 2.5, "text": "it jumps", "seed": 3}]
    assert values["loras"][0]["weights"] == [{"from": 1, "to": None, "weight": 0.5}]
    clip = Job("x", clip=Clip("c.mp4", 3))
    assert clip.values()["clip"] == {"video": "c.mp4", "latents": 3} and Job.of(clip.values()) == clip
    with pytest.raises(JobError, match="the key 'keyframes'"):
        Job.of({"prompt": "x", "keyframes": [], "anchors": []})


def test_a_job_of_0_1_0_is_read():
    old = {
        "prompt": "x", "negative_prompt": "", "picture": "a.png", "last_picture": "b.png", "model": "embedded",
        "frames": 145, "fps": 30, "width": None, "height": None, "sampling": "inverted", "window": 9, "steps": 25,
        "solver": None, "guidance": 10.0, "cfg_scale": 1.0, "cfg_rescale": 0.0, "shift": None, "seed": 0,
        "dtype": "float32", "reference": False, "decoding": "exact",
        "loras": [{"path": "walk.safetensors", "weights": [0.5]}],
        "changes": [{"section": 1, "seed": 3, "prompt": None}],
    }  # fmt: skip
    job = Job.from_json(json.dumps(old))
    assert job == Job(
        "x",
        anchors=(Anchor(0, "a.png"), Anchor("end", "b.png")),
        dtype="float32",
        loras=(Lora("walk.safetensors", (0.5,)),),
        changes=(SectionChange(1, 3),),
    )
    assert (job.picture, job.last_picture) == ("a.png", "b.png")
    assert Job.from_json(json.dumps({**old, "picture": None, "last_picture": None})).anchors == ()


def test_prompts_in_json_say_from_and_to():
    text = (
        '{"prompt": "x", "prompts": [{"text": "It jumps.", "from": 2, "to": null}, {"text": "a", "to": 2}]}'
    )
    job = Job.from_json(text)
    assert job.prompts == (PromptSpan("It jumps.", 2), PromptSpan("a", 0.0, 2))
    assert json.loads(job.to_json())["prompts"][0] == {"from": 2, "to": None, "text": "It jumps."}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expecting value"),
        ("no JSON", "Expecting value"),
        ("[1]", r"it should be an object of JSON; \[1\]"),
        ("3", "object of JSON; 3"),
        ("null", "object of JSON; None"),
        ('{"prompt": "x", "colour": "red"}', "the key 'colour', which this longtake does not know"),
        ("{}", "lacks the key 'prompt'"),
        ('{"prompt": "x", "prompt": "y"}', "a key twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"prompt": "x", "guidance": NaN}', "the number NaN"),
        ('{"prompt": "x", "guidance": -Infinity}', "the number -Infinity"),
        ('{"prompt": "x", "seed": 1%s}' % ("0" * 5000), "a number of 5001 digits"),
        ('{"prompt": "x", "loras": {}}', "loras should be a list"),
        ('{"prompt": "x", "changes": 3}', "changes should be a list"),
        ('{"prompt": "x", "changes": [3]}', "an entry of changes should be an object"),
        ('{"prompt": "x", "changes": [{"seed": 3}]}', "an entry of changes lacks the key 'section'"),
        (
            '{"prompt": "x", "anchors": [{"at": 0, "picture": "x"}]}',
            "an entry of anchors has the key 'picture'",
        ),
        ('{"prompt": "x", "prompts": [{"start": 0}]}', "an entry of prompts has the key 'start'"),
        ('{"prompt": "x", "picture": "a", "anchors": []}', "the key 'picture'"),
        (" " * 10_000_001, "10000001 characters, and at most"),
        (b"{}", "JSON is a text"),
        (None, "JSON is a text"),
    ],
)
def test_what_is_no_job_is_refused(text, words):
    with pytest.raises(JobError, match=f"not a job.*{words}") as error:
        Job.from_json(text)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"frames": "9"}, "frames must be a whole number; '9' was given"),
        ({"frames": 9.5}, "frames must be a whole number; 9.5"),
        ({"frames": True}, "frames must be a whole number; True"),
        ({"frames": [9]}, r"frames must be a whole number; \[9\]"),
        ({"prompt": None}, "prompt must be a text; None"),
        ({"prompt": ["x"]}, "prompt must be a text"),
        ({"reference": 1}, "reference must be true or false; 1"),
        ({"dtype": None}, "dtype must be one of"),
        ({"picture": 3}, "The picture at 0 must be a text; 3"),
        ({"parts": ["vae"]}, "parts must be folders or names by part"),
        ({"parts": {"vae": 3}}, "The place of the vae must be a text; 3"),
        ({"loras": [{"path": "x", "weights": 1}]}, "must be a list of numbers; 1"),
        ({"loras": [{"path": "x", "weights": ["1"]}]}, "must be a number; '1'"),
        ({"changes": [{"section": "1"}]}, "must be a whole number; '1'"),
        ({"changes": [{"section": 1, "prompt": 3}]}, "The prompt of section 1 must be a text"),
        ({"prompts": [{"text": 3}]}, "must be a text; 3"),
    ],
)
def test_wrong_types_in_json_are_refused_as_types(values, words):
    with pytest.raises(JobTypeError, match=words):
        Job.from_json(json.dumps({"prompt": "x", **values}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": 65}, "width must be a positive multiple of 16; 65"),
        ({"height": 0}, "height must be a positive multiple of 16; 0"),
        ({"height": -16}, "height"),
        ({"width": 8208}, "width must be at most 8192"),
        ({"width": 8192, "height": 8192, "window": 17}, "at most 16 latent frames; a window of 17"),
        ({"frames": 0}, "frames must be at least 1; 0"),
        ({"frames": 10**14}, "frames must be at most 10000000"),
        ({"frames": 10_001, "reference": True}, "reference holds the whole video"),
        ({"fps": 0}, "fps must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": 10**11}, "steps must be at most 1000"),
        ({"window": 0}, "window must be at least 1"),
        ({"window": 10**6}, "window must be at most 1000"),
        ({"guidance": NAN}, "guidance must be a finite number; nan"),
        ({"guidance": INFINITE}, "guidance must be a finite number; inf"),
        ({"guidance": 10**400}, "guidance must be at most 1000"),
        ({"cfg_scale": -1.0}, "cfg_scale must be at least 0"),
        ({"cfg_rescale": 7.0}, "cfg_rescale must be at most 1; 7.0"),
        ({"cfg_rescale": -0.1}, "cfg_rescale must be at least 0"),
        ({"shift": 0.0}, "shift must be at least 0.01; 0.0"),
        ({"dtype": "int4"}, "No dtype 'int4'; there are: auto, float32, bfloat16, float16"),
        ({"decoding": "fast"}, "No decoding 'fast'"),
        ({"solver": "heun"}, "No solver 'heun'; there are: euler, unipc"),
        ({"sampling": "sideways"}, "sideways.*inverted, vanilla"),
        (
            {"sampling": "vanilla", "anchors": (END,)},
            r"sees the end \(inverted, endpoint, planned\); vanilla was asked for",
        ),
        (
            {"anchors": (Anchor(2.5, "x"),), "sampling": "vanilla"},
            "A picture at 2.5 s needs a sampling that sees the end",
        ),
        ({"anchors": (Anchor(-2.5, "x"),)}, "at least 0; -2.5"),
        ({"clip": 3}, "clip must be a Clip; 3"),
        ({"prompts": (PromptSpan("x", seed=-1),)}, "The seed of the prompt from 0.0 s on must be at least 0"),
        ({"anchors": (Anchor(NAN, "x"),)}, "finite"),
        ({"anchors": (Anchor("middle", "x"),)}, "must be a number; 'middle'"),
        ({"anchors": (Anchor(False, "x"),)}, "must be a number; False"),
        ({"anchors": (Anchor(0, ""),)}, "The picture at 0 must not be empty"),
        ({"anchors": (FIRST, Anchor(0.0, "other.png"))}, "name a time twice"),
        ({"anchors": FIRST}, "anchors must be a list of Anchor"),
        ({"anchors": (3,)}, "anchors must be a list of Anchor; it has 3"),
        ({"seed": -1}, "seed must be at least 0; -1"),
        ({"seed": 2**64}, "seed must be at most"),
        ({"model": ""}, "model must not be empty"),
        ({"model": "x" * 5000}, "model must have at most 4096 characters; it has 5000"),
        ({"model": "a\0b"}, "model has the character NUL"),
        ({"parts": {"engine": "x"}}, "no part 'engine'; there are: text_encoder"),
        ({"parts": {"vae": ""}}, "The place of the vae must not be empty"),
        ({"prompt": "a\ud800"}, "prompt is no valid text: its character 2 is half of a pair"),
        ({"prompt": "a\0"}, "prompt has the character NUL"),
        ({"prompt": "x" * 100_001}, "prompt must have at most 100000 characters"),
        ({"negative_prompt": "blur"}, r"cfg_scale \(--cfg\) is 1.0 and must be above 1"),
        ({"prompts": (PromptSpan("x", 2.0, 2.0),)}, "end after it begins"),
        ({"prompts": (PromptSpan("x", -1.0),)}, "at least 0; -1"),
        ({"prompts": (PromptSpan("x", NAN),)}, "finite"),
        ({"prompts": (PromptSpan("x", 0.0, INFINITE),)}, "finite"),
        ({"prompts": (PromptSpan("x", 3.0, 5.0), PromptSpan("y", 1.0, 4.0))}, "from 1.0 s is not over"),
        ({"prompts": (PromptSpan("x"), PromptSpan("y", 1.0))}, "from 0.0 s is not over"),
        ({"prompts": (PromptSpan("x"),), "reference": True}, "one stream"),
        ({"changes": (SectionChange(-1),)}, "number of a changed section must be at least 0; -1"),
        ({"changes": (SectionChange(1, seed=-1),)}, "The seed of section 1 must be at least 0; -1"),
        ({"changes": (SectionChange(1, prompt=3),)}, "prompt of section 1 must be a text"),
        ({"changes": (SectionChange(1), SectionChange(1))}, "one of them twice"),
        ({"changes": (SectionChange(1),), "reference": True}, "one stream"),
        ({"changes": tuple(map(SectionChange, range(10_001)))}, "changes must have at most 10000 entries"),
    ],
)
def test_check_says_what_cannot_be_done(fields, words):
    with pytest.raises(JobError, match=words) as error:
        Job(**{"prompt": "x", **fields}).check()
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"width": 64, "height": 96},
        {"anchors": (FIRST, END)},
        {"anchors": (Anchor(0.0, "http://x/y.png"),), "sampling": "vanilla"},
        {"frames": 1},
        {"negative_prompt": "blur", "cfg_scale": 6},
        {"prompts": [PromptSpan("y", 2.0), PromptSpan("x", 0, 2)]},
        {"parts": {"image_encoder": "own/er"}},
    ],
)
def test_check_lets_pass_what_can_be_done(fields):
    Job(prompt="", **fields).check()


def test_a_job_is_a_value():
    job = Job(prompt="x", loras=[Lora("y", [1.0])])
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.prompt = "y"
    assert dataclasses.replace(job, seed=1) != job
    assert hash(job) == hash(Job(prompt="x", loras=(Lora("y"),)))
    parts = {"vae": "own/er"}
    job = Job("x", parts=MappingProxyType(parts))
    parts["vae"] = "other"
    assert job == Job.from_json(job.to_json()) and job.parts == {"vae": "own/er"}


def test_events_do_not_print_their_arrays():
    array = np.zeros((1, 2, 3, 4, 5))
    for event in (Stepped(0, 0, 1, 1.0, array, array), SectionDone(0, 0, array), FramesReady(0, array)):
        assert "array" not in repr(event)


def test_a_lora_may_be_its_path():
    text = '{"prompt": "x", "loras": ["x.safetensors"]}'
    assert Job.from_json(text) == Job("x", loras=(Lora("x.safetensors"),))


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        (Lora(""), "path of a LoRA must not be empty"),
        (Lora("x", ()), "'x' has 0 weights"),
        (Lora("x", (1.0, NAN)), "'x' must be a finite number; nan"),
        (Lora("x", ("1",)), "must be a number; '1'"),
        (Lora("x", (True,)), "must be a number; True"),
        (Lora("x", 1.0), "must be a list of numbers; 1.0"),
    ],
)
def test_loras_are_checked(lora, words):
    with pytest.raises(JobError, match=words):
        Job("x", loras=(lora,)).check()


def test_every_field_says_what_it_is():
    assert list(options(Job)) == NAMES
    assert all(option.help for option in options(Job).values())
    assert all(f"{name}: {kind.help}" in options(Job)["sampling"].help for name, kind in PLANS.items())
    assert options(Job)["solver"].choices == tuple(SOLVERS)


def test_a_job_needs_no_numpy_and_no_framework():
    code = (
        "import sys; from longtake.job import Job; Job('x').check(); Job.from_json(Job('x').to_json()); "
        "print({'numpy', 'torch', 'mindspore'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
