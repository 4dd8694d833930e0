"""The recipe of a section: a hash of all that decides its latents.

These are the job, the model, the form of its networks, the pictures, what this very section is told, and the recipes
of the sections that it sees. What does not decide them is left out: how frames are decoded, how long the video is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from longtake.job import Job
from longtake.plan.layout import Far
from longtake.plan.plans import Plan, Section
from longtake.plan.timeline import direct
from longtake.sampling.ways import wanted_of

# Of a job's fields, what decides no section's latents, or stands in the recipe already: in the form of the networks
# (dtype, quantize), in the fingerprint (model, parts), in the section's frames and times, or in what it is told.
_ELSEWHERE = frozenset(
    {"frames", "fps", "keyframes", "model", "parts", "dtype", "decoding", "sampling", "window"}
    | {"prompt", "prompts", "seed", "loras", "changes", "quantize", "blend", "loop", "unforeseen"}
)
# Fields that earlier versions did not have: at their default the recipe is what it was then.
_LATER = {
    field.name: field.default
    for field in dataclasses.fields(Job)
    if field.name in ("cache", "history", "clip", "from_text")
}


class Recipes:
    """The recipe of each section, by its place in the video; found up to the section that is asked for.

    `facts` are what lies outside of the job: the fingerprints of the model and the LoRAs, the form, the pictures.
    """

    def __init__(self, job: Job, plan: Plan, facts: Mapping[str, Any]) -> None:
        self.plan = plan
        self._job = job
        own = {
            name: value
            for name, value in job.values().items()
            if name not in _ELSEWHERE and not (name in _LATER and value == _LATER[name])
        }
        self._base = _hash({**own, **facts})
        # Its state is a function of all sections that were made before, seen or not.
        self._follows = wanted_of(job.history, "adaptive") is not None
        self._found: dict[int, str] = {}
        # Of all sections up to each place in the order of generation: a far end is made of many.
        self._chain: list[str] = []

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and 0 <= number < self.plan.count

    def __getitem__(self, number: int) -> str:
        """The recipe of the section at this place in the video."""
        # What a section sees was made before it.
        for made in range(len(self._found), self.plan.made_at(number) + 1):
            section = self.plan[made]
            self._found[section.number] = self._recipe(section, made)
            self._chain.append(_hash([self._chain[-1:], self._found[section.number]]))
        return self._found[number]

    def _recipe(self, section: Section, made: int) -> str:
        told = direct(self._job, self.plan, section.number)
        slots = [(slot.scale, slot.frames, slot.times) for slot in section.slots.values()]
        place: list[Any] = [section.number, section.frames, section.times, slots]
        seen = [self._found[number] for number in self.plan.sources(replace(section, far=None))]
        if section.far is not None:
            far = section.far
            place.append([far.scale, far.frames.start, far.frames.stop, far.time, far.appended])
            seen += self._beyond(far)
        if self._follows and made:
            seen.append(self._found[self.plan[made - 1].number])
        return _hash([self._base, place, [told.prompt, told.seed, told.strengths], seen])

    def _beyond(self, far: Far) -> list[str]:
        """One hash for all sections up to the last of those that the far end is made of."""
        makers = [self.plan.maker(frame) for frame in (*far.frames[:1], *far.frames[-1:])]
        made = [self.plan.made_at(number) for number in makers if number is not None]
        return [self._chain[max(made)]] if made else []


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
