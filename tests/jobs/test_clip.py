"""The clip of a job on disk: what is seen of it decides the sections, and its file is known by a mark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longtake.errors import JobError
from longtake.job import Job
from longtake.jobs.clip import CLIP, PIECE, PIECES, check_clip, mark_of, read_clip
from longtake.jobs.folder import JobFolder
from longtake.spans import Clip
from longtake.video.footage import Footage

SEEN = Footage(
    first=np.full((32, 48, 3), 7, np.uint8),
    pair=np.arange(2 * 32 * 48 * 3, dtype=np.uint8).reshape(2, 32, 48, 3),
    behind=False,
    latents=np.arange(4 * 3 * 4 * 6, dtype=np.float32).reshape(1, 4, 3, 4, 6),
)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "a.mp4").write_bytes(b"a clip")
    clip = Clip(str(tmp_path / "a.mp4"), 3)
    return Job(
        "It moves.", clip=clip, sampling="vanilla", frames=30, window=2, width=48, height=32, dtype="float32"
    )


def test_what_is_seen_of_a_clip_comes_back(tmp_path: Path, job: Job) -> None:
    with JobFolder.create(tmp_path / "job", job, clip=SEEN) as folder:
        assert folder.picture is None
    with JobFolder.open(tmp_path / "job") as folder:
        found: Any = folder.inputs.clip
    for name in ("first", "pair", "latents"):
        assert np.array_equal(getattr(found, name), getattr(SEEN, name))
    assert (found.behind, found.count, found.frames) == (False, 3, None)


def test_sections_are_made_again_if_what_is_seen_is_another(tmp_path: Path, job: Job) -> None:
    recipes = []
    # The name of the clip decides nothing, nor does a part of it that no section sees.
    (tmp_path / "b.mp4").write_bytes(b"a clip")
    other = replace(job, clip=Clip(str(tmp_path / "b.mp4"), 3))
    darker = replace(SEEN, latents=SEEN.latents - 1)
    for place, (asked, seen) in enumerate(((job, SEEN), (other, SEEN), (job, darker))):
        with JobFolder.create(tmp_path / str(place), asked, clip=seen) as folder:
            folder.begin(folder.job, "float32")
            folder.write_section(0, np.zeros((1, 4, 2, 4, 6), np.float32))
            recipes.append(folder._recipes[0])
    # The name of the clip decides nothing.
    assert recipes[0] == recipes[1] != recipes[2]


def test_a_clip_that_is_another_one_is_refused(tmp_path: Path, job: Job) -> None:
    with JobFolder.create(tmp_path / "job", job, clip=SEEN) as folder:
        video = folder.job.clip.video
        check_clip(folder.path, video)
        Path(video).write_bytes(b"a clap")
        with pytest.raises(JobError, match="is not the clip any more"):
            check_clip(folder.path, video)
        Path(video).unlink()
        with pytest.raises(JobError, match="There is no clip"):
            check_clip(folder.path, video)


def test_a_job_without_what_it_sees_is_refused(tmp_path: Path, job: Job) -> None:
    for given in (None, replace(SEEN, latents=None)):
        with pytest.raises(JobError, match="keeps what is seen of its clip"):
            JobFolder.create(tmp_path / "job", job, clip=given)
    with JobFolder.create(tmp_path / "job", job, clip=SEEN):
        pass
    file = tmp_path / "job" / CLIP
    for data in (file.read_bytes()[:-9], b"", file.read_bytes()[:40]):
        file.write_bytes(data)
        with pytest.raises(JobError, match="is missing or damaged"):
            read_clip(tmp_path / "job")


def test_the_mark_of_a_large_file_is_found_by_pieces_of_it(tmp_path: Path) -> None:
    file = tmp_path / "large.mp4"
    with file.open("wb") as out:
        out.truncate(3 * PIECES * PIECE)
    before = mark_of(str(file))
    for place in (0, 3 * PIECES * PIECE - 1):
        with file.open("r+b") as out:
            out.seek(place)
            out.write(b"x")
        assert mark_of(str(file)) != before
        before = mark_of(str(file))
