"""A folder becomes examples: what they hold equals the encoders' own, and nothing is made twice."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from clips import clip, picture
from longtake import disk
from longtake.backend import ops, runtime
from longtake.errors import JobError, ModelError
from longtake.job import Job, PromptSpan
from longtake.pipeline.decode import from_frames
from longtake.plan.plans import plan_of
from longtake.plan.timeline import direct
from longtake.training.data import (
    Encoded,
    Plan,
    Settings,
    encode,
    encoders,
    encoders_of,
    examples_of,
    open_data,
    plan,
)
from longtake.video import read_video

SETTINGS = Settings(window=2)
"""A section of 9 frames."""

about_files = pytest.mark.skipif(
    os.environ.get("LONGTAKE_BACKEND") == "mindspore",
    reason="about files, and slow there: one framework is enough",
)


@pytest.fixture
def folder(tmp_path):
    clip(tmp_path / "grey.mp4", 30)
    (tmp_path / "grey.txt").write_text("it turns grey\n", encoding="utf-8")
    Image.fromarray(picture(7, 50, 70)).save(tmp_path / "still.png")
    (tmp_path / "still.txt").write_text("", encoding="utf-8")
    return tmp_path


def heard(place, networks, settings=SETTINGS):
    events = []
    return open_data(place, networks, settings, events.append), events


def test_examples_are_what_the_encoders_give(folder, networks):
    data, events = heard(folder, networks)
    assert isinstance(events[0], Plan) and all(isinstance(event, Encoded) for event in events[1:])
    assert [data.shape(number) for number in range(len(data))] == [(7, 4, 6), (1, 4, 6)]
    video, still = data[0], data[1]
    assert (video.name, video.told.prompt, still.told.prompt) == ("grey.mp4", "it turns grey", "")
    frames, _ = read_video(folder / "grey.mp4")
    fitted = np.stack([np.asarray(Image.fromarray(frame).resize((48, 32), 1)) for frame in frames[:25]])
    vae = networks.vae
    with runtime.no_grad():
        whole, alone = (
            ops.to_numpy(vae.encode(ops.from_numpy(from_frames(x[None]))).latent_dist.mean)[0]
            * vae.config.scaling_factor
            for x in (fitted, fitted[:1])
        )
    # Half precision: eleven bits of each value.
    np.testing.assert_allclose(video.latents[:, 1:], whole[:, 1:], rtol=2**-10, atol=1e-4)
    np.testing.assert_allclose(video.latents[:, :1], alone, rtol=2**-10, atol=1e-4)
    assert video.read([0, None]).dtype == np.float32 and not video.read([None]).any()
    assert video.told.states.shape == (256, 16) and video.image_states.shape == (4, 16)


def test_a_second_run_encodes_nothing_and_loads_nothing(folder, networks):
    first, _ = heard(folder, networks)

    def load():
        raise AssertionError("networks were loaded")

    known = encoders_of(networks)
    second, events = heard(folder, type(known)(known.settings, known.digest, known.config, load))
    assert len(events) == 1 and not events[0].items and not events[0].prompts
    np.testing.assert_array_equal(first[0].latents, second[0].latents)


def test_nothing_to_learn_from_is_refused(tmp_path, networks):
    with pytest.raises(JobError, match="no videos and no pictures"):
        open_data(tmp_path, networks)
    clip(tmp_path / "short.mp4", 30)
    with pytest.raises(JobError, match=r"short\.mp4 is skipped: it has no caption"):
        open_data(tmp_path, networks)
    (tmp_path / "short.txt").write_text("x", encoding="utf-8")
    with pytest.raises(JobError, match="it has 30 frames, and a stretch needs 37"):
        open_data(tmp_path, networks)
    with pytest.raises(JobError, match="is not there; data are a folder"):
        open_data(tmp_path / "nowhere", networks)


def made(events):
    return sum(event.kind == "example" for event in events if isinstance(event, Encoded))


@about_files
def test_what_changed_is_made_again_and_nothing_else(folder, networks):
    heard(folder, networks)
    cached = folder / "longtake-cache"
    before = {path.name: path.stat().st_mtime_ns for path in cached.iterdir()}
    (folder / "grey.mp4").touch()  # another time, the same content
    assert made(heard(folder, networks)[1]) == 0
    (folder / "grey.txt").write_text("it turns greyer", encoding="utf-8")
    data, events = heard(folder, networks)
    assert made(events) == 0 and data[0].told.prompt == "it turns greyer"
    planned = events[0]
    assert len(planned.prompts) == 1 and len(planned.orphans) == 1  # the old caption's
    assert any("1 files of the cache are of other data or settings" in line for line in planned.lines())
    clip(folder / "grey.mp4", 34)
    data, events = heard(folder, networks)
    assert made(events) == 1 and data.shape(0) == (9, 4, 6)
    still = next(path for path in cached.iterdir() if path.name.startswith("still"))
    assert before[still.name] == still.stat().st_mtime_ns
    still.write_bytes(still.read_bytes()[:-1])  # damaged
    assert made(heard(folder, networks)[1]) == 1
    (folder / "still.png").unlink()
    assert [path.name for path in heard(folder, networks)[1][0].orphans if "still" in path.name] == [
        still.name
    ]


@about_files
def test_another_autoencoder_makes_another_cache(folder, networks, filled):
    heard(folder, networks)
    known = encoders_of(networks)

    def digest(group):
        return "another" if group == "vae" else known.digest(group)

    changed = type(known)(known.settings, digest, known.config, known.load)
    events = heard(folder, changed)[1]
    assert made(events) == 2 and not events[0].prompts


def test_a_run_that_was_stopped_goes_on(folder, networks):
    known = encoders_of(networks)
    planned = plan(folder, known, SETTINGS)
    steps = encode(planned, known)
    for event in steps:
        if event.kind == "example":
            break
    steps.close()
    disk.part_of(folder / "longtake-cache" / "grey.safetensors").write_bytes(b"as a killed process leaves it")
    data, events = heard(folder, networks)
    assert made(events) == 1 and len(data) == 2
    assert not [path for path in (folder / "longtake-cache").iterdir() if path.name.endswith(".part")]


@about_files
def test_a_file_that_goes_meanwhile_is_skipped(folder, networks):
    known = encoders_of(networks)
    planned = plan(folder, known, SETTINGS)
    (folder / "grey.mp4").unlink()
    notes = [event.note for event in encode(planned, known) if event.note]
    assert notes == ["grey.mp4 is skipped: it cannot be read any more: No such file or directory"]
    assert len(examples_of(planned, known)) == 1


@about_files
def test_two_processes_do_not_encode_at_once(folder, networks):
    known = encoders_of(networks)
    steps = encode(plan(folder, known, SETTINGS), known)
    next(steps)
    with pytest.raises(JobError, match="Another process encodes into the cache"):
        heard(folder, networks)
    steps.close()


@about_files
def test_a_disk_without_room_is_refused_before_anything_is_loaded(folder, networks, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(ModelError, match=r"needs up to 0\.00 GB more, and its disk has 0\.00 GB free"):
        heard(folder, networks)


@about_files
def test_a_damaged_video_gives_its_good_part(tmp_path, networks):
    whole = clip(tmp_path / "whole.mp4", 120, options={"g": "12"})
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = np.random.default_rng(0).integers(0, 256, 400, np.uint8).tobytes()
    (tmp_path / "torn.mp4").write_bytes(data)
    for name in ("whole", "torn"):
        (tmp_path / f"{name}.txt").write_text(name, encoding="utf-8")
    found, events = heard(tmp_path, networks)
    torn, good = found[0], found[1]
    assert (torn.name, good.latents.shape[1]) == ("torn.mp4", 29)
    length = torn.latents.shape[1]
    assert 5 < length < 25 and length % 2 == 1 and found.shape(0) == (length, 4, 6)
    notes = [event.note for event in events[1:] if event.note]
    assert len(notes) == 1 and f"its first {4 * length - 3} frames are taken" in notes[0]
    # The same as a shorter stretch of the whole file, where no later frame has a part in it.
    np.testing.assert_array_equal(torn.latents[:, :4], good.latents[:, :4])
    assert made(heard(tmp_path, networks)[1]) == 0


@about_files
def test_what_gives_no_section_is_not_tried_again(tmp_path, networks):
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "good.png")
    data = (tmp_path / "good.png").read_bytes()
    (tmp_path / "bad.png").write_bytes(data[: len(data) // 2])
    for name in ("good", "bad"):
        (tmp_path / f"{name}.txt").write_text(name, encoding="utf-8")
    found, events = heard(tmp_path, networks)
    assert len(found) == 1 and any("bad.png is skipped" in event.note for event in events[1:])
    found, events = heard(tmp_path, networks)
    assert len(events) == 1 and [each.name for each in events[0].skipped] == ["bad.png"]
    (tmp_path / "good.png").unlink()
    (tmp_path / "good.txt").unlink()
    with pytest.raises(JobError, match=r"bad\.png is skipped.*no example is left"):
        heard(tmp_path, networks)


@about_files
def test_pictures_in_a_folder_are_a_video_up_to_the_first_damaged_one(tmp_path, networks):
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 48, 3), np.uint8)
    (tmp_path / "shots").mkdir()
    for number, frame in enumerate(noise):
        Image.fromarray(frame).save(tmp_path / "shots" / f"{number}.png")
    torn = tmp_path / "shots" / "20.png"
    torn.write_bytes(torn.read_bytes()[:2000])
    line = {"file_name": "shots", "text": "noise"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(line), encoding="utf-8")
    data, events = heard(tmp_path, networks)
    assert data.shape(0) == (5, 4, 6) and "20.png is damaged" in events[-1].note
    with runtime.no_grad():
        whole = networks.vae.encode(ops.from_numpy(from_frames(noise[None, :17]))).latent_dist.mean
    expected = ops.to_numpy(whole)[0] * networks.vae.config.scaling_factor
    np.testing.assert_allclose(data[0].latents[:, 1:], expected[:, 1:], rtol=2**-10, atol=1e-4)


@about_files
def test_sections_are_told_what_sampling_tells_them(tmp_path, networks):
    clip(tmp_path / "a.mp4", 73)
    prompts = [{"text": "then it jumps", "from": 0.9, "to": 1.6}]
    line = {"file_name": "a.mp4", "text": "A penguin", "prompts": prompts}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(line), encoding="utf-8")
    example = heard(tmp_path, networks)[0][0]
    job = Job(
        "A penguin", frames=73, window=2, prompts=(PromptSpan("then it jumps", 0.9, 1.6),), sampling="vanilla"
    )
    laid = plan_of(job)
    told = [example.told_in(laid[laid.made_at(number)].frames).prompt for number in range(laid.count)]
    assert told == [direct(job, laid, number).prompt for number in range(laid.count)]
    assert len(set(told)) == 2


@about_files
def test_memory_does_not_grow_with_the_video(tmp_path, networks, monkeypatch):
    """Nowhere are more frames at once than the encoder's tile and a piece."""
    clip(tmp_path / "a.mp4", 130)
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    seen = []
    own = type(networks.vae).encode_tile

    def counted(self, x):
        seen.append(x.shape[2])
        return own(self, x)

    monkeypatch.setattr(type(networks.vae), "encode_tile", counted)
    assert heard(tmp_path, networks)[0].shape(0)[0] == 33
    assert max(seen) <= 17 and len(seen) > 8


@about_files
@pytest.mark.parametrize(("best", "dtype"), [("cuda", "float16"), ("cpu", "float32")])
def test_only_encoders_are_loaded_and_the_autoencoder_is_exact(monkeypatch, networks, best, dtype):
    asked = {}

    def load_networks(model, dtypes, given, **options):
        asked.update(dtypes=dtypes, given=given)
        return networks

    monkeypatch.setattr(runtime, "best_device", lambda: best)
    monkeypatch.setattr("longtake.training.data.makers.load_networks", load_networks)
    assert encoders("embedded").load() is networks
    assert asked == {
        "dtypes": {"default": "auto", "vae": dtype}, "given": {"transformer": None, "scheduler": None}
    }  # fmt: skip
    encoders("embedded", dtype="bfloat16").load()
    assert asked["dtypes"] == "bfloat16"
