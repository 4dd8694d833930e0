import pytest
from hypothesis import given
from hypothesis import strategies as st

from invented import invented
from longtake.errors import JobError
from longtake.job import FRAMES, Anchor, Job, Lora, PromptSpan, SectionChange, WeightSpan
from longtake.plan.plans import PLANS, plan_of
from longtake.plan.timeline import Direction, Voice, check, direct, prompts, seconds


def told(job, plan=None):
    plan = plan or plan_of(job)
    return [direct(job, plan, number) for number in range(plan.count)]


def test_without_a_timeline_every_section_is_told_the_same():
    job = Job("It moves.", seed=3)
    assert told(job) == [Direction("It moves.", 3, ())] * 4
    assert prompts(job, plan_of(job)) == ("It moves.",)


@pytest.mark.parametrize("sampling", PLANS)
def test_a_change_is_said_in_the_section_that_begins_at_it(sampling):
    # At frames 57 and 120, of which the nearest where a latent frame begins are 57 and 121.
    spans = (PromptSpan("b", 1.9, 4.0), PromptSpan("a", 0, 1.9), PromptSpan("c", 4.1))
    job = Job("A penguin", sampling=sampling, prompts=spans)
    plan = plan_of(job)
    check(job, plan)
    said = {"a": 2, "b": 2, "c": 1}
    assert [each.prompt for each in told(job)] == [
        f"A penguin, {x}" for x, n in said.items() for _ in range(n)
    ]
    begins = [round(seconds(job, plan, number)[0] * 30) for number in range(plan.count)]
    assert begins == [1, 29, 57, 89, 121]
    assert prompts(job, plan) == ("A penguin", "A penguin, b", "A penguin, a", "A penguin, c")


def test_an_empty_text_joins_without_a_comma():
    spans = (PromptSpan("", 0, 1.2), PromptSpan("It jumps.", 1.2))
    assert [each.prompt for each in told(Job("", prompts=spans))] == [
        "",
        "It jumps.",
        "It jumps.",
        "It jumps.",
    ]
    assert told(Job("x", prompts=spans))[0].prompt == "x"


def test_a_change_wins():
    changes = (SectionChange(1, prompt="It ends."), SectionChange(2, seed=9), SectionChange(3, prompt=""))
    job = Job("x", seed=3, prompts=(PromptSpan("y"),), changes=changes)
    assert [(each.prompt, each.seed) for each in told(job)] == [
        ("x, y", 3),
        ("It ends.", 3),
        ("x, y", 9),
        ("", 3),
    ]
    assert prompts(job, plan_of(job)) == ("x", "x, y", "It ends.", "")


def test_the_last_weight_of_a_lora_repeats():
    job = Job("x", loras=(Lora("a", (0.5,)), Lora("b", (1.0, 0.0))))
    assert [each.strengths for each in told(job)] == [(0.5, 1.0), (0.5, 0.0), (0.5, 0.0), (0.5, 0.0)]


def test_a_prompt_blends_over_so_many_sections():
    spans = (PromptSpan("a", 0, 2.4), PromptSpan("b", 2.4))
    job = Job("", frames=217, prompts=spans, blend=3)
    # Section 2 begins at the change; its weight is a quarter.
    voices = [[(voice.weight, voice.prompt) for voice in each.voices] for each in told(job)]
    assert voices[:2] == [[(1.0, "a")]] * 2 and voices[5:] == [[(1.0, "b")]] * (len(voices) - 5)
    assert voices[2:5] == [[(share, "b"), (1 - share, "a")] for share in (0.25, 0.5, 0.75)]
    assert all(each.prompt == each.voices[0].prompt for each in told(job))
    # A change of one section is for that one alone.
    job = Job("", frames=217, prompts=spans, blend=3, changes=(SectionChange(3, prompt="c"),))
    assert told(job)[3].voices == (Voice(1.0, "c"),) and len(told(job)[4].voices) == 2


def test_a_strength_is_a_mixture_with_and_without_the_picture():
    anchors = (Anchor(0, "a", 0.5), Anchor(2.0, "b", 1.5), Anchor("end", "c"))
    job = Job("x", frames=145, anchors=anchors)
    plan = plan_of(job)
    assert plan.starts == (0, 16)
    parts = [{voice.hidden: voice.weight for voice in each.voices} for each in told(job)]
    # The first stretch is told of both pictures, the second of its own and the last one.
    assert parts[0] == parts[1] == {(): 0.5, (0,): 1.0, (0, 16): -0.5}
    assert parts[2] == parts[3] == {(): 1.5, (16,): -0.5}
    none = Job("x", frames=145, anchors=(Anchor(0, "a", 0.0), Anchor(2.0, "b", 0.0), Anchor("end", "c")))
    assert told(none)[0].voices == (Voice(1.0, "x", (0, 16)),)


