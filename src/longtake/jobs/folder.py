"""A job on disk: what is asked, its pictures, every finished section, and a log; what resuming reads.

    job.json            the job, what made it (longtake, the model's fingerprint), and how the video is written
    first.png           the picture; last.png where the video ends with one
    sections/00003.safetensors    latents of section 3, with a checksum and the recipe that they were made by
    log.jsonl           what happened, one JSON object a line
    video.mp4           the video, unless it was asked for elsewhere
    lock                held by the process that works on the job

A file takes its name when it is whole and on the disk, so that a process may be killed at any moment. A section's
recipe is a hash of all that decides its latents: the job, the model, the picture, and the recipes of the sections that
it sees. What another recipe made is made again; so an interrupted change of the job does no harm either.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

import numpy as np
from PIL import Image

from longtake import __version__
from longtake.errors import JobError, ModelError
from longtake.job import Anchor, Job
from longtake.picture import load_image
from longtake.plan.plans import Plan, Section, plan_of
from longtake.weights.arrays import read_arrays
from longtake.weights.fingerprint import file_fingerprint
from longtake.weights.header import read_layout
from longtake.weights.lora import find_file

try:
    import fcntl
except ImportError:  # Windows: two processes on one job are not noticed there
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
"""Of the folder; another one is refused."""

JOB, FIRST, LAST, SECTIONS, LOG, LOCK, VIDEO = (
    "job.json", "first.png", "last.png", "sections", "log.jsonl", "lock", "video.mp4",
)  # fmt: skip
DONE, MISSING, OUTDATED, DAMAGED = "done", "missing", "outdated", "damaged"
# What decides no section's latents: the length (where it does, the plan tells), names of things that are hashed, and
# the changes, which each concern one section.
_ELSEWHERE = ("frames", "fps", "anchors", "model", "loras", "changes")


class Kept(Protocol):
    """Where finished sections lie."""

    def read_section(self, number: int) -> np.ndarray | None:
        """The latents of the section at this place in the video, or None where it is still to be made."""

    def write_section(self, number: int, latents: np.ndarray) -> None:
        """Keep a finished section."""


class Scratch:
    """Sections on disk for as long as one video is made."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="longtake-", ignore_cleanup_errors=True)

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def read_section(self, number: int) -> np.ndarray | None:
        """The latents that were written, or None."""
        file = self._file(number)
        return np.asarray(np.load(file)) if file.exists() else None

    def write_section(self, number: int, latents: np.ndarray) -> None:
        """Keep the latents until this is closed."""
        try:
            np.save(self._file(number), latents)
        except OSError as error:
            raise JobError(
                f"{self._folder.name}, which holds the latents of a video in the making, cannot be written: "
                f"{_reason(error)}; free some space, or name another place in TMPDIR."
            ) from error

    def _file(self, number: int) -> Path:
        return Path(self._folder.name) / f"{number:05}.npy"


@dataclass(frozen=True)
class Made:
    """What job.json says besides the job: which longtake and model it is for; `video` is free for who writes it."""

    longtake: str
    model: str
    loras: tuple[str, ...]
    video: Mapping[str, Any]


