"""H.264's parameter sets as an MP4 holds them (avcC, ISO/IEC 14496-15): two streams of them made one.

A stream names its sets by numbers. If ours have a number that the clip's have not, both lie in one record, and a
decoder takes each frame's own: the packets of either stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

HIGH = 100
"""Profiles from here on say their chroma and depth behind the sets."""

IDS = 32
"""Numbers that a sequence's set can have; x264 gives both of its sets the same."""


@dataclass(frozen=True)
class ParameterSets:
    """The contents of an avcC record: `head` (version, profile, compatibility, level), the sets, and what follows."""

    head: bytes
    sequences: tuple[bytes, ...]
    pictures: tuple[bytes, ...]
    rest: bytes

    def free_id(self) -> int | None:
        """A number that no set here has, None if there is none."""
        # Behind one byte of the unit's header and three of profile and level; a picture's set has the first byte alone.
        used = {next(numbers(each[4:])) for each in self.sequences}
        used |= {next(numbers(each[1:])) for each in self.pictures}
        return next((number for number in range(IDS) if number not in used), None)

    def with_those_of(self, other: ParameterSets) -> bytes:
        """The record of both; a decoder that can do the higher profile and level of them can do it."""
        mine, theirs = self.head, other.head
        higher = self if mine[1] >= theirs[1] else other
        head = bytes((1, higher.head[1], mine[2] & theirs[2], max(mine[3], theirs[3])))
        sequences, pictures = self.sequences + other.sequences, self.pictures + other.pictures
        return (
            head
            + bytes((0xFF, 0xE0 | len(sequences)))
            + b"".join(map(_counted, sequences))
            + bytes((len(pictures),))
            + b"".join(map(_counted, pictures))
            + (higher.rest if head[1] >= HIGH else b"")
        )


def parameter_sets(record: bytes | None) -> ParameterSets | None:
    """The sets of an avcC record; None if it is none, if it is cut short, or if its units' lengths take no 4 bytes.

    >>> parameter_sets(bytes.fromhex("0164000bff e1 0005 6764000bb0 01 0002 68eb")).pictures
    (b'h\\xeb',)
    """
    if record is None or len(record) < 7 or record[0] != 1 or record[4] & 3 != 3:
        return None
    found: list[tuple[bytes, ...]] = []
    place = 5
    for mask in (31, 255):
        if place >= len(record):
            return None
        count, place = record[place] & mask, place + 1
        sets = []
        for _ in range(count):
            size = int.from_bytes(record[place : place + 2], "big")
            sets.append(record[place + 2 : place + 2 + size])
            place += 2 + size
        found.append(tuple(sets))
    sequences, pictures = found
    whole = place <= len(record) and all(len(each) > 4 for each in sequences) and all(pictures)
    if not (whole and sequences and pictures):
        return None
    return ParameterSets(record[:4], sequences, pictures, record[place:])


def numbers(data: bytes) -> Iterator[int]:
    """The whole numbers that data begins with, in Exp-Golomb code (ISO/IEC 14496-10, 9.1), then zeros without end.

    >>> list(zip(numbers(bytes([0b10100110, 0b01000000])), range(4)))
    [(0, 0), (1, 1), (2, 2), (3, 3)]
    """
    # A byte 3 behind two zeros is there so that nothing looks like the beginning of a unit.
    bits = "".join(f"{byte:08b}" for byte in data.replace(b"\0\0\3", b"\0\0"))
    place = 0
    while (one := bits.find("1", place)) >= 0:
        size = one - place
        yield int(bits[one : one + size + 1], 2) - 1
        place = one + size + 1
    while True:
        yield 0


def _counted(unit: bytes) -> bytes:
    return len(unit).to_bytes(2, "big") + unit
