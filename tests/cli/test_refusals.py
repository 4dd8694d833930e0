"""Requests that are refused: one sentence, exit code 2, before a model loads."""

import json
import subprocess
import sys

import pytest

from longtake.cli import main

BAD = {
    "--frames 0": "frames must be at least 1; 0",
    "--frames -3": "frames must be at least 1; -3",
    "--frames many": "invalid int value: 'many'",
    "--seconds 0": "at least one frame; --seconds 0 at 30 fps is none",
    "--seconds -1": "at least one frame; --seconds -1",
    "--seconds 0.01 --fps 24": "at least one frame; --seconds 0.01 at 24 fps is none",
    "--seconds nan": "not a finite number",
    "--seconds inf": "not a finite number",
    "--seconds 2 --frames 9": "not allowed with",
    "--fps 0": "fps must be at least 1; 0",
    "--size 65x64": "width must be a positive multiple of 16; 65",
    "--size 64x65": "height must be a positive multiple of 16; 65",
    "--size 0x64": "width must be a positive multiple of 16; 0",
    "--size 64x-64": "a size looks like 640x480",
    "--size big": "a size looks like 640x480",
    "--steps 0": "steps must be at least 1; 0",
    "--window 0": "window must be at least 1; 0",
    "--sampling sideways": "No sampling 'sideways'",
    "--sampling f1k1_g2": "makes 2 latent frames in each section, and the window is 9",
    "--sampling td_f8k8f2k2f1k1_g9": "packs clean frames by 8, and this transformer has kernels for 1, 2, 4",
    "--sampling planned --reference": "The reference knows the samplings inverted, vanilla, anchored",
    "--sampling tc_f1k1_g9 --history noise:0.1": "Nothing can be done to the history that tc_f1k1_g9 keeps",
    "--sampling vanilla --last-image a.png": "inverted",
    "--last-image none.png": "no file none.png",
    "--last-image text.png": "text.png is not a picture",
    "--seed -1": "seed must be at least 0; -1",
    "--seed x": "invalid int value",
    "--frames 100000000000000": "frames must be at most",
    "--seconds 1e300": "frames must be at most",
    "--steps 100000000000": "steps must be at most",
    "--window 1000000": "window must be at most",
    "--fps 100000": "fps must be at most",
    "--size 65536x65536": "width must be at most",
    "--cfg -1": "--cfg must be at least 0; -1",
    "--cfg-rescale 7": "cfg_rescale must be at most 1; 7",
    "--shift 0": "shift must be at least",
    "--guidance -3": "guidance must be at least 0; -3",
    "--negative blur": "negative prompt needs classifier-free guidance",
    "--last-image a.png --last-image a.png": "One picture can stand at one time",
    "--last-image=": "must not be empty",
    "--part vae": "a part looks like vae=models/vae or vae=owner/name; 'vae' was given",
    "--part vae=": "a part looks like vae=models/vae",
    "--part wheel=model": "no part 'wheel'",
    "--part vae=model --part vae=other": "names a part twice",
    "--part vae=none": "no model 'none'",
    "--solver heun": "invalid choice: 'heun'",
    "--dtype float8": "invalid choice: 'float8'",
    "--guidance nan": "not a finite number",
    "--crf 0": "between 1 (best) and 51; 0",
    "--zoom 0": "zoom must be at least 1; 0",
    "--zoom 100000": "zoom must be at most 1024, since videos have 16384 pixels on a side; 100000",
    "--zoom 300 --size 64": "at most 16384 pixels on a side and 35651584 in all; 64 x 64, enlarged 300 times",
    "--zoom 100 --size 64": "64 x 64, enlarged 100 times, is 6400 x 6400",
    "--lora none.safetensors": "no LoRA 'none.safetensors'",
    "--lora none.safetensors:0.5": "no LoRA 'none.safetensors'",
    "--lora a.safetensors:much": "'much' after a.safetensors is no weight",
    "--lora a.safetensors:1,,2": "'1,,2' is no weight",
    "--lora text.png": "text.png is no safetensors file",
    "-o out.gif --crf 9": "A GIF has no quality to choose",
    "-o out.gif --fps 60": "A GIF shows up to 50 frames a second; 60",
    "-o out/ --sheet out/s.png": "no folder",
    "-o out.avi": "must end in .mp4, .webm, .mov, .gif, or a folder of PNGs: NAME/, NAME/%05d.png; out.avi",
    "-o none/out.mp4": "no folder none",
    "-o folder.mp4": "folder.mp4 is a folder",
    "--sheet sheet.jpg": "must end in .png; sheet.jpg",
    "--sheet none/sheet.png": "no folder none",
    "--job a.png": "a.png is a file; a job needs a folder",
    "--job a.png/below": "a.png is a file",
    "--job a.png/far/below": "a.png is a file",
    "--job .": "is not empty (it holds 'a.png')",
    "--sheet a.png": "take the place of the picture a.png",
    "--model nobody/nothing": "no model 'nobody/nothing'",
    "--model a.png": "a.png is a file",
    "--model model": "no model folder",
    "--vram 0": "vram must be at least 0.001; 0",
    "--vram 6 --device cpu": "--vram 6 limits an accelerator's memory, and --device is cpu",
    "--vram 0.6 --size 640x480": "are allowed: ",
    "--memory 0.3 --device cpu": "GB that cannot be dropped, and 0.30 GB are allowed",
    "--colour red": "Unrecognized arguments: --colour red",
    "--frame 9": "Unrecognized arguments: --frame 9",
}


