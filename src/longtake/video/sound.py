"""A clip's sound in an MP4: its own packets where one can hold them, else the same samples encoded anew."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.error

COPIED = ("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus")
"""Kinds of sound that an MP4 holds and that are played from it."""

LOSSLESS = {"pcm_u8": "s16", "pcm_s16le": "s16", "pcm_s16be": "s16", "pcm_s24le": "s32", "pcm_s24be": "s32"}
"""Those whose very samples FLAC keeps, by its word for them."""

BIT_RATE = 192_000
"""Bits a second of sound that is encoded anew and loses something, which few ears find."""


class Sound:
    """One stream of sound of a clip, added to an MP4."""

    def __init__(self, whole: Any, source: Any) -> None:
        self._source = source
        name = kind_of(source)
        self._copied = name in COPIED
        self._resampler = None
        if self._copied:
            self._stream = whole.add_stream_from_template(source, opaque=True)
            return
        form = LOSSLESS.get(name)
        self._stream = whole.add_stream("flac" if form else "aac", rate=source.codec_context.sample_rate)
        self._stream.codec_context.layout = source.codec_context.layout
        self._stream.codec_context.format = form or "fltp"
        if not form:
            self._stream.codec_context.bit_rate = BIT_RATE
        self._resampler = av.AudioResampler(
            form or "fltp", source.codec_context.layout, source.codec_context.sample_rate
        )

    def packets(self, container: Any, late: Fraction) -> Iterator[tuple[float, Any]]:
        """(second, packet) of the stream, moved to `late` seconds later."""
        for packet in self._copies(container) if self._copied else self._encoded(container):
            base = packet.time_base
            for name in ("pts", "dts"):
                mark = getattr(packet, name)
                if mark is not None:
                    setattr(packet, name, mark + round(late / base))
            packet.stream = self._stream
            mark = packet.pts if packet.dts is None else packet.dts
            yield float((mark or 0) * base), packet

    def _copies(self, container: Any) -> Iterator[Any]:
        return (packet for packet in container.demux(self._source) if packet.size)

    def _encoded(self, container: Any) -> Iterator[Any]:
        assert self._resampler is not None
        for packet in container.demux(self._source):
            try:
                found = packet.decode()
            except av.error.InvalidDataError:
                continue
            for frame in found:
                for piece in self._resampler.resample(frame):
                    yield from self._stream.encode(piece)
        for piece in self._resampler.resample(None):
            yield from self._stream.encode(piece)
        yield from self._stream.encode(None)


def kind_of(stream: Any) -> str:
    """The name of a stream's codec, whichever decoder is at work on it."""
    return str(stream.codec_context.codec.canonical_name)


def encoded_anew(clip: Any) -> list[str]:
    """The kinds of sound of a clip that are not copied and lose something."""
    return [name for name in map(kind_of, clip.streams.audio) if name not in (*COPIED, *LOSSLESS)]
