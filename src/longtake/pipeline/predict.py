"""The transformer's velocity at each step; whatever repeats is computed once.

Refined text and all modulations depend on prompt and timestep: once a job. Packed history and rotary tables: once a
section, for both branches of classifier-free guidance. At 13B the modulations' weights are 6.84 GB in bfloat16, which
then are read once per timestep of a job and not at every step of every section.

This holds for our own transformer as long as nobody has hooked, patched, compiled or wrapped it. Any other is called
whole, as it is called in the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from longtake.backend import exchange, ops, runtime
from longtake.errors import JobError
from longtake.models import adapters
from longtake.models.pretrained import ALL, REST, is_untouched, needing
from longtake.models.transformer import (
    SLOTS,
    Beyond,
    Context,
    HunyuanVideoFramepackTransformer3DModel,
    Moment,
    Prompted,
    Sight,
)
from longtake.pipeline.voices import EVERYTHING, Voice, Without, mixed
from longtake.plan.layout import Far, Slot, check_scales
from longtake.plan.plans import Section
from longtake.sampling.guidance import cfg
from longtake.sampling.solvers import Velocity

Wrap = Callable[[Velocity], Velocity]
"""Wraps a velocity, a function (latents, sigma) -> velocity, in another one: a step cache, for instance."""


class Text(Protocol):
    """A prompt as the text encoders have read it."""

    @property
    def states(self) -> Any: ...
    @property
    def mask(self) -> Any: ...
    @property
    def pooled(self) -> Any: ...


class Readable(Protocol):
    """The source of a section's clean latents: the history, or what was made of it (`pipeline.treating`)."""

    def read(self, frames: Slot) -> np.ndarray: ...
    def far(self, far: Far) -> np.ndarray: ...


