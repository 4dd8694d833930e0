"""The field's names for placements: each is one of ours (`longtake.place`) that does what its name says.

They say how networks lie; `longtake.place(networks, vram_gb=…)` chooses that by itself, from what there is.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from longtake.backend import exchange, runtime, transfer
from longtake.compat.keywords import INTEGRATION
from longtake.errors import BackendError, JobError, LongtakeWarning
from longtake.machine import is_cpu
from longtake.pipeline.budget import RING, Layout, Lies
from longtake.pipeline.networks import NETWORKS
from longtake.pipeline.placed import Form, Placed, placement_of
from longtake.pipeline.sizes import STREAMED


class Offloading:
    """Methods of diffusers' pipeline that say where networks lie while they do not run."""

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: Any = None) -> None:
        """Each network is on the device only while it runs; one at a time, whole."""
        self._place(_accelerator("enable_model_cpu_offload", device, gpu_id), _whole)

    def enable_sequential_cpu_offload(self, gpu_id: int | None = None, device: Any = None) -> None:
        """As little on the device as can be: of the transformer and of Llama one block, and the next on its way.

        Unlike the reference: blocks come one by one, not single layers, so that there is always one on its way.
        """
        self._place(_accelerator("enable_sequential_cpu_offload", device, gpu_id), _by_blocks(RING, "mapped"))

    def enable_group_offload(
        self,
        onload_device: Any,
        offload_device: Any = "cpu",
        offload_type: str = "block_level",
        num_blocks_per_group: int | None = None,
        non_blocking: bool = False,
        use_stream: bool = False,
        record_stream: bool = False,
        low_cpu_mem_usage: bool = False,
        offload_to_disk_path: str | None = None,
        exclude_modules: str | Sequence[str] | None = None,
    ) -> None:
        """Blocks come to the device in a ring as large as a group; with `use_stream` the next group beside it.

        `low_cpu_mem_usage` leaves out the pinned copies. `exclude_modules` are parts that are put on the device and
        stay. `non_blocking` and `record_stream` change nothing: copies never wait for us, and the ring's memory is
        never given back while they run. Networks without such blocks are whole on the device while they run.
        """
        device = _accelerator("enable_group_offload", onload_device, None)
        if str(getattr(offload_device, "type", offload_device)) != "cpu":
            raise JobError(
                f"offload_device is {offload_device}; weights lie in main memory here, so leave it at 'cpu'."
            )
        if offload_to_disk_path is not None:
            raise JobError(
                "offload_to_disk_path would write the weights once more; longtake.load_networks maps them from the "
                f"files that they are in (docs/placement.md), and {INTEGRATION} writes them."
            )
        if use_stream and not transfer.has_streams(device):
            raise JobError(f"use_stream needs a device with streams, and {device} has none; leave it out.")
        count = _group(offload_type, num_blocks_per_group)
        excluded = [exclude_modules] if isinstance(exclude_modules, str) else list(exclude_modules or ())
        unknown = sorted(set(excluded) - set(NETWORKS))
        if unknown:
            raise JobError(f"exclude_modules names {unknown[0]!r}; this pipeline has {', '.join(NETWORKS)}.")
        source = "pinned" if use_stream and not low_cpu_mem_usage else "mapped"
        self._place(device, _by_blocks(count * (2 if use_stream else 1), source), excluded)

    def enable_layerwise_casting(
        self,
        storage_dtype: Any = "float8_e4m3fn",
        compute_dtype: Any = None,
        skip_modules_pattern: str | tuple[str, ...] | None = None,
        skip_modules_classes: tuple[type, ...] | None = None,
        non_blocking: bool = False,
    ) -> None:
        """The transformer's, in whose linear layers nearly all weights are (`Running.enable_layerwise_casting`)."""
        transformer: Any = getattr(self, "transformer", None)
        if transformer is None:
            raise JobError("This pipeline has no transformer whose layers could be cast.")
        transformer.enable_layerwise_casting(
            storage_dtype, compute_dtype, skip_modules_pattern, skip_modules_classes, non_blocking
        )

    def maybe_free_model_hooks(self) -> None:
        """Free the device of what a placement has left there for the next call."""
        placed = self._placed()
        if placed is not None:
            placed.drop()

    def remove_all_hooks(self) -> None:
        """End the placement: all networks are ordinary ones in main memory."""
        placed = self._placed()
        if placed is not None:
            placed.release()

    def reset_device_map(self) -> None:
        """The same, for networks are spread by a placement alone."""
        self.remove_all_hooks()

    def _placed(self) -> Placed | None:
        return placement_of({name: getattr(self, name, None) for name in NETWORKS})

    def _place(self, device: Any, form: Form, excluded: Sequence[str] = ()) -> None:
        self.remove_all_hooks()
        parts = {name: getattr(self, name, None) for name in NETWORKS}
        for name in excluded:
            if parts[name] is not None:
                exchange.move(parts[name], device)
        Placed({name: part for name, part in parts.items() if name not in excluded}, device, form=form)


def _accelerator(method: str, device: Any, gpu_id: int | None) -> Any:
    """The device that is asked for in the field's two ways."""
    best = runtime.best_device()
    if device is None and is_cpu(best):
        raise BackendError(f"{method} brings networks to an accelerator, and there is none here.")
    name = str(best if device is None else device)
    kind, colon, index = name.partition(":")
    if gpu_id is not None and colon and index != str(gpu_id):
        raise JobError(f"gpu_id is {gpu_id} and device is {name}; they are one setting.")
    asked = name if gpu_id is None else f"{kind}:{gpu_id}"
    if kind.lower() == "cpu":
        raise JobError(f"{method} brings networks to an accelerator; {asked} was asked for.")
    return runtime.check_device(asked)


def _group(offload_type: Any, count: int | None) -> int:
    kind = str(getattr(offload_type, "value", offload_type))
    if kind == "leaf_level":
        warnings.warn(
            "Group offloading at leaf_level moves single layers; here a block comes at once.",
            LongtakeWarning,
            stacklevel=4,
        )
        return 1
    if kind != "block_level":
        raise JobError(f"offload_type is {kind!r}; there are: block_level, leaf_level.")
    if count is None:
        raise JobError("offload_type='block_level' needs num_blocks_per_group, such as 1.")
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise JobError(f"num_blocks_per_group is {count!r}; a group has at least 1 block.")
    return count


def _whole(layout: Layout) -> Layout:
    parts = {
        name: replace(lies, how="whole", resident=lies.blocks, modulations=True) for name, lies in _of(layout)
    }
    return replace(layout, parts=parts, together=False, tile=None, lacking=())


def _by_blocks(ring: int, source: str) -> Form:
    def form(layout: Layout) -> Layout:
        parts = {
            name: replace(lies, how="streamed", resident=0, modulations=False, ring=ring, source=source)
            if name in STREAMED
            else replace(lies, how="whole", resident=lies.blocks)
            for name, lies in _of(layout)
        }
        return replace(layout, parts=parts, together=False, tile=None, lacking=())

    return form


def _of(layout: Layout) -> Sequence[tuple[str, Lies]]:
    return list(layout.parts.items())
