"""The table of a plan: what each section makes and sees, and how many tokens that costs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from longtake.plan.layout import Far, end_tokens, slot_tokens, token_count
from longtake.plan.plans import Plan, Section

LINES = 1000
"""Most sections that a table shows, half of them from the beginning and half from the end."""


def tokens(section: Section, height: int, width: int) -> int:
    """Image tokens of one call of the model for this section; `height` and `width` in pixels.

    >>> from longtake.plan.plans import vanilla
    >>> tokens(vanilla(1)[0], 640, 608)
    17500
    """
    window = token_count(len(section.frames), height, width)
    seen = sum(slot_tokens(slot, height, width) for slot in section.slots.values())
    return window + seen + end_tokens(section.far, height, width)


def table(plan: Plan, height: int, width: int) -> str:
    """Table of a plan, one line for each section in the order of generation; `height` and `width` in pixels.

    Latent frames are written with their times after an @; `zeros` stands if there is no frame. The middle of a plan of
    more than `LINES` sections is left out, and the table says so.

    >>> from longtake.plan.plans import vanilla
    >>> print(table(vanilla(2), 64, 64))
    section  makes         sees 1x      sees 2x         sees 4x             tokens
          0  1-9 @20-28    0, 0 @0, 19  2 zeros @17-18  16 zeros @1-16         184
          1  10-18 @20-28  0, 9 @0, 19  7-8 @17-18      9 zeros, 0-6 @1-16     184
    """
    first, last = halves(len(plan))
    left_out = len(plan) - len(first) - len(last)
    sections = [plan[made] for made in (*first, *last)]
    scales = sorted({scale for section in sections for scale in section.slots})
    far = any(section.far is not None for section in sections)
    head = (
        "section",
        "makes",
        *(["sees beyond"] if far else []),
        *(f"sees {scale}x" for scale in scales),
        "tokens",
    )
    lines = aligned(
        [head, *(_row(section, scales, far, height, width) for section in sections)], (0, len(head) - 1)
    )
    if left_out:
        lines.insert(1 + len(first), f"… {left_out} sections more …")
    return "\n".join(lines)


def _row(section: Section, scales: Sequence[int], far: bool, height: int, width: int) -> tuple[str, ...]:
    slots = [section.slots.get(scale) for scale in scales]
    seen = [f"{ranges(slot.frames)} @{ranges(slot.times)}" if slot else "" for slot in slots]
    made = f"{ranges(section.frames)} @{ranges(section.times)}"
    beyond = [_beyond(section.far)] if far else []
    return (str(section.number), made, *beyond, *seen, str(tokens(section, height, width)))


def _beyond(far: Far | None) -> str:
    """The far end of a history: the frames that are seen each for itself, or as their mean."""
    if far is None or not far.frames:
        return "" if far is None or far.appended else f"zeros @{far.time}"
    frames = f"{far.frames[0]}-{far.frames[-1]}" if len(far.frames) > 1 else str(far.frames[0])
    return f"{frames if far.appended else f'mean of {frames}'} @{far.time}"


def halves(count: int) -> tuple[range, range]:
    """The places of so many lines that are shown, those from the beginning and those from the end.

    >>> halves(7), halves(2000)
    ((range(0, 7), range(0, 0)), (range(0, 500), range(1500, 2000)))
    """
    if count <= LINES:
        return range(count), range(0)
    return range(LINES // 2), range(count - LINES // 2, count)


def aligned(rows: Sequence[Sequence[str]], right: Collection[int]) -> list[str]:
    """Rows as lines: the columns at these places to the right, the others to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(size) if place in right else cell.ljust(size)
            for place, (cell, size) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def ranges(numbers: Iterable[int | None]) -> str:
    """Numbers as ranges, in their order; None is a zero frame.

    >>> ranges([None, None, 0, 1, 2, 7])
    '2 zeros, 0-2, 7'
    """
    runs: list[list[int | None]] = []
    for number in numbers:
        last = runs[-1][-1] if runs else None
        follows = number is None if last is None else number == last + 1
        if runs and follows:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(map(_range, runs))


def _range(run: Sequence[int | None]) -> str:
    if run[0] is None:
        return "zeros" if len(run) == 1 else f"{len(run)} zeros"
    return f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}"
