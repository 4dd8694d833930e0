import sys
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invented import SECTIONS, invented
from longtake.errors import JobError
from longtake.job import FRAMES, Anchor, Job
from longtake.plan.layout import Packed, Slot, end_tokens
from longtake.plan.orders import View, ends_first
from longtake.plan.plans import PLANS, Section, inverted, kind_named, names_like, plan_of, vanilla
from longtake.plan.stretches import even
from longtake.plan.table import tokens
from planned import (
    knows_its_sections_without_a_list,
    makes_every_frame_once_and_reads_what_is_there,
    read_by,
    reads_within_its_horizon,
    structures,
)

# What the published demos compute, by number of sections: blank windows before each section made.
PADDINGS = {
    1: [0],
    2: [1, 0],
    3: [2, 1, 0],
    4: [3, 2, 1, 0],
    5: [3, 2, 2, 1, 0],
    6: [3, 2, 2, 2, 1, 0],
    7: [3, 2, 2, 2, 2, 1, 0],
    8: [3, 2, 2, 2, 2, 2, 1, 0],
}
# First time of the window, and of the 1x, 2x and 4x frames behind it, by the number of blank windows of 9.
INVERTED_TIMES = {0: (1, 10, 11, 13), 1: (10, 19, 20, 22), 2: (19, 28, 29, 31), 3: (28, 37, 38, 40)}
# First frame that each section of a vanilla or inverted plan makes.
FIRST_FRAMES = [1, 10, 19, 28, 37, 46, 55, 64]

ENDS = [(name, end) for name, kind in PLANS.items() for end in ((False, True) if kind.sees_end else (False,))]
"""Every kind of plan, without a last picture and, if it sees the end, with one."""

END = (Anchor("end", "end.png"),)


def span(first, size):
    return tuple(range(first, first + size))


def any_plan(sections=40, window=12):
    """Any plan of any kind, one by its structure name, and the invented one."""
    sizes = (st.integers(1, sections), st.integers(1, window))
    made = st.builds(
        lambda kind, count, size: PLANS[kind[0]].lay_out(count, size, kind[1]), st.sampled_from(ENDS), *sizes
    )
    structured = st.builds(
        lambda name, end, *sizes: kind_named(name).lay_out(*sizes, end and kind_named(name).sees_end),
        structures(),
        st.booleans(),
        *sizes,
    )
    return made | structured | st.builds(invented)


# ------------------------------------------------------- the reference, and the lists that 0.1.0 built of all sections


def spans(first, *sizes):
    starts = [first + sum(sizes[:place]) for place in range(len(sizes))]
    return [span(start, size) for start, size in zip(starts, sizes, strict=True)]


def existing(frames, last):
    return tuple(frame if 0 <= frame <= last else None for frame in frames)


def listed_vanilla(sections, window, end=False):
    x4_times, x2_times, x1_times, times = spans(1, 16, 2, 1, window)
    plan = []
    for number in range(sections):
        first = 1 + window * number
        x4, x2, x1, made = spans(first - 19, 16, 2, 1, window)
        slots = {
            1: Slot(1, (0, *existing(x1, first - 1)), (0, *x1_times)),
            2: Slot(2, existing(x2, first - 1), x2_times),
            4: Slot(4, existing(x4, first - 1), x4_times),
        }
        plan.append(Section(number, made, times, slots))
    return plan


def listed_inverted(sections, window, end=False):
    last = window * sections
    paddings = [3] + [2] * (sections - 3) + [1, 0] if sections > 4 else [*reversed(range(sections))]
    plan = []
    for number, blank in zip(reversed(range(sections)), paddings, strict=True):
        times, x1_times, x2_times, x4_times = spans(1 + blank * window, window, 1, 2, 16)
        made, x1, x2, x4 = spans(1 + number * window, window, 1, 2, 16)
        nearest = last + 1 if end and number == sections - 1 else last
        slots = {
            1: Slot(1, (0, *existing(x1, nearest)), (0, *x1_times)),
            2: Slot(2, existing(x2, last), x2_times),
            4: Slot(4, existing(x4, last), x4_times),
        }
        plan.append(Section(number, made, times, slots, pictures=(0, last + 1) if end else (0,)))
    return plan


LISTED = {"vanilla": listed_vanilla, "anchored": listed_vanilla, "inverted": listed_inverted}


