"""The parts of a model within an allowance of memory: one makes room for the next, and large ones come block by block.

Which part lies where is computed (`longtake.pipeline.budget`) for each job as it begins, from what is allowed or, if
nothing was said, from what is free. If memory ends all the same, `smaller` takes the next smaller layout.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from longtake.backend import exchange, modules, runtime, transfer
from longtake.errors import BackendError, JobError, MemoryRunError
from longtake.events import Moved
from longtake.machine import is_cpu
from longtake.models.pretrained import Mapped, PretrainedModel
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.pipeline import budget
from longtake.pipeline.allowance import free_memory
from longtake.pipeline.budget import GB, RESERVE, Layout, gigabytes, lay_out
from longtake.pipeline.carried import Carried, is_apart
from longtake.pipeline.sizes import NETWORKS, STREAMED, WIDTHS, Sizes, Tensor, sizes_of
from longtake.pipeline.working import Work

Form = Callable[[Layout], Layout]
"""Changes what was computed to what was asked for by another name (the field's `enable_…_offload`)."""

TABLES = ("embed_tokens.weight",)
"""Weights that stay in main memory, for their rows are read there."""
PLENTY = 100_000.0
"""Gigabytes of a device that does not tell how many it has."""
SHARE = 0.97
"""Of what is free, so much is taken."""


class Placed:
    """The places of a model's networks: `using` brings one of them to `device`, and others make room.

    Networks that are not longtake's own stay where they are. `vram` and `memory` are gigabytes that must not be
    exceeded, None what is free when a job begins. One job computes at a time.
    """

    def __init__(
        self,
        parts: Mapping[str, Any],
        device: Any,
        vram: float | None = None,
        memory: float | None = None,
        form: Form | None = None,
    ) -> None:
        self.device, self.vram, self.memory, self.form = device, vram, memory, form
        self.parts = {name: parts[name] for name in NETWORKS if isinstance(parts.get(name), PretrainedModel)}
        self.sizes = {name: measured(name, network) for name, network in self.parts.items()}
        self.work = Work()
        self.layout: Layout | None = None
        self._learned: float | None = None
        self._lock = threading.RLock()
        self._order: list[str] = []
        self._carried: dict[str, Carried] = {}
        for network in self.parts.values():
            if not transfer.lies_on(modules.placed(network), "cpu"):
                exchange.move(network, "cpu")
        layout = self._computed(self.work)
        for name, network in self.parts.items():
            # On a CPU there is nothing to bring but what is to be converted.
            if not self._on_cpu or network.apart:
                if name == "text_encoder" and not network.apart:
                    network.apart = frozenset(key for key in TABLES if key in runtime.named_weights(network))
                self._carried[name] = Carried(network, layout.parts[name], device)
                self._carried[name].placed = self
                modules.note_place(network, device, network.dtype)
        self._take(layout)

    @property
    def _on_cpu(self) -> bool:
        return is_cpu(self.device)

    def using(self, part: str, network: Any) -> AbstractContextManager[Any]:
        """Inside, the network is ready to run, and no other is used by another thread; gives the network."""
        carried = self._carried.get(part)
        if carried is None or carried.network is not network:
            return nullcontext(network)
        return self._using(part, carried)

    @contextmanager
    def _using(self, part: str, carried: Carried) -> Iterator[Any]:
        with self._lock:
            self._make_room(part)
            carried.enter()
            try:
                yield carried.network
            finally:
                carried.leave()
                if self._on_cpu and part != "transformer" and carried.lies.how == "streamed":
                    carried.drop()  # its buffer; what runs once a prompt need not hold one

    def prepare(self, work: Work) -> tuple[str, ...]:
        """Choose what lies where for a job; in words, if it is not everything where it would be anyway.

        Raises JobError if the job cannot be done within what is allowed.
        """
        with self._lock:
            # Their dtype or form may be another since.
            self.sizes = {name: measured(name, network) for name, network in self.parts.items()}
            layout = self._computed(work)
            if layout.lacking and (self.vram is not None or self.memory is not None):
                raise JobError(f"{layout.lacking[0][0].upper()}{layout.lacking[0][1:]}.")
            self.work = work
            self._take(layout)
            return () if layout.is_plain else (*layout.sentences, *layout.lacking)

    def smaller(self) -> str | None:
        """Take the next smaller layout, since this did not fit; in words. None if it was asked for, or is the least."""
        with self._lock:
            if self.vram is not None or self.form is not None or self.layout is None:
                return None
            other = budget.smaller(self.layout, self.sizes, self.work)
            if other is None:
                return None
            self._learned = None if other.vram is None else other.vram / GB
            self._take(other)
            return f"memory ended on {self.device}; it goes on with less there: {'; '.join(other.sentences)}"

    def tried(self) -> str:
        """The layout when memory ended, and one that would fit: the end of an error's sentence."""
        if self.layout is None:
            return ""
        lay = "; ".join(self.layout.sentences)
        less = budget.smaller(self.layout, self.sizes, self.work)
        cure = (
            f"vram {less.device_peak / GB:.1f} GB would lie as: {'; '.join(less.sentences)}" if less else ""
        )
        known = self.layout.vram is not None and self.layout.vram < PLENTY * GB
        allowed = f" with {gigabytes(self.layout.vram or 0)} of {self.device}" if known else ""
        return f" It was tried{allowed}: {lay}." + (f" A smaller allowance may do: {cure}." if cure else "")

    def drop(self) -> None:
        """Free the device of all that was left there for the next use."""
        with self._lock:
            for carried in self._carried.values():
                if not carried.depth:
                    carried.drop()

    def release(self) -> None:
        """End: all networks are ordinary ones in main memory again."""
        with self._lock:
            for carried in self._carried.values():
                carried.release()
            if self.vram is not None:
                transfer.limit_memory(self.device, None)
            self._tile(None)
            self._carried.clear()

    def peak(self) -> int:
        """Bytes of the device that all networks take at this moment."""
        return sum(carried.taken for carried in self._carried.values())

    # What lies where --------------------------------------------------------------------------------------------------

    def _computed(self, work: Work) -> Layout:
        memory = self.memory
        if memory is None:
            free = free_memory()
            memory = None if free is None else SHARE * free / GB
        found = lay_out(self.sizes, work, self._allowed(), memory, str(self.device))
        return found if self.form is None else self.form(found)

    def _allowed(self) -> float | None:
        """Gigabytes of the device; None if it is the CPU."""
        if self._on_cpu:
            return None
        if self.vram is not None:
            return self.vram
        known = transfer.device_memory(self.device)
        here = sum(carried.taken for carried in self._carried.values())
        free = PLENTY if known is None else SHARE * (known[0] + here + RESERVE) / GB
        return free if self._learned is None else min(free, self._learned)

    def _take(self, layout: Layout) -> None:
        for name, carried in self._carried.items():
            carried.relay(layout.parts[name])
        self._tile(layout.tile)
        if self.vram is not None and layout.vram is not None:
            transfer.limit_memory(self.device, layout.vram)
        self.layout = layout

    def _tile(self, tile: tuple[int, int] | None) -> None:
        vae = self.parts.get("vae")
        if isinstance(vae, AutoencoderKLHunyuanVideo):
            vae.decoding_tile = tile

    def _make_room(self, part: str) -> None:
        """Free as much of the device as the part needs, of what was used longest ago first."""
        self._order = [*(name for name in self._order if name != part), part]
        layout = self.layout
        if layout is None or layout.vram is None or layout.together:
            return
        lies = layout.parts[part]
        over = lies.device + lies.working + RESERVE - layout.vram
        for name in self._order[:-1]:
            other = self._carried[name]
            over += other.taken if not other.depth else 0
        for name in self._order[:-1]:
            other, before = self._carried[name], self._carried[name].taken
            if over > 0 and before and not other.depth:
                other.drop(None if self.form is not None else over)
                over -= before - other.taken


def check_vram(vram: float | None, device: Any) -> None:
    """Raise BackendError if a device's memory is limited and the device is the CPU."""
    if vram is not None and is_cpu(device):
        raise BackendError(
            f"vram {vram:g} GB is an accelerator's memory, and the networks run on the CPU here; leave it out."
        )


def left_mapped(part: str, device: Any, dtype: Any, memory: float | None) -> Mapped | None:
    """The weights of a part that stay as their files have them, for a placement to bring; None: all are read at once.

    For an accelerator those of all blocks. On a CPU, where they must be converted and the whole of them is too much.
    """
    on_cpu = is_cpu(device)
    if on_cpu and part not in STREAMED:
        return None
    name = runtime.dtype_name(runtime.dtype(dtype))

    def chosen(weights: Mapping[str, Any]) -> set[str]:
        if on_cpu:
            sizes = {part: sizes_of(part, weights, name)}
            free = SHARE * (free_memory() or 0) / GB if memory is None else memory
            if lay_out(sizes, Work(), None, free or None).parts[part].how != "streamed":
                return set()
        return {name for name in weights if is_apart(part, name)}

    return chosen


def placement_of(parts: Mapping[str, Any]) -> Placed | None:
    """The placement that these networks have already."""
    for network in parts.values():
        for walk in getattr(network, "walks", ()):
            placed = getattr(walk, "placed", None)
            if placed is not None:
                return placed
    return None


def measured(part: str, network: PretrainedModel) -> Sizes:
    """The sizes of a network that is there, as it will compute."""
    kind = runtime.dtype_name(network.dtype)
    weights = {
        name: Tensor(runtime.dtype_name(tensor.dtype), tuple(tensor.shape), transfer.size_of(tensor))
        for name, _, _, tensor in transfer.held(network)
    }
    found = sizes_of(part, weights, kind if network.apart else "auto", config=network.config)
    return replace(found, width=WIDTHS.get(kind, 2))


def less(placement: Any, error: MemoryRunError) -> Moved:
    """Let the parts take less of the device, after this error; raises it, and says what was tried, if they cannot."""
    notice = placement.smaller()
    if notice is None:
        raise explained(error, placement) from error
    return Moved(notice)


def explained(error: MemoryRunError, placement: Any) -> MemoryRunError:
    """The error, with what was tried and what would fit."""
    tried = getattr(placement, "tried", None)
    if tried is None or " It was tried" in str(error):
        return error
    return MemoryRunError(f"{error}{tried()}", error.section, error.step)
