"""The transformer's velocity at each step, with whatever comes back computed once.

Refined text and all modulations depend on prompt and timestep: once a job. Packed history, rotary tables, masks: once
a section. At 13B the modulations' weights are 6.8 GB in bfloat16, which then are read once per timestep of a job and
not at every step of every section. A transformer of the field is called as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from longtake.backend import exchange, ops, runtime
from longtake.job import Job
from longtake.models import adapters
from longtake.models.transformer import (
    SLOTS,
    Context,
    HunyuanVideoFramepackTransformer3DModel,
    Moment,
    Prompted,
)
from longtake.pipeline.prepare import Conditioning, Text
from longtake.plan.history import History
from longtake.plan.plans import Section
from longtake.sampling.guidance import cfg


class Predictor:
    """The velocity of one job's sections: `begin` a section, then call with latents and a noise level."""

    def __init__(self, job: Job, transformer: Any, attention_kwargs: dict[str, Any] | None = None) -> None:
        self.job, self.transformer, self.attention_kwargs = job, transformer, attention_kwargs
        self.opens = isinstance(transformer, HunyuanVideoFramepackTransformer3DModel)
        self.times: tuple[int, ...] = ()
        self.clean: list[tuple[Any, Sequence[int]]] = []
        self.texts: dict[int, Known] = {}
        self.revision = adapters.revision(transformer)

    def begin(self, section: Section, history: History) -> None:
        """Read what the section sees."""
        self.times = section.times
        self.clean = [(self._placed(history.read(slot)), slot.times) for slot in section.slots]
        for known in self.texts.values():
            known.context = None

    def __call__(self, conditioning: Conditioning, latents: Any, sigma: float) -> Any:
        """The velocity (B, C, T, H, W), float32, with classifier-free guidance where there is a negative prompt."""
        self._forget_what_adapters_changed()
        with (
            runtime.no_grad(),
            adapters.scaled(self.transformer, self.attention_kwargs if self.opens else None),
        ):
            texts = [text for text in (conditioning.text, conditioning.negative) if text is not None]
            velocity, *against = (self._velocity(text, texts, conditioning, latents, sigma) for text in texts)
            if against:
                velocity = cfg(velocity, against[0], self.job.cfg_scale, self.job.cfg_rescale)
            return runtime.place(velocity, dtype="float32")

    def _forget_what_adapters_changed(self) -> None:
        """A callback may weigh or remove adapters between two steps."""
        revision = adapters.revision(self.transformer)
        if revision != self.revision:
            self.revision = revision
            self.texts.clear()

    def _velocity(
        self, text: Text, current: list[Text], conditioning: Conditioning, latents: Any, sigma: float
    ) -> Any:
        latents = runtime.place(latents, dtype=self.transformer.dtype)
        if not self.opens:
            return self._call(text, conditioning, latents, sigma)
        network = self.transformer
        known = self._known(text, current, conditioning)
        if known.context is None:
            known.context = network.context(tuple(latents.shape), self.times, self.clean, known.prompted)
        if sigma not in known.moments:
            timestep, guidance = self._levels(latents, sigma)
            known.moments[sigma] = network.moment(known.prompted, timestep, guidance)
        tokens = network.tokens(latents, known.context, known.moments[sigma])
        return network.head(network.run_blocks(tokens), tokens)

    def _known(self, text: Text, current: list[Text], conditioning: Conditioning) -> Known:
        """What was computed for a text; texts that are no longer asked for are forgotten."""
        found = self.texts.get(id(text))
        if found is None:
            self.texts = {id(one): self.texts[id(one)] for one in current if id(one) in self.texts}
            prompted = self.transformer.prompted(
                text.states, text.mask, text.pooled, conditioning.image_states
            )
            found = self.texts[id(text)] = Known(text, prompted)
        return found

    def _call(self, text: Text, conditioning: Conditioning, latents: Any, sigma: float) -> Any:
        timestep, guidance = self._levels(latents, sigma)
        slots: dict[str, Any] = {}
        for name, (clean, times) in zip(SLOTS.values(), self.clean, strict=True):
            slots[name], slots[f"indices_{name}"] = clean, _times(times)
        return self.transformer(
            hidden_states=latents,
            timestep=timestep,
            encoder_hidden_states=text.states,
            encoder_attention_mask=text.mask,
            pooled_projections=text.pooled,
            image_embeds=conditioning.image_states,
            indices_latents=_times(self.times),
            guidance=guidance,
            attention_kwargs=self.attention_kwargs,
            return_dict=False,
            **slots,
        )[0]

    def _levels(self, latents: Any, sigma: float) -> tuple[Any, Any]:
        """Timestep and guidance (B,), in thousandths."""
        batch = latents.shape[0]
        # Never in the transformer's own dtype: bfloat16 is up to 2 off near 1000.
        timestep = ops.from_numpy(np.full(batch, sigma * 1000, dtype=np.float32))
        scale = ops.from_numpy(np.full(batch, self.job.guidance, dtype=np.float32))
        # In thousandths after the cast, as the models were trained: bfloat16 makes 9 into 9024.
        guidance = runtime.place(scale, latents.device, self.transformer.dtype) * 1000.0
        return runtime.place(timestep, latents.device), guidance

    def _placed(self, array: np.ndarray) -> Any:
        return runtime.place(
            ops.from_numpy(array), exchange.device_of(self.transformer), self.transformer.dtype
        )


class Known:
    """What was computed for one text."""

    def __init__(self, text: Text, prompted: Prompted) -> None:
        self.text = text  # held, so that no other text can take its identity
        self.prompted = prompted
        self.context: Context | None = None
        self.moments: dict[float, Moment] = {}


def _times(times: Sequence[int]) -> Any:
    # On the CPU: they become angles there, and the accelerator need not be waited for.
    return ops.from_numpy(np.asarray(times, dtype=np.int64))