@pytest.mark.parametrize(("name", "end"), [each for each in ENDS if each[0] in LISTED])
@given(sections=st.integers(1, 40), window=st.integers(1, 30))
def test_closed_forms_equal_the_list(name, end, sections, window):
    assert [*PLANS[name].lay_out(sections, window, end)] == LISTED[name](sections, window, end)


@pytest.mark.parametrize("sections", range(1, 9))
def test_vanilla(sections):
    plan = vanilla(sections)
    assert [section.number for section in plan] == list(range(sections))
    for section, first in zip(plan, FIRST_FRAMES, strict=False):
        # One table for all sections: prefix 0 | 4x 1-16 | 2x 17-18 | 1x 19 | window 20-28.
        assert section.times == span(20, 9)
        assert section.slots[1].times == (0, 19)
        assert section.slots[2].times == (17, 18)
        assert section.slots[4].times == span(1, 16)
        assert section.frames == span(first, 9)
        assert section.slots[1].frames == (0, first - 1)


def test_vanilla_history():
    # The reference starts with 19 zero frames and the picture: what lies before frame 0 is not there.
    plan = vanilla(3)
    assert [section.slots[2].frames for section in plan] == [(None, None), (7, 8), (16, 17)]
    assert plan[0].slots[4].frames == (None,) * 16
    assert plan[1].slots[4].frames == (None,) * 9 + span(0, 7)
    assert plan[2].slots[4].frames == span(0, 16)


@pytest.mark.parametrize("sections", range(1, 9))
def test_inverted(sections):
    plan = inverted(sections)
    assert [section.number for section in plan] == list(range(sections))[::-1]
    for section, blank in zip(plan, PADDINGS[sections], strict=True):
        window, x1, x2, x4 = INVERTED_TIMES[blank]
        assert section.times == span(window, 9)
        assert section.slots[1].times == (0, x1)
        assert section.slots[2].times == span(x2, 2)
        assert section.slots[4].times == span(x4, 16)
        assert section.frames == span(FIRST_FRAMES[section.number], 9)


def test_inverted_history():
    # The reference starts with 19 zero frames: what lies behind the end is not there.
    plan = inverted(4)
    assert [section.slots[1].frames for section in plan] == [(0, None), (0, 28), (0, 19), (0, 10)]
    assert [section.slots[2].frames for section in plan] == [(None, None), (29, 30), (20, 21), (11, 12)]
    assert plan[0].slots[4].frames == (None,) * 16
    assert plan[1].slots[4].frames == span(31, 6) + (None,) * 10
    assert plan[2].slots[4].frames == (*span(22, 15), None)
    assert plan[3].slots[4].frames == span(13, 16)


def test_last_picture_is_seen_by_the_first_section_made_alone():
    plain, plan = [*inverted(3)], [*inverted(3, end=True)]
    assert plan[0].slots[1] == Slot(1, (0, 28), plain[0].slots[1].times)
    assert [plan[0].slots[scale] == plain[0].slots[scale] for scale in (2, 4)] == [True, True]
    assert [replace(section, pictures=(0,)) for section in plan[1:]] == plain[1:]
    assert {section.pictures for section in plan} == {(0, 28)}
    assert inverted(3, end=True).anchors == (0, 28) and inverted(3).anchors == (0,)


def test_a_plan_that_sees_no_end_refuses_a_last_picture():
    for kind in PLANS.values():
        if not kind.sees_end:
            with pytest.raises(JobError, match="never looks ahead"):
                kind.lay_out(3, 9, True)


# --------------------------------------------------------------------------------------------- what holds for any plan


@given(any_plan())
def test_any_plan_makes_every_frame_once_and_reads_what_is_there(plan):
    makes_every_frame_once_and_reads_what_is_there(plan)


@given(any_plan())
def test_any_plan_knows_its_sections_without_a_list(plan):
    knows_its_sections_without_a_list(plan)
    in_order = [section.number for section in plan] == list(range(len(plan)))
    assert plan.forward == in_order or len(plan) == 1


@given(any_plan())
def test_no_section_reads_what_horizon_and_lasting_exclude(plan):
    reads_within_its_horizon(plan)


@given(any_plan())
def test_sources_are_the_makers_of_what_is_read(plan):
    makers = {frame: section.number for section in plan for frame in section.frames}
    for section in plan:
        far = set(section.far.frames if section.far is not None else ())
        seen = {makers[frame] for frame in (read_by(section) | far) - set(plan.anchors)}
        assert plan.sources(section) == tuple(sorted(seen))


