"""Plans of jobs that ask for things in time: key frames, changes, loops, clips, and a beginning from text alone."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from longtake.errors import JobError
from longtake.job import FRAMES, Anchor, Clip, Job, Lora, PromptSpan, WeightSpan
from longtake.plan import cuts, plans, timeline
from longtake.plan.orders import FAR, NEAR
from longtake.plan.plans import PLANS, first_made, kind_named, plan_of
from longtake.plan.sections import Section
from longtake.plan.stretches import even, runs_of
from planned import (
    knows_its_sections_without_a_list,
    makes_every_frame_once_and_reads_what_is_there,
    read_by,
    reads_within_its_horizon,
    structures,
)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Jobs with any timeline that may or may not pass, of any kind of plan."""
    sampling = draw(st.sampled_from([*PLANS]) | structures())
    kind = kind_named(sampling)
    frames, window, fps = draw(st.integers(1, 400)), draw(st.integers(1, 12)), draw(st.integers(1, 60))
    if sampling not in PLANS:
        window = 9
    length = frames / fps
    seconds = st.floats(0, length, allow_subnormal=False)
    times = sorted(set(draw(st.lists(seconds, max_size=8))))
    spans = [PromptSpan(f"{start}", start, end) for start, end in zip(times[::2], times[1::2], strict=False)]
    times = sorted(set(draw(st.lists(seconds, max_size=4))))
    weights = [WeightSpan(1.0, start, end) for start, end in zip(times[::2], times[1::2], strict=False)]
    anchors = [Anchor(at, "k") for at in sorted(set(draw(st.lists(seconds, max_size=4))))]
    goal = draw(st.sampled_from(["", "end", "loop", "clip"]))
    return Job(
        "x", sampling=sampling, frames=frames, window=window, fps=fps, prompts=tuple(spans),
        loras=(Lora("l", tuple(weights)),) if weights else (),
        anchors=(*anchors, *([Anchor("end", "e")] if goal == "end" and kind.sees_end else [])),
        loop=goal == "loop" and kind.sees_end,
        clip=Clip("c.mp4", draw(st.none() | st.integers(1, 30))) if goal == "clip" else None,
        unforeseen="restart", from_text=draw(st.booleans()),
        history=draw(st.sampled_from(["", "", "sink:4", "forget"])),
    )  # fmt: skip


