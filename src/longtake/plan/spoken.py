"""Reading timelines as people type them: prompts in time, in the ways that they know from elsewhere.

    A penguin [1s-3s: it jumps] [5s: it sleeps]       FramePack-Studio: the text inside; open ones last until the next
    A penguin [0s:4s] it jumps [25%:50%] it sleeps    Wan2GP: the text behind; [50%:], [1:120] are frames from 1 on,
                                                      [0:05:0:10] minutes and seconds
    0:A penguin;;;2:it jumps;;;-1:it sleeps           musubi-tuner: by section, the others say what section 0 says
    {"0": "A penguin", "60": "it jumps"}              Deforum: by frame from 0 on, each until the next

What stands outside of brackets is said in the whole video. All of them become the prompts in seconds of a job.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from longtake import strictjson
from longtake.errors import JobError
from longtake.option import shown
from longtake.plan.layout import LATENT_FRAMES
from longtake.plan.lengths import section_count
from longtake.spans import PromptSpan

if TYPE_CHECKING:
    from longtake.job import Job

FORMS = "[1s-3s: text], [5s: text], [0s:4s] text, [25%:50%] text, [1:120] text (frames) or [0:05:0:10] text"

_NUMBER = r"\d+(?:\.\d+)?"
_CLOCK = r"\d+:\d{2}(?:\.\d+)?"
_TIME = rf"(?:{_CLOCK}|{_NUMBER}\s*[s%])"
_INSIDE = re.compile(rf"\s*({_TIME})\s*(?:-\s*({_TIME})\s*)?:(.*)", re.DOTALL)
_CLOCKS = re.compile(rf"\s*({_CLOCK})?\s*:\s*({_CLOCK})?\s*")
_BOTH = re.compile(rf"\s*({_NUMBER}\s*[s%]?)?\s*:\s*({_NUMBER}\s*[s%]?)?\s*")
# What only a slip of the pen makes no time: a number with a unit, or numbers before a colon.
_MEANT = re.compile(rf"\s*(?:{_NUMBER}\s*[s%](?![a-zA-Z])|{_NUMBER}\s*(?:-\s*{_NUMBER}\s*)?:|:\s*\d)")
_SECTIONS = re.compile(r"\s*(-?\d+)(?:-(\d+))?\s*:(.*)", re.DOTALL)


@dataclass(frozen=True)
class Length:
    """The length of a video that is spoken of: frames, frames a second, and latent frames of a section."""

    frames: int
    fps: int
    window: int

    @classmethod
    def of(cls, job: Job) -> Length:
        """The length that a job asks for."""
        return cls(job.frames, job.fps, job.window)

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.frames / self.fps


def directed(job: Job, timeline: str | Mapping[str, Any]) -> Job:
    """The job with what a timeline says, checked: canonical values, or a text as a file holds it.

    Raises JobError for a timeline that is none, and for what is said in both.

    >>> from longtake.job import Job
    >>> directed(Job("A penguin"), {"prompts": [{"from": 2, "text": "it jumps"}], "blend": 2}).blend
    2
    """
    length = Length.of(job)
    found = read(timeline, length) if isinstance(timeline, str) else canonical(timeline, length)
    values, usual = job.values(), type(job)("").values()
    for key, value in found.items():
        own = values[key]
        if key in ("keyframes", "loras"):
            values[key] = [*own, *value] if isinstance(value, list | tuple) else value
        elif own in (usual[key], value):
            values[key] = value
        elif value != usual[key]:
            raise JobError(
                f"The timeline says {key}, and so does what is asked beside it ({shown(own)}); leave one of them out."
            )
    return type(job).of(values)


def spoken(job: Job) -> Job:
    """The job whose prompt may have been typed with times: they become its prompts in time.

    >>> from longtake.job import Job
    >>> spoken(Job("A penguin [2s: it jumps]")).prompt
    'A penguin'
    """
    common, spans = prompts(job.prompt, Length.of(job))
    if spans and job.prompts:
        raise JobError(
            "The prompt says things in time, and so do the prompts; leave the times out of one of them."
        )
    return replace(job, prompt=common, prompts=spans or job.prompts)


def prompts(text: str, length: Length) -> tuple[str, tuple[PromptSpan, ...]]:
    """The prompt of the whole video and those in time from a text; JobError for what looks like a time and is none.

    >>> prompts("A penguin [1s-3s: it jumps] [4s: it sleeps]", Length(145, 30, 9))
    ('A penguin', (PromptSpan(text='it jumps', start=1.0, end=3.0, seed=None), \
PromptSpan(text='it sleeps', start=4.0, end=None, seed=None)))
    >>> prompts("A penguin [in a hat]", Length(145, 30, 9))
    ('A penguin [in a hat]', ())
    """
    if ";;;" in text:
        return _by_section(text, length)
    common: list[str] = []
    spans: list[PromptSpan] = []
    behind = False
    for bracket, piece in _pieces(text):
        found = _span(piece, length) if bracket else None
        if found is not None:
            spans.append(found[0])
            behind = found[1]
        elif behind:
            spans[-1] = replace(spans[-1], text=spans[-1].text + (f"[{piece}]" if bracket else piece))
        else:
            common.append(f"[{piece}]" if bracket else piece)
    if not spans:
        return text, ()
    spans = [replace(span, text=" ".join(span.text.split())) for span in spans]
    return " ".join("".join(common).split()), tuple(_closed(spans))


def moment(text: str, length: Length) -> float:
    """A second from what is typed as a time: 3, 3.5s, 50% or 0:05; JobError if it is none.

    >>> [moment(text, Length(300, 30, 9)) for text in ("3", "3.5s", "50%", "1:05")]
    [3.0, 3.5, 5.0, 65.0]
    """
    if re.fullmatch(rf"\s*(?:{_CLOCK}|{_NUMBER}\s*[s%]?)\s*", text) is None:
        raise JobError(f"{shown(text)} is no time in a video; write seconds (3.5), 50% or minutes (0:05).")
    return _seconds(text, length, text)


def read(text: str, length: Length) -> dict[str, Any]:
    """The timeline of a file, as its canonical values: JSON in that form or in Deforum's, or a text with times.

    >>> read('{"0": "a", "60": "b"}', Length(145, 30, 9))["prompts"][1]
    {'from': 2.0, 'to': None, 'text': 'b'}
    """
    body = text.strip()
    if re.match(r'"\s*[^"]*"\s*:', body):
        # As FizzNodes takes it: the inside of an object.
        body = "{" + body.rstrip(",") + "}"
    if not body.startswith("{"):
        common, spans = prompts(body, length)
        if not spans and ";;;" not in body:
            raise JobError(
                f"The timeline {_short(body)!r} says nothing in time; write one of {FORMS}, or JSON."
            )
        return {"prompt": common, "prompts": _values(spans)}
    values = strictjson.parse(body, "a timeline")
    if values and all(re.fullmatch(r"\s*\d+\s*", key) for key in values):
        values = {"prompts": values}
    return canonical(values, length)


KEYS = ("prompt", "prompts", "keyframes", "loras", "blend", "loop", "unforeseen", "clip")
"""The fields of a job that a timeline may say."""


def canonical(values: Any, length: Length) -> dict[str, Any]:
    """The values of a timeline, whose prompts may be said by frame; JobError for what it cannot say."""
    if not isinstance(values, Mapping):
        raise JobError(f"A timeline is an object of JSON or a text with times; {shown(values)} was given.")
    for key in values:
        if key not in KEYS:
            raise JobError(
                f"A timeline has no key {shown(key)}; there are: {', '.join(KEYS)}, or frame numbers alone."
            )
    found = dict(values)
    if isinstance(found.get("prompts"), Mapping):
        found["prompts"] = _values(tuple(_by_frame(found["prompts"], length)))
    return found


def _values(spans: tuple[PromptSpan, ...]) -> list[dict[str, Any]]:
    return [{"from": span.start, "to": span.end, "text": span.text} for span in spans]


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """The text in pieces, those in outer brackets without them, and if it is one. A bracket without its end is text."""
    begin = depth = 0
    for place, letter in enumerate(text):
        if letter == "[":
            if depth == 0:
                yield False, text[begin:place]
                begin = place + 1
            depth += 1
        elif letter == "]" and depth:
            depth -= 1
            if depth == 0:
                yield True, text[begin:place]
                begin = place + 1
    if depth and _MEANT.match(text[begin:]):
        raise JobError(f"The bracket [{_short(text[begin:])} has no end; write one of {FORMS}.")
    yield False, text[begin - 1 if depth else begin :]


def _span(piece: str, length: Length) -> tuple[PromptSpan, bool] | None:
    """The prompt in time of a bracket, and if its text stands behind it; None for a bracket that is no time."""
    for form in (_CLOCKS, _BOTH):
        found = form.fullmatch(piece)
        if found and any(found.groups()):
            return _stretch(found[1], found[2], piece, length), True
    inside = _INSIDE.fullmatch(piece)
    # A number behind a clock would be one more part of it.
    if inside and not (":" in inside[1] and re.match(r"\s*\d", inside[3])):
        start, end, text = inside.groups()
        stop = None if end is None else _seconds(end, length, piece)
        return PromptSpan(text, _seconds(start, length, piece), stop), False
    if _MEANT.match(piece):
        raise JobError(f"[{_short(piece)}] is no time that is understood; write one of {FORMS}.")
    return None


def _stretch(start: str | None, end: str | None, piece: str, length: Length) -> PromptSpan:
    """The stretch of time from one to the other, each of which may be left out; two bare numbers are frames."""
    units = {each[-1] for each in (start, end) if each is not None and each[-1] in "s%"}
    if not units and not any(":" in each for each in (start, end) if each is not None):
        return _frames(start, end, piece, length)
    if len(units) == 1:
        unit = units.pop()
        start, end = (each if each is None or each[-1] == unit else each + unit for each in (start, end))
    begin = 0.0 if start is None else _seconds(start, length, piece)
    return PromptSpan("", begin, None if end is None else _seconds(end, length, piece))


def _frames(start: str | None, end: str | None, piece: str, length: Length) -> PromptSpan:
    first, last = (None if each is None else float(each) for each in (start, end))
    if first == 0 or any(each is not None and each % 1 for each in (first, last)):
        raise JobError(
            f"[{_short(piece)}] are frames, which are counted in whole numbers from 1 on; write seconds as [0s:4s]."
        )
    return PromptSpan("", ((first or 1) - 1) / length.fps, None if last is None else last / length.fps)


def _seconds(text: str, length: Length, whole: str) -> float:
    text = text.strip()
    if text.endswith("%"):
        percent = float(text[:-1])
        if percent > 100:
            raise JobError(f"[{_short(whole)}] asks for {percent:g}% of a video; it ends at 100%.")
        return round(percent / 100 * length.seconds, 6)
    minutes, _, rest = text.removesuffix("s").rpartition(":")
    return 60.0 * int(minutes or 0) + float(rest)


def _closed(spans: list[PromptSpan]) -> Iterator[PromptSpan]:
    """The spans in their order, those without an end up to the next one."""
    ordered = sorted(spans, key=lambda span: span.start)
    for place, span in enumerate(ordered):
        following = ordered[place + 1].start if place + 1 < len(ordered) else None
        yield replace(span, end=following) if span.end is None and following != span.start else span


def _by_frame(prompts: Mapping[Any, Any], length: Length) -> Iterator[PromptSpan]:
    """Deforum's prompts: by the number of the frame from which each is said."""
    for key, text in prompts.items():
        if not re.fullmatch(r"\s*\d{1,12}\s*", str(key)):
            raise JobError(
                f"Prompts by frame have whole numbers from 0 on as their keys; {shown(key)} is none."
            )
        if not isinstance(text, str):
            raise JobError(
                f"The prompt from frame {str(key).strip()} on must be a text; {shown(text)} was given."
            )
        if "--neg" in text:
            raise JobError(
                f"The prompt from frame {str(key).strip()} on has a negative one (--neg); that is said for the whole "
                "video (--negative)."
            )
    spans = [PromptSpan(text, int(key) / length.fps) for key, text in prompts.items()]
    yield from _closed(spans)