@given(any_plan(), st.sampled_from([(64, 64), (480, 832)]))
def test_sections_cost_the_same_but_for_frames_that_are_appended(plan, size):
    if plan.section == SECTIONS.__getitem__:
        return  # the invented one, whose windows differ
    costs = [tokens(section, *size) - end_tokens(section.far, *size) for section in plan]
    assert len(set(costs)) == 1
    ends = [end_tokens(section.far, *size) for section in plan]
    grows = any(section.far is not None and section.far.appended for section in plan)
    assert ends == sorted(ends) if grows else len(set(ends)) == 1


@given(any_plan())
def test_times_are_near_one_another_whatever_the_length(plan):
    window = plan.window
    for section in plan:
        every = [time for slot in section.slots.values() for time in slot.times] + [*section.times]
        every += [] if section.far is None else [section.far.time]
        assert min(every) >= 0
        # Between two stretches lie at most three windows, as outermost in the published samplers.
        steps = [later - sooner for sooner, later in pairwise(sorted(every))]
        assert max(steps) <= 1 + 3 * window or plan.section == SECTIONS.__getitem__


@pytest.mark.parametrize(("name", "end"), ENDS)
@pytest.mark.parametrize("sections", [1, 4, 11])
def test_named_plans_keep_to_the_times_of_the_published_samplers(name, end, sections):
    plan = PLANS[name].lay_out(sections, 9, end)
    times = [
        time
        for section in plan
        for slot in (*section.slots.values(), Slot(1, section.frames, section.times))
        for frame, time in zip(slot.frames, slot.times, strict=True)
        if frame is not None
    ]
    # 55, and one more for a last picture behind an end that is three windows away.
    assert min(times) >= 0 and max(times) <= 55 + (end and plan.made_at(0) == 1)


@given(st.sampled_from(["endpoint", "planned"]), st.integers(1, 40), st.integers(1, 12), st.booleans())
def test_every_filler_sees_the_end_that_it_goes_to(name, sections, window, end):
    plan, every = PLANS[name].lay_out(sections, window, end), PLANS[name].every or sections
    seen_last = []
    for made, section in enumerate(plan):
        at_end = min(section.number // every * every + every, sections) - 1
        ends = {
            frame
            for number in range(at_end)
            if number % every == every - 1
            for frame in plan[plan.made_at(number)].frames
        }
        if section.number == at_end:
            # From the picture and the end before alone: so it might as well be made before all that is filled.
            assert read_by(section) <= ends | set(plan.anchors)
            assert made == section.number // every * every
        else:
            assert section.slots[1].frames[-1] == 1 + window * at_end
        seen_last += [section.number] if 1 + window * sections in read_by(section) else []
    assert seen_last == ([sections - 1] if end else [])


@given(structures() | st.sampled_from([*PLANS]), st.integers(1, 12), st.integers(1, 6), st.integers(1, 9))
def test_a_plan_that_can_be_extended_begins_a_longer_one(name, sections, more, window):
    kind = kind_named(name)
    plan, longer = (kind.lay_out(count, window, False) for count in (sections, sections + more))
    same = [*plan] == [*longer][:sections]
    if plan.extendable:
        assert same
        assert kind.extendable
    if kind.sees_end:
        assert not kind.lay_out(sections, window, True).extendable


def test_a_planned_video_is_extended_by_whole_stretches_alone():
    assert [PLANS["planned"].lay_out(count, 9, False).extendable for count in range(1, 9)] == [
        count % 4 == 0 for count in range(1, 9)
    ]
    late = ends_first(View(behind=(Packed(1, 1),), apart=True), even(5, 9), every=4, late=3)
    assert [section.number for section in late] == [0, 4, 1, 2, 3] and late.extendable


# -------------------------------------------------------------------------------------------------- structure names


@given(structures())
def test_a_structure_name_is_a_sampling(name):
    kind = kind_named(name)
    assert kind.structure == name
    assert Job("x", sampling=name).check() is None
    assert plan_of(Job("x", sampling=name)).count == 4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "sideways",
            "No sampling 'sideways'; there are: inverted, vanilla,.* and structure names such as td_f16",
        ),
        ("td_f16k4f2k2f1k1", "No sampling 'td_f16k4f2k2f1k1'"),
        ("f1k1_g9_g9", "must say once how many"),
        ("f1k1_g2", "makes 2 latent frames in each section, and the window is 9"),
        ("g9", "never sees the picture"),
        ("g9_f1k1f2k2", "never sees the picture"),
        ("f2k2_x_g9", "has parts that no plan here is made of"),
        ("x_f2k2_g9", "has parts that no plan here is made of"),
        ("f1k1_x_g9_x", "has parts that no plan here is made of"),
        ("f1k1_x_g9_f1k1_x_f1k1", "has parts that no plan here is made of"),
        ("f1k2_g9_f1k2", "must be a multiple of 2"),
        ("f1001k1_g9", "packs more than 1000 frames"),
        ("f1k1_g9_td", "it stands at the far end"),
        ("tc_f1k1_g9_x_f1k1", "has none; write td"),
        ("f1k1_x_g9_tc", "has none; write td"),
        ("td_f1k1_g9+D", "has a discrete history; say of how many codes"),
    ],
)
def test_a_name_of_which_no_plan_can_be_made_is_refused_in_one_sentence(name, words):
    with pytest.raises(JobError, match=words):
        Job("x", sampling=name).check()


