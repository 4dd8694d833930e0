"""Processes that are killed at any moment, torn files and full disks: the resumed video is the uninterrupted one."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake import backend
from longtake.jobs.log import read_log
from longtake.jobs.state import describe_job
from longtake.jobs.stored import is_job
from longtake.video import read_video

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the driver forks"),
    pytest.mark.skipif(backend.name != "torch", reason="a fork of MindSpore does not compute"),
]

# Four sections of 12 frames, 48 of 49 are kept; half a second of work.
JOB = [
    "It moves.",
    "--size",
    "32",
    "--window",
    "3",
    "--frames",
    "48",
    "--steps",
    "2",
    "--zoom",
    "1",
    "--seed",
    "5",
]
DIRECTED = "directed"
"""In the place of a sampling: a loop from text with a picture of half the strength in it, and a prompt that changes."""
KILLS = {"plain": 3, "slow": 25}  # for each sampling


class Driver:
    """The other end of fault_driver.py."""

    def __init__(self, folder: Path) -> None:
        self.errors = folder / "said.txt"
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fault_driver.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # One thread, since a child of a fork has none of its parent's others.
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None and self.process.stdout.readline() == "ready\n"

    def run(
        self, *argv: Any, kill_after: float | None = None, slow: bool = False, largest: int | None = None
    ) -> tuple[int, float]:
        """(exit code, seconds) of one command line."""
        assert self.process.stdin is not None and self.process.stdout is not None
        asked = {"argv": list(map(str, argv)), "kill_after": kill_after, "slow": slow, "largest": largest}
        self.process.stdin.write(json.dumps({**asked, "errors": str(self.errors)}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["code"], answer["seconds"]

    def said(self) -> str:
        """What the last command line said."""
        return self.errors.read_text()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    driver = Driver(tmp_path_factory.mktemp("driver"))
    yield driver
    driver.close()


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pictures") / "a.png"
    noise = np.random.default_rng(3).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((32, 32), Image.Resampling.BICUBIC).save(file)
    return file


@pytest.fixture(scope="module")
def uninterrupted(
    driver: Driver, picture: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[np.ndarray, float]]:
    """The frames of the video made in one go, by sampling, and the seconds that it took."""
    place, found = tmp_path_factory.mktemp("whole"), {}
    for sampling in ("inverted", "vanilla", DIRECTED):
        code, seconds = driver.run(*words_of(picture, sampling), "--job", place / sampling)
        assert code == 0, driver.said()
        found[sampling] = read_video(place / sampling / "video.mp4")[0], seconds
    return found


def words_of(picture: Path, sampling: str) -> list[Any]:
    if sampling != DIRECTED:
        return ["generate", picture, *JOB, "--sampling", sampling]
    timed = ["--keyframe", f"0.5={picture}:0.5", "--loop", "--blend", "1"]
    return ["generate", "A ball. [0.8s: It moves.]", *JOB[1:], *timed]


def generate(picture: Path, sampling: str, folder: Path) -> list[Any]:
    return [*words_of(picture, sampling), "--job", folder]


def tear(folder: Path, chance: random.Random) -> str:
    """Cut a file of the job somewhere, as a disk may that was not told to write in time; job.json and pictures stay."""
    names = [
        *folder.glob("sections/*"),
        *folder.glob("takes/*"),
        *folder.glob("pieces/*"),
        *folder.glob("log.jsonl"),
        *folder.glob("video.mp4"),
        *folder.glob(".*.part"),
    ]
    if not names:
        return "nothing"
    file = chance.choice(sorted(names))
    os.truncate(file, chance.randrange(file.stat().st_size + 1))
    return file.name


@pytest.mark.parametrize("sampling", ["inverted", "vanilla", DIRECTED])
@pytest.mark.parametrize("amount", ["plain", pytest.param("slow", marks=pytest.mark.slow)])
def test_killed_at_random_moments(
    sampling: str,
    amount: str,
    driver: Driver,
    picture: Path,
    uninterrupted: dict[str, tuple[np.ndarray, float]],
    tmp_path: Path,
) -> None:
    frames, seconds = uninterrupted[sampling]
    # Moments differ from run to run anyhow, by the machine's load; the seed makes the torn files repeatable.
    chance = random.Random(f"{sampling} {amount}")
    kills = videos = torn = 0
    while kills < KILLS[amount]:
        folder = tmp_path / str(videos)
        finished = False
        while not finished:
            words = ["resume", folder] if is_job(folder) else generate(picture, sampling, folder)
            enough = kills >= KILLS[amount]
            code, _ = driver.run(
                *words,
                kill_after=None if enough else chance.uniform(0, 1.5 * seconds),
                slow=chance.random() < 0.7,
            )
            assert code in (0, -9), driver.said()
            finished = code == 0
            kills += code == -9
            if amount == "slow" and not finished and chance.random() < 0.3:
                torn += tear(folder, chance) != "nothing"
        np.testing.assert_array_equal(read_video(folder / "video.mp4")[0], frames)
        state = describe_job(folder)
        assert state["done"] == state["sections"] >= 4
        videos += 1
    print(f"{sampling}: {kills} kills, {torn} torn files, {videos} videos")  # shown by pytest -rP


def made_anew(driver: Driver, folder: Path, place: Path) -> np.ndarray:
    """The frames of the folder's job, made in one go in another folder."""
    place.mkdir()
    for file in (folder / "job.json", *folder.glob("*.png")):
        shutil.copy(file, place)
    assert driver.run("resume", place)[0] == 0, driver.said()
    return read_video(place / "video.mp4")[0]


