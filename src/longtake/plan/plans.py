"""Plans: which sections make a video, in which order, and what each one sees; all that longtake has, by name.

A plan's structure name says what its sections see; from that follows the order in which they can be made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from longtake.errors import JobError
from longtake.plan import sights
from longtake.plan.layout import Generated, Packed, Skipped, Structure, Tail, parse
from longtake.plan.lengths import WINDOW, nearest_section_count, reference_section_count, section_count
from longtake.plan.orders import View, backwards, ends_first, onwards
from longtake.plan.orders import padding as padding
from longtake.plan.sections import Plan as Plan
from longtake.plan.sections import Section as Section

if TYPE_CHECKING:
    from longtake.job import Job

PACKED = 1000
"""Most frames that a section sees."""


@dataclass(frozen=True)
class Kind:
    """One kind of plan.

    `lay_out(sections, window, end)` makes the plan, with a picture behind the end or without one; `sees_end` says if it
    can have one, `extendable` if a finished video can be made longer, `published` if diffusers has it; `structure` is
    its name in the paper's way of naming.
    """

    lay_out: Callable[[int, int, bool], Plan]
    sees_end: bool
    extendable: bool
    help: str
    structure: str
    published: bool = False


def kind_of(structure: Structure, help: str = "", every: int | None = None, published: bool = False) -> Kind:
    """The kind of plan whose sections see what the structure says.

    Packed frames before the window alone are an order onwards, behind it alone one backwards, and both of them, or a
    gap behind the window, one that makes an end first: that of the video, or of `every` so many sections.
    Raises JobError for a structure that no order here can serve.

    >>> kind_of(parse("f16k4f2k2f1k1_g9")).lay_out(2, 9, False)[1].slots[2]
    Slot(scale=2, frames=(7, 8), times=(17, 18))
    """
    view = _view(structure)
    if not view.behind:
        return Kind(partial(onwards, view), False, True, help, str(structure), published)
    if not view.before and not view.apart:
        return Kind(partial(backwards, view), True, False, help, str(structure), published)
    return Kind(partial(ends_first, view, every=every), True, False, help, str(structure), published)


def _view(structure: Structure) -> View:
    """What a section sees; JobError if it cannot be made of this structure."""
    parts = [part for part in structure.parts if not isinstance(part, Tail)]
    place = next(number for number, part in enumerate(parts) if isinstance(part, Generated))
    before, behind = parts[:place], parts[place + 1 :]
    picture = before[:2] == [(Packed(1, 1),), Skipped()]
    apart = behind[:1] == [Skipped()]
    sides = (before[2:] if picture else before, behind[1:] if apart else behind)
    packed = [side[0] if len(side) == 1 and isinstance(side[0], tuple) else () for side in sides]
    if [len(side) for side in sides] != [int(bool(stretch)) for stretch in packed] or apart > bool(packed[1]):
        raise JobError(
            f"The structure {str(structure)!r} has parts that no plan here is made of; before g there can be f1k1_x "
            "(the picture) and packed frames, and behind it packed frames, with or without x between."
        )
    view = View(picture, packed[0], packed[1], apart)
    if not picture and not view.before:
        raise JobError(
            f"The structure {str(structure)!r} never sees the picture; begin it with f1k1_x, or pack frames before g."
        )
    _check_packed(structure, view)
    return view


def _check_packed(structure: Structure, view: View) -> None:
    """Raise JobError for more frames than a section can see, or for frames of both sides under one kernel."""
    if view.past + view.future > PACKED:
        raise JobError(f"The structure {str(structure)!r} packs more than {PACKED} frames; take fewer.")
    scales = {each.scale for each in view.before} & {each.scale for each in view.behind}
    for each in (*view.before, *view.behind):
        if each.scale in scales and each.frames % each.scale:
            raise JobError(
                f"The structure {str(structure)!r} packs {each} on one side of its window and frames of the same "
                f"kernel on the other; on both sides their number must be a multiple of {each.scale}."
            )


PLANS: dict[str, Kind] = {
    "inverted": kind_of(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), "from the end to the picture", published=True),
    # The picture stays in sight, as the F1 model was trained to.
    "vanilla": kind_of(parse("f1k1_x_f16k4f2k2f1k1_g9"), "from the picture onwards", published=True),
    "anchored": kind_of(parse("f1k1_x_f16k4f2k2f1k1_g9"), "vanilla by its full name", published=True),
    # The paper's own vanilla sampling.
    "unanchored": kind_of(parse("td_f16k4f2k2f1k1_g9"), "vanilla, but the picture goes out of sight"),
    "endpoint": kind_of(parse("f1k1_x_f16k4f2k2f1k1_g9_x_f1k1"), "the end first, then onwards to it"),
    "planned": kind_of(
        parse("f1k1_x_f16k4f2k2f1k1_g9_x_f1k1"), "an end every 4 sections first, then onwards to it", every=4
    ),
    "repeat": kind_of(parse("f1k1_g9"), "each section from the last frame alone"),
    # No fewer tokens than any packed history onwards, so that a comparison favours it.
    "sliding": kind_of(parse("f3k1_g9"), "each section from the last 3 frames, not packed"),
}
"""All kinds of plans: the one place that has their names."""


def vanilla(sections: int, window: int = WINDOW, end: bool = False) -> Plan:
    """Plan from the picture onwards, as FramePack-F1: every section sees the picture and the 19 frames before it.

    >>> vanilla(2)[1].slots[1]
    Slot(scale=1, frames=(0, 9), times=(0, 19))
    """
    return PLANS["vanilla"].lay_out(sections, window, end)


def inverted(sections: int, window: int = WINDOW, end: bool = False) -> Plan:
    """Plan from the end towards the picture (inverted anti-drifting): every section sees it and the 19 frames behind.

    >>> inverted(2)[1].slots[1]
    Slot(scale=1, frames=(0, 10), times=(0, 10))
    """
    return PLANS["inverted"].lay_out(sections, window, end)


def plan_of(job: Job) -> Plan:
    """The plan of a job that `check` lets through: its sections, and what will come out."""
    end = job.last_picture is not None
    # The end must be the last picture's, so nothing can be cut off there: the nearest length is taken.
    counted = reference_section_count if job.reference else nearest_section_count if end else section_count
    plan = sights.seen(job, PLANS[job.sampling].lay_out(counted(job.frames, job.window), job.window, end))
    frames = plan.made if job.reference or end else job.frames
    if frames == job.frames:
        return replace(plan, frames=frames)
    reason = (
        "the reference never cuts" if job.reference else "a video with a last picture ends with a section"
    )
    notice = f"{frames} frames are made instead of {job.frames}: {reason}."
    return replace(plan, frames=frames, notice=notice)
