"""The one objective: flow matching on a section, given the clean frames that its plan lets it see.

Any plan, any data, any network: `loss` asks a section what it makes and sees, reads that from a video's clean latents,
and compares the velocity that a network predicts with noise - clean (Lipman et al., arXiv 2210.02747).

Shapes: B sections, C channels, T latent frames, h w rows and columns of latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from longtake.backend import ops, runtime
from longtake.errors import LongtakeError
from longtake.models.transformer import SLOTS
from longtake.plan.history import History
from longtake.plan.layout import Far
from longtake.plan.plans import Section
from longtake.sampling.treatments import Treatment, over_scales

Read = Callable[[Iterable["int | None"]], np.ndarray]
"""Reads clean scaled latents (C, T, h, w) of one video by latent frame number; None reads as zeros."""


@dataclass(frozen=True)
class Rows:
    """The frames that B sections make and see: latents (B, C, T, h, w) float32 and times (B, T)."""

    window: np.ndarray
    window_times: np.ndarray
    clean: dict[int, tuple[np.ndarray, np.ndarray]]
    """(latents, times) of what is seen, by scale."""
    beyond: tuple[np.ndarray, np.ndarray, int] | None = None
    """(latents, times, scale) of the far end of the history, if the plan keeps it; of the window's size or of cells."""


Velocity = Callable[[Any, np.ndarray, Rows], Any]
"""A network: (noisy windows (B, C, T, h, w), noise levels (B,), what is seen) -> their velocities."""


def loss(
    velocity: Velocity,
    sections: Sequence[Section],
    history: Sequence[Read],
    noise: np.ndarray,
    level: np.ndarray,
    treatment: Treatment | None = None,
    rng: np.random.Generator | Sequence[np.random.Generator] | None = None,
    anchors: Sequence[frozenset[int]] | None = None,
) -> Any:
    """(B,): the mean squared error of the velocity of each section, on the device of what the network gives.

    `history` reads the video of each section, `noise` is (B, C, T, h, w), `level` (B,) in [0, 1]. `treatment` is done
    to the frames that a section sees and that its plan makes, so not to `anchors` (frame 0 unless it says otherwise);
    `rng` may be one for each row.
    Raises LongtakeError for sections that do not see the same numbers of frames, which cannot be one batch.
    """
    rows = treated(gather(history, sections), sections, treatment, rng, anchors)
    return errors(velocity, rows, noise, level)


def errors(velocity: Velocity, rows: Rows, noise: np.ndarray, level: np.ndarray) -> Any:
    """(B,): the mean squared error of the velocity of rows that are gathered already."""
    mixed = level[:, None, None, None, None]
    noisy = (1 - mixed) * rows.window + mixed * noise
    found = velocity(noisy.astype(np.float32), level, rows)
    wanted = runtime.place(ops.from_numpy(noise - rows.window), found.device)
    return ((found.float() - wanted) ** 2).flatten(1).mean(1)


def gather(history: Sequence[Read], sections: Sequence[Section]) -> Rows:
    """The latents that one section of each video makes and sees."""
    shapes = {shape_of(section) for section in sections}
    if len(shapes) != 1:
        raise LongtakeError(
            f"Sections of one batch make and see as many frames at each scale; these do {sorted(shapes)}."
        )

    def read(frames_of: Callable[[Section], Iterable[int | None]]) -> np.ndarray:
        rows = [one(frames_of(section)) for one, section in zip(history, sections, strict=True)]
        return np.stack(rows).astype(np.float32)

    def slot(scale: int) -> tuple[np.ndarray, np.ndarray]:
        times = np.array([section.slots[scale].times for section in sections])
        return read(lambda section: section.slots[scale].frames), times

    times = np.array([section.times for section in sections])
    clean = {scale: slot(scale) for scale in sections[0].slots}
    return Rows(read(lambda section: section.frames), times, clean, _beyond(history, sections))


def shape_of(section: Section) -> tuple[tuple[int, int], ...]:
    """The numbers of frames that a section makes (as scale 0) and sees: equal in one batch.

    What lies beyond stands last, as scale -1.
    """
    seen = tuple((scale, len(slot.frames)) for scale, slot in section.slots.items())
    return ((0, len(section.frames)), *seen, *([] if section.far is None else [(-1, section.far.count)]))


def _beyond(
    history: Sequence[Read], sections: Sequence[Section]
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """The far ends of the sections' histories; None if none is kept, or nothing lies there yet."""
    ends = [section.far for section in sections if section.far is not None]
    if not ends or not ends[0].count:
        return None
    found = np.stack([far_end(read, far) for read, far in zip(history, ends, strict=True)])
    times = np.array([[far.time] * far.count for far in ends])
    return found.astype(np.float32), times, ends[0].scale


def far_end(read: Read, far: Far) -> np.ndarray:
    """The far end of one video's history, (C, T, h, w), as `History` gives it while sampling."""
    kept = History()
    frames = [*far.frames] or [None]
    latents = np.asarray(read(frames))[None]
    kept.write([frame or 0 for frame in frames], latents)
    return np.asarray(kept.far(far))[0]


def treated(
    rows: Rows,
    sections: Sequence[Section],
    treatment: Treatment | None,
    rng: np.random.Generator | Sequence[np.random.Generator] | None = None,
    anchors: Sequence[frozenset[int]] | None = None,
) -> Rows:
    """The rows with the treatment done to what they see of the past."""
    if treatment is None:
        return rows
    if rng is None:
        raise LongtakeError("A treatment of the history needs random numbers; none were given.")
    given = anchors or [frozenset({0})] * len(sections)

    def made(scale: int) -> np.ndarray:
        return np.array(
            [
                [frame is not None and frame not in mine for frame in section.slots[scale].frames]
                for section, mine in zip(sections, given, strict=True)
            ]
        )

    seen = {scale: latents for scale, (latents, _) in rows.clean.items()}
    # All scales at once, so that a row is treated or it is not.
    done = over_scales(treatment, seen, {scale: made(scale) for scale in seen}, rng)
    return replace(rows, clean={scale: (done[scale], times) for scale, (_, times) in rows.clean.items()})


def of_transformer(
    transformer: Any, states: Any, mask: Any, pooled: Any, image_states: Any, guidance: np.ndarray
) -> Velocity:
    """The velocity of a FramePack transformer that is told these texts and pictures.

    `states` (B, N, D), `mask` (B, N), `pooled` (B, P), `image_states` (B, M, E), `guidance` (B,) in thousandths.
    """

    def put(array: np.ndarray) -> Any:
        return runtime.place(ops.from_numpy(array), states.device)

    def velocity(noisy: np.ndarray, level: np.ndarray, rows: Rows) -> Any:
        context: dict[str, Any] = {}
        for scale, (latents, times) in rows.clean.items():
            context |= {SLOTS[scale]: put(latents), f"indices_{SLOTS[scale]}": times}
        if rows.beyond is not None:
            latents, times, scale = rows.beyond
            context |= {
                "latents_beyond": put(latents), "indices_latents_beyond": times, "scale_beyond": scale
            }  # fmt: skip
        return transformer(
            hidden_states=put(noisy),
            timestep=put(np.asarray(1000 * level, np.float32)),
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            pooled_projections=pooled,
            image_embeds=image_states,
            indices_latents=rows.window_times,
            guidance=put(np.asarray(guidance, np.float32)),
            return_dict=False,  # what wraps a network for several processes knows tuples
            **context,
        )[0]

    return velocity
