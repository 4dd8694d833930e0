"""The clip of a job on disk: what sections see of it lies in the folder, and the file itself is known by its mark.

So sections are made from the folder alone. Who joins the clip to them needs the file, and it must be the same one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from longtake.errors import JobError, ModelError
from longtake.video.footage import Footage
from longtake.weights.arrays import read_arrays
from longtake.weights.header import compose

CLIP = "clip.safetensors"

PIECES, PIECE = 256, 2**16
"""A file's mark is made of so many pieces of so many bytes, evenly spread: a clip of hours has many gigabytes."""


def clip_bytes(clip: Footage, video: str) -> bytes:
    """The file of what is seen of a clip, with its latents, and the mark of the `video` that it was read from."""
    assert clip.latents is not None
    data = {
        "latents": ("F32", np.ascontiguousarray(clip.latents, "<f4")),
        "first": ("U8", np.ascontiguousarray(clip.first)),
        "pair": ("U8", np.ascontiguousarray(clip.pair)),
    }
    head = compose(
        {name: (kind, values.shape) for name, (kind, values) in data.items()},
        {"behind": str(int(clip.behind)), "mark": mark_of(video)},
    )
    return head + b"".join(values.tobytes() for _, values in data.values())


def read_clip(folder: Path) -> tuple[Footage, str]:
    """The frames that are seen of the clip, and the mark of its file; JobError if that is missing or damaged."""
    file = folder / CLIP
    try:
        arrays, texts = read_arrays(file)
        latents, first, pair = (arrays[name].copy() for name in ("latents", "first", "pair"))
        found = Footage(first, pair, texts["behind"] == "1", latents=latents)
        right = (
            latents.ndim == 5 and first.shape == pair.shape[1:] == (*first.shape[:2], 3) and len(pair) == 2
        )
        if right:
            return found, texts["mark"]
    except (ModelError, KeyError, OSError, ValueError, IndexError):
        pass
    raise JobError(
        f"{file}, what the job sees of its clip, is missing or damaged; put it back, or begin anew."
    )


def check_clip(folder: Path, video: str) -> None:
    """Raise JobError if the clip's file is gone, or is not the one that the job began with."""
    if not Path(video).is_file():
        raise JobError(f"There is no clip {video}, to which the job in {folder} is joined; put it back.")
    if mark_of(video) != read_clip(folder)[1]:
        raise JobError(
            f"{video} is not the clip any more that the job in {folder} was begun with; put that one back, or begin "
            "the job anew."
        )


def mark_of(video: str) -> str:
    """A hash of a file's size and of pieces of it: of all of it, if it is small."""
    size = Path(video).stat().st_size
    found = hashlib.sha256(str(size).encode())
    with open(video, "rb") as file:
        for piece in range(PIECES):
            # Side by side in a small file, with gaps between them in a large one.
            file.seek(max(piece * PIECE, piece * (size - PIECE) // (PIECES - 1)))
            found.update(file.read(PIECE))
    return found.hexdigest()
