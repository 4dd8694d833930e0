"""The steps of a call: its callback, progress bars and interrupt, and the guard against other calls."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np

from longtake.backend import exchange, ops, runtime
from longtake.compat.arguments import CALLBACK_INPUTS
from longtake.compat.outputs import Collected
from longtake.errors import JobError, LongtakeWarning
from longtake.events import Encoded, Planned, SectionDone, Stepped
from longtake.pipeline.denoise import Change
from longtake.pipeline.loop import Events, advance

Callback = Callable[..., Any] | None

# Pipelines and schedulers that a call uses now, in any thread, by their ids: what they hold is one call's.
_busy: set[int] = set()
_lock = Lock()


def run(
    pipe: Any,
    events: Events,
    collected: Collected,
    callback: Callback,
    inputs: Sequence[str],
    quiet: bool,
) -> None:
    """Run the loop to its end, or until `pipe.interrupt` is set.

    `inputs` are what the callback asks for; `quiet`: another length than asked for is as expected.
    """
    change: Change | None = None
    bar: Any = None
    states: Any = None
    try:
        while (event := advance(events, change)) is not None:
            change, stops = None, False
            collected.add(event)
            if isinstance(event, Planned):
                pipe._num_timesteps = event.steps
                if event.notice and not quiet:
                    warnings.warn(event.notice, LongtakeWarning, stacklevel=3)
            elif isinstance(event, Encoded) and "prompt_embeds" in inputs:
                states = runtime.place(
                    event.text.states, exchange.device_of(pipe.transformer), pipe.transformer.dtype
                )
            elif isinstance(event, Stepped):
                bar = pipe.progress_bar(total=event.steps) if event.step == 0 else bar
                change = _step_end(pipe, event, callback, inputs, states)
                states = change.prompt_states if change and change.prompt_states is not None else states
                bar.update()
                # After its last step a section is done but for the writing.
                stops = event.step + 1 < event.steps
            elif isinstance(event, SectionDone):
                bar = bar.close()
                stops = True
            if pipe._interrupt and stops:
                change = replace(change or Change(), stop=True)
    finally:
        events.close()
        if bar is not None:
            bar.close()
        pipe._current_timestep = None


def _step_end(
    pipe: Any, event: Stepped, callback: Callback, inputs: Sequence[str], states: Any
) -> Change | None:
    """Call back after a step; returns the `Change` asked for, in the place and the dtype of what it replaces."""
    pipe._current_timestep = ops.from_numpy(np.asarray([event.sigma * 1000], dtype=np.float32))[0]
    if callback is None:
        return None
    known = {"latents": event.latents, "prompt_embeds": states}
    answer = callback(pipe, event.step, pipe._current_timestep, {name: known[name] for name in inputs})
    # Unlike the reference: a callback that returns nothing changes nothing (it crashes there).
    if answer is None:
        return None
    if not isinstance(answer, Mapping) or set(answer) - set(CALLBACK_INPUTS):
        found = sorted(answer) if isinstance(answer, Mapping) else type(answer).__name__
        raise JobError(
            f"A callback returns nothing, or a dict of {' and '.join(CALLBACK_INPUTS)}; not {found}."
        )
    placed = {
        name: _in_place_of(known[name], value, name) for name, value in answer.items() if value is not None
    }
    # States that are the same need not be refined again.
    same = placed.get("prompt_embeds") is states
    return Change(placed.get("latents"), None if same else placed.get("prompt_embeds"))


def _in_place_of(known: Any, value: Any, name: str) -> Any:
    """A callback's value in the place and the dtype of `known`, which it replaces; JobError for another shape."""
    if known is None:
        raise JobError(
            f"A callback that changes {name} must ask for it in callback_on_step_end_tensor_inputs."
        )
    value = ops.from_numpy(value) if isinstance(value, np.ndarray) else value
    if tuple(value.shape) != tuple(known.shape):
        raise JobError(
            f"A callback returned {name} of the shape {tuple(value.shape)}; they are {tuple(known.shape)}."
        )
    return runtime.place(value, known.device, known.dtype)


@contextmanager
def alone(pipeline: Any) -> Iterator[None]:
    """Inside, the pipeline makes one video: interrupt, current_timestep and their like are one call's."""
    if not _take(pipeline):
        raise JobError(
            "This pipeline is making a video already; make a second pipeline over the same parts, with from_pipe."
        )
    try:
        yield
    finally:
        _give(pipeline)


@contextmanager
def driven(scheduler: Any) -> Iterator[Any]:
    """The scheduler itself, so that callbacks see its place; a copy while another pipeline drives it."""
    if scheduler is None:
        yield None
    elif not _take(scheduler):
        yield copy.deepcopy(scheduler)
    else:
        try:
            yield scheduler
        finally:
            _give(scheduler)


def _take(thing: Any) -> bool:
    """Mark an object as in use; False if another call uses it."""
    with _lock:
        free = id(thing) not in _busy
        _busy.add(id(thing))
    return free


def _give(thing: Any) -> None:
    with _lock:
        _busy.discard(id(thing))
