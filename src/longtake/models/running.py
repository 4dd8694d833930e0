"""How a network's blocks run, by the field's names: the kernel of their attention, and compilation block by block."""

from __future__ import annotations

from typing import Any

from longtake.backend import kernels, modules, runtime
from longtake.errors import JobError

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