def _by_section(text: str, length: Length) -> tuple[str, tuple[PromptSpan, ...]]:
    """musubi-tuner's prompts: by sections of whole windows; those that are not named say what section 0 says."""
    count = section_count(length.frames, length.window)
    said: dict[int, str] = {}
    for part in text.split(";;;"):
        found = _SECTIONS.fullmatch(part)
        first, last, words = found.groups() if found else ("0", None, part)
        begin = int(first) + count * (int(first) < 0)
        end = begin if last is None else int(last)
        if not 0 <= begin <= end < count:
            raise JobError(
                f"The prompt {_short(part)!r} is for a section that is not there; this video has the sections 0 to "
                f"{count - 1}, or -{count} to -1 from its end."
            )
        for number in range(begin, end + 1):
            if number in said:
                raise JobError(
                    f"Section {number} has two prompts in {_short(text)!r}; leave one of them out."
                )
            said[number] = words.strip()
    usual = said.get(0, said[min(said)])
    edges = [
        number
        for number in range(count)
        if number == 0 or said.get(number, usual) != said.get(number - 1, usual)
    ]
    if len(edges) == 1:
        return usual, ()
    starts = [(1 + LATENT_FRAMES * length.window * edge) / length.fps if edge else 0.0 for edge in edges]
    ends = [*starts[1:], None]
    return "", tuple(
        PromptSpan(said.get(edge, usual), start, end)
        for edge, start, end in zip(edges, starts, ends, strict=True)
    )


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:38] + "…"
