"""The folder of a fine-tuning: what it was begun with, its checkpoint, its log, its result and its sample sheets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from longtake import disk
from longtake.config import read_json
from longtake.errors import JobError
from longtake.training.settings import Settings
from longtake.weights import saving

BEGUN = "finetune.json"
CHECKPOINT, LOG, SAMPLES, MODEL = "checkpoint", "log.jsonl", "samples", "model"
SPARE = 1.1
"""Times what is counted, so much room a disk must have."""


class Output:
    """The folder OUT of one run; `facts` are what the run is about besides its settings: the model, the data.

    | file | what |
    |---|---|
    | finetune.json | settings and facts that the run began with; a run goes on with the same |
    | state/checkpoint.safetensors | all that the run goes on from |
    | log.jsonl | one line of means for every so many steps |
    | pytorch_lora_weights.safetensors, lora.safetensors or model/ | the result so far |
    | kept/STEP/… | copies of it, if they were asked for |
    | samples/STEP-NUMBER.png | sample sheets |
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self._check()

    def _check(self) -> None:
        """Raise JobError if the folder holds anything else than this run."""
        if self.folder.exists() and not self.folder.is_dir():
            raise JobError(f"{self.folder} is a file; a fine-tuning writes a folder.")
        if self.begun is None:
            if self.folder.is_dir() and any(each.name != ".lock" for each in self.folder.iterdir()):
                raise JobError(
                    f"{self.folder} holds files that are no fine-tuning's; name a folder that is new or empty."
                )
            return
        difference = self.settings.difference(self.begun["settings"])
        if difference is not None:
            raise JobError(
                f"{self.folder} holds another run: {difference}; ask for what it began with to go on, or name another "
                "folder."
            )

    @property
    def begun(self) -> dict[str, Any] | None:
        """The settings that the run was begun with; None if there is none yet."""
        file = self.folder / BEGUN
        return read_json(file) if file.exists() else None

    def begin(self, facts: dict[str, Any]) -> None:
        """Write down what the run is, or raise JobError if the folder's run was about something else."""
        begun = self.begun
        if begun is not None:
            for name, value in json.loads(json.dumps(facts)).items():
                if begun["facts"].get(name) != value:
                    raise JobError(
                        f"{self.folder} holds another run: its {name} was {begun['facts'].get(name)} and is {value}; "
                        "go on with what it began with, or name another folder."
                    )
        saving.write_json(self.folder / BEGUN, {"settings": self.settings.values(), "facts": facts})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process writes here; JobError if one does."""
        disk.make_folder(self.folder)
        try:
            lock = disk.lock(self.folder / ".lock")
        except BlockingIOError:
            raise JobError(f"{self.folder} is being trained in by another process; wait for it.") from None
        try:
            yield
        finally:
            lock.release()

    def check_room(self, checkpoint: int, result: int) -> None:
        """Raise JobError unless the disk has room for so many bytes of a checkpoint and of a result, each twice.

        The new one is whole before the old one goes.
        """
        place = next(each for each in (self.folder, *self.folder.absolute().parents) if each.exists())
        needed, free = SPARE * 2 * (checkpoint + result), shutil.disk_usage(place).free
        if free < needed:
            raise JobError(
                f"{self.folder} needs {needed / 1e9:.2f} GB for checkpoints and the result, and {free / 1e9:.2f} GB "
                "are free there; name another disk, or train less (a LoRA, a lower rank)."
            )

    @property
    def state(self) -> Path:
        """The folder of the checkpoint."""
        return self.folder / "state"

    def kept(self, step: int) -> Path:
        """The folder of a copy that stays."""
        return self.folder / "kept" / f"{step:06d}"

    def sheet(self, step: int, number: int) -> Path:
        """The file of a sample sheet."""
        return self.folder / SAMPLES / f"{step:06d}-{number}.png"
