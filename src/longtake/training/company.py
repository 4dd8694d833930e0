"""Several processes that learn one transformer together, by Hugging Face's accelerate: the one file that knows it.

    accelerate launch --num_processes 2 -m longtake finetune MODEL DATA -o OUT

Each process learns from its own rows of every step. Either each has the whole network, and gradients are averaged
(DDP); or each has its part of every weight, its gradient and its moments (FSDP 2), and a block's are brought together
while it is at work. Process 0 alone writes and speaks. The launcher's settings are accelerate's; what they ask for and
is not done here is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from longtake.backend import parallel
from longtake.errors import BackendError, JobError, LongtakeError, LostRunError
from longtake.launched import launched
from longtake.machine import is_cpu

if TYPE_CHECKING:
    from longtake.training.settings import Settings

WANTS = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed is not served; take FSDP, which shares the same out",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM is not served; take FSDP",
    "ACCELERATE_USE_FP8": "float8 arithmetic is not served in training; hold the base in it by --quantize fp8",
}
"""accelerate's settings that are refused if they are true."""
FSDP = "ACCELERATE_USE_FSDP"
LOST = ("connection closed", "connection reset", "broken pipe", "nccl", "gloo", "socket")
"""Words of errors that a lost process causes."""
BLOCKS = "DoubleBlock,SingleBlock"
"""The modules whose weights are brought together at once."""


def check(environment: Mapping[str, str] = os.environ) -> None:
    """Raise JobError for what the launcher's settings ask for and is not done here.

    >>> check({"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_DEEPSPEED": "false"})
    """
    for name, told in WANTS.items():
        if _is_true(environment.get(name)):
            raise JobError(f"accelerate's settings ask for what is not done here ({name}): {told}.")
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", "bf16"):
        raise JobError(
            f"accelerate's settings ask for mixed precision in {precision}, which is not served; take bf16, or no."
        )
    if environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1") != "1":
        raise JobError("accelerate's settings ask for accumulation; it is asked for by --accumulate here.")
    if environment.get("ACCELERATE_DYNAMO_BACKEND", "NO").upper() != "NO":
        raise JobError("accelerate's settings ask for compilation; it is asked for by --compile here.")
    if _is_true(environment.get(FSDP)) and environment.get("FSDP_VERSION", "2") != "2":
        raise JobError("accelerate's settings ask for FSDP 1, which is not served; set fsdp_version: 2.")


def check_precision(computes: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raise JobError if the launcher's settings ask for another mixed precision than the training has."""
    if environment.get("ACCELERATE_MIXED_PRECISION") == "bf16" and computes != "bfloat16":
        raise JobError(
            f"accelerate's settings ask for mixed precision in bf16, and this training computes in {computes}; ask for "
            "the same (--precision bfloat16), or for no mixed precision there."
        )


def met(device: str = "auto") -> Company | None:
    """The processes that were launched together, once they have met; None if this one is alone.

    Raises JobError for settings of the launcher that are not served, BackendError without accelerate, and for too few
    devices.
    """
    rank, size = launched()
    check()
    shares = _is_true(os.environ.get(FSDP))
    if size == 1:
        if shares:
            raise JobError(
                "accelerate's settings ask for FSDP, and one process was started; start several, or none."
            )
        return None
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise BackendError(
            f"{size} processes were started, and what joins them in learning is not installed; install it: "
            "pip install 'longtake[train]'."
        ) from error
    ranks = parallel.join(rank, size, device)
    return Company(ranks, shares)


class Company:
    """This process among those that learn together: its number, how many there are, and its `device`."""

    def __init__(self, ranks: Any, shares: bool) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs, FullyShardedDataParallelPlugin

        self.ranks, self.shares = ranks, shares
        self.rank, self.size, self.device = ranks.rank, ranks.size, ranks.device
        self.network: Any = None
        # Which parameters have a gradient hangs on the examples.
        plain = DistributedDataParallelKwargs(find_unused_parameters=True)
        # Mixed precision is the network's own (`Learning.arithmetic`).
        self._accelerator = Accelerator(
            cpu=is_cpu(self.device), mixed_precision="no", kwargs_handlers=[plain]
        )
        if shares:
            os.environ.setdefault("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")
            os.environ.setdefault("FSDP_TRANSFORMER_CLS_TO_WRAP", BLOCKS)
            # Each process reads the files for itself.
            os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
            # accelerate itself leaves it out on CPUs, where it is tried.
            self._accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2)

    @property
    def first(self) -> bool:
        """True in the process that writes and speaks."""
        return bool(self.rank == 0)

    def check(self, settings: Settings, quantize: str) -> None:
        """Raise JobError for what processes cannot do that have a part of every weight each."""
        asked = {
            "--optimiser muon works on whole matrices": settings.optimiser == "muon",
            "--self-made and --bagger run the network more often in one process than in another": (
                settings.self_made + settings.bagger > 0
            ),
            "--quantize makes weights that are not shared out": quantize != "none",
        }
        for told, is_asked in asked.items():
            if is_asked and self.shares:
                raise JobError(
                    f"{told}, and FSDP gives each process a part of every weight; leave one of them out (DDP, "
                    "accelerate's usual setting, gives each the whole network)."
                )

    def check_samples(self) -> None:
        """Raise JobError if no process has a whole network to make samples with."""
        if self.shares:
            raise JobError(
                "--sample-prompts makes videos in one process, and FSDP gives each a part of the weights; leave it out."
            )

    def take(self, transformer: Any, learning: set[int]) -> Any:
        """The module that is called in the network's place, once its parameters that learn (by `id`) do so together.

        With FSDP all parameters are other objects afterwards, of the same names.
        """
        if self.shares:
            from accelerate.utils.fsdp_utils import fsdp2_prepare_model

            self.network = fsdp2_prepare_model(self._accelerator, transformer)
            return self.network
        still = [name for name, each in transformer.named_parameters() if id(each) not in learning]
        still += [name for name, _ in transformer.named_buffers()]
        # What does not learn, buffers too, is the same in all and stays so; weights in 8 bits cannot be sent about.
        transformer._ddp_params_and_buffers_to_ignore = still
        self.network = self._accelerator.prepare_model(transformer)
        return self.network

    def part(self, count: int) -> slice:
        """The rows of a step that are this process's, of so many."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def adding(self, last: bool) -> AbstractContextManager[Any]:
        """Around a batch whose gradient is added: only with that of the `last` one all are averaged."""
        return nullcontext() if last or self.shares else self._accelerator.no_sync(self.network)

    def total(self, value: float) -> float:
        """The sum of a number over all processes, the same in each."""
        from accelerate.utils import gather_object

        return float(sum(gather_object([value])))

    def wait(self) -> None:
        """Go on when all have come here."""
        self._accelerator.wait_for_everyone()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Inside, LostRunError is raised where another process was lost that this one has to wait for."""
        try:
            yield
        except RuntimeError as error:
            words = str(error).lower()
            if isinstance(error, LongtakeError) or not any(word in words for word in LOST):
                raise
            raise LostRunError(
                "Another process of this training has ended; what was saved is kept: go on by the same command."
            ) from error

    def may_speak(self) -> bool:
        """Tell if this process is the first that asks: one sentence says why all of them end."""
        return bool(self.ranks.may_speak())

    def close(self) -> None:
        """Leave the others."""
        self.ranks.close()


def _is_true(value: str | None) -> bool:
    return str(value).lower() in ("1", "true", "yes", "y")