class JobFolder:
    """A job's folder, held by this process alone; made by `create` or `open`, and closed at the end of a `with` block.

    `job` stands alone: its pictures lie here, and its model's and LoRAs' paths are absolute. Every failure to write
    (a full disk) is a JobError, and leaves what was finished.
    """

    def __init__(self, path: Path, job: Job, made: Made, lock: IO[bytes]) -> None:
        self.path, self.job, self.made = path, job, made
        self._lock = lock
        self._torn = _is_torn(path / LOG)
        self._recipes = recipes(path, job, made)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        job: Job,
        picture: Any = None,
        last_picture: Any = None,
        model: str = "",
        video: Mapping[str, Any] | None = None,
    ) -> JobFolder:
        """Begin a job in a new or empty folder; pictures are what `load_image` takes and default to the job's.

        `model` is the model's `fingerprint`; `video` is kept for who writes the video. Raises JobError for a folder
        that holds something, and for a job without width and height.
        """
        place = check_new(path)
        job.check()
        if job.width is None or job.height is None:
            raise JobError("A job on disk needs its size; give width and height.")
        pictures = {
            name: _png(load_image(source))
            for name, source in (
                (FIRST, job.picture if picture is None else picture),
                (LAST, job.last_picture if last_picture is None else last_picture),
            )
            if source is not None
        }
        if FIRST not in pictures:
            raise JobError("A video begins with a picture; none was given.")
        _planned(job, LAST in pictures)
        job = _standing_alone(job)
        made = Made(__version__, model, _lora_fingerprints(job), dict(video or {}))
        with _told(place):
            (place / SECTIONS).mkdir(parents=True, exist_ok=True)
            _sync_folder(place.parent)
            lock = _locked(place)
            try:
                check_new(place)  # another process may have been faster
                (place / LAST).unlink(missing_ok=True)
                for name, data in pictures.items():
                    _write(place / name, [data])
                _write(place / JOB, [_json(job, made)])
                folder = cls(place, job, made, lock)
            except BaseException:
                lock.close()
                raise
        folder.log("created", longtake=__version__)
        return folder

    @classmethod
    def open(cls, path: str | os.PathLike[str], model: str | None = None) -> JobFolder:
        """Go on with a job; where `model` is given, it must be the fingerprint of the one that the job began with.

        Raises JobError for a folder that holds no job, one of another longtake or another model, or one that another
        process works on.
        """
        place = Path(path).resolve()
        _check_is_job(place)
        with _told(place):
            lock = _locked(place)
            try:
                job, made = read_job(place)
                check_same(place, job, made, model)
                for leftover in (*place.glob(".*.part"), *(place / SECTIONS).glob(".*.part")):
                    leftover.unlink(missing_ok=True)
                (place / SECTIONS).mkdir(exist_ok=True)
                return cls(place, job, made, lock)
            except BaseException:
                lock.close()
                raise

    def __enter__(self) -> JobFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.log("stopped", reason=str(error) or type(error).__name__)
        self.close()

    def close(self) -> None:
        """Let another process work on the job."""
        self._lock.close()

    @property
    def picture(self) -> Image.Image:
        """The picture that the video begins with."""
        return load_image(self.path / FIRST)

    @property
    def last_picture(self) -> Image.Image | None:
        """The picture that it ends with, if there is one."""
        return load_image(self.path / LAST) if (self.path / LAST).exists() else None

    def read_section(self, number: int) -> np.ndarray | None:
        """The latents of a section, or None where it is to be made: because it is missing, damaged or outdated.

        What is damaged is moved aside, what is outdated goes; both are noted in the log.
        """
        file = section_file(self.path, number)
        if not file.exists():
            return None
        latents, recipe = _read_section(file)
        if latents is None:
            aside = file.with_suffix(".damaged")
            self.log("section_damaged", number=number, kept_as=aside.name)
            with _told(self.path):
                os.replace(file, aside)
        elif recipe != self._recipes.get(number):
            self.log("section_outdated", number=number)
            with _told(self.path):
                file.unlink()
            return None
        return latents

    def write_section(self, number: int, latents: np.ndarray) -> None:
        """Keep a finished section; when this returns, it survives a loss of power."""
        with _told(self.path):
            _write(section_file(self.path, number), _safetensors(latents, self._recipes[number]))
        self.log("section_done", number=number)

    def states(self) -> dict[int, str]:
        """DONE, MISSING, OUTDATED or DAMAGED for each section, by number, as its header tells."""
        return {number: _state(self.path, number, recipe) for number, recipe in sorted(self._recipes.items())}

    def change(self, job: Job) -> list[int]:
        """Make this the folder's job and drop the sections that it makes otherwise; returns their numbers."""
        job.check()
        _plan(self.path, job)
        job = _standing_alone(job)
        with _told(self.path):
            # From here on, what no longer fits is outdated, even if this process ends before it is dropped.
            _write(self.path / JOB, [_json(job, self.made)])
            self.job, self._recipes = job, recipes(self.path, job, self.made)
            dropped = []
            for file in sorted((self.path / SECTIONS).glob("*.safetensors")):
                number = int(file.stem) if file.stem.isdigit() else -1
                if _recipe_of(file) != self._recipes.get(number):
                    file.unlink()
                    dropped.append(number)
        self.log("changed", job=dataclasses.asdict(job), dropped=dropped)
        return dropped

    def log(self, event: str, **fields: Any) -> None:
        """Append one line to the log; a log that cannot be written is no reason to stop."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **fields}, ensure_ascii=False).encode() + b"\n"
        # A line that was cut off is ended first, so that it takes no other with it.
        data = b"\n" + line if self._torn else line
        try:
            with (self.path / LOG).open("ab", buffering=0) as out:
                self._torn = out.write(data) != len(data)
        except OSError:
            self._torn = _is_torn(self.path / LOG)


def check_new(path: str | os.PathLike[str]) -> Path:
    """The absolute path of a folder where a job can begin; JobError where something is there already."""
    place = Path(path).resolve()
    if place.exists() and not place.is_dir():
        raise JobError(f"{place} is a file; a job needs a folder.")
    if (place / JOB).exists():
        raise JobError(f"{place} holds a job already; go on with it by: longtake resume {path}")
    # What a process leaves that is killed while it begins a job.
    known = {FIRST, LAST, SECTIONS, LOG, LOCK}
    with _told(place):
        other = sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []
    other = [name for name in other if name not in known and not name.endswith(".part")]
    if other:
        raise JobError(f"{place} is not empty (it holds {other[0]!r}); name a new folder for the job.")
    return place


def read_job(path: Path) -> tuple[Job, Made]:
    """What job.json says; JobError where it is missing, damaged, or of another longtake."""
    _check_is_job(path)
    try:
        values = json.loads((path / JOB).read_text("utf-8"))
        form, longtake = values["format"], values["longtake"]
    except OSError as error:
        raise JobError(f"{path / JOB} cannot be read: {_reason(error)}.") from error
    except (ValueError, TypeError, KeyError):
        raise JobError(f"{path / JOB} is damaged; the job must be begun anew in another folder.") from None
    if form != FORMAT or longtake != __version__:
        raise JobError(
            f"The job in {path} was begun by longtake {longtake} (format {form}) and this is {__version__} "
            f"(format {FORMAT}); go on with that one, or begin the job anew."
        )
    try:
        made = Made(longtake, values["model"], tuple(values["loras"]), values["video"])
        return Job.of(values["job"]), made
    except (TypeError, KeyError, JobError):
        raise JobError(f"{path / JOB} is damaged; the job must be begun anew in another folder.") from None


def check_same(path: Path, job: Job, made: Made, model: str | None) -> None:
    """Raise JobError where the model or a LoRA is not what the job began with."""
    if model is not None and model != made.model:
        raise JobError(
            f"The job in {path} was begun with another model than {job.model} is now; "
            "give the one that it was begun with, or begin the job anew."
        )
    for lora, before, now in zip(job.loras, made.loras, _lora_fingerprints(job), strict=True):
        if before != now:
            raise JobError(
                f"{lora.path} is not the LoRA any more that the job in {path} was begun with; "
                "put that one back, or begin the job anew."
            )


def describe_job(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state of a job as JSON values; reads only, so that another process may be at work on it."""
    place = Path(path).resolve()
    job, made = read_job(place)
    found = {number: _state(place, number, recipe) for number, recipe in recipes(place, job, made).items()}
    video = place / (made.video.get("file") or VIDEO)
    return {
        "folder": str(place),
        "longtake": made.longtake,
        "frames": _plan(place, job).frames,
        "sections": len(found),
        "done": sum(state == DONE for state in found.values()),
        "states": {str(number): state for number, state in sorted(found.items())},
        "running": _is_locked(place),
        "video": str(video) if video.exists() else None,
        "job": dataclasses.asdict(job),
    }


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a job's log; what was cut off by the end of a process is left out."""
    file = path / LOG
    if not file.exists():
        return []
    lines = []
    for line in file.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict)]


