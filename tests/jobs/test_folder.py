"""Jobs on disk: what is kept, what is replayed, what is refused."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake import backend
from longtake.errors import JobError, LongtakeWarning, ModelError, PictureError, RunError
from longtake.events import FramesReady, SectionDone, Stepped
from longtake.job import Anchor, Job, Lora, SectionChange
from longtake.jobs import section
from longtake.jobs.folder import JobFolder
from longtake.jobs.log import read_log
from longtake.jobs.section import section_file
from longtake.jobs.state import describe_job
from longtake.pipeline.loop import generate
from longtake.pipeline.networks import Networks
from longtake.pipeline.prepare import Inputs
from longtake.pipeline.store import Scratch
from longtake.plan.plans import plan_of

# Four sections of two latent frames: 33 frames, of which 30 are asked for.
JOB = Job("a small blue bird takes off", frames=30, window=2, steps=2, seed=3, width=48, height=32)
SAMPLINGS = ["inverted", "vanilla", "planned"]


# What is about files and plans says nothing of a framework; MindSpore's share of it takes minutes.
ON_BOTH = {
    "test_a_folder_changes_nothing_and_is_replayed",
    "test_numbers_that_go_wrong_name_section_and_step_and_lose_nothing",
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
        return Made(generate(folder.job, networks, folder.inputs, store=folder))


def reopened(folder: JobFolder) -> JobFolder:
    return JobFolder.open(folder.path, "a model")


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_folder_changes_nothing_and_is_replayed(
    sampling: str, networks: Networks, picture: Image.Image, begin: Callable[..., JobFolder]
) -> None:
    job = replace(JOB, sampling=sampling)
    plain = Made(generate(job, networks, Inputs(picture)))
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
    events: Any = generate(folder.job, networks, folder.inputs, store=folder)
    for event in events:
        if isinstance(event, Stepped) and 2 * event.section + event.step == stop:
            break
    events.close()
    folder.close()
    resumed = run(reopened(folder), networks)
    assert len(resumed.replayed) == stop // 2
    assert resumed == Made(generate(job, networks, Inputs(picture)))


def test_with_a_last_picture_and_guidance(
    networks: Networks, picture: Image.Image, last_picture: Image.Image, begin: Callable[..., JobFolder]
) -> None:
    job = replace(JOB, frames=25, cfg_scale=3.0, negative_prompt="a red ball")
    folder = begin(job, last=last_picture)
    assert run(folder, networks) == Made(generate(job, networks, Inputs(picture, last_picture)))
    section_file(folder.path, 1).unlink()
    again = run(reopened(folder), networks)
    assert (again.replayed, again.made) == ([2, 0], [1])
    assert again == Made(generate(job, networks, Inputs(picture, last_picture)))


@pytest.mark.parametrize("sampling", SAMPLINGS[:2])
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
    assert extended == Made(generate(longer, networks, Inputs(picture)))
    # What the video no longer has is set aside, and comes back.
    folder = reopened(folder)
    assert folder.change(job) == [] and sorted(folder.states()) == [0, 1, 2, 3]
    assert run(folder, networks).made == []
    folder = reopened(folder)
    assert folder.undo() == []
    again = run(folder, networks)
    assert again.made == [] and again == extended


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
    plan, remade = plan_of(job), {change.section}
    for later in plan:
        if remade & set(plan.sources(later)):
            remade.add(later.number)
    assert dropped == sorted(remade)
    after = run(folder, networks)
    assert sorted(after.made) == dropped and 0 < len(after.replayed) < 4
    for number, latents in after.latents.items():
        assert np.array_equal(latents, before.latents[number]) == (number not in dropped)
    assert after == Made(generate(changed, networks, Inputs(picture)))
    # And back again, where nothing is made that is kept; and forth.
    folder = reopened(folder)
    assert folder.undo() == []
    back = run(folder, networks)
    assert back == before and back.made == []
    folder = reopened(folder)
    takes = {number: folder.takes(number) for number in range(4)}
    assert [len(found) for found in takes.values()] == [1 + (number in dropped) for number in range(4)]
    assert folder.change(folder.using(takes[change.section][1])) == []
    forth = run(folder, networks)
    assert forth == after and forth.made == []


def test_a_change_that_was_interrupted_is_resumed(
    networks: Networks, picture: Image.Image, begin: Callable[..., JobFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin()
    run(folder, networks)
    changed = replace(JOB, changes=(SectionChange(1, seed=8),))
    folder = reopened(folder)
    # Ends between the new job and the first section that goes.
    monkeypatch.setattr(section, "recipe_of", lambda file: 1 / 0)
    with pytest.raises(ZeroDivisionError), folder:
        folder.change(changed)
    monkeypatch.undo()
    assert {number for number, state in reopened(folder).states().items() if state == "outdated"} == {0, 1}
    resumed = run(reopened(folder), networks)
    assert resumed.made == [1, 0]
    assert resumed == Made(generate(changed, networks, Inputs(picture)))
    assert [line["event"] for line in read_log(folder.path)].count("section_outdated") == 2


def test_pictures_of_any_kind_are_kept_without_loss(tmp_path: Path, networks: Networks) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    with JobFolder.create(tmp_path / "job", JOB, pixels, model="a model") as folder:
        np.testing.assert_array_equal(np.asarray(folder.picture), pixels)
        assert folder.last_picture is None
        assert Made(generate(folder.job, networks, folder.inputs, store=folder)) == Made(
            generate(JOB, networks, Inputs(pixels))
        )


def test_a_job_stands_alone(
    tmp_path: Path, networks: Networks, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    picture.save("a.png")
    with JobFolder.create(
        "job", replace(JOB, anchors=(Anchor(0, "a.png"),), model="model"), model="a model"
    ) as folder:
        assert folder.job.model == str(tmp_path / "model")
        first = Made(generate(folder.job, networks, folder.inputs, store=folder))
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
    edited(folder.path, longtake="9.0.0")
    reopened(folder).close()  # what can be read is read
    edited(folder.path, format=3)
    for read in (reopened, lambda folder: describe_job(folder.path)):
        with pytest.raises(JobError, match=r"begun by longtake 9\.0\.0, which is newer .* update longtake"):
            read(folder)
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
        (replace(JOB, sampling="vanilla", anchors=(Anchor("end", "none.png"),)), picture, "inverted"),
    ):
        with pytest.raises(JobError, match=words):
            JobFolder.create(place, job, first)
    with pytest.raises(PictureError, match=r"none\.png"):
        JobFolder.create(place, replace(JOB, anchors=(Anchor(0, "none.png"),)))
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
        next(generate(replace(JOB, seed=9), networks, folder.inputs, store=folder))


def test_a_change_of_a_section_that_is_not_there_is_refused(networks: Networks, picture: Image.Image) -> None:
    with pytest.raises(JobError, match="There is no section 4; this video has the sections 0 to 3"):
        next(generate(replace(JOB, changes=(SectionChange(4, seed=1),)), networks, Inputs(picture)))


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


# ------------------------------------------------------------------------------------------- what decides a section


def test_networks_of_another_dtype_do_not_mix_into_a_video(
    networks: Networks, begin: Callable[..., JobFolder]
) -> None:
    """Only what the job asked for was compared, and not what the networks are."""
    folder = begin()
    assert folder.job.dtype == "auto"
    run(folder, networks)
    assert reopened(folder).job.dtype == "float32", "what it was made in"
    with JobFolder.open(folder.path) as folder:
        with pytest.raises(JobError, match="made with the networks in float32, and now they are in bfloat16"):
            folder.begin(folder.job, "bfloat16")
        folder.begin(folder.job, "float32")
        for file in (folder.path / "sections").iterdir():
            file.unlink()
        folder.begin(folder.job, "bfloat16")  # nothing is there that could mix
        folder.write_section(0, np.zeros((1, 16, 2, 4, 6), np.float32))
        assert folder.states()[0] == "done"
        with pytest.raises(JobError, match="in bfloat16, and now they are in float32"):
            folder.begin(folder.job, "float32")


def test_how_frames_are_decoded_makes_no_section_again(
    networks: Networks, begin: Callable[..., JobFolder]
) -> None:
    folder = begin(replace(JOB, sampling="vanilla"))
    run(folder, networks)
    with JobFolder.open(folder.path) as folder:
        assert folder.change(replace(folder.job, decoding="causal", fps=12)) == []
        assert set(folder.states().values()) == {"done"}


def test_a_recipe_is_found_up_to_the_section_that_is_asked_for() -> None:
    """A plan of 280,000 sections is begun as soon as one of four."""
    from longtake.jobs.recipe import Recipes

    job = replace(JOB, sampling="vanilla", frames=10_000_000, anchors=(Anchor(0, "a.png"),))
    plan = plan_of(job)
    found = Recipes(job, plan, {})
    assert found[3] != found[2] and len(found._found) == 4
    assert plan.count - 1 in found and plan.count not in found and -1 not in found
    assert Recipes(job, plan, {})[3] == found[3]
    assert Recipes(job, plan, {"model": "another"})[3] != found[3]


def test_each_thing_that_decides_a_section_is_in_its_recipe() -> None:
    from longtake.job import PromptSpan
    from longtake.jobs.recipe import Recipes

    def recipe(number: int = 1, **changes: Any) -> str:
        job = replace(JOB, anchors=(Anchor(0, "a.png"),), sampling="vanilla", **changes)
        return Recipes(job, plan_of(job), {})[number]

    plain = recipe()
    for change in (
        {"prompt": "other"}, {"negative_prompt": "x"}, {"steps": 3}, {"seed": 4}, {"guidance": 2.0}, {"shift": 3.0},
        {"cfg_scale": 2.0}, {"cfg_rescale": 0.5}, {"solver": "euler"}, {"width": 64}, {"reference": True},
        {"loras": (Lora("a"),)}, {"prompts": (PromptSpan("it jumps"),)}, {"changes": (SectionChange(0, 9),)},
    ):  # fmt: skip
        assert recipe(**change) != plain, change  # type: ignore[arg-type]
    for change in (
        {"decoding": "causal"}, {"dtype": "float32"}, {"frames": 60}, {"changes": (SectionChange(2, 9),)},
        {"model": "elsewhere"}, {"parts": {"vae": "elsewhere"}},
    ):  # fmt: skip
        assert recipe(**change) == plain, change  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------- of an older longtake


# As 0.1.0 wrote it.
OLD = {
    "prompt": JOB.prompt, "negative_prompt": "", "picture": "a.png", "last_picture": None, "model": "embedded",
    "frames": 30, "fps": 30, "width": 48, "height": 32, "sampling": "inverted", "window": 2, "steps": 2, "solver": None,
    "guidance": 10.0, "cfg_scale": 1.0, "cfg_rescale": 0.0, "shift": None, "seed": 3, "dtype": "float32",
    "reference": False, "decoding": "exact", "loras": [], "changes": [],
}  # fmt: skip


@pytest.mark.parametrize("last", [False, True])
def test_a_job_of_an_older_longtake_is_read_and_its_sections_made_again(
    last: bool, tmp_path: Path, networks: Networks, picture: Image.Image, begin: Callable[..., JobFolder]
) -> None:
    folder = begin(replace(JOB, frames=33), name="new")
    new = run(folder, networks)
    old = tmp_path / "old"
    (old / "sections").mkdir(parents=True)
    picture.save(old / "first.png")
    if last:
        picture.save(old / "last.png")
    section.write(section_file(old, 0), new.latents[0], "a hash of less")
    made = {"format": 1, "longtake": "0.1.0", "model": "a model", "loras": [], "video": {"zoom": 8}}
    (old / "job.json").write_text(json.dumps({**made, "job": {**OLD, "frames": 33}}))
    assert describe_job(old)["states"]["0"] == "outdated"
    with pytest.warns(LongtakeWarning, match=r"begun by longtake 0\.1\.0, .*; its sections are made again"):
        folder = JobFolder.open(old, "a model")
    assert folder.job.picture == "a.png" and folder.job.last_picture == ("last.png" if last else None)
    again = run(folder, networks)
    assert sorted(again.made) == [0, 1, 2, 3]
    assert last or again == new
    # It is one of today's now.
    with JobFolder.open(old, "a model") as folder:
        assert set(folder.states().values()) == {"done"} and folder.made.longtake == "0.1.0"


def test_an_old_job_that_cannot_be_made_is_refused_with_the_reason(
    tmp_path: Path, begin: Callable[..., JobFolder]
) -> None:
    folder = begin()
    folder.close()
    edited(folder.path, job={**OLD, "dtype": "int4"})
    with pytest.raises(JobError, match=r"holds no job that can be made: .*int4"):
        reopened(folder)


# ------------------------------------------------------------------------------------------- a stranger's folder


def test_a_folder_does_not_name_files_outside_of_it(tmp_path: Path, begin: Callable[..., JobFolder]) -> None:
    """resume overwrote any .mp4 and .png that job.json named."""
    folder = begin()
    folder.close()
    for outside in (str(tmp_path / "mine.mp4"), "../mine.mp4", "/etc/x.mp4"):
        edited(folder.path, video={"file": outside, "sheet": outside, "crf": 20})
        with pytest.warns(LongtakeWarning, match="lies outside of its folder and is left alone") as told:
            reopened = JobFolder.open(folder.path)
        assert dict(reopened.made.video) == {"crf": 20} and len(told) == 2
        reopened.close()
    edited(folder.path, video={"file": "sub.mp4", "sheet": str(folder.path / "sheet.png")})
    with JobFolder.open(folder.path) as reopened:
        assert reopened.made.video["file"] == str(folder.path / "sub.mp4")
        assert reopened.made.video["sheet"] == str(folder.path / "sheet.png")


@pytest.mark.parametrize("name", ["video.mp4", "log.jsonl", "job.json", "sections", "first.png", "lock"])
def test_no_entry_leads_out_of_the_folder(name: str, tmp_path: Path, begin: Callable[..., JobFolder]) -> None:
    folder = begin()
    folder.close()
    entry, outside = folder.path / name, tmp_path / "outside"
    if entry.exists():
        entry.rename(outside)
    entry.symlink_to(outside)
    with pytest.raises(JobError, match=f"{name} leads out of the job's folder"):
        JobFolder.open(folder.path)


@pytest.mark.parametrize(
    "video", [None, [], {"zoom": "8"}, {"zoom": 0}, {"crf": True}, {"crf": 99}, {"file": 3}, {"sheet": []}]
)
def test_settings_of_a_video_that_make_no_sense_are_refused(
    video: Any, begin: Callable[..., JobFolder]
) -> None:
    folder = begin()
    folder.close()
    edited(folder.path, video=video)
    with pytest.raises(JobError, match="is damaged"):
        reopened(folder)


def test_latents_of_another_shape_are_made_again(networks: Networks, begin: Callable[..., JobFolder]) -> None:
    """Their checksum and recipe may be right all the same, in a stranger's folder."""
    folder = begin()
    folder.begin(folder.job, "float32")
    for shape in ((1, 16, 3, 4, 6), (1, 16, 2, 4, 7), (16, 2, 4, 6)):
        folder.write_section(1, np.zeros(shape, np.float32))
        assert folder.states()[1] == "done" and folder.read_section(1) is None
    folder.close()


