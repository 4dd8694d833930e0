"""Jobs on disk: what is kept, what is replayed, what is refused."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake import backend
from longtake.backend import ops
from longtake.errors import JobError, ModelError, PictureError
from longtake.events import FramesReady, SectionDone, Stepped
from longtake.job import Job, Lora, SectionChange
from longtake.jobs import folder as rooms
from longtake.jobs.folder import JobFolder, Scratch, describe_job, read_log, section_file
from longtake.pipeline.decode import Decoding
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks
from longtake.plan.plans import plan_of, sources

# Four sections of two latent frames: 33 frames, of which 30 are asked for.
JOB = Job("a small blue bird takes off", frames=30, window=2, steps=2, seed=3, width=48, height=32)
SAMPLINGS = ["inverted", "vanilla"]


# What is about files and plans says nothing of a framework; MindSpore's share of it takes minutes.
ON_BOTH = {
    "test_a_folder_changes_nothing_and_is_replayed",
    "test_numbers_that_go_wrong_name_section_and_step_and_lose_nothing",
    "test_plain_frames_stop_the_job",
}


@pytest.fixture(autouse=True)
def _once(request: pytest.FixtureRequest) -> None:
    if backend.name != "torch" and request.node.originalname not in ON_BOTH:
        pytest.skip("the same on both frameworks")


class Made:
    """What a run tells: sections made or replayed, latents by number, and all frames."""

    def __init__(self, events: Any) -> None:
        self.made: list[int] = []
        self.replayed: list[int] = []
        self.latents: dict[int, np.ndarray] = {}
        frames, stepped = [], False
        for event in events:
            stepped = stepped or isinstance(event, Stepped)
            if isinstance(event, SectionDone):
                (self.made if stepped else self.replayed).append(event.number)
                self.latents[event.number] = event.latents
                stepped = False
            if isinstance(event, FramesReady):
                assert event.start == sum(piece.shape[1] for piece in frames)
                frames.append(event.frames)
        self.frames = np.concatenate(frames, axis=1)

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Made)
        assert self.latents.keys() == other.latents.keys()
        for number, latents in self.latents.items():
            np.testing.assert_array_equal(latents, other.latents[number])
        np.testing.assert_array_equal(self.frames, other.frames)
        return True


@pytest.fixture
def begin(tmp_path: Path, picture: Image.Image) -> Callable[..., JobFolder]:
    def begin(job: Job = JOB, name: str = "job", last: Any = None) -> JobFolder:
        return JobFolder.create(tmp_path / name, job, picture, last, model="a model")

    return begin


def run(folder: JobFolder, networks: Networks) -> Made:
    with folder:
        return Made(generate(folder.job, networks, folder=folder))


def reopened(folder: JobFolder) -> JobFolder:
    return JobFolder.open(folder.path, "a model")


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_folder_changes_nothing_and_is_replayed(
    sampling: str, networks: Networks, picture: Image.Image, begin: Callable[..., JobFolder]
) -> None:
    job = replace(JOB, sampling=sampling)
    plain = Made(generate(job, networks, picture))
    assert plain.frames.shape == (1, 30, 32, 48, 3)
    folder = begin(job)
    first = run(folder, networks)
    assert first == plain and not first.replayed
    again = run(reopened(folder), networks)
    assert again == plain and not again.made and again.replayed == first.made


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("stop", [0, 1, 3, 5])
def test_it_goes_on_where_it_was_cancelled(
    sampling: str, stop: int, networks: Networks, picture: Image.Image, begin: Callable[..., JobFolder]
) -> None:
    job = replace(JOB, sampling=sampling)
    folder = begin(job)
    events: Any = generate(folder.job, networks, folder=folder)
    for event in events:
        if isinstance(event, Stepped) and 2 * event.section + event.step == stop:
            break
    events.close()
    folder.close()
    resumed = run(reopened(folder), networks)
    assert len(resumed.replayed) == stop // 2
    assert resumed == Made(generate(job, networks, picture))


def test_with_a_last_picture_and_guidance(
    networks: Networks, picture: Image.Image, last_picture: Image.Image, begin: Callable[..., JobFolder]
) -> None:
    job = replace(JOB, frames=25, cfg_scale=3.0, negative_prompt="a red ball")
    folder = begin(job, last=last_picture)
    assert run(folder, networks) == Made(generate(job, networks, picture, last_picture))
    section_file(folder.path, 1).unlink()
    again = run(reopened(folder), networks)
    assert (again.replayed, again.made) == ([2, 0], [1])
    assert again == Made(generate(job, networks, picture, last_picture))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_references_stream_of_noise_is_resumed(
    sampling: str, networks: Networks, picture: Image.Image, begin: Callable[..., JobFolder]
) -> None:
    job = replace(JOB, sampling=sampling, frames=12, reference=True)
    folder = begin(job)
    whole = run(folder, networks)
    section_file(folder.path, whole.made[-1]).unlink()
    again = run(reopened(folder), networks)
    assert again.made == whole.made[-1:] and again == whole


def test_a_vanilla_video_is_extended(
    networks: Networks, picture: Image.Image, begin: Callable[..., JobFolder]
) -> None:
    job = replace(JOB, sampling="vanilla")
    folder = begin(job)
    run(folder, networks)
    folder = reopened(folder)
    longer = replace(job, frames=60)
    assert folder.change(longer) == []
    extended = run(folder, networks)
    assert (extended.replayed, extended.made) == ([0, 1, 2, 3], [4, 5, 6, 7])
    assert extended == Made(generate(longer, networks, picture))
    # What the video no longer has goes.
    folder = reopened(folder)
    assert folder.change(job) == [4, 5, 6, 7]
    assert run(folder, networks).made == []


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("change", [SectionChange(2, seed=8), SectionChange(1, prompt="a red ball bounces")])
def test_a_section_is_made_again_with_what_depends_on_it(
    sampling: str,
    change: SectionChange,
    networks: Networks,
    picture: Image.Image,
    begin: Callable[..., JobFolder],
) -> None:
    job = replace(JOB, sampling=sampling)
    folder = begin(job)
    before = run(folder, networks)
    folder = reopened(folder)
    changed = replace(job, changes=(change,))
    dropped = folder.change(changed)
    seen = sources(plan_of(job)[0])
    assert dropped == sorted(
        {change.section} | {n for n, numbers in seen.items() if change.section in numbers}
    )
    after = run(folder, networks)
    assert sorted(after.made) == dropped and 0 < len(after.replayed) < 4
    for number, latents in after.latents.items():
        assert np.array_equal(latents, before.latents[number]) == (number not in dropped)
    assert after == Made(generate(changed, networks, picture))
    # And back again.
    folder = reopened(folder)
    assert folder.change(job) == dropped
    assert run(folder, networks) == before


def test_a_change_that_was_interrupted_is_resumed(
    networks: Networks, picture: Image.Image, begin: Callable[..., JobFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin()
    run(folder, networks)
    changed = replace(JOB, changes=(SectionChange(1, seed=8),))
    folder = reopened(folder)
    # Ends between the new job and the first section that goes.
    monkeypatch.setattr(rooms, "_recipe_of", lambda file: 1 / 0)
    with pytest.raises(ZeroDivisionError), folder:
        folder.change(changed)
    monkeypatch.undo()
    assert {number for number, state in reopened(folder).states().items() if state == "outdated"} == {0, 1}
    resumed = run(reopened(folder), networks)
    assert resumed.made == [1, 0]
    assert resumed == Made(generate(changed, networks, picture))
    assert [line["event"] for line in read_log(folder.path)].count("section_outdated") == 2


def test_pictures_of_any_kind_are_kept_without_loss(tmp_path: Path, networks: Networks) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    with JobFolder.create(tmp_path / "job", JOB, pixels, model="a model") as folder:
        np.testing.assert_array_equal(np.asarray(folder.picture), pixels)
        assert folder.last_picture is None
        assert Made(generate(folder.job, networks, folder=folder)) == Made(generate(JOB, networks, pixels))


def test_a_job_stands_alone(
    tmp_path: Path, networks: Networks, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    picture.save("a.png")
    with JobFolder.create("job", replace(JOB, picture="a.png", model="model"), model="a model") as folder:
        assert folder.job.model == str(tmp_path / "model")
        first = Made(generate(folder.job, networks, folder=folder))
    Path("a.png").unlink()
    monkeypatch.chdir("/")
    os.rename(tmp_path / "job", tmp_path / "moved")
    again = run(JobFolder.open(tmp_path / "moved", "a model"), networks)
    assert again == first and not again.made


def edited(folder: Path, **changes: Any) -> None:
    file = folder / "job.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_what_cannot_go_on_is_refused(tmp_path: Path, begin: Callable[..., JobFolder]) -> None:
    folder = begin()
    with pytest.raises(JobError, match="Another process is at work"):
        reopened(folder)
    folder.close()
    with pytest.raises(JobError, match="another model than embedded is now"):
        JobFolder.open(folder.path, "another")
    reopened(folder).close()  # a refusal lets go of the lock
    with pytest.raises(JobError, match="holds a job already; go on with it by: longtake resume"):
        begin()
    edited(folder.path, longtake="0.0.1")
    with pytest.raises(JobError, match=r"begun by longtake 0\.0\.1 .* and this is "):
        reopened(folder)
    with pytest.raises(JobError, match=r"begun by longtake 0\.0\.1"):
        describe_job(folder.path)
    for text in ("", "{", "[]", "{}", '{"format": 1}'):
        (folder.path / "job.json").write_text(text)
        with pytest.raises(JobError, match=r"job\.json is damaged"):
            reopened(folder)
    with pytest.raises(JobError, match="There is no folder"):
        JobFolder.open(tmp_path / "none")
    (tmp_path / "other").mkdir()
    with pytest.raises(JobError, match=r"holds no job: it has no job\.json"):
        JobFolder.open(tmp_path / "other")
    (tmp_path / "other" / "letter.txt").touch()
    with pytest.raises(JobError, match=r"not empty \(it holds 'letter.txt'\)"):
        begin(name="other")
    with pytest.raises(JobError, match="is a file"):
        begin(name="other/letter.txt")


def test_what_cannot_begin_leaves_no_folder(tmp_path: Path, picture: Image.Image) -> None:
    place = tmp_path / "job"
    for job, first, words in (
        (replace(JOB, width=None), picture, "needs its size"),
        (JOB, None, "begins with a picture"),
        (replace(JOB, sampling="vanilla", last_picture="none.png"), picture, "inverted"),
    ):
        with pytest.raises(JobError, match=words):
            JobFolder.create(place, job, first)
    with pytest.raises(PictureError, match=r"none\.png"):
        JobFolder.create(place, replace(JOB, picture="none.png"))
    with pytest.raises(ModelError):
        JobFolder.create(place, replace(JOB, loras=(Lora("none.safetensors"),)), picture)
    assert not place.exists()


def test_a_folder_that_was_begun_and_never_finished_can_be_begun_again(
    begin: Callable[..., JobFolder], networks: Networks
) -> None:
    folder = begin()
    folder.close()
    (folder.path / "job.json").rename(folder.path / ".job.json.part")
    run(begin(), networks)


def test_another_job_than_the_folders_is_refused(networks: Networks, begin: Callable[..., JobFolder]) -> None:
    with begin() as folder, pytest.raises(JobError, match="holds another job"):
        next(generate(replace(JOB, seed=9), networks, folder=folder))


def test_a_change_of_a_section_that_is_not_there_is_refused(networks: Networks, picture: Image.Image) -> None:
    with pytest.raises(JobError, match="There is no section 4; this video has the sections 0 to 3"):
        next(generate(replace(JOB, changes=(SectionChange(4, seed=1),)), networks, picture))


def test_a_lora_that_changed_is_refused(tmp_path: Path, picture: Image.Image) -> None:
    from safetensors.numpy import save_file

    file = tmp_path / "walk.safetensors"
    save_file({"a": np.zeros(3)}, file)
    job = replace(JOB, loras=(Lora(str(file)),))
    JobFolder.create(tmp_path / "job", job, picture).close()
    JobFolder.open(tmp_path / "job").close()
    save_file({"a": np.ones(3)}, file)
    with pytest.raises(JobError, match=r"walk\.safetensors is not the LoRA any more"):
        JobFolder.open(tmp_path / "job")


def test_describe_tells_of_every_section(begin: Callable[..., JobFolder], networks: Networks) -> None:
    folder = begin()
    facts = describe_job(folder.path)
    assert (facts["done"], facts["sections"], facts["frames"], facts["running"]) == (0, 4, 30, True)
    run(folder, networks)
    os.truncate(section_file(folder.path, 0), 7)
    section_file(folder.path, 3).unlink()
    assert describe_job(folder.path)["states"] == {"0": "damaged", "1": "done", "2": "done", "3": "missing"}
    assert describe_job(folder.path)["running"] is False


def test_the_log_survives_torn_lines(begin: Callable[..., JobFolder]) -> None:
    folder = begin()
    folder.close()
    with (folder.path / "log.jsonl").open("ab") as log:
        log.write(b'{"time": "20')
    with reopened(folder) as again:
        again.log("one")
        again.log("two", text="ü")
    assert [line["event"] for line in read_log(folder.path)] == ["created", "one", "two"]


# ------------------------------------------------------------------------------------- numbers that go wrong


class Broken:
    """A transformer whose velocity is `value` from a certain call on."""

    def __init__(self, network: Any, first: int, value: float = float("nan")) -> None:
        self.network, self.left, self.value = network, first, value
        self.config, self.device, self.dtype = network.config, network.device, network.dtype

    def __call__(self, **inputs: Any) -> Any:
        self.left -= 1
        (velocity,) = self.network(**inputs)
        return (velocity if self.left >= 0 else velocity * self.value,)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("sampling", "number"), [("inverted", 2), ("vanilla", 1)])
def test_numbers_that_go_wrong_name_section_and_step_and_lose_nothing(
    value: float,
    sampling: str,
    number: int,
    networks: Networks,
    picture: Image.Image,
    begin: Callable[..., JobFolder],
) -> None:
    job = replace(JOB, sampling=sampling)
    folder = begin(job)
    with pytest.raises(JobError, match=f"wrong in section {number} at step 2 of 2"), folder:
        list(
            generate(
                folder.job,
                replace(networks, transformer=Broken(networks.transformer, 3, value)),
                folder=folder,
            )
        )
    assert read_log(folder.path)[-1]["event"] == "stopped"
    resumed = run(reopened(folder), networks)
    assert len(resumed.replayed) == 1
    assert resumed == Made(generate(job, networks, picture))


class Autoencoder:
    """An autoencoder whose frames are noise, but for a stretch of them."""

    class config:
        scaling_factor = 1.0

    device, dtype = "cpu", "float32"


def decoded(monkeypatch: pytest.MonkeyPatch, frames: np.ndarray, **options: Any) -> int:
    """How many frames come out of a decoder that gives these, in three pieces."""
    pieces = [ops.from_numpy(np.ascontiguousarray(piece)) for piece in np.array_split(frames, 3, axis=2)]

    class Given:
        def __init__(self, vae: Any, mode: str) -> None:
            self.rest = list(pieces)

        def push(self, latents: Any) -> list[Any]:
            return [self.rest.pop(0)]

        def finish(self) -> list[Any]:
            return self.rest

    monkeypatch.setattr("longtake.pipeline.decode.StreamingDecoder", Given)
    monkeypatch.setattr("longtake.pipeline.decode.unscaled", lambda vae, latents: latents)
    decoding = Decoding(Autoencoder(), frames.shape[2], **options)
    events = [*decoding.push(np.zeros(1)), *decoding.finish()]
    return sum(event.frames.shape[1] for event in events)


def test_plain_frames_stop_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(0).uniform(-1, 1, (1, 3, 33, 8, 8)).astype(np.float32)
    assert decoded(monkeypatch, frames, window=2) == 33
    faded = frames.copy()
    faded[:, :, 10:13] = 0.5
    assert decoded(monkeypatch, faded, window=2) == 33
    faded[:, :, 13] = 0.2
    with pytest.raises(
        JobError, match=r"Section 1 came out plain: every pixel of frames 10 to 13 .* last step"
    ):
        decoded(monkeypatch, faded, window=2)
    assert decoded(monkeypatch, faded, window=2, plain=True) == 33
    frames[:, :, 17, 3, 3] = np.nan
    with pytest.raises(JobError, match="went wrong in section 1"):
        decoded(monkeypatch, frames, window=2)


# ------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("kept", [False, True])
def test_the_latents_of_past_sections_are_let_go(
    sampling: str, kept: bool, networks: Networks, picture: Image.Image, begin: Callable[..., JobFolder]
) -> None:
    job = replace(JOB, sampling=sampling, frames=81, steps=1)
    folder = begin(job) if kept else None
    alive: list[Any] = []
    for event in generate(job, networks, picture, folder=folder):
        if isinstance(event, SectionDone):
            alive.append(weakref.ref(event.latents))
        del event
        # The newest is in the loop's own hands until the next one is made.
        assert sum(each() is not None for each in alive) <= 2
    assert len(alive) == 10


def test_scratch_goes_at_the_end_and_when_cancelled(
    tmp_path: Path, networks: Networks, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    events: Any = generate(JOB, networks, picture)
    while not isinstance(next(events), SectionDone):
        pass
    assert len(list(tmp_path.glob("*/*.npy"))) == 1
    events.close()
    assert not list(tmp_path.iterdir())
    list(generate(JOB, networks, picture))
    assert not list(tmp_path.iterdir())
    with Scratch() as scratch:
        assert scratch.read_section(3) is None
        scratch.write_section(3, np.arange(6.0))
        assert scratch.read_section(3).tolist() == [0, 1, 2, 3, 4, 5]  # type: ignore[union-attr]