@settings(max_examples=80)
@given(jobs())
def test_any_timeline_that_passes_is_planned(job: Job) -> None:
    try:
        job.check()
    except JobError as error:
        assert str(error).endswith(".")
        assume(False)
    plan = plan_of(job)
    makes_every_frame_once_and_reads_what_is_there(plan)
    knows_its_sections_without_a_list(plan)
    reads_within_its_horizon(plan)
    # Sections are as near to a window as whole ones come, and a length that has an end at most two frames away.
    assert plan.window <= max(job.window, job.window * 3 // 2)
    if plan.frames != job.frames and not (job.loop or job.clip or job.last_picture):
        raise AssertionError(plan.notice)
    asked = cuts.key_frames(job)
    shown = [plan.shown(start)[0] for start in plan.starts[1:]]
    assert all(abs(there - wanted) <= 2 for there, wanted in zip(shown, asked, strict=True))


@settings(max_examples=50)
@given(jobs())
def test_a_change_is_said_from_the_section_on_that_begins_at_it(job: Job) -> None:
    job = replace(job, anchors=(), loop=False, history="", clip=None)
    try:
        job.check()
        plan = plan_of(job)
        timeline.check(job, plan)
    except JobError:
        assume(False)
    for number in range(plan.count):
        first, stop = timeline.shown(plan, number)
        said = timeline.direct(job, plan, number).prompt
        for span in job.prompts:
            begin, end = (cuts.frame_at(at, job.fps) for at in (span.start, span.end))
            # All that lies more than two frames inside of a span says it, and nothing that lies outside of it.
            if said == f"x, {span.text}":
                assert begin - 2 <= first + 1 and stop <= end + 2
            elif said == "x":
                assert stop <= begin + 2 or first + 2 >= end or stop - first < 4


def sections(job: Job) -> list[tuple[int, tuple[int, int], list[int]]]:
    """Number, first and last frame, and what is seen by k1, of each section in the order of generation."""
    plan = plan_of(job)
    return [(s.number, (s.frames[0], s.frames[-1]), sorted(read_by_one(s))) for s in plan]


def read_by_one(section: Section) -> set[int]:
    return {frame for frame in section.slots[1].frames if frame is not None}


KEYS = (Anchor(0, "a.png"), Anchor(2.0, "b.png"), Anchor("end", "c.png"))


def test_a_stretch_is_a_video_with_a_first_and_a_last_picture() -> None:
    job = Job("x", anchors=KEYS, frames=145)
    job.check()
    plan = plan_of(job)
    # Two seconds are frame 60; the nearest that lies whole latent frames behind the picture is 61.
    assert plan.starts == (0, 16) and plan.shown(16) == range(61, 62)
    assert plan.anchors == (0, 16, 38) and plan.frames == plan.made == 146
    assert (
        plan.notice == "146 frames are made instead of 145: a video with a last picture ends with a section."
    )
    assert sections(job) == [
        (3, (27, 37), [16, 38]),
        (2, (17, 26), [16, 27]),
        (1, (8, 15), [0, 16]),
        (0, (1, 7), [0, 8]),
    ]
    # The history goes on across: behind the second section lie the key frame and what was made behind it.
    assert plan[2].slots[2].frames == (17, 18) and plan[2].slots[4].frames == tuple(range(19, 35))
    assert [section.pictures for section in plan] == [(16, 38), (16, 38), (0, 16), (0, 16)]
    # The distance to the stretch's own picture, in frames.
    assert [section.times[0] for section in plan] == [11, 1, 8, 1]


@pytest.mark.parametrize("sampling", ["endpoint", "planned"])
def test_each_stretch_has_an_end_that_sees_the_next_picture(sampling: str) -> None:
    job = Job("x", anchors=KEYS, frames=145, sampling=sampling)
    assert sections(job) == [
        (1, (8, 15), [0, 16]),
        (0, (1, 7), [0, 8]),
        (3, (27, 37), [16, 38]),
        (2, (17, 26), [16, 27]),
    ]
    # The end of the second stretch knows the end before it, and nothing that was filled.
    assert read_by(plan_of(job)[2]) == {*range(8, 17), 38}
    assert read_by(plan_of(job)[3]) == {*range(17), 27}


def test_what_cannot_be_foreseen_begins_anew() -> None:
    job = Job("x", anchors=KEYS[:2], frames=145, sampling="vanilla", unforeseen="restart")
    job.check()
    plan = plan_of(job)
    assert plan.starts == (0, 16) and plan.frames == 145 and plan.forward
    assert [read_by(section) for section in plan][2:4] == [{16}, {*range(16, 26)}]
    assert [section.pictures for section in plan] == [(0,), (0,), (16,), (16,), (16,)]
    with pytest.raises(
        JobError, match=r"needs a sampling that sees the end .*or let the video begin anew there"
    ):
        replace(job, unforeseen="refuse").check()


def test_a_loop_ends_with_the_frame_that_it_begins_with() -> None:
    plan = plan_of(Job("x", anchors=KEYS[:1], frames=146, loop=True))
    assert plan.anchors == (0,) and (plan.frames, plan.made) == (145, 145)
    assert plan[0].slots[1].frames == (0, 0) and plan[0].slots[1].times == (0, 37)
    assert {section.pictures for section in plan} == {(0,)}
    assert plan_of(Job("x", frames=146, loop=True, sampling="endpoint"))[0].slots[1].frames[-1] == 0


def test_from_text_the_first_frame_has_a_section_of_its_own() -> None:
    for name in PLANS:
        plan, usual = plan_of(Job("x", sampling=name, from_text=True)), plan_of(Job("x", sampling=name))
        assert plan.count == usual.count + 1 and plan.anchors == () and plan[0].slots == {}
        assert plan[0].frames == (0,) and plan.maker(0) == 0 and plan.made_at(0) == 0
        assert [replace(s, number=s.number - 1) for s in plan][1:] == [*usual]


def test_a_clip_lies_before_what_looks_back() -> None:
    plan = plan_of(Job("x", clip=Clip("c.mp4"), sampling="vanilla", frames=100))
    assert plan.lead == 20 and plan.anchors == tuple(range(20)) and plan.frames == 100 and plan.made == 108
    assert (
        plan[0].frames == tuple(range(20, 29))
        and plan.shown(20) == range(4)
        and plan.shown(0) == range(-77, -76)
    )
    assert read_by(plan[0]) == set(range(20))
    plan = plan_of(Job("x", clip=Clip("c.mp4", 3), sampling="endpoint", frames=100))
    assert plan.lead == 3 and read_by(plan[1]) == {0, 1, 2, plan[0].frames[0]}


def test_a_clip_lies_behind_what_looks_ahead() -> None:
    plan = plan_of(Job("x", clip=Clip("c.mp4"), frames=101, anchors=KEYS[:1]))
    assert plan.anchors == (0, *range(26, 45)) and plan.lead == 0 and plan.frames == 101
    assert read_by(plan[0]) == {0, *range(26, 45)}
    assert read_by(plan[1]) == {0, *range(plan[1].frames[-1] + 1, plan[1].frames[-1] + 20)}
    assert plan[0].pictures == (0, 26)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"anchors": (*KEYS, Anchor(2.05, "d"))},
            "A picture at 2.05 s is too near to the one before it, at 2.0333",
        ),
        (
            {"anchors": (*KEYS, Anchor(0.05, "d"))},
            "at 0.05 s is too near to the one before it, at 0 s.*at least 4",
        ),
        ({"anchors": (Anchor(4.9, "d"),)}, 'at 4.9 s stands at the end of this video, which has 4.83.*"end"'),
        ({"anchors": (Anchor(1e7, "d"),)}, "stands at the end of this video"),
        ({"anchors": (Anchor(1e308, "d"),)}, 'not at "end" must be at most 10000000'),
        ({"anchors": (Anchor(10**400, "d"),)}, "must be at most 10000000"),
        ({"prompts": (PromptSpan("d", 1e308),)}, "must be at most 10000000"),
        ({"anchors": (*KEYS, Anchor(2.0, "d"))}, "name a time twice"),
        ({"anchors": (Anchor(-1.0, "d"),)}, "at least 0; -1"),
        ({"anchors": (Anchor(1.0, "d", 3.0),)}, "strength of the picture at 1.0 must be at most 2; 3.0"),
        ({"loop": True, "anchors": KEYS}, "ends with the picture that it begins with"),
        ({"loop": True, "sampling": "vanilla"}, "A loop needs a sampling that sees the end"),
        ({"loop": True, "clip": Clip("c")}, "no clip before it or behind it"),
        (
            {"clip": Clip("c"), "anchors": KEYS[:1], "sampling": "vanilla"},
            "goes on from a clip begins with it",
        ),
        ({"clip": Clip("c"), "anchors": KEYS[2:]}, "a clip comes behind the video"),
        ({"clip": Clip("c", 0)}, "latent frames of the clip must be at least 1"),
        ({"from_text": True, "anchors": KEYS[:1]}, "no picture at 0"),
        ({"blend": 2}, "needs prompts in time to blend"),
        ({"loop": True, "reference": True}, "knows a first and a last picture alone"),
        (
            {"anchors": KEYS[:2], "sampling": "tc_f1k1_g9", "unforeseen": "restart"},
            "keeps what lies far back",
        ),
        (
            {"anchors": KEYS[:2], "sampling": "vanilla", "unforeseen": "restart", "history": "sink:4"},
            "sees nothing that lies across the picture at 2 s",
        ),
        (
            {"anchors": KEYS[:2], "sampling": "f1k1_g9_f1k1f4k2f1k1", "history": "sink:4"},
            "sees nothing that lies across the picture at 2 s",
        ),
        ({"loras": (Lora("a", (1.0, WeightSpan(1.0))),)}, "weights for sections and weights in seconds"),
        (
            {"loras": (Lora("a", (WeightSpan(1.0), WeightSpan(1.0, 2.0))),)},
            "can hold at a time; the one from 0.0 s",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(JobError, match=words) as error:
        Job("x", **fields).check()  # type: ignore[arg-type]
    assert str(error.value).endswith(".")


def test_a_timeline_costs_the_same_for_any_length() -> None:
    spans = tuple(PromptSpan("y", second, second + 1) for second in range(0, 20_000, 20))
    anchors = tuple(Anchor(second + 7, "k") for second in range(0, 20_000, 20))
    job = Job("x", frames=FRAMES, prompts=spans, anchors=anchors)
    begun = time.process_time()
    plan = plan_of(job)
    assert [plan[made].number for made in (0, plan.count // 2, plan.count - 1)][2] == 0
    assert plan.count > 277_000 and time.process_time() - begun < 1  # 50 ms


def test_runs_are_divided_as_evenly_as_can_be() -> None:
    for length in range(1, 60):
        (run,) = runs_of([(1, [length])], 9)
        frames = [run.frames(number) for number in range(run.count)]
        assert [frame for each in frames for frame in each] == list(range(1, 1 + length))
        assert {len(each) for each in frames} <= {
            run.shortest,
            run.longest,
        } and run.longest - run.shortest <= 1
        assert all(run.owner(frame) == number for number, each in enumerate(frames) for frame in each)
        assert run.shortest >= 5 or length < 9


def test_gaps_are_counted_in_frames() -> None:
    """Where all sections are whole windows, as in the published samplers; else as far as they are, up to the same."""
    division = even(6, 9)
    uneven = replace(division, runs=runs_of([(1, [4, 20, 30])], 9))
    for part in (division, uneven):
        plan = kind_named("inverted").over(part)  # type: ignore[misc]
        for section in plan:
            cap = 9 * (FAR if section.number == plan.count - 1 else NEAR)
            assert section.times[0] == 1 + min(section.frames[0] - 1, cap)


def test_a_plan_of_whole_windows_alone_says_so() -> None:
    kind = replace(PLANS["inverted"], over=None, view=None)
    plans.PLANS["alone"] = kind
    try:
        assert [*plan_of(Job("x", sampling="alone"))] == [*plan_of(Job("x"))]
        with pytest.raises(JobError, match="made of whole windows alone"):
            plan_of(Job("x", sampling="alone", prompts=(PromptSpan("y", 1.0),)))
    finally:
        del plans.PLANS["alone"]


def test_first_made_keeps_what_is_given_behind() -> None:
    assert first_made(kind_named("inverted").lay_out(3, 9, True)).anchors == (28,)
