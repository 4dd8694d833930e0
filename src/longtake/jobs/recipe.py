"""The recipe of a section: a hash of all that decides its latents.

These are the job, the model, the form of its networks, the pictures, what this very section is told, and the recipes
of the sections that it sees. What does not decide them is left out: how frames are decoded, how long the video is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from longtake.job import Job
from longtake.plan.layout import Far
from longtake.plan.plans import Plan, Section
from longtake.plan.timeline import Direction, Voice, direct
from longtake.sampling.ways import wanted_of

# Of a job's fields, what decides no section's latents, or stands in the recipe already: in the form of the networks
# (dtype, quantize), in the fingerprint (model, parts), in the section's frames and times, or in what it is told.
_ELSEWHERE = frozenset(
    {"frames", "fps", "keyframes", "model", "parts", "dtype", "decoding", "sampling", "window"}
    | {"prompt", "prompts", "seed", "loras", "changes", "quantize", "blend", "loop", "unforeseen", "origin"}
    # What is seen of a clip is a fact, and its name is none.
    | {"clip"}
)
# Fields that earlier versions did not have: at their default the recipe is what it was then.
_LATER = {
    field.name: field.default
    for field in dataclasses.fields(Job)
    if field.name in ("cache", "history", "from_text")
}


class Recipes:
    """The recipe of each section, by its place in the video; found up to the section that is asked for.

    `facts` are what lies outside of the job: the fingerprints of the model and the LoRAs, the form, the pictures that
    decide all sections. `pictures` are the hashes of the others by latent frame: each decides the sections that see it.
    """

    def __init__(
        self, job: Job, plan: Plan, facts: Mapping[str, Any], pictures: Mapping[int, str] | None = None
    ) -> None:
        self.plan, self._pictures = plan, dict(pictures or {})
        self._job, self._facts = job, facts
        own = {
            name: value
            for name, value in job.values().items()
            if name not in _ELSEWHERE and not (name in _LATER and value == _LATER[name])
        }
        self._base = _hash({**own, **facts})
        # Behind a key frame there may be sections that the first picture does not decide.
        self._apart = _hash({**own, **facts, "pictures": []})
        # Places count from the frame that the job began with: whole windows may have been put before it since.
        self._before = job.window * job.origin
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

    def of(self, job: Job) -> Recipes:
        """The recipes of another job of the same length, whose pictures, model and form are the same."""
        return Recipes(job, self.plan, self._facts, self._pictures)

    def given(self, frame: int) -> str:
        """A hash of what decides the latents of a picture: itself, and the noise that they are drawn by."""
        known = self._pictures.get(frame) or self._facts.get("pictures")
        return _hash([known, self._job.seed, self._base])

    def behind(self, number: int) -> set[int]:
        """The numbers of all sections that decide the one at this place: those that it sees, and what these see."""
        place = self.plan.made_at(number)
        if self._follows:
            return {self.plan[made].number for made in range(place)}
        found = {number}
        for made in range(place, -1, -1):
            section = self.plan[made]
            if section.number in found:
                found.update(self.plan.sources(section))
        return found - {number}

    def _recipe(self, section: Section, made: int) -> str:
        told = direct(self._job, self.plan, section.number)
        slots = [(slot.scale, self._places(slot.frames), slot.times) for slot in section.slots.values()]
        drawn = self._job.drawn(section.number)
        place: list[Any] = [drawn, self._places(section.frames), section.times, slots]
        seen = [self._found[number] for number in self.plan.sources(replace(section, far=None))]
        if section.far is not None:
            far = section.far
            start, stop = self._places((far.frames.start, far.frames.stop))
            place.append([far.scale, start, stop, far.time, far.appended])
            seen += self._beyond(far)
        if self._follows and made:
            seen.append(self._found[self.plan[made - 1].number])
        # What is done to the history may go by the first picture, wherever a section lies.
        whole = self._is_one or self._job.history or 0 in _given(section, {0})
        base = self._base if whole else self._apart
        more = self._more(section, told)
        return _hash([base, place, [told.prompt, told.seed, told.strengths], seen, *([more] if more else [])])

    @property
    def _is_one(self) -> bool:
        """Tell if the video is one stretch, as videos were before there were key frames."""
        return self.plan.starts == (0,)

    def _more(self, section: Section, told: Direction) -> dict[str, Any]:
        """The rest that a section is told, if it is: mixtures, and pictures that others are not told of."""
        more: dict[str, Any] = {}
        if told.voices != (Voice(1.0, told.prompt),):
            more["voices"] = [dataclasses.astuple(voice) for voice in told.voices]
        given = sorted(_given(section, self._pictures))
        if given:
            more["given"] = [[frame, self._pictures[frame]] for frame in given]
        if section.pictures != (self.plan.anchors if self._is_one else (0,)):
            more["pictures"] = self._places(section.pictures)
        return more

    def _places(self, frames: Sequence[int | None]) -> list[int | None]:
        """Latent frames as they count for a section; the picture, 0, is wherever the video begins."""
        return [frame and frame - self._before for frame in frames]

    def _beyond(self, far: Far) -> list[str]:
        """One hash for all sections up to the last of those that the far end is made of."""
        makers = [self.plan.maker(frame) for frame in (*far.frames[:1], *far.frames[-1:])]
        made = [self.plan.made_at(number) for number in makers if number is not None]
        return [self._chain[max(made)]] if made else []


def _given(section: Section, frames: Collection[int]) -> set[int]:
    """Those of these frames that a section sees, or is told of."""
    seen = {frame for slot in section.slots.values() for frame in slot.frames}
    return {frame for frame in (*seen, *section.pictures) if frame in frames and frame is not None}


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
