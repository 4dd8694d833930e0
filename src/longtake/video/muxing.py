"""Packets of a clip, of its sound and of new frames, put in one MP4 one behind the other, one at a time."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.error

from longtake.errors import LongtakeError
from longtake.job import Job
from longtake.video.containers import CONTAINERS
from longtake.video.growing import new_file
from longtake.video.parameters import parameter_sets
from longtake.video.reading import opened
from longtake.video.sound import Sound
from longtake.video.timed import main_stream
from longtake.video.transcoding import ticks_for
from longtake.video.writer import NotWritten

MOST_WAITING = 32
"""Packets whose time of decoding is not known; H.264 decodes 16 frames ahead at most."""

UNTIMED = "it does not say when each of its frames is shown"


class NotCopied(LongtakeError):
    """Packets that cannot be copied, found on the way."""


@dataclass(frozen=True)
class Joint:
    """The parts of one MP4: the sound of `clip`, its frames as `shown` has them, and new ones `before` it or behind.

    `shown` is the clip itself (`start` 0), or a file of its frames encoded anew, the first of which is shown at the
    clip's second `start`. `like` is the file whose video says how frames lie and are turned. The new ones last `length`
    seconds, at `rate` a second.
    """

    clip: Path
    shown: Path
    like: Path
    length: Fraction
    rate: Fraction
    before: bool
    start: Fraction = Fraction(0)


def join(joint: Joint, fresh: BinaryIO, target: Path, job: Job | Mapping[str, Any] | None) -> None:
    """Write the MP4; `fresh` is the file of the new frames. Raises NotCopied, and NotWritten if a disk is full."""
    fresh.seek(0)
    with contextlib.ExitStack() as stack:
        shown, clip = (stack.enter_context(opened(at)) for at in (joint.shown, joint.clip))
        # Opened no more often than need be, since each has the file's index in memory.
        like = clip if joint.like == joint.clip else shown
        grown = stack.enter_context(av.open(fresh, "r", format="mp4"))
        whole = stack.enter_context(_written(target, job))
        track = _Track(whole, main_stream(like), main_stream(shown), grown.streams.video[0], joint.rate)
        sounds = [Sound(whole, stream) for stream in clip.streams.audio]
        base = main_stream(shown).time_base
        begun = joint.start if joint.start else Fraction((main_stream(shown).start_time or 0) * base)
        late = joint.length - begun if joint.before else Fraction(0)

        def old() -> None:
            pictures = track.packets(shown, main_stream(shown), late + joint.start)
            heard = (sound.packets(clip, late) for sound in sounds)
            for _, packet in heapq.merge(pictures, *heard, key=lambda each: each[0]):
                _put(whole, packet)

        def new() -> None:
            for _, packet in track.packets(
                grown, grown.streams.video[0], Fraction(0) if joint.before else track.end
            ):
                _put(whole, packet)

        for part in (new, old) if joint.before else (old, new):
            part()


@contextlib.contextmanager
def _written(target: Path, job: Job | Mapping[str, Any] | None) -> Iterator[Any]:
    """Inside, the MP4 that is written."""
    container = new_file(str(target), CONTAINERS[".mp4"], job)
    try:
        yield container
    except BaseException:
        with contextlib.suppress(OSError, ValueError, av.error.FFmpegError):
            container.close()
        raise
    with _writing():
        container.close()


def _put(whole: Any, packet: Any) -> None:
    with _writing():
        whole.mux(packet)


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except (OSError, av.error.FFmpegError) as error:
        raise NotWritten(str(error)) from error


class _Track:
    """The video of the MP4: packets of both parts, their times in ticks of one clock."""

    def __init__(self, whole: Any, like: Any, shown: Any, fresh: Any, rate: Fraction) -> None:
        sets, ours = (parameter_sets(stream.codec_context.extradata) for stream in (shown, fresh))
        if sets is None or ours is None:
            raise NotCopied("its parameter sets are not stored as an MP4 stores them")
        self._ticks = ticks_for(Fraction(shown.time_base), rate)
        whole.options["video_track_timescale"] = str(self._ticks)
        self._stream = whole.add_stream_from_template(like)
        self._stream.codec_context.extradata = sets.with_those_of(ours)
        self._last: int | None = None
        self.end = Fraction(0)
        """The second at which the last frame so far ends."""

    def packets(self, container: Any, stream: Any, late: Fraction) -> Iterator[tuple[float, Any]]:
        """(second, packet) of a part, moved to `late` seconds later."""
        base, usual = Fraction(stream.time_base), 1 / Fraction(stream.average_rate or 30)
        for packet in _in_order(container, stream, max(1, int(usual / base))):
            if packet.is_discard:
                raise NotCopied("some of its frames are not to be shown")
            if packet.has_sidedata("new_extradata"):
                raise NotCopied("its parameter sets change on the way")
            shown = packet.pts * base + late
            lasting = packet.duration * base if packet.duration else usual
            self.end = max(self.end, shown + lasting)
            order = round((packet.dts * base + late) * self._ticks)
            # The two parts decode ahead by different times: at the joint, some are decoded as soon as can be.
            if self._last is not None:
                order = max(order, self._last + 1)
            self._last = order
            packet.pts, packet.dts = round(shown * self._ticks), order
            packet.duration, packet.time_base = round(lasting * self._ticks), Fraction(1, self._ticks)
            packet.stream = self._stream
            yield order / self._ticks, packet


def _in_order(container: Any, stream: Any, usual: int) -> Iterator[Any]:
    """The packets with their times; Matroska says of none when it is decoded, and FFmpeg finds it from the third on."""
    waiting: list[Any] = []
    for packet in container.demux(stream):
        if not packet.size:  # the last one is empty: it flushes decoders
            continue
        if packet.pts is None or len(waiting) > MOST_WAITING:
            raise NotCopied(UNTIMED)
        waiting.append(packet)
        if packet.dts is None:
            continue
        for place, each in enumerate(waiting):
            if each.dts is None:
                each.dts = packet.dts - usual * (len(waiting) - 1 - place)
            yield each
        waiting.clear()
    if waiting:
        raise NotCopied(UNTIMED)
