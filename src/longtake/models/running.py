"""The running of a network's blocks, by the field's names: attention's kernel, compilation, weights in 8 bits."""

from __future__ import annotations

import re
from typing import Any

from longtake.backend import kernels, modules, runtime
from longtake.errors import JobError
from longtake.models import quantised

FIELD = {
    "native": "native",
    "_native_cudnn": "cudnn",
    "_native_flash": "flash",
    "_native_efficient": "efficient",
    "_native_math": "math",
    "flash": "flash-attn",
    "_flash_3": "fa3",
    "sage": "sage",
    "xformers": "xformers",
}
"""diffusers' names of attention kernels, each with ours; those that are fetched from the hub are not among them."""


SKIPPED = ("x_embedder", "context_embedder", "norm")
"""Parts of names whose layers layerwise casting leaves as they are, if nothing else is said; as in diffusers."""


class Running:
    """A network with `blocks`, and what `run_blocks` asks of how they run."""

    kernel: str = "auto"
    """The kernel of the blocks' attention: "auto" is the fastest that changes nothing beyond rounding."""
    blocks: Any
    walks: tuple[Any, ...]

    def set_attention_backend(self, backend: str) -> None:
        """Let the blocks' attention run on this kernel, by diffusers' name for it, or on "auto".

        Raises JobError for a name that is not served here, BackendError for a kernel that is not there.
        """
        name = "auto" if backend == "auto" else FIELD.get(str(backend).lower())
        if name is None:
            raise JobError(
                f"No attention backend {backend!r} here; there are: auto, {', '.join(FIELD)} (kernels are not fetched "
                "from the hub)."
            )
        self.use_kernel(name)

    def reset_attention_backend(self) -> None:
        """Let the blocks' attention run on the fastest kernel that changes nothing beyond rounding, as at first."""
        self.kernel = "auto"

    def use_kernel(self, name: str) -> None:
        """Let the blocks' attention run on this kernel, by our name for it; BackendError if it cannot."""
        place = modules.placed(self)
        kernels.check(name, place.device, runtime.dtype_name(place.dtype))
        self.kernel = name

    @property
    def chosen_kernel(self) -> str:
        """The kernel that attention runs on where the network is now."""
        return kernels.chosen(self.kernel, modules.placed(self).device)

    def compile_repeated_blocks(self, **options: Any) -> None:
        """Compile the blocks one by one at their first run; `options` are torch.compile's.

        Blocks of one kind share what is compiled. Unlike the reference: the network is still opened by our loop, which
        computes once what repeats. Raises JobError for CUDA graphs of blocks whose weights change their place.
        """
        graphs = options.get("mode") in ("reduce-overhead", "max-autotune")
        if graphs and self.walks:
            raise JobError(
                f"mode={options['mode']!r} records addresses (CUDA graphs), and this network's blocks are streamed or "
                "shared between devices; leave mode out, or take max-autotune-no-cudagraphs."
            )
        for block in self.blocks:
            runtime.compile_module(block, **options)

    def enable_layerwise_casting(
        self,
        storage_dtype: Any = "float8_e4m3fn",
        compute_dtype: Any = None,
        skip_modules_pattern: str | tuple[str, ...] | None = None,
        skip_modules_classes: tuple[type, ...] | None = None,
        non_blocking: bool = False,
    ) -> None:
        """Keep the weights of linear layers in float8, and widen them where they are used, in `compute_dtype`.

        Layers stay as they are whose name one of the patterns is found in (by default `SKIPPED`), and those of these
        classes. `non_blocking` changes nothing: weights are widened where they lie. Unlike the reference: each row has
        a step, so that small weights keep their digits, and a LoRA's own weights stay as they are.
        Raises JobError for another storage than float8_e4m3fn, BackendError if the device cannot hold it.
        """
        storage = str(storage_dtype).rpartition(".")[2].lower()
        if storage != "float8_e4m3fn":
            raise JobError(
                f"storage_dtype is {storage}; weights are kept in float8_e4m3fn here, or, read with a "
                "quantization_config, in int8."
            )
        if isinstance(skip_modules_pattern, str):
            skip_modules_pattern = (skip_modules_pattern,)
        patterns = SKIPPED if skip_modules_pattern is None else tuple(skip_modules_pattern)
        config = quantised.EightBitConfig("fp8")
        config.check(modules.placed(self).device)
        if compute_dtype is not None:
            self.to(dtype=runtime.dtype(compute_dtype))  # type: ignore[attr-defined]

        def skips(name: str, module: Any) -> bool:
            named = any(re.search(pattern, name) for pattern in patterns)
            return named or isinstance(module, tuple(skip_modules_classes or ()))

        quantised.cast_layers(self, config, skips)
