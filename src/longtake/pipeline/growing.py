"""A video that grows: finished sections in any order -> its frames, as soon as they are final.

What can be shown is the video's beginning, as far as its sections are there without a gap. A section that lies behind
the gap waits on disk: in the job's folder, or in a temporary one. At each key frame the decoder begins anew, since its
latent frame stands for one frame of the video, as the first one does.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from longtake.errors import RunError
from longtake.events import FramesReady, SectionDone
from longtake.models.vae.tiles import Wanted
from longtake.pipeline.decode import Convert, Decoding, Shown, reference_frames
from longtake.pipeline.joint import Joint
from longtake.pipeline.placement import room_for
from longtake.pipeline.prepare import Asked, Request
from longtake.pipeline.store import Scratch, Store


class Output:
    """The frames of a run's sections: `begin`, then `keep` and `grow` for each, then `finish`; here none."""

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of what waits on disk."""

    def begin(self) -> Iterator[Shown]:
        """The frames that are final before any section is made."""
        yield from ()

    def keep(self, done: SectionDone) -> None:
        """Take a finished section, before anybody hears of it."""

    def grow(self, done: SectionDone) -> Iterator[Shown]:
        """The frames that are final with this section."""
        yield from ()

    def finish(self) -> Iterator[Shown]:
        """The rest."""
        yield from ()


def output_of(
    asked: Asked,
    request: Request,
    store: Store | None,
    convert: Convert | None,
    wanted: Wanted | None = None,
) -> Output:
    """The output that was asked for; `store` has the finished sections, and without one those that wait go to disk."""
    if convert is None:
        return Output()
    if request.job.reference:
        return AtOnce(request, convert)
    return Growing(asked, request, store, convert, wanted)


class AtOnce(Output):
    """All frames when all sections are there, as the reference decodes them: it holds the whole video."""

    def __init__(self, request: Request, convert: Convert) -> None:
        self._request, self._convert = request, convert
        self._done: list[SectionDone] = []

    def keep(self, done: SectionDone) -> None:
        """Take a finished section."""
        self._done.append(done)

    def finish(self) -> Iterator[Shown]:
        """All frames."""
        request, plan = self._request, self._request.plan
        with request.networks.using("vae") as vae, room_for("decoding the latents"):
            frames = reference_frames(vae, request.anchors[0], self._done, plan.forward, plan.window)
        yield FramesReady(0, self._convert(frames[:, :, : plan.frames]))


class Growing(Output):
    """The video from its beginning on, as far as it is there.

    If it is stopped before its first section is there, the sections come that follow one another from the first of
    those that are (behind the picture, where that is made first).
    """

    def __init__(
        self,
        asked: Asked,
        request: Request,
        store: Store | None,
        convert: Convert,
        wanted: Wanted | None = None,
    ) -> None:
        self._asked, self._request, self._store, self._convert = asked, request, store, convert
        # What is given back at a joint is found by the frames beside it: with a clip, all are decoded.
        self._wanted = wanted if asked.clip is None else None
        self._scratch: Scratch | None = None
        self._decoding: Decoding | None = None
        self._next = 0
        self._frame = 0
        """The latent frame that is decoded next."""
        self._waiting: set[int] = set()

    def __exit__(self, *_: object) -> None:
        """Let go of what waits on disk."""
        if self._scratch is not None:
            self._scratch.close()

    def begin(self) -> Iterator[Shown]:
        """The picture, if the video's first section is the one that comes first."""
        if self._request.plan.made_at(0) == 0:
            yield from self._given(self._first(0), 0)

    def keep(self, done: SectionDone) -> None:
        """Let a section wait if there is a gap before it."""
        if done.number == self._next:
            return
        self._waiting.add(done.number)
        if self._store is None:
            self._scratch = self._scratch or Scratch()
            self._scratch.write_section(done.number, done.latents)

    def grow(self, done: SectionDone) -> Iterator[Shown]:
        """The frames that are final with this section: its own, and those of sections that waited for it."""
        if done.number != self._next:
            return
        yield from self._made(done.latents)
        while self._next in self._waiting:
            yield from self._made(self._taken(self._next))

    def finish(self) -> Iterator[Shown]:
        """The rest."""
        plan = self._request.plan
        if self._frame <= 1 and self._waiting:
            self._wanted = None  # frames are not counted from the video's beginning
            if self._decoding is not None:
                yield from self._decoding.finish()
            self._next = min(self._waiting)
            self._frame = self._before(self._first(self._next))
            while self._next in self._waiting:
                yield from self._made(self._taken(self._next))
        if self._decoding is None or self._next == plan.count:
            # A key frame may be the last one, with nothing behind it.
            yield from self._given(max(plan.starts) + 1, max(self._next - 1, 0))
        if self._decoding is not None:
            yield from self._decoding.finish()

    def _made(self, latents: np.ndarray) -> Iterator[Shown]:
        """The next section, and what is given before it."""
        self._waiting.discard(self._next)
        first, number = self._first(self._next), self._next
        yield from self._given(first, number)
        self._next += 1
        yield from self._pushed(latents, number)

    def _given(self, frame: int, number: int) -> Iterator[Shown]:
        """The given frames from the next one up to this one, before the section of this number."""
        anchors = self._request.anchors
        while self._frame < frame and self._frame in anchors:
            yield from self._pushed(anchors[self._frame], number)

    def _pushed(self, latents: np.ndarray, number: int) -> Iterator[Shown]:
        if self._decoding is None:
            self._decoding = self._decoder()
        elif self._frame in self._request.plan.starts:
            yield from self._decoding.restart()
        self._frame += latents.shape[2]
        yield from self._decoding.push(latents, number)

    def _first(self, number: int) -> int:
        """The first latent frame that a section makes."""
        plan = self._request.plan
        return plan[plan.made_at(number)].frames[0]

    def _before(self, frame: int) -> int:
        """The key frame right before a section that begins at this frame, if there is one."""
        plan = self._request.plan
        return frame - 1 if frame - 1 in plan.starts and frame - 1 in self._request.anchors else frame

    def _decoder(self) -> Decoding:
        """A decoder that begins with the next frame."""
        request, plan = self._request, self._request.plan
        plain = any(bool((each == each[..., :1, :1]).all()) for each in self._asked.pixels.values())
        hidden = sum(len(plan.shown(frame)) for frame in range(plan.lead)) if self._frame == 0 else 0
        networks = request.networks
        vae, placement = networks.part("vae"), networks.placement
        clip = self._asked.clip
        joint = None if clip is None else Joint(clip.pair, plan.frames if clip.behind else None)
        return Decoding(
            vae,
            plan.frames,
            self._convert,
            request.job.decoding,
            plain,
            hidden,
            placement,
            self._wanted,
            joint,
            plan.seams if self._frame == 0 else (),
        )

    def _taken(self, number: int) -> np.ndarray:
        """The latents of a section that waited."""
        store = self._scratch if self._store is None else self._store
        assert store is not None
        latents = store.read_section(number)
        if latents is None:
            raise RunError(
                f"Section {number} was damaged on disk before it was decoded; resume to make it again.",
                number,
            )
        if self._scratch is not None:
            self._scratch.forget(number)
        return latents