def is_job(path: str | os.PathLike[str]) -> bool:
    """Whether a job lies in this folder."""
    return (Path(path) / JOB).is_file()


def section_file(path: Path, number: int) -> Path:
    """Where a section lies in a job's folder."""
    return path / SECTIONS / f"{number:05}.safetensors"


def recipes(path: Path, job: Job, made: Made) -> dict[int, str]:
    """For each section, by number, a hash of all that decides its latents."""
    plan = _plan(path, job)
    facts = {key: value for key, value in job.values().items() if key not in _ELSEWHERE}
    facts |= {"format": FORMAT, "model": made.model}
    facts["loras"] = [(digest, lora.weights) for digest, lora in zip(made.loras, job.loras, strict=True)]
    with _told(path):
        facts["pictures"] = [
            hashlib.sha256((path / name).read_bytes()).hexdigest()
            for name in (FIRST, LAST)
            if (path / name).exists()
        ]
    base = _hash(facts)
    found: dict[int, str] = {}
    for section in plan:
        before = [found[number] for number in plan.sources(section)]
        found[section.number] = _hash([base, _facts(section), *_own(job, section.number), before])
    return found


def _facts(section: Section) -> list[Any]:
    slots = [(slot.scale, slot.frames, slot.times) for slot in section.slots.values()]
    return [section.number, section.frames, section.times, slots]


def _own(job: Job, number: int) -> tuple[int, str]:
    """The seed and prompt of one section."""
    change = job.change_of(number)
    seed = job.seed if change.seed is None else change.seed
    return seed, job.prompt if change.prompt is None else change.prompt


def _plan(path: Path, job: Job) -> Plan:
    return _planned(job, (path / LAST).exists())