def refused(capsys, words):
    """The one sentence that a refusal prints."""
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("longtake: ") and said.err.count("\n") == 1 and said.err.endswith(".\n")
    return said.err


@pytest.mark.parametrize("options", BAD)
def test_bad_requests_are_one_sentence_before_a_model_loads(place, capsys, options):
    before = sorted(place.iterdir())
    assert BAD[options] in refused(capsys, ["generate", "a.png", "It moves.", *options.split()])
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        ("none.png", "no file none.png"),
        ("text.png", "text.png is not a picture"),
        ("empty.png", "empty.png is an empty file"),
        ("model", "model is a folder"),
        ("http://127.0.0.1:1/a.png", "cannot be fetched"),
    ],
)
def test_bad_pictures(place, capsys, picture, words, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert words in refused(capsys, ["generate", picture, "It moves.", "-o", "out.mp4"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "arguments are required: VERB"),
        (["dance"], "invalid choice: 'dance'"),
        (["generate"], "A video needs a PROMPT"),
        (["resume"], "arguments are required: DIR"),
        (["resume", "none"], "a job begins with: longtake generate … --job none"),
        (["resume", "model"], "model holds no job"),
        (["extend", "model"], "arguments --seconds --frames is required"),
        (["extend", "model", "--seconds", "2"], "model holds no job"),
        (["redo", "model"], "Name what is made again: --section N"),
        (["redo", "model", "--section", "1"], "model holds no job"),
        (["plan", "--frames", "0"], "frames must be at least 1"),
        (["plan", "--size", "60"], "multiple of 16; 60"),
        (["plan", "--sampling", "vanilla", "--last-image"], "inverted"),
        (["scene", "a xylophone"], "xylophone"),
        (["scene", "a penguin", "--size", "8"], "16 to 4096"),
        (["scene", "a penguin", "--size", "99999"], "16 to 4096"),
        (["scene", "a penguin", "--seed", "-1"], "seed must not be negative"),
        (["scene", "a penguin", "-o", "none/a.png"], "no folder none"),
        (["scene", "a penguin", "-o", "a.txt"], "must end in .png"),
        (["scene", "a penguin", "-o", "a.png", "--seconds", "2"], "must end in .mp4"),
        (["scene", "a penguin", "--frame", "-1"], "begins at frame 0"),
        (["scene", "a penguin", "--seconds", "0"], "0.1 to 600 seconds"),
        (["scene", "a penguin", "--variant", "rain"], "no variant 'rain' of a scene; choose from plain, pan"),
        (["train", "nothing"], "invalid choice: 'nothing'"),
        (["train", "all", "--minutes", "0"], "minutes must be more than 0"),
        (["train", "all", "--steps", "0"], "steps must be at least 1"),
        (["train", "all", "--steps", "9", "--minutes", "1"], "not allowed with"),
        (["train", "all", "--threads", "0"], "threads must be at least 1"),
        (["train", "decoder", "--batch", "2"], "batch must be at least 3"),
        (["train", "decoder", "--rate", "0"], "between 0 and 1"),
        (["train", "decoder", "--scenes", "9"], "no pool of scenes"),
        (["train", "all", "--rate", "0.001"], "a rate of its own"),
        (["train", "all", "--batch", "9"], "a batch of its own"),
        (["train", "all", "--seed", "-1"], "seed must not be negative"),
        (["train", "all", "--folder", "a.png"], "a.png is a file"),
        (["info", "none"], "no model 'none'"),
        (["info", "model"], "no model folder"),
        (["info", "none.mp4"], "no file none.mp4"),
    ],
)
def test_bad_requests_of_the_other_verbs(place, capsys, words, sentence):
    assert sentence in refused(capsys, words)


@pytest.mark.parametrize(
    "words", [["generate", "a.png", "It \udcff moves."], ["info", "\udcff"], ["scene", "a\0b"]]
)
def test_words_that_are_no_text(place, capsys, words):
    assert f"Word {len(words)} of the command line" in refused(capsys, words)


def test_a_refusal_of_the_program_itself(place):
    words = [sys.executable, "-m", "longtake", "generate", "a.png", "It moves.", "--size", "65"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "longtake: The width must be a positive multiple of 16; 65 was asked for.\n"


def test_a_refusal_for_machines(place, capsys):
    assert main(["generate", "a.png", "x", "--frames", "0", "--json"]) == 2
    event = json.loads(capsys.readouterr().out)
    assert event == {"event": "error", "message": "frames must be at least 1; 0 was asked for."}