def test_names_of_one_plan():
    assert (
        names_like("f1k1_x_f16k4f2k2f1k1_g2")
        == names_like("td_f1k1_x_f16k4f2k2f1k1_g9")
        == ("vanilla", "anchored")
    )
    assert names_like("f1k1_x_f16k4f2k2f1k1_g9_x_f1k1") == ("endpoint",) and names_like("planned") == (
        "planned",
    )
    assert Job("x", sampling="td_f1k1_g9+D", history="discrete:16").check() is None


@pytest.mark.parametrize("kind", PLANS.values())
@pytest.mark.parametrize(("sections", "window"), [(0, 9), (-1, 9), (1, 0)])
def test_no_plan(kind, sections, window):
    with pytest.raises(JobError, match="at least one"):
        kind.lay_out(sections, window, False)


def test_a_plan_that_nobody_thought_of_passes_unharmed():
    plan = invented()
    assert tuple(plan) == SECTIONS
    assert [plan.sources(section) for section in plan] == [(), (1,), (0, 1), (1, 2)]


def test_sections_are_values():
    assert [*inverted(3)] == [*inverted(3)]
    assert len({section.number for section in set(vanilla(4))}) == 4


# ------------------------------------------------------------------------------------------------- the plan of a job


def jobs():
    """Jobs of any length, with any kind of plan."""
    made = partial(st.builds, Job, st.just("x"), frames=st.integers(1, FRAMES), window=st.integers(1, 1000))
    named = st.sampled_from(ENDS)
    return named.flatmap(
        lambda kind: made(sampling=st.just(kind[0]), anchors=st.just(END if kind[1] else ()))
    )


@given(jobs(), st.booleans())
def test_any_job_that_passes_can_be_planned(job, reference):
    if reference and PLANS[job.sampling].published:
        job = replace(job, frames=job.frames % 10_000 + 1, reference=True)
    job.check()
    plan = plan_of(job)
    assert 1 <= plan.frames <= plan.made
    assert (plan.frames == job.frames) == (plan.notice is None)
    assert plan.window == job.window
    assert len(plan.anchors) == (2 if job.last_picture else 1)
    for made in {0, len(plan) // 2, len(plan) - 1}:
        assert plan.made_at(plan[made].number) == made


def test_lengths_of_a_job():
    plan = plan_of(Job("x", frames=146))
    assert (plan.count, plan.frames, plan.made, plan.notice) == (5, 146, 181, None)
    plan = plan_of(Job("x", frames=146, reference=True))
    assert (plan.count, plan.frames, plan.made) == (5, 181, 181)
    assert plan.notice == "181 frames are made instead of 146: the reference never cuts."
    plan = plan_of(Job("x", frames=146, anchors=END))
    assert (plan.count, plan.frames, plan.made) == (4, 145, 145)
    assert (
        plan.notice == "145 frames are made instead of 146: a video with a last picture ends with a section."
    )


@pytest.mark.parametrize(("name", "end"), ENDS)
def test_a_plan_costs_nothing_in_proportion_to_the_length(name, end):
    job = Job("x", sampling=name, frames=FRAMES, anchors=END if end else ())
    begun = time.process_time()
    plan = plan_of(job)
    sections = [plan[made] for made in (0, plan.count // 2, plan.count - 1)]
    # Less than a millisecond; a list of 277 778 sections took seconds.
    assert time.process_time() - begun < 0.1
    assert plan.count > 277_000 and len({section.number for section in sections}) == 3
    assert sys.getsizeof(plan) < 1000
