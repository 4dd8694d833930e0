"""The survey of DATA before anything is loaded: folders, metadata.jsonl, musubi-tuner's TOML; oddities named."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from clips import clip, picture
from longtake.errors import JobError
from longtake.training.data import Settings, survey
from longtake.training.data.musubi import BOTH, DECLINED, DEFAULTS, GENERAL, IMAGE, VIDEO
from longtake.training.data.sizes import Sizes

SHORT = Settings(window=2)


def look(place, settings=SHORT, sizes=None):
    return survey(place, settings, sizes or Sizes((48, 32)))


def still(path, width=40, height=30, **options):
    Image.fromarray(picture(9, width, height)).save(path, **options)
    return path


def say(path, text):
    path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return path


def skipped(found):
    return {each.name: each.why for each in found.skipped}


def test_a_folder_of_odd_things(tmp_path):
    say(clip(tmp_path / "good.mp4", 30), "\ufeffa grey field \r\n")
    say(clip(tmp_path / "short.mp4", 8), "x")
    say(tmp_path / "torn.mp4", "x").write_bytes((tmp_path / "good.mp4").read_bytes()[:500])
    say(still(tmp_path / "日本.png"), "")
    still(tmp_path / "silent.png")
    still(tmp_path / "latin.png")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    still(tmp_path / ".hidden.png")
    (tmp_path / "._good.mp4").write_bytes(b"what a Mac leaves")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    say(tmp_path / "gone.png", "x")
    os.mkfifo(tmp_path / "pipe.mp4")
    say(tmp_path / "pipe.mp4", "x")
    (tmp_path / "lonely.txt").write_text("nothing here")
    (tmp_path / "film.wmv").write_bytes(b"x")
    (tmp_path / "inner").mkdir()
    still(tmp_path / "inner" / "a.png")
    (tmp_path / "README.md").write_text("what this is")
    found = look(tmp_path)
    assert [item.name for item in found.items] == ["good.mp4", "日本.png"]
    assert found.items[0].source.prompt == "a grey field"
    whys = skipped(found)
    assert whys.keys() == {
        "short.mp4", "torn.mp4", "silent.png", "latin.png", "gone.png", "lonely.txt", "film.wmv", "inner",
        "pipe.mp4",
    }  # fmt: skip
    assert whys["short.mp4"] == "it has 8 frames, and a stretch needs 9"
    assert "there is no silent.txt beside it" in whys["silent.png"] and "not UTF-8" in whys["latin.png"]
    assert "no file" in whys["gone.png"] and "convert it" in whys["film.wmv"]
    lines = "\n".join(found.lines())
    assert "examples: 2, of videos 1 (3 sections, 0:00:01), of pictures 1" in lines
    assert "日本.png: its caption is empty" in lines
    assert all(name in lines for name in whys)


def test_what_has_no_caption_is_told_one(tmp_path):
    still(tmp_path / "a.png")
    say(still(tmp_path / "b.png"), "a bee")
    found = look(tmp_path, Settings(caption="a thing"))
    assert [item.source.prompt for item in found.items] == ["a thing", "a bee"]


def test_sizes_are_the_models_or_buckets(tmp_path):
    say(still(tmp_path / "wide.png", 192, 108), "x")
    turned = Image.Exif()
    turned[0x0112] = 6
    say(still(tmp_path / "phone.jpg", 192, 108, exif=turned), "x")
    say(still(tmp_path / "tiny.png", 8, 8), "x")
    sizes = {item.name: (item.width, item.height) for item in look(tmp_path, sizes=Sizes()).items}
    assert sizes == {"wide.png": (832, 480), "phone.jpg": (480, 832), "tiny.png": (608, 640)}
    found = look(tmp_path, sizes=Sizes((96, 64), True, upscale=False))
    assert "a side needs 16 at least" in skipped(found)["tiny.png"]


def test_metadata_names_files_texts_and_prompts_in_time(tmp_path):
    clip(tmp_path / "a.mp4", 40)
    still(tmp_path / "b.png")
    still(tmp_path / "c.png")
    (tmp_path / "shots").mkdir()
    for number in (2, 10, 1, *range(11, 20)):
        still(tmp_path / "shots" / f"f{number}.png")
    prompts = [{"text": "it darkens", "from": 0.5}]
    lines = [
        {"file_name": "a.mp4", "text": "a field", "prompts": prompts, "licence": "CC0"},
        {"file_name": "b.png", "caption": "a still"},
        {"file_name": "shots", "prompt": "twelve pictures"},
        {"file_name": "nowhere.mp4", "text": "x"},
        {"file_name": "c.png"},
        {"file_name": "a.mp4", "text": "x", "prompts": [{"text": "x", "at": 3}]},
    ]
    text = "\n\n".join(json.dumps(line) for line in lines)
    (tmp_path / "metadata.jsonl").write_text(text, encoding="utf-8")
    for place in (tmp_path, tmp_path / "metadata.jsonl"):
        found = look(place)
        assert [item.name for item in found.items] == ["a.mp4", "b.png", "shots"]
        assert [item.frames for item in found.items] == [33, 1, 9]
        assert found.items[0].source.prompts[0].start == 0.5
        whys = [why for _, why in sorted((each.name, each.why) for each in found.skipped)]
        assert len(whys) == 3 and "has no text of text, caption, prompt" in whys[1]
        assert "there is no such file" in whys[2] and "an entry of prompts is" in whys[0]
        assert any("its keys licence say nothing here" in line for line in found.lines())
    told = look(tmp_path, Settings(window=2, caption="a thing")).items[-1]
    assert (told.name, told.source.prompt) == ("c.png", "a thing")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": }', encoding="utf-8")
    with pytest.raises(JobError, match=r"not a line of metadata\.jsonl \(1\)"):
        look(tmp_path)


def test_a_folder_shows_its_pictures_in_their_order(tmp_path):
    from longtake.training.data.sources import pictures_in

    for name in ("f10.png", "f9.png", "f1.png", ".f0.png"):
        still(tmp_path / name)
    assert [path.name for path in pictures_in(tmp_path)] == ["f1.png", "f9.png", "f10.png"]


# ------------------------------------------------------------------------------------------------ musubi-tuner

KEYS = {
    "resolution", "caption_extension", "batch_size", "num_repeats", "enable_bucket", "bucket_no_upscale",
    "skip_corrupted_cache", "video_directory", "video_jsonl_file", "control_directory", "cache_directory",
    "target_frames", "frame_extraction", "frame_stride", "frame_sample", "max_frames", "source_fps",
    "fp_latent_window_size", "image_directory", "image_jsonl_file", "control_resolution", "no_resize_control",
    "multiple_target", "fp_1f_clean_indices", "fp_1f_target_index", "fp_1f_no_post",
    "flux_kontext_no_resize_control", "qwen_image_edit_no_resize_control", "qwen_image_edit_control_resolution",
}  # fmt: skip
"""Every key of musubi-tuner's ConfigSanitizer, and the three that it renames."""


