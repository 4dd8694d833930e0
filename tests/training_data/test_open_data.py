"""A folder becomes examples: what they hold equals the encoders' own, and nothing is made twice."""

import numpy as np
import pytest
from PIL import Image

from clips import clip, picture
from longtake.backend import ops, runtime
from longtake.errors import JobError
from longtake.pipeline.decode import from_frames
from longtake.training.data import Encoded, Plan, Settings, encoders_of, open_data
from longtake.video import read_video

SETTINGS = Settings(window=2)
"""A section of 9 frames."""


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
