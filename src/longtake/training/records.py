"""The files of a training: its checkpoint, from which it goes on exactly, and its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from longtake.backend import runtime
from longtake.errors import ModelError
from longtake.weights import header, saving

ENTRY = "training"
"""The entry of a checkpoint's metadata that holds everything but tensors, as JSON."""


class Resumed(Protocol):
    """A training as its checkpoint knows it: the state beside tensors that decides the steps to come, as JSON."""

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


class Records:
    """Writes and reads FOLDER/NAME.safetensors and NAME.jsonl (or `log`), and counts what both must agree about.

    `seconds` is the work so far, `sums` of the figures of the last `counted` steps become the log's next means.
    """

    def __init__(self, folder: Path, name: str, log: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint, self.log = folder / f"{name}.safetensors", log or folder / f"{name}.jsonl"
        self.seconds = 0.0
        self.sums: dict[str, float] = {}
        self.counted = 0

    def begin(self, optimiser: Any, stage: Resumed, seed: int, resume: bool, writes: bool = True) -> None:
        """Go on from the checkpoint if there is one and `resume`; drop what the log says of later steps.

        Of several processes one `writes`.
        """
        known = -1
        if resume and self.checkpoint.exists():
            layout, metadata = header.read_layout(self.checkpoint)
            state = self._read(metadata, seed)
            tensors = dict(runtime.read_safetensors(self.checkpoint, layout))
            try:
                optimiser.load_state(tensors)
            except ValueError as error:
                raise ModelError(f"{self.checkpoint} cannot be gone on from: {error}") from error
            stage.load_state(state["stage"])
            self.seconds, self.sums, self.counted = state["seconds"], state["sums"], state["counted"]
            known = optimiser.steps
        if writes:
            self._rewind(known)

    def save(self, optimiser: Any, stage: Resumed, seed: int, writes: bool = True) -> None:
        """Write the checkpoint, whole or not at all; what is shared out is brought together by all processes."""
        state = {
            "seed": seed,
            "seconds": self.seconds,
            "sums": self.sums,
            "counted": self.counted,
            "stage": stage.state(),
        }
        tensors = optimiser.state(writes)
        if writes:
            saving.write_file(self.checkpoint, tensors, {ENTRY: json.dumps(state)})

    def add(self, figures: dict[str, float]) -> None:
        """Count the figures of one step in."""
        for key, value in figures.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.counted += 1

    def means(self) -> dict[str, float]:
        """The means of what was added since the last call."""
        means = self.present()
        self.sums, self.counted = {}, 0
        return means

    def present(self) -> dict[str, float]:
        """The means of what was added so far, which stays."""
        return {key: float(f"{value / self.counted:.4g}") for key, value in self.sums.items()}

    def write(self, step: int, figures: dict[str, Any]) -> None:
        """Append one JSON object to the log."""
        with self.log.open("a") as file:
            file.write(json.dumps({"step": step, "minutes": round(self.seconds / 60, 2), **figures}) + "\n")

    def _read(self, metadata: dict[str, str], seed: int) -> dict[str, Any]:
        if ENTRY not in metadata:
            raise ModelError(
                f"{self.checkpoint} is the checkpoint of an older longtake, from which no run goes on exactly; move "
                "it away, or begin anew with --no-resume."
            )
        state: dict[str, Any] = json.loads(metadata[ENTRY])
        if state["seed"] != seed:
            raise ModelError(
                f"{self.checkpoint} was begun with the seed {state['seed']}, and {seed} was asked for; ask for "
                f"{state['seed']} to go on, or begin anew with --no-resume."
            )
        return state

    def _rewind(self, steps: int) -> None:
        """Leave in the log what it said up to the checkpoint, for what came later comes again."""
        if self.log.exists():
            kept = [line for line in self.log.read_text().splitlines(True) if 0 <= _step_of(line) <= steps]
            self.log.write_text("".join(kept))


def _step_of(line: str) -> int:
    """The step of a line; -1 if the line was torn off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return -1