def test_a_picture_that_is_gone_is_named(begin: Callable[..., JobFolder], last_picture: Image.Image) -> None:
    folder = begin(replace(JOB, frames=33), last=last_picture)
    folder.close()
    (folder.path / "last.png").unlink()
    with pytest.raises(JobError, match=r"last\.png, a picture of the job, is missing"):
        reopened(folder)


def test_a_job_below_a_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JobError, match=r"is a file, and .* would lie below it; a job needs a folder"):
        JobFolder.create(tmp_path / "file" / "some" / "job", JOB)


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
    broken = replace(networks, transformer=Broken(networks.transformer, 3, value))
    with pytest.raises(RunError, match=f"wrong in section {number} at step 2 of 2"), folder:
        list(generate(folder.job, broken, folder.inputs, store=folder))
    assert read_log(folder.path)[-1]["event"] == "stopped"
    resumed = run(reopened(folder), networks)
    assert len(resumed.replayed) == 1
    assert resumed == Made(generate(job, networks, Inputs(picture)))


# ------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("kept", [False, True])
def test_the_latents_of_past_sections_are_let_go(
    sampling: str, kept: bool, networks: Networks, picture: Image.Image, begin: Callable[..., JobFolder]
) -> None:
    job = replace(JOB, sampling=sampling, frames=81, steps=1)
    folder = begin(job) if kept else None
    alive: list[Any] = []
    for event in generate(job, networks, Inputs(picture), store=folder):
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
    events: Any = generate(JOB, networks, Inputs(picture))
    while not isinstance(next(events), SectionDone):
        pass
    assert len(list(tmp_path.glob("*/*.npy"))) == 1
    events.close()
    assert not list(tmp_path.iterdir())
    list(generate(JOB, networks, Inputs(picture)))
    assert not list(tmp_path.iterdir())
    with closing(Scratch()) as scratch:
        assert scratch.read_section(3) is None
        scratch.write_section(3, np.arange(6.0))
        assert scratch.read_section(3).tolist() == [0, 1, 2, 3, 4, 5]  # type: ignore[union-attr]
        scratch.forget(3)
        assert scratch.read_section(3) is None