CHANGES: dict[str, list[list[Any]]] = {
    "inverted": [["redo", "--section", 1], ["undo"], ["extend", "--frames", 12, "--before"]],
    "vanilla": [["redo", "--seconds", "1-"], ["extend", "--frames", 12], ["undo"]],
    DIRECTED: [["redo", "--seconds", "0.9"], ["redo", "--section", "0,1", "--prompt", "It sits."], ["undo"]],
}


@pytest.mark.parametrize("sampling", ["inverted", "vanilla", DIRECTED])
@pytest.mark.parametrize("kills", [0, pytest.param(20, marks=pytest.mark.slow)])
def test_changes_make_the_video_that_is_made_at_once(
    sampling: str, kills: int, driver: Driver, picture: Path, tmp_path: Path
) -> None:
    """Whatever a killed redo, undo or extend leaves, and whatever it takes from takes and pieces."""
    folder, chance, done, killed = tmp_path / "job", random.Random(f"{sampling} {kills}"), 0, 0
    code, seconds = driver.run(*generate(picture, sampling, folder))
    assert code == 0, driver.said()
    while killed < kills or done < (1 if kills else 2):
        verb, *rest = chance.choice(CHANGES[sampling]) if kills else CHANGES[sampling][2 * done]
        words = [verb, folder, *rest]
        while True:
            after = chance.uniform(0, seconds) if killed < kills else None
            code, _ = driver.run(*words, kill_after=after, slow=chance.random() < 0.5 and bool(kills))
            assert code in (0, 2, -9), driver.said()
            if code == 2:
                refusals = ("nothing to undo", "with this seed and prompt already")
                assert any(sentence in driver.said() for sentence in refusals), driver.said()
            if code != -9:
                break
            killed += 1
            words = ["resume", folder]
        done += 1
        if done % 5 == 0 or not kills or killed == kills:
            frames = made_anew(driver, folder, tmp_path / str(done))
            np.testing.assert_array_equal(read_video(folder / "video.mp4")[0], frames)
    print(f"{sampling}: {killed} kills, {done} changes")  # shown by pytest -rP


