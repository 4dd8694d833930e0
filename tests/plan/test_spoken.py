"""Timelines as people type them, in every way that is known from elsewhere; and those that nobody can read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.errors import JobError
from longtake.job import Anchor, Job, Lora, PromptSpan, WeightSpan
from longtake.plan.spoken import FORMS, Length, directed, moment, prompts, read, spoken

LENGTH = Length(300, 30, 9)


@pytest.mark.parametrize(
    ("text", "common", "spans"),
    [
        # FramePack-Studio
        ("[0s: waves] [2s: jumps] [4s: spins]", "", [("waves", 0, 2), ("jumps", 2, 4), ("spins", 4, None)]),
        ("A man [1.1s-2.2s: smiles] in a\nhat", "A man in a hat", [("smiles", 1.1, 2.2)]),
        ("A man [2s: jumps] [0s:waves]", "A man", [("waves", 0, 2), ("jumps", 2, None)]),
        ("[ 1s - 3s : she [slowly] jumps ]", "", [("she [slowly] jumps", 1, 3)]),
        ("[5s:5 birds]", "", [("5 birds", 5, None)]),
        ("[10%-0:05: x]", "", [("x", 1, 5)]),
        # Wan2GP
        ("A man [0s:4s] waves [4s:6s] jumps [red]", "A man", [("waves", 0, 4), ("jumps [red]", 4, 6)]),
        ("A man [25%:50%] waves", "A man", [("waves", 2.5, 5)]),
        ("[:25%] waves [25%:] jumps", "", [("waves", 0, 2.5), ("jumps", 2.5, None)]),
        ("[0:50%] waves", "", [("waves", 0, 5)]),
        ("[1:120] waves [121:240] jumps", "", [("waves", 0, 4), ("jumps", 4, 8)]),
        ("[0:05:0:08.5] waves", "", [("waves", 5, 8.5)]),
        ("[0:05:] waves", "", [("waves", 5, None)]),
        # Both, and neither
        ("A man [0s:2s] waves [2s-4s: jumps]", "A man", [("waves", 0, 2), ("jumps", 2, 4)]),
        (
            "A [red] man [3 cats] [2026] [3-4 cats] [note: x",
            "A [red] man [3 cats] [2026] [3-4 cats] [note: x",
            [],
        ),
        # musubi-tuner: sections of 1.2 s, of which the first begins at frame 1
        (
            "0:waves;;;2:jumps",
            "",
            [("waves", 0, 73 / 30), ("jumps", 73 / 30, 109 / 30), ("waves", 109 / 30, None)],
        ),
        ("waves;;;-1:jumps", "", [("waves", 0, 289 / 30), ("jumps", 289 / 30, None)]),
        ("1-8:jumps;;;0:waves", "", [("waves", 0, 37 / 30), ("jumps", 37 / 30, None)]),
        ("0:waves;;;1-8:waves", "waves", []),
    ],
)
def test_what_is_typed_is_read(text: str, common: str, spans: list[tuple[str, float, float | None]]) -> None:
    # Nine sections of musubi-tuner's; ten seconds for all others.
    length = Length(325 if ";;;" in text and "-1:" not in text else 300, 30, 9)
    found, said = prompts(text, length)
    assert found == common
    assert [(span.text, span.start, span.end) for span in said] == spans
    job = spoken(Job(text, frames=length.frames))
    job.check()
    assert (job.prompt, job.prompts) == (common, said)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[3s] waves", r"\[3s\] is no time that is understood; write one of"),
        ("[1-3: waves]", "is no time that is understood"),
        ("[1s–3s: waves]", "is no time that is understood"),  # noqa: RUF001
        ("[3s-: waves]", "is no time that is understood"),
        ("[1:30:2] waves", "is no time that is understood"),
        ("[1s-3s: waves", "has no end"),
        ("[0:120] waves", "frames, which are counted in whole numbers from 1 on"),
        ("[1.5:3] waves", "frames, which are counted in whole numbers from 1 on"),
        ("[0%:120%] waves", r"\[0%:120%\] asks for 120% of a video; it ends at 100%"),
        ("9:a;;;b", "for a section that is not there; this video has the sections 0 to 8, or -9 to -1"),
        ("0:a;;;0:b", "Section 0 has two prompts"),
        ("3-1:a;;;b", "for a section that is not there"),
    ],
)
def test_what_looks_like_a_time_and_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(JobError, match=words) as error:
        prompts(text, LENGTH)
    assert str(error.value).endswith(".") and len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[0s-4s: a] [3s-5s: b]", "is not over when the one from 3.0 s begins"),
        ("[0s: a] [0s: b]", "is not over when the one from 0.0 s begins"),
        ("[4s-2s: a]", "must end after it begins; it is said from 4.0 to 2.0 s"),
        ("[16:9] a", "must end after it begins"),
    ],
)
def test_times_that_cannot_be_are_refused_by_the_job(text: str, words: str) -> None:
    with pytest.raises(JobError, match=words):
        spoken(Job(text)).check()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"0": "a", "60": "b"}', {"prompts": [(0, 2, "a"), (2, None, "b")]}),
        ('{"60": "b", "0": "a"}', {"prompts": [(0, 2, "a"), (2, None, "b")]}),
        ('"0" :"a",\n"60" :"b",\n', {"prompts": [(0, 2, "a"), (2, None, "b")]}),
        ('{"prompt": "c", "prompts": {"30": "a"}}', {"prompt": "c", "prompts": [(1, None, "a")]}),
        ("A man\n[0s-4s: waves]\n", {"prompt": "A man", "prompts": [(0, 4, "waves")]}),
        ("0:a;;;1-8:b", {"prompt": "", "prompts": [(0, 37 / 30, "a"), (37 / 30, None, "b")]}),
    ],
)
def test_a_file_may_be_in_any_form(text: str, values: dict[str, object]) -> None:
    found = read(text, LENGTH)
    found["prompts"] = [(span["from"], span["to"], span["text"]) for span in found["prompts"]]
    assert found == values


CANONICAL = {
    "prompt": "A man",
    "prompts": [{"from": 1, "to": 2.5, "text": "waves", "seed": 3}],
    "keyframes": [{"at": 2, "image": "b.png", "strength": 0.5}, {"at": "end", "image": "c.png"}],
    "loras": [{"path": "l", "weights": [{"from": 0, "to": 2, "weight": 0.5}]}],
    "blend": 2,
}


def test_a_timeline_directs_a_job() -> None:
    job = directed(Job("", anchors=(Anchor(0, "a.png"),), loras=(Lora("m"),)), json.dumps(CANONICAL))
    assert job == directed(Job("", anchors=(Anchor(0, "a.png"),), loras=(Lora("m"),)), CANONICAL)
    assert job == Job(
        "A man",
        anchors=(Anchor(0, "a.png"), Anchor(2, "b.png", 0.5), Anchor("end", "c.png")),
        prompts=(PromptSpan("waves", 1, 2.5, 3),),
        loras=(Lora("m"), Lora("l", (WeightSpan(0.5, 0, 2),))),
        blend=2,
    )
    assert directed(job, {}) == job == directed(job, {"prompt": "A man", "blend": 2, "loop": False})


@pytest.mark.parametrize(
    ("timeline", "words"),
    [
        ("[1, 2]", r"The timeline '\[1, 2\]' says nothing in time; write one of .* or JSON"),
        ('{"negative_prompt": 3}', "no key 'negative_prompt'"),
        ('{"blend": "3"}', "blend must be a whole number; '3'"),
        ('{"colour": 3}', "A timeline has no key 'colour'; there are: prompt, prompts, keyframes"),
        ('{"0": "a", "max_f": "b"}', "has no key '0'"),
        ('{"prompts": {"max_f/2": "b"}}', "whole numbers from 0 on as their keys; 'max_f/2' is none"),
        ('{"0": 3}', "prompt from frame 0 on must be a text; 3"),
        ('{"0": "a --neg b"}', "said for the whole video"),
        ('{"0": "a", "0": "b"}', "has a key twice"),
        ('{"0": "a", "00": "b"}', "is not over when"),
        ('{"keyframes": 3}', "keyframes should be a list; 3"),
        ('{"keyframes": [{"at": 99, "image": "x"}]}', "stands at the end of this video"),
        ('{"keyframes": [{"at": 0, "image": "x"}]}', "name a time twice"),
        ('{"prompts": [{"start": 3, "text": "x"}]}', "an entry of prompts has the key 'start'"),
        ('{"prompt": "B"}', "The timeline says prompt, and so does what is asked beside it .'A'.; leave one"),
        ('{"clip": 3}', "clip should be an object"),
        ('{"a": ' * 3000, "not a timeline"),
        (3, "A timeline is an object of JSON or a text"),
    ],
)
def test_a_timeline_that_is_none_is_refused_in_one_sentence(timeline: str, words: str) -> None:
    with pytest.raises(JobError, match=words) as error:
        directed(Job("A", anchors=(Anchor(0, "a.png"),)), timeline).check()
    assert str(error.value).endswith(".") and len(str(error.value)) < 500


def test_moments() -> None:
    assert [moment(text, LENGTH) for text in ("3", " 3.5s ", "50%", "1:05.5")] == [3.0, 3.5, 5.0, 65.5]
    for text in ("", "x", "-1", "3 s x", "1e9", "nan", "0:5"):
        with pytest.raises(JobError, match="is no time in a video"):
            moment(text, LENGTH)


@given(st.text("0123456789.:;-s%[] ab\n", max_size=30))
def test_any_text_is_read_or_refused_in_one_sentence(text: str) -> None:
    try:
        job = spoken(Job(text, frames=300))
        job.check()
    except JobError as error:
        assert str(error).endswith(".")
    else:
        assert Job.from_json(job.to_json()) == job


def test_a_thousand_prompts_are_read_at_once() -> None:
    text = "".join(f"[{second}s: number {second}] " for second in range(1000))
    job = spoken(Job(text, frames=30_000))
    job.check()
    assert len(job.prompts) == 1000 and job.prompts[-1] == PromptSpan("number 999", 999.0)


def test_the_forms_that_a_message_names_are_forms() -> None:
    for form in FORMS.replace(" (frames)", "").replace(" or ", ", ").split(", "):
        assert prompts(form, LENGTH)[1][0].text == "text"
