"""`codebook`: from videos to codes in a model's folder, which then make a discrete history."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longtake import backend
from longtake.cli import main
from longtake.errors import ModelError
from longtake.pipeline.fitting import Pixels, clips_of, encoded, fitted
from longtake.pipeline.loading import load_networks
from longtake.pipeline.networks import save_networks
from longtake.sampling.codebooks import Codebook
from longtake.video import VideoWriter
from longtake.weights.codebook import StoredCodebook, read_codebook, write_codebook
from longtake.weights.fingerprint import fingerprint
from longtake.weights.folder import Folder

once = pytest.mark.skipif(backend.name != "torch", reason="the same on both frameworks")


@pytest.fixture
def place(networks, tmp_path, monkeypatch):
    """A tiny model, and a folder with a video, a picture and what is neither."""
    monkeypatch.chdir(tmp_path)
    save_networks(networks, "model", "HunyuanVideoFramepackPipeline")
    rng = np.random.default_rng(0)
    Path("clips/deep").mkdir(parents=True)
    with VideoWriter("clips/a.mp4", 30) as writer:
        writer.write(rng.integers(0, 256, (11, 40, 64, 3), dtype=np.uint8))
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save("clips/deep/b.png")
    Path("clips/broken.mp4").write_bytes(b"no video")
    Path("clips/notes.txt").write_text("no video")
    return tmp_path


def test_codes_lie_with_the_model_and_serve(place, capsys):
    before = fingerprint("model")
    assert main(["codebook", "model", "clips", "-k", "1", "-k", "4"]) == 0
    out, err = capsys.readouterr()
    assert "3 videos at 48 x 32 pixels" in out
    assert "codes  variance left\n       1  1.0000\n       4  0." in out
    assert "clips/broken.mp4 is skipped" in err and "--history discrete:4" in out
    # Two latent frames more than the first, of 4 x 6 pixels, and one picture; a tenth is kept to measure on.
    book = load_networks("model").codebook.codebook
    assert book.facts["pixels"] == 87 and book.facts["videos"] == 2
    assert {count: codes.shape for count, codes in book.codes.items()} == {1: (1, 4), 4: (4, 4)}
    assert book.residuals[4] < book.residuals[1] == pytest.approx(1)
    # Jobs that have no discrete history are of the same model as before.
    assert fingerprint("model") == before
    words = ["--model", "model", "--frames", "17", "--window", "2", "--steps", "1", "--sampling", "vanilla"]
    words += ["--job", "job", "--history", "discrete:4"]
    assert main(["generate", "clips/deep/b.png", "a ball", *words]) == 0
    assert "codes=" in json.loads(Path("job/job.json").read_text())["form"]


@once
def test_codes_may_lie_elsewhere(place, networks, capsys):
    assert main(["codebook", "model", "clips", "-k", "2", "-k", "3x2", "-o", "codes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["event"] == "done" and told["size"] == [48, 32] and told["measured_on"] == "other pixels"
    loaded = load_networks("model", parts={"codebook": "codes"})
    assert loaded.codes(2).shape == (2, 4) and loaded.codes(3, 2).shape == (3, 4)
    assert told["residuals"].keys() == {"2", "3x2"}
    with pytest.raises(ModelError, match="This model has no codebook"):
        load_networks("model").codes(2)
    # What is saved has them beside it, and what has none is saved without.
    save_networks(loaded, "saved", "HunyuanVideoFramepackPipeline")
    assert np.array_equal(load_networks("saved").codes(3, 2), loaded.codes(3, 2))
    save_networks(networks, "plain", "HunyuanVideoFramepackPipeline")
    assert not Path("plain/codebook").exists()
    # Other codes elsewhere are another model to a job on disk.
    first = fingerprint("model", {"codebook": "codes"})
    book = read_codebook(Path("codes"))
    write_codebook(Path("codes"), Codebook({2: book.of(2) + 1}, book.residuals, book.facts))
    assert fingerprint("model", {"codebook": "codes"}) != first


@once
def test_a_pipeline_of_the_field_keeps_the_codebook(place):
    from longtake.compat.framepack import HunyuanVideoFramepackPipeline as Pipeline

    write_codebook(Path("model/codebook"), Codebook({2: np.ones((2, 4), np.float32)}))
    Pipeline.from_pipe(Pipeline.from_pretrained("model")).save_pretrained("saved")
    assert read_codebook(Path("saved/codebook")).of(2).shape == (2, 4)


@once
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model", "nowhere"], "There is no 'nowhere'; DATA is a folder"),
        (["model", "model/scheduler"], "holds no video and no picture"),
        (["model", "clips", "-k", "0"], "The number of codes (-k) must be at least 1"),
        (["model", "clips", "-k", "500"], "500 codes cannot be fitted to"),
        (["model", "clips", "-k", "2x3"], "4 channels cannot be cut into 3 equal groups"),
        (["model", "clips", "-k", "many"], "a number of codes looks like 256"),
        (["framepack", "clips"], "framepack is no folder into which a codebook could be written"),
        (["model", "clips", "-o", "clips/notes.txt"], "is a file; a codebook is a folder"),
        (["model", "clips", "-o", "clips"], "are other files; name another folder"),
    ],
)
def test_what_cannot_be_fitted_is_refused(words, told, place, capsys):
    assert main(["codebook", *words]) == 2
    assert told in capsys.readouterr().err


@once
def test_a_codebook_is_not_overwritten_unasked(place, capsys):
    words = ["codebook", "model", "clips/deep", "-k", "2"]
    assert main(words) == 0 and main(words) == 2
    assert "codebook there already" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


@once
def test_a_damaged_codebook_is_named(tmp_path):
    write_codebook(tmp_path, Codebook({2: np.ones((2, 4), np.float32)}))
    (tmp_path / "config.json").write_text('{"channels": 3}')
    with pytest.raises(ModelError, match="has the tensor '2' of shape"):
        read_codebook(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no codebook: it has no model"):
        read_codebook(tmp_path)


@once
def test_a_codebook_is_fetched_when_it_is_asked_for(tmp_path):
    write_codebook(tmp_path / "codebook", Codebook({2: np.ones((2, 4), np.float32)}))
    fetched = []

    class Repository(Folder):
        def fetch(self, parts, variant=None):
            fetched.extend(parts)
            return self.folder

    stored = StoredCodebook(Repository(tmp_path))
    assert stored.is_there and not fetched
    assert stored.codebook.of(2).shape == (2, 4)
    assert [(part.folder, part.files, part.stem) for part in fetched] == [
        ("codebook", ("config.json",), "model")
    ]


@once
def test_latents_are_those_of_the_whole_video_at_once(networks, place):
    from longtake.backend import ops
    from longtake.processors import pictures
    from longtake.video import read_video

    (clip,) = clips_of("clips/a.mp4", 100)
    frames = read_video("clips/a.mp4")[0][:9]  # 1 + 2 * 4; two are left over
    pixels = np.moveaxis(pictures.pixels(list(frames), 48, 32), 0, 1)[None]
    whole = networks.vae.encode(ops.from_numpy(pixels)).latent_dist.mean * networks.vae.config.scaling_factor
    np.testing.assert_allclose(encoded(networks.vae, clip, (48, 32)), ops.to_numpy(whole)[0], atol=1e-5)


@once
def test_a_sample_of_pixels_is_even_and_bounded():
    rng = np.random.default_rng(0)
    counts = np.zeros(30)
    for _ in range(400):
        sample = Pixels(10, rng)
        for start in (0, 7, 19):
            end = {0: 7, 7: 19, 19: 30}[start]
            sample.add(np.arange(start, end, dtype=np.float32).reshape(1, -1, 1, 1))
        assert len(set(sample.vectors[:, 0])) == 10
        counts[sample.vectors[:, 0].astype(int)] += 1
    # Each of 30 is in a sample of 10 in a third of the runs: 133 of 400, give or take 5 standard deviations of 9.4.
    assert np.abs(counts - 400 / 3).max() < 47


@once
def test_residuals_are_measured_on_videos_that_were_not_fitted_to():
    rng = np.random.default_rng(0)
    centres = 5 * rng.standard_normal((6, 3, 1, 1, 1))
    latents = [
        (centres[rng.integers(0, 6, 80)][..., 0, 0, 0].T + 0.1 * rng.standard_normal((3, 80))).reshape(
            3, 5, 4, 4
        )
        for _ in range(20)
    ]
    *_, book = fitted(latents, [(6, 1), (1, 1), (3, 1), (6, 3)])
    assert book.facts["measured_on"] == "other videos" and book.facts["pixels"] == 18 * 80
    assert book.residuals[1] == pytest.approx(1, abs=1e-6)
    assert book.residuals[6] < 0.01 < book.residuals[3] < 1
    assert book.split.keys() == {(6, 3)} and book.shares[6, 3] < 0.01
    with pytest.raises(ModelError, match="no latents"):
        next(fitted([], [(1, 1)]))
