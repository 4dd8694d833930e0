"""Pieces of a video: whatever is done to a job, a piece that is used again has the frames that would be made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake import backend
from longtake.cli.extend import earlier
from longtake.events import FramesReady, FramesUnwanted
from longtake.job import Job, SectionChange
from longtake.jobs.folder import JobFolder
from longtake.jobs.pieces import Cut, Pieces
from longtake.models.vae.streaming import cuts
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks

pytestmark = pytest.mark.skipif(backend.name != "torch", reason="the same on both frameworks")

# Eight sections of two latent frames; the decoder's tiles have five of them, every three.
JOB = Job("a small blue bird takes off", frames=62, window=2, steps=1, seed=3, width=48, height=32)


def pieces_of(folder: JobFolder, networks: Networks) -> Pieces:
    def cut() -> Cut:
        grid, form = cuts(networks.vae, folder.job.decoding)
        return Cut(grid, False, form)

    return folder.pieces({}, ".mp4", cut)


class Kept:
    """The frames of each piece by its name, as a folder would keep them encoded."""

    def __init__(self, networks: Networks) -> None:
        self.networks, self.frames = networks, dict[str, np.ndarray]()

    def made(self, path: Path) -> tuple[np.ndarray, list[int]]:
        """The video with the pieces that are there, and the sections whose frames were made."""
        with JobFolder.open(path, "a model") as folder:
            pieces = pieces_of(folder, self.networks)
            pieces.find = lambda number: path if pieces._name(number) in self.frames else None  # type: ignore[assignment]
            events = generate(folder.job, self.networks, folder.inputs, store=folder, wanted=pieces.wanted)
            came: dict[int, Any] = {}
            for event in events:
                if isinstance(event, FramesReady):
                    came.update(enumerate(event.frames[0], event.start))
                if isinstance(event, FramesUnwanted):
                    came.update(dict.fromkeys(range(event.start, event.start + event.count)))
            assert list(came) == list(range(pieces.plan.frames))
            video, new = [], []
            for number in range(pieces.plan.count):
                name, frames = pieces._name(number), pieces.frames(number)
                if name not in self.frames:
                    new.append(number)
                    self.frames[name] = np.stack([came[frame] for frame in frames])
                video.append(self.frames[name])
        return np.concatenate(video), new


def whole(path: Path, networks: Networks) -> np.ndarray:
    """All frames, decoded at once."""
    with JobFolder.open(path, "a model") as folder:
        events = generate(folder.job, networks, folder.inputs, store=folder)
        return np.concatenate([event.frames[0] for event in events if isinstance(event, FramesReady)])


def turned(path: Path, change: Callable[[Job], Job] | None) -> None:
    with JobFolder.open(path, "a model") as folder:
        folder.undo() if change is None else folder.change(change(folder.job))


@pytest.mark.parametrize(
    ("sampling", "decoding"), [("inverted", "exact"), ("vanilla", "exact"), ("vanilla", "causal")]
)
def test_pieces_make_the_video_that_is_made_at_once(
    sampling: str, decoding: str, networks: Networks, picture: Image.Image, tmp_path: Path
) -> None:
    path, kept = tmp_path / "job", Kept(networks)
    JobFolder.create(
        path, replace(JOB, sampling=sampling, decoding=decoding), picture, model="a model"
    ).close()
    made = []
    changes = (
        lambda job: job,
        lambda job: replace(job, changes=(SectionChange(2 if sampling == "inverted" else 4, seed=9),)),
        None,
        lambda job: earlier(job, 24) if sampling == "inverted" else replace(job, frames=80),
        lambda job: replace(job, frames=50),
    )
    for change in changes:
        turned(path, change)
        video, new = kept.made(path)
        np.testing.assert_array_equal(video, whole(path, networks))
        made.append(new)
    if decoding == "causal":
        assert made[2] == []
        return
    # A tile has five latent frames, and the one that it fades from as many; what was undone is there.
    assert made[:3] == [
        list(range(8)),
        {"inverted": [0, 1, 2, 3, 4, 5], "vanilla": [3, 4, 5, 6, 7]}[sampling],
        [],
    ]
    assert made[3] == {"inverted": [0, 1, 2, 3, 4, 5, 6, 7], "vanilla": [7, 8, 9]}[sampling]


def test_a_piece_is_found_whole_or_not_at_all(
    networks: Networks, picture: Image.Image, tmp_path: Path
) -> None:
    JobFolder.create(tmp_path / "job", JOB, picture, model="a model").close()
    with JobFolder.open(tmp_path / "job", "a model") as folder:
        pieces = pieces_of(folder, networks)
        assert pieces.wanted(0, 9) and pieces.find(0) is None
        for number in (0, 1):
            pieces.making(number).write_bytes(b"the frames of a section")
            pieces.keep(number, pieces.making(number))
        pieces.making(2).write_bytes(b"begun")
        pieces = pieces_of(folder, networks)
        file = pieces.find(0)
        assert file is not None and not pieces.wanted(0, 9) and pieces.wanted(0, 18)
        file.write_bytes(b"the frames of a sectioN")
        assert pieces_of(folder, networks).find(0) is None and not file.exists()
        pieces.also = [4]
        assert pieces.wanted(0, 9) and not pieces.wanted(0, 4)
        pieces.tidy(0)
        assert list((folder.path / "pieces").iterdir()) == [pieces.find(1)]
        pieces_of(folder, networks).tidy(0)  # which has asked for none
        assert not list((folder.path / "pieces").iterdir())


def test_frames_behind_what_is_shown_are_wanted_by_nobody(
    networks: Networks, picture: Image.Image, tmp_path: Path
) -> None:
    JobFolder.create(tmp_path / "job", JOB, picture, model="a model").close()
    with JobFolder.open(tmp_path / "job", "a model") as folder:
        pieces = pieces_of(folder, networks)
        assert [pieces.frames(number).stop for number in range(8)] == [9, 17, 25, 33, 41, 49, 57, 62]
        assert not pieces.wanted(62, 99) and not pieces.wanted(-5, 0) and pieces.wanted(-5, 1)
