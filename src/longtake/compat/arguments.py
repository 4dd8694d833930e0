"""The arguments of a call by the field's names, checked and turned into a job and its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from longtake.compat.outputs import OUTPUTS
from longtake.errors import JobError, JobTypeError
from longtake.option import TEXT, check_text
from longtake.pipeline.prepare import Text
from longtake.plan.plans import kind_named

SAMPLINGS = {"inverted_anti_drifting": "inverted"}
"""Plans that have another name in the field."""
CALLBACK_INPUTS = ("latents", "prompt_embeds")


class FramepackSamplingType(str, Enum):
    """The sampling types by their names in the field."""

    VANILLA = "vanilla"
    INVERTED_ANTI_DRIFTING = "inverted_anti_drifting"


@dataclass(frozen=True)
class Side:
    """One side of the text, positive or negative: prompts as they were given, or their encodings, or parts of both."""

    prompt: Any = None
    prompt_2: Any = None
    text: Text = field(default_factory=Text)
    prefix: str = ""
    """It begins the names of this side's arguments."""

    def __post_init__(self) -> None:
        name, text = self.prefix, self.text
        if text.states is not None and (self.prompt is not None or self.prompt_2 is not None):
            raise JobError(f"Give either {name}prompt (and {name}prompt_2) or {name}prompt_embeds, not both.")
        if text.states is not None and (text.mask is None or text.pooled is None):
            missing = "prompt_attention_mask" if text.mask is None else "pooled_prompt_embeds"
            raise JobError(
                f"{name}prompt_embeds need {name}{missing} beside them; encode_prompt returns all three."
            )
        if text.states is None and text.mask is not None:
            raise JobError(f"{name}prompt_attention_mask belongs to {name}prompt_embeds, and there are none.")
        _texts(self.prompt, f"{name}prompt")
        _texts(self.prompt_2, f"{name}prompt_2")

    @property
    def prompts(self) -> tuple[str, ...] | None:
        """The prompts for Llama."""
        return _texts(self.prompt, "prompt")

    @property
    def prompts_2(self) -> tuple[str, ...] | None:
        """The prompts for CLIP."""
        return _texts(self.prompt_2, "prompt_2")

    @property
    def given(self) -> bool:
        """There is something to say."""
        return self.prompt is not None or self.text.states is not None


def plan_name(sampling_type: Any) -> str:
    """The plan of a sampling type: by its name in the field, or by ours."""
    name = str(getattr(sampling_type, "value", sampling_type))
    name = SAMPLINGS.get(name, name)
    try:
        kind_named(name)
    except JobError as error:
        known = ", ".join(kind.value for kind in FramepackSamplingType)
        raise JobError(f"No sampling_type {sampling_type!r} ({known}): {error}") from None
    return name


def check_call(output_type: Any, callback_inputs: Iterable[str], template: Any, videos: Any) -> None:
    """Raise JobError for an argument that no job has and that cannot be met."""
    if output_type not in OUTPUTS:
        raise JobError(f"No output_type {output_type!r}; there are: {', '.join(OUTPUTS)}.")
    foreign = [name for name in callback_inputs if name not in CALLBACK_INPUTS]
    if foreign:
        raise JobError(f"A callback cannot have {foreign[0]!r}; it can have {' and '.join(CALLBACK_INPUTS)}.")
    if template is not None and not (
        isinstance(template, Mapping) and "{}" in str(template.get("template", ""))
    ):
        raise JobError("prompt_template is a dict with a key 'template' with {} in the prompt's place.")
    if videos is not None and (not isinstance(videos, int) or videos < 1):
        raise JobError(f"num_videos_per_prompt must be at least 1; {videos!r} was asked for.")


def _texts(value: Any, name: str) -> tuple[str, ...] | None:
    """One text or several as a tuple."""
    if value is None:
        return None
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not texts:
        raise JobTypeError(f"A {name} is a text or a list of texts, not {type(value).__name__}.")
    for text in texts:
        check_text(f"A {name}", text, 0, TEXT)
    return tuple(texts)
