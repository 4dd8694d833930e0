"""A plan that longtake does not have: nothing that is written for any plan may count on what it lacks."""

from longtake.plan.layout import Slot
from longtake.plan.plans import Plan, Section

SECTIONS = (
    # Two frames far apart first, then what lies between and behind them, in windows of 3, 2 and 1 frames.
    Section(1, (4, 8), (20, 24), {1: Slot(1, (0,), (0,))}),
    Section(0, (1, 2, 3), (1, 2, 3), {1: Slot(1, (0, 4), (0, 4)), 2: Slot(2, (8, None), (8, 9))}),
    Section(
        2,
        (5, 7),
        (5, 7),
        {
            1: Slot(1, (4, 8), (4, 8)),
            2: Slot(2, (3,), (3,)),
            4: Slot(4, (1, 2), (1, 2)),
            8: Slot(8, (0, None, None), (30, 31, 32)),
        },
    ),
    Section(3, (6,), (6,), {2: Slot(2, (5, 7), (5, 7)), 8: Slot(8, (8,), (8,))}),
)
MAKERS = {frame: section.number for section in SECTIONS for frame in section.frames}
ORDER = {section.number: made for made, section in enumerate(SECTIONS)}


def invented() -> Plan:
    return Plan(
        count=4,
        window=3,
        frames=30,
        made=33,
        forward=False,
        anchors=(0,),
        horizon=1,
        lasting=frozenset({0, 4, 8, 1, 2, 3}),
        section=SECTIONS.__getitem__,
        order=ORDER.__getitem__,
        owner=MAKERS.__getitem__,
    )