class Predictor:
    """The velocity of a job's sections: `begin` a section, then call with what it is told, latents and a noise level.

    `wrap` is called anew for each section, each voice and each branch of guidance, so that what it keeps belongs to one
    of them alone.
    """

    def __init__(
        self,
        transformer: Any,
        *,
        guidance: float,
        cfg_scale: float = 1.0,
        cfg_rescale: float = 0.0,
        attention_kwargs: Mapping[str, Any] | None = None,
        wrap: Wrap | None = None,
    ) -> None:
        self.transformer, self.guidance = transformer, guidance
        self.cfg_scale, self.cfg_rescale = cfg_scale, cfg_rescale
        self.attention_kwargs, self.wrap = attention_kwargs, wrap
        self.revision = adapters.revision(transformer)
        self.texts: dict[tuple[int, int], Known] = {}
        self.begun: dict[frozenset[int], Begun] = {}
        """The section's sight, by what is hidden of it; all of them read the same history."""
        self._source: tuple[Section, Readable] | None = None
        self._wrapped: dict[int, Velocity] = {}
        self._current: dict[int, Branch] = {}
        self.levels: Sequence[float] = ()
        """The noise levels of the section's steps, as far as they are known."""

    def begin(self, section: Section, history: Readable) -> None:
        """Read what the section sees. Raises JobError for clean frames at a scale that the transformer cannot take."""
        check_scales(section.slots)
        self._source, self.begun, self._wrapped, self._current = (section, history), {}, {}, {}
        self._begun(EVERYTHING)

    def _begun(self, hidden: frozenset[int]) -> Begun:
        """The section without the frames that are hidden, read at the first use."""
        if self._source is None:
            raise RuntimeError("Predictor.begin(section, history) comes before the first step.")
        if hidden not in self.begun:
            section, history = self._source
            seen = Without(history, hidden) if hidden else history
            clean = {
                scale: (self._placed(seen.read(slot)), slot.times) for scale, slot in section.slots.items()
            }
            self.begun[hidden] = Begun(section.times, clean, self._beyond(section.far, history))
        return self.begun[hidden]

    def _beyond(self, far: Far | None, history: Readable) -> Beyond | None:
        if far is None:
            return None
        check_far(self.transformer)
        latents = history.far(far)
        return Beyond(self._placed(latents), (far.time,) * latents.shape[2], far.scale)

    def __call__(
        self, text: Text, negative: Text | None, image_states: Any, latents: Any, sigma: float
    ) -> Any:
        """The velocity (B, C, T, H, W), float32; with classifier-free guidance if there is a negative prompt."""
        return self.mixed([Voice(1.0, text, image_states)], negative, latents, sigma)

    def mixed(self, voices: Sequence[Voice], negative: Text | None, latents: Any, sigma: float) -> Any:
        """The mixture (B, C, T, H, W), float32, of what the voices' velocities are, each with guidance of its own."""
        self._forget_what_adapters_changed()
        # At every step: a hook may be added between two of them.
        opens = isinstance(self.transformer, HunyuanVideoFramepackTransformer3DModel)
        opens = opens and is_untouched(self.transformer)
        branches = [self._branches(voice, negative, opens) for voice in voices]
        if opens:
            self._keep([branch for each in branches for branch in each])

        def velocity(place: int, voice: Voice) -> Any:
            asked = enumerate(branches[place], place * len(branches[place]))
            found, *against = (self._asked(number, branch)(latents, sigma) for number, branch in asked)
            if against:
                found = cfg(found, against[0], self.cfg_scale, self.cfg_rescale)
            return runtime.place(found, dtype="float32")

        scale = self.attention_kwargs if opens else None
        with runtime.no_grad(), adapters.scaled(self.transformer, scale):
            return mixed(voices, velocity)

    def _branches(self, voice: Voice, negative: Text | None, opens: bool) -> list[Branch]:
        """The branches of guidance of one voice."""
        told = [voice.text] if negative is None else [voice.text, negative]
        begun = self._begun(voice.hidden)
        return [Branch(begun, text, voice.image_states, opens) for text in told]

    def _asked(self, number: int, branch: Branch) -> Velocity:
        """The velocity of a branch, wrapped if there is a `wrap`; the wrapper lives as long as the section."""
        current = self._current
        current[number] = branch
        if self.wrap is None:
            return partial(self._velocity, current, number)
        if number not in self._wrapped:
            self._wrapped[number] = self.wrap(partial(self._velocity, current, number))
        return self._wrapped[number]

    def _velocity(self, current: Mapping[int, Branch], number: int, latents: Any, sigma: float) -> Any:
        """The velocity for what the branch is told at this step, which a callback may have changed."""
        branch = current[number]
        latents = runtime.place(latents, dtype=self.transformer.dtype)
        return (self._opened if branch.opens else self._whole)(branch, latents, sigma)

    def _opened(self, branch: Branch, latents: Any, sigma: float) -> Any:
        network, begun = self.transformer, branch.begun
        known = self._known(branch)
        if begun.context is None:
            begun.context = network.context(tuple(latents.shape), begun.times, begun.clean, begun.beyond)
        if branch.key not in begun.sights:
            begun.sights[branch.key] = network.sight(begun.context, known.prompted)
        if sigma not in known.moments:
            self._add_moments(known, begun, latents, sigma)
        moment = known.moments[sigma]
        tokens = network.tokens(latents, moment, begun.context, begun.sights[branch.key])
        complete = moment.modulations is not None and len(moment.modulations) == len(network.blocks)
        with needing(network, REST if complete else ALL):
            window = network.run_blocks(tokens)
        return network.head(window, tokens)

    def _add_moments(self, known: Known, begun: Begun, latents: Any, sigma: float) -> None:
        """The moment of this noise level; where blocks come one by one, those of all the section's levels at once.

        Their modulations are made in one pass then, and no later pass needs the weights that made them.
        """
        network = self.transformer
        brought = any(getattr(walk, "brings", False) for walk in network.walks)
        missing = [each for each in self.levels if each not in known.moments]
        levels = missing if brought and sigma in missing else [sigma]
        for each in levels:
            timestep, guidance = self._levels(begun, latents, each)
            known.moments[each] = network.moment(known.prompted, timestep, guidance, keep=True)
        if brought:
            network.modulate([known.moments[each] for each in levels])

    def _whole(self, branch: Branch, latents: Any, sigma: float) -> Any:
        text, begun = branch.text, branch.begun
        timestep, guidance = self._levels(begun, latents, sigma)
        if begun.slots is None:
            begun.slots = {"indices_latents": _times(begun.times)}
            for scale, (clean, times) in begun.clean.items():
                begun.slots |= {SLOTS[scale]: clean, f"indices_{SLOTS[scale]}": _times(times)}
            if begun.beyond is not None:
                begun.slots |= {
                    "latents_beyond": begun.beyond.latents,
                    "indices_latents_beyond": _times(begun.beyond.times),
                    "scale_beyond": begun.beyond.scale,
                }
        return self.transformer(
            hidden_states=latents,
            timestep=timestep,
            encoder_hidden_states=text.states,
            encoder_attention_mask=text.mask,
            pooled_projections=text.pooled,
            image_embeds=branch.image_states,
            guidance=guidance,
            attention_kwargs=None if self.attention_kwargs is None else dict(self.attention_kwargs),
            return_dict=False,
            **begun.slots,
        )[0]

    def _keep(self, branches: Sequence[Branch]) -> None:
        """Forget texts that are no longer asked for."""
        keys = {branch.key for branch in branches}
        self.texts = {key: known for key, known in self.texts.items() if key in keys}
        for begun in self.begun.values():
            begun.sights = {key: sight for key, sight in begun.sights.items() if key in keys}

    def _known(self, branch: Branch) -> Known:
        """The results for the branch's text, computed at its first use."""
        if branch.key not in self.texts:
            text = branch.text
            made = self.transformer.prompted(text.states, text.mask, text.pooled, branch.image_states)
            self.texts[branch.key] = Known(branch, made)
        return self.texts[branch.key]

    def forget(self) -> None:
        """Forget all results, which may be on a device without room for them."""
        self.texts.clear()
        self._source, self.begun, self._wrapped, self._current = None, {}, {}, {}

    def _forget_what_adapters_changed(self) -> None:
        """Forget all results if adapters have changed: a callback may weigh or remove them between two steps."""
        revision = adapters.revision(self.transformer)
        if revision != self.revision:
            self.revision = revision
            self.texts.clear()
            for begun in self.begun.values():
                begun.context = None
                begun.sights.clear()

    def _levels(self, begun: Begun, latents: Any, sigma: float) -> tuple[Any, Any]:
        """Timestep and guidance (B,), in thousandths."""
        batch = latents.shape[0]
        # Never in the transformer's own dtype: bfloat16 is up to 2 off near 1000.
        timestep = ops.from_numpy(np.full(batch, sigma * 1000, dtype=np.float32))
        if begun.guidance is None:
            scale = ops.from_numpy(np.full(batch, self.guidance, dtype=np.float32))
            # In thousandths after the cast, as the models were trained: bfloat16 makes 9 into 9024.
            begun.guidance = runtime.place(scale, latents.device, self.transformer.dtype) * 1000.0
        return runtime.place(timestep, latents.device), begun.guidance

    def _placed(self, array: np.ndarray) -> Any:
        network = self.transformer
        return runtime.place(ops.from_numpy(array), exchange.device_of(network), network.dtype)