def _planned(job: Job, end: bool) -> Plan:
    """The plan of a job whose pictures lie in its folder."""
    return plan_of(
        dataclasses.replace(job, anchors=(Anchor(0, FIRST), *([Anchor("end", LAST)] if end else [])))
    )


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


# Files ----------------------------------------------------------------------------------------------------------------


def _write(file: Path, pieces: Iterable[Any]) -> None:
    """Write a file, complete or not at all, and see it to the disk."""
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("wb", buffering=0) as out:
            for piece in pieces:
                _write_all(out, piece)
            os.fsync(out.fileno())
        os.replace(part, file)
        _sync_folder(file.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _write_all(out: IO[bytes], data: Any) -> None:
    """Unbuffered files may take less than they are given."""
    rest = memoryview(data)
    while rest:
        rest = rest[out.write(rest) :]


def _sync_folder(folder: Path) -> None:
    # The new name is safe only when the folder is on the disk as well. Windows opens no folders.
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _safetensors(latents: np.ndarray, recipe: str) -> Sequence[Any]:
    """The file of a section, in pieces."""
    data = np.ascontiguousarray(latents, dtype="<f4")
    metadata = {"longtake": __version__, "recipe": recipe, "sha256": _checksum(data)}
    entry = {"dtype": "F32", "shape": list(data.shape), "data_offsets": [0, data.nbytes]}
    text = json.dumps({"__metadata__": metadata, "latents": entry}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, data.tobytes()]


def _read_section(file: Path) -> tuple[np.ndarray | None, str | None]:
    """Latents and recipe, or None where the file is not what was written."""
    try:
        arrays, metadata = read_arrays(file)
        latents = arrays["latents"]
    except (ModelError, KeyError, OSError, ValueError, RecursionError):
        return None, None
    whole = metadata.get("sha256") == _checksum(latents)
    # A copy, since what was read from bytes cannot be written to, and a framework may want to.
    return (latents.copy(), metadata.get("recipe")) if whole else (None, None)


def _recipe_of(file: Path) -> str | None:
    try:
        return read_layout(file)[1].get("recipe")
    except ModelError:
        return None


def _state(path: Path, number: int, recipe: str) -> str:
    file = section_file(path, number)
    if not file.exists():
        return MISSING
    found = _recipe_of(file)
    return DAMAGED if found is None else DONE if found == recipe else OUTDATED


def _checksum(latents: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps([str(latents.dtype), latents.shape]).encode())
    digest.update(latents.tobytes())
    return digest.hexdigest()


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def _json(job: Job, made: Made) -> bytes:
    values = {"format": FORMAT, **dataclasses.asdict(made), "job": job.values()}
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def _standing_alone(job: Job) -> Job:
    """The job with absolute paths, since it may be resumed from another working directory."""
    model = Path(job.model).expanduser()
    loras = tuple(dataclasses.replace(lora, path=_absolute(lora.path)) for lora in job.loras)
    whole = str(model.resolve()) if job.model != "embedded" and model.is_dir() else job.model
    return dataclasses.replace(job, model=whole, loras=loras)


def _absolute(path: str) -> str:
    return os.path.abspath(path) if os.path.exists(path) else path


def _lora_fingerprints(job: Job) -> tuple[str, ...]:
    return tuple(file_fingerprint(find_file(lora.path)) for lora in job.loras)


def _check_is_job(place: Path) -> None:
    if not place.is_dir():
        raise JobError(
            f"There is no folder {place}; a job begins with: longtake generate … --job {place.name}"
        )
    if not is_job(place):
        raise JobError(f"{place} holds no job: it has no {JOB}.")


def _locked(place: Path) -> IO[bytes]:
    """The lock's file, held; the system lets go of it when the process ends, however it ends."""
    lock = (place / LOCK).open("ab")
    for _ in range(5):
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            time.sleep(0.05)  # somebody may only have looked whether it is locked
    lock.close()
    raise JobError(f"Another process is at work on the job in {place}; wait for it, or end it.")


def _is_locked(place: Path) -> bool:
    if fcntl is None or not (place / LOCK).exists():
        return False
    try:
        with (place / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _is_torn(log: Path) -> bool:
    """Whether the log's last line was cut off."""
    try:
        with log.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, size - 1))
            return opened.read(1) not in (b"", b"\n")
    except OSError:
        return False


@contextlib.contextmanager
def _told(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        file = error.filename or place
        raise JobError(
            f"{os.fsdecode(file)} cannot be read or written: {_reason(error)}; what is finished is kept, "
            f"and goes on by: longtake resume {place}"
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