def test_files_that_must_not_grow_are_one_sentence_and_lose_nothing(
    driver: Driver, picture: Path, uninterrupted: dict[str, tuple[np.ndarray, float]], tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    # A section's file has 6.5 kB.
    code, _ = driver.run(*generate(picture, "inverted", folder), largest=5000)
    said = driver.said()
    assert code == 1 and said.splitlines()[-1].startswith("longtake: ")
    assert f"longtake resume {folder}" in said and "Traceback" not in said
    assert is_job(folder) and describe_job(folder)["done"] == 0
    assert not list(folder.glob("sections/.*"))
    assert read_log(folder)[-1]["event"] == "stopped"
    assert driver.run("resume", folder)[0] == 0, driver.said()
    # The video alone does not fit: every section is kept.
    (folder / "video.mp4").unlink()
    code, _ = driver.run("resume", folder, largest=1000)
    assert code == 1 and "Traceback" not in driver.said()
    assert describe_job(folder)["done"] == 4
    assert driver.run("resume", folder)[0] == 0, driver.said()
    np.testing.assert_array_equal(read_video(folder / "video.mp4")[0], uninterrupted["inverted"][0])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 kB, where the system lets us make one."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24k", "none", str(place)], capture_output=True
        )
    except OSError:
        pytest.skip("there is no mount")
    if made.returncode:
        pytest.skip("no disk can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("sampling", ["inverted", "vanilla"])
def test_a_full_disk_is_one_sentence_and_loses_nothing(
    sampling: str,
    driver: Driver,
    picture: Path,
    uninterrupted: dict[str, tuple[np.ndarray, float]],
    small_disk: Path,
) -> None:
    folder = small_disk / "job"
    code, _ = driver.run(*generate(picture, sampling, folder))
    assert code == 1 and "No space left" in driver.said() and "Traceback" not in driver.said()
    assert 0 < describe_job(folder)["done"] < 4
    assert driver.run("resume", folder)[0] in (1, 2), "still full"
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert driver.run("resume", folder)[0] == 0, driver.said()
    np.testing.assert_array_equal(read_video(folder / "video.mp4")[0], uninterrupted[sampling][0])


@pytest.mark.parametrize("sampling", ["inverted", "vanilla"])
def test_a_damaged_section_is_made_again(
    sampling: str,
    driver: Driver,
    picture: Path,
    uninterrupted: dict[str, tuple[np.ndarray, float]],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "job"
    assert driver.run(*generate(picture, sampling, folder))[0] == 0, driver.said()
    torn, changed, gone = (folder / "sections" / f"0000{number}.safetensors" for number in (0, 1, 2))
    os.truncate(torn, 300)
    data = bytearray(changed.read_bytes())
    data[-100] ^= 1  # one bit
    changed.write_bytes(data)
    gone.unlink()
    with (folder / "log.jsonl").open("ab") as log:
        log.write(b'{"time": "2026')
    assert driver.run("resume", folder)[0] == 0, driver.said()
    np.testing.assert_array_equal(read_video(folder / "video.mp4")[0], uninterrupted[sampling][0])
    events = [line["event"] for line in read_log(folder)]
    resumed = events[events.index("resumed") :]
    assert sorted(resumed) == sorted(
        ["resumed", *["section_damaged"] * 2, *["section_done"] * 3, "video_written"]
    )
    assert (folder / "sections" / "00001.damaged").exists()


def test_two_processes_do_not_work_on_one_job(driver: Driver, picture: Path, tmp_path: Path) -> None:
    from longtake.jobs.folder import JobFolder

    folder = tmp_path / "job"
    assert driver.run(*generate(picture, "vanilla", folder))[0] == 0, driver.said()
    with JobFolder.open(folder):
        assert driver.run("resume", folder)[0] == 2
        assert "Another process is at work" in driver.said()
        assert describe_job(folder)["running"]
    assert not describe_job(folder)["running"]
    assert driver.run("resume", folder)[0] == 0, driver.said()