def check_far(transformer: Any) -> None:
    """Raise JobError if the transformer cannot see what lies beyond the packed frames."""
    if not isinstance(transformer, HunyuanVideoFramepackTransformer3DModel):
        raise JobError(
            "The plan keeps what lies beyond its packed frames, which longtake's own transformer can see; this is a "
            f"{type(transformer).__name__} of another make: take a plan that deletes it (td)."
        )


class Begun:
    """One section, as a voice sees it, and what is computed once for it."""

    def __init__(
        self,
        times: tuple[int, ...],
        clean: dict[int, tuple[Any, tuple[int, ...]]],
        beyond: Beyond | None = None,
    ) -> None:
        self.times, self.clean, self.beyond = times, clean, beyond
        self.context: Context | None = None
        self.guidance: Any = None
        self.slots: dict[str, Any] | None = None
        self.sights: dict[tuple[int, int], Sight] = {}


class Branch:
    """One of guidance's two branches at one step: what it is told, and whether the transformer may be opened."""

    def __init__(self, begun: Begun, text: Text, image_states: Any, opens: bool) -> None:
        self.begun, self.text, self.image_states, self.opens = begun, text, image_states, opens
        self.key = (id(text), id(image_states))


class Known:
    """The results for one text."""

    def __init__(self, branch: Branch, prompted: Prompted) -> None:
        # Held, so that no other text can take their identity.
        self.held = (branch.text, branch.image_states)
        self.prompted = prompted
        self.moments: dict[float, Moment] = {}


def _times(times: Sequence[int]) -> Any:
    # On the CPU: they become angles there, and the accelerator need not be waited for.
    return ops.from_numpy(np.asarray(times, dtype=np.int64))
