"""Plans: which sections make a video, in which order, and what each one sees; all that longtake has, by name.

A plan's structure name says what its sections see; from that follows the order in which they can be made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING

from longtake.errors import JobError
from longtake.option import shown
from longtake.plan import sights
from longtake.plan.cuts import division_of
from longtake.plan.layout import Generated, Packed, Skipped, Structure, Tail, parse
from longtake.plan.lengths import WINDOW
from longtake.plan.orders import View, backwards, ends_first, onwards
from longtake.plan.sections import Plan as Plan
from longtake.plan.sections import Seam
from longtake.plan.sections import Section as Section
from longtake.plan.stretches import Division, even

if TYPE_CHECKING:
    from longtake.job import Job

PACKED = 1000
"""Most frames that a section sees."""


@dataclass(frozen=True)
class Kind:
    """One kind of plan.

    `lay_out(sections, window, end)` makes the plan of whole windows, with a picture behind the end or without one, and
    `over(division)` that of any division, whose sections have the sight `view`; `sees_end` says if it can have a last
    picture, `extendable` if a finished video of some length can be made longer, `published` if diffusers has it;
    `structure` is its name in the paper's way of naming, `every` the sections of a stretch with an end of its own.
    """

    lay_out: Callable[[int, int, bool], Plan]
    sees_end: bool
    extendable: bool
    help: str
    structure: str
    published: bool = False
    every: int | None = None
    over: Callable[[Division], Plan] | None = None
    view: View | None = None

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales by which clean frames are packed."""
        return tuple(sorted({each.scale for each in parse(self.structure).packed}))

    @property
    def keeps_tail(self) -> bool:
        """Tell if what lies beyond the packed frames is seen, appended or as its mean."""
        return parse(self.structure).tail not in (None, "td")


def kind_of(structure: Structure, help: str = "", every: int | None = None, published: bool = False) -> Kind:
    """The kind of plan whose sections see what the structure says.

    Packed frames before the window alone are an order onwards, behind it alone one backwards, and both of them, or a
    gap behind the window, one that makes an end first: that of the video, or of `every` so many sections.
    Raises JobError for a structure that no order here can serve.

    >>> kind_of(parse("f16k4f2k2f1k1_g9")).lay_out(2, 9, False)[1].slots[2]
    Slot(scale=2, frames=(7, 8), times=(17, 18))
    """
    view, sees_end, extendable = _view(structure), True, every is not None
    over: Callable[[Division], Plan] = partial(ends_first, view, every=every)
    if not view.behind:
        over, sees_end, extendable = partial(onwards, view), False, True
    elif not view.before and not view.apart:
        over = partial(backwards, view)

    def lay_out(sections: int, window: int, end: bool = False) -> Plan:
        return over(even(sections, window, end))

    return Kind(lay_out, sees_end, extendable, help, str(structure), published, every, over, view)


def _view(structure: Structure) -> View:
    """The sight of a section; JobError if none can be made of this structure."""
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
    view = View(picture, packed[0], packed[1], apart, structure.tail or "td")
    if not picture and not view.before:
        raise JobError(
            f"The structure {str(structure)!r} never sees the picture; begin it with f1k1_x, or pack frames before g."
        )
    _check_packed(structure, view)
    _check_tail(structure, view)
    return view


def _check_tail(structure: Structure, view: View) -> None:
    """Raise JobError for a tail on the wrong side, or of a history that has no far end."""
    first = isinstance(structure.parts[0], Tail)
    if structure.tail is not None and first != bool(view.before):
        raise JobError(
            f"The structure {str(structure)!r} has {structure.tail} at the end where its history is near; it stands at "
            "the far end of the packed frames."
        )
    if view.tail != "td" and (bool(view.before) == bool(view.behind)):
        raise JobError(
            f"The structure {str(structure)!r} keeps its tail ({view.tail}), and a plan that makes an end first, or "
            "sees nothing but the picture, has none; write td, or pack frames on one side of g alone."
        )


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


def kind_named(name: str) -> Kind:
    """The kind of plan of this name, which is a key of PLANS or a structure name; JobError if it is neither.

    >>> kind_named("td_f16k4f2k2f1k1_g9").lay_out(2, 9, False)[1] == kind_named("unanchored").lay_out(2, 9, False)[1]
    True
    """
    if name in PLANS:
        return PLANS[name]
    if not re.search(r"(?:^|_)g\d", name):
        raise JobError(
            f"No sampling {shown(name)}; there are: {', '.join(PLANS)}, and structure names such as "
            f"{PLANS['unanchored'].structure}."
        )
    return _structured(name)


@lru_cache(64)
def _structured(name: str) -> Kind:
    return kind_of(parse(name), "as its name says")