@given(
    st.lists(st.floats(0, 2), min_size=3, max_size=3),
    st.integers(0, 4),
    st.sampled_from(["inverted", "planned"]),
)
def test_voices_add_up_to_one_and_each_picture_to_its_strength(strengths, blend, sampling):
    anchors = [Anchor(at, "p", strength) for at, strength in zip((0, 2.0, "end"), strengths, strict=True)]
    job = Job("", frames=217, sampling=sampling, anchors=anchors, blend=blend, prompts=(PromptSpan("a", 1),))
    job.check()
    plan = plan_of(job)
    frames = dict(zip(plan.anchors, strengths, strict=True))
    for number, each in enumerate(told(job)):
        section = plan[plan.made_at(number)]
        seen = {f for slot in section.slots.values() for f in slot.frames} | {*section.pictures}
        assert sum(voice.weight for voice in each.voices) == pytest.approx(1)
        assert len(each.voices) <= 4 * (1 + (blend > 0))
        for frame, strength in frames.items():
            weight = sum(voice.weight for voice in each.voices if frame not in voice.hidden)
            assert weight == pytest.approx(strength if frame in seen else 1, abs=1e-9)


def test_a_lora_weighs_in_its_seconds_alone():
    job = Job("x", loras=(Lora("a", (WeightSpan(0.5, 1.2, 2.4), WeightSpan(2.0, 3.6))),))
    assert [each.strengths for each in told(job)] == [(0.0,), (0.5,), (0.0,), (2.0,)]


def test_a_prompt_in_time_has_a_seed_of_its_own():
    job = Job("x", seed=1, prompts=(PromptSpan("y", 1.2, 2.4, 7),), changes=(SectionChange(3, seed=9),))
    assert [each.seed for each in told(job)] == [1, 7, 1, 9]


def test_what_is_cut_off_does_not_count():
    job = Job("x", frames=38, prompts=(PromptSpan("end", 1.2),))
    plan = plan_of(job)
    check(job, plan)
    assert seconds(job, plan, 1) == (37 / 30, 38 / 30)
    assert [each.prompt for each in told(job)] == ["x", "x, end"]


def test_a_plan_that_nobody_thought_of_is_directed():
    job = Job("x", fps=1, frames=30, prompts=(PromptSpan("a", 0, 13), PromptSpan("b", 13, 22)))
    plan = invented()
    check(job, plan)
    # Seconds 1-13, 13-30, 17-29 and 21-25: middles 7, 21.5, 23, 23.
    assert [each.prompt for each in told(job, plan)] == ["x, a", "x, b", "x", "x"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"changes": (SectionChange(4),)}, "no section 4; this video has the sections 0 to 3"),
        ({"prompts": (PromptSpan("y", 5.0),)}, "from 5.0 s to the end; this video has 4.83333 s"),
        ({"prompts": (PromptSpan("y", 1.0, 20.0),)}, "from 1.0 s to 20.0 s; this video has"),
        (
            {"prompts": (PromptSpan("y", 0.7, 0.75),)},
            "is said in no section, since it holds the middle of none",
        ),
        ({"prompts": (PromptSpan("y", 4.83),)}, "from 4.83 s on is said in no section.*at least 4 frames"),
        (
            {"loras": (Lora("a", (WeightSpan(1.0, 9.0),)),)},
            "weight of the LoRA 'a' holds from 9.0 s to the end; this",
        ),
        ({"loras": (Lora("a", (1.0,) * 5),)}, "'a' has 5 weights, one for each section; this video has 4"),
    ],
)
def test_what_the_video_does_not_have_is_refused(fields, words):
    job = Job("x", **fields)
    job.check()
    with pytest.raises(JobError, match=words) as error:
        check(job, plan_of(job))
    assert str(error.value).endswith(".")


def test_a_span_may_end_with_the_last_section():
    job = Job("x", frames=110, prompts=(PromptSpan("y", 1.0, 4.0),))
    check(job, plan_of(job))


@given(
    st.sampled_from([*PLANS]),
    st.integers(1, FRAMES),
    st.integers(1, 60),
    st.lists(st.floats(0, 50, allow_subnormal=False), max_size=6, unique=True).map(sorted),
)
def test_what_passes_is_said_and_is_among_the_prompts(sampling, frames, fps, times):
    spans = tuple(
        PromptSpan(f"from {start}", start, end) for start, end in zip(times[::2], times[1::2], strict=False)
    )
    job = Job("x", sampling=sampling, frames=frames, fps=fps, prompts=spans, anchors=(Anchor(0, "a.png"),))
    job.check()
    plan = plan_of(job)
    try:
        check(job, plan)
    except JobError:
        return
    # All spans end before second 50: at 60 frames a second that is within the first 84 sections.
    said = {direct(job, plan, number).prompt for number in range(min(plan.count, 200))}
    assert said <= set(prompts(job, plan))
    assert set(prompts(job, plan)) <= said | {"x"}