def toml(folder, text):
    (folder / "dataset.toml").write_text(text.replace("HERE", folder.as_posix()), encoding="utf-8")
    return folder / "dataset.toml"


@pytest.fixture
def data(tmp_path):
    say(clip(tmp_path / "a.mp4", 80, rate=60), "a")
    return tmp_path


def test_keys_and_defaults_are_its_own():
    assert {*GENERAL, *BOTH, *VIDEO, *IMAGE, *DECLINED} == KEYS
    assert DEFAULTS == {
        "resolution": [960, 544], "caption_extension": ".txt", "num_repeats": 1,
        "enable_bucket": False, "bucket_no_upscale": False, "target_frames": [1], "frame_extraction": "head",
        "frame_stride": 1, "frame_sample": 1, "max_frames": 129, "source_fps": None,
    }  # fmt: skip


def test_its_file_is_read_as_it_stands(data):
    text = """
    [general]
    resolution = [96, 64]
    caption_extension = ".txt"
    batch_size = 2
    enable_bucket = true

    [[datasets]]
    video_directory = "HERE"
    cache_directory = "HERE/one"
    frame_extraction = "full"
    max_frames = 31
    source_fps = 60.0
    num_repeats = 3
    fp_latent_window_size = 2

    [[datasets]]
    video_jsonl_file = "HERE/list.jsonl"
    cache_directory = "HERE/two"
    target_frames = [9, 17]
    frame_extraction = "slide"
    frame_stride = 50
    resolution = 48
    """
    lines = [{"video_path": (data / "a.mp4").as_posix(), "caption": "listed"}]
    (data / "list.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    found = look(toml(data, text))
    assert [(item.source.prompt, item.start, item.frames) for item in found.items] == [
        ("a", 0, 25), ("listed", 0, 9), ("listed", 50, 9), ("listed", 0, 17), ("listed", 50, 17)
    ]  # fmt: skip
    first, second = found.items[0], found.items[1]
    assert first.numbers.tolist() == list(range(0, 50, 2)) and second.numbers.tolist() == list(range(9))
    assert (first.width, first.height, second.width, second.height) == (96, 64, 48, 48)
    assert (first.dataset.repeats, found.batch, first.dataset.cache) == (3, 2, data / "one")
    told = "\n".join(found.lines())
    assert "its motion is learned 0.5 times as fast" in told and "behind 25 are not learned from" in told
    own = look(toml(data, text), Settings(window=2, cache=data / "other"))
    assert [dataset.cache.name for dataset in own.datasets] == ["0", "1"]


def test_pictures_of_its_kind(data):
    say(still(data / "b.png"), "b")
    found = look(toml(data, '[[datasets]]\nimage_directory = "HERE"\nresolution = 64\nfp_1f_no_post = false'))
    assert [(item.name, item.frames, item.width) for item in found.items] == [("b.png", 1, 64)]


def test_the_same_as_json(data):
    values = {
        "datasets": [{"video_directory": data.as_posix(), "frame_extraction": "full", "resolution": 64}]
    }
    (data / "dataset.json").write_text(json.dumps(values), encoding="utf-8")
    assert len(look(data / "dataset.json").items) == 1


VIDEOS = '[[datasets]]\nvideo_directory = "HERE"\nframe_extraction = "full"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (VIDEOS + "frame_smaple = 3", r"has the key 'frame_smaple', which is not known; did you mean 'frame_sample'"),
        (VIDEOS + 'control_directory = "x"', "has control_directory: longtake trains with no control"),
        (VIDEOS + "image_directory = 'HERE'", "has video_directory and image_directory; it has one of"),
        ('[[datasets]]\nimage_directory = "HERE"\ntarget_frames = [37]', "'target_frames', which is one of videos"),
        ('[[datasets]]\nimage_directory = "HERE"\nfp_1f_target_index = 9', "longtake trains no single frame far"),
        ("[general]\nvideo_directory = 'HERE'\n" + VIDEOS, r"\[general\] of dataset.toml has the key 'video_dir"),
        ("[[datasets]]\nresolution = 64", "names no data; it has one of"),
        ("[general]\nresolution = 64", r"has no \[\[datasets\]\]"),
        ("[datasets]\nvideo_directory = 'HERE'", r"has no \[\[datasets\]\]"),
        (VIDEOS + "[other]\na = 1", "has the table 'other'"),
        (VIDEOS + "batch_size = 0", "batch_size must be at least 1"),
        (VIDEOS + "batch_size = true", "batch_size must be a whole number"),
        (VIDEOS + "enable_bucket = 1", "enable_bucket must be true or false"),
        (VIDEOS + "resolution = [64]", "resolution must be one number or"),
        (VIDEOS + "resolution = [100, 60]", "no multiple of 16"),
        (VIDEOS.replace("full", "middle"), "No frame_extraction 'middle'; there are"),
        (VIDEOS.replace("full", "head"), "target_frames has 1, and one section needs 9 frames"),
        (VIDEOS + "fp_latent_window_size = 4", "fp_latent_window_size is 4, and sections of 2"),
        (VIDEOS.replace("HERE", "nowhere-at-all"), "video_directory is 'nowhere-at-all', where no folder is"),
        (VIDEOS + VIDEOS, "Two datasets have their cache in"),
        (VIDEOS + "batch_size = 3\n" + VIDEOS + 'cache_directory = "b"\nbatch_size = 2',
         "batch_size is 2 in one dataset and 3 in another"),
        ("[[datasets", "is no TOML"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_refused_by_name(data, text, told):
    with pytest.raises(JobError, match=told):
        look(toml(data, text))


def test_what_the_file_says_itself_is_not_asked_beside_it(data):
    for settings in (Settings(2, fps=24), Settings(2, size=(64, 64)), Settings(2, caption="x")):
        with pytest.raises(
            JobError, match=r"dataset\.toml says itself how its data are read; write \w+ there"
        ):
            look(toml(data, VIDEOS), settings)


def test_a_line_with_a_control_is_refused(data):
    (data / "list.jsonl").write_text(
        '{"video_path": "a.mp4", "caption": "x", "control_path": "b"}', encoding="utf-8"
    )
    text = '[[datasets]]\nvideo_jsonl_file = "HERE/list.jsonl"\nframe_extraction = "full"\nresolution = 64'
    with pytest.raises(JobError, match=re.escape("has control_path, and longtake trains with no control")):
        look(toml(data, text))
    (data / "list.jsonl").write_text('{"video_path": "a.mp4", "caption": "x"}', encoding="utf-8")
    assert np.isfinite(look(toml(data, text)).items[0].shown.rate)