def check_window(name: str, window: int) -> None:
    """Raise JobError for a structure name that says another window."""
    if name not in PLANS and (said := parse(name).window) != window:
        raise JobError(
            f"The sampling {name} makes {said} latent frames in each section, and the window is {window}; make them "
            f"the same (--window {said}, in Python window={said})."
        )


def names_like(name: str) -> tuple[str, ...]:
    """The names in PLANS of the very plan that this name stands for.

    >>> names_like("anchored"), names_like("f1k1_g9"), names_like("f2k1_g9")
    (('vanilla', 'anchored'), ('repeat',), ())
    """
    kind = kind_named(name)
    return tuple(each for each, other in PLANS.items() if _meaning(other) == _meaning(kind))


def _meaning(kind: Kind) -> tuple[object, ...]:
    """The facts that tell two kinds of plans apart."""
    # How many frames a section makes is the job's window, whatever the name was written for.
    parts = [
        "g" if isinstance(part, Generated) else part
        for part in parse(kind.structure).parts
        if part != Tail("td")
    ]
    return parts, kind.every


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
    kind = kind_named(job.sampling)
    division = division_of(job, kind.view or View())
    laid = _laid(job, kind, division)
    plan = sights.seen(job, first_made(laid) if job.from_text else laid)
    ends = division.behind or division.loop
    frames = plan.made if job.reference or ends else job.frames
    plan = replace(plan, frames=frames)
    if kind.sees_end and (len(division.starts) > 1 or division.loop):
        plan = replace(plan, seams=seams_of(plan, division.loop))
    if frames == job.frames:
        return plan
    reason = "the reference never cuts" if job.reference else f"a video with {_goal(job)} ends with a section"
    notice = f"{frames} frames are made instead of {job.frames}: {reason}."
    return replace(plan, notice=notice)


def seams_of(plan: Plan, loop: bool = False) -> tuple[Seam, ...]:
    """The seams of a plan whose stretches go to the picture behind them, or to the first frame in a loop.

    >>> seams_of(replace(vanilla(5), starts=(0, 12)), loop=True)
    (Seam(at=45, own=(45, 46), span=44), Seam(at=181, own=(0, 1), span=135))
    """
    shown = [plan.shown(start).start for start in plan.starts]
    edges = [*(each for each in shown if each < plan.frames), *([plan.frames] if loop else [])]
    seams = []
    for before, at in pairwise(edges):
        first = at if at < plan.frames else 0
        own = tuple(range(first, min(first + 2, plan.frames)))
        seams.append(Seam(at, own, at - max(0, before + 1)))
    return tuple(seams)


def _laid(job: Job, kind: Kind, division: Division) -> Plan:
    """The plan over this division; JobError for a kind that knows whole windows alone, and for a tail that is cut."""
    if kind.over is not None:
        if kind.keeps_tail and len(division.starts) > 1 and not kind.sees_end:
            raise JobError(
                f"The sampling {job.sampling} keeps what lies far back, and a picture that it cannot foresee begins "
                "anew; leave that picture out, or take the same sampling with td."
            )
        return kind.over(division)
    windows = even(division.count, job.window, bool(division.behind))
    if division.runs != windows.runs or division.anchors != windows.anchors or division.loop:
        raise JobError(
            f"The sampling {job.sampling} is made of whole windows alone; leave out what is asked at some second."
        )
    return kind.lay_out(division.count, job.window, bool(division.behind))


def _goal(job: Job) -> str:
    return (
        "a clip behind it" if job.clip else "a last picture" if job.last_picture else "a beginning as its end"
    )


def first_made(plan: Plan) -> Plan:
    """The same plan, whose frame 0 is not given but made, from the prompt alone, by a section of its own before all.

    >>> plan = first_made(vanilla(2))
    >>> plan[0], plan[1].number, plan[1].frames == vanilla(2)[0].frames
    (Section(number=0, frames=(0,), times=(0,), slots={}, far=None, pictures=()), 1, True)
    """

    def section(made: int) -> Section:
        if made == 0:
            return Section(0, (0,), (0,), {}, pictures=())
        found = plan.section(made - 1)
        return replace(found, number=found.number + 1)

    def order(number: int) -> int:
        return 0 if number == 0 else plan.order(number - 1) + 1

    def owner(frame: int) -> int:
        return 0 if frame == 0 else plan.owner(frame) + 1

    def made_by(number: int) -> Sequence[int]:
        return range(1) if number == 0 else plan.latents(number - 1)

    given = tuple(frame for frame in plan.anchors if frame)
    # What is given is there before frame 0's section, too.
    horizon = plan.horizon + bool(given)
    return replace(
        plan, count=plan.count + 1, anchors=given, horizon=horizon, section=section, order=order, owner=owner,
        made_by=made_by,
    )  # fmt: skip
