"""The field's names for placements: what each says, the same video, and nothing left behind."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake import backend
from longtake.errors import BackendError, JobError, LongtakeWarning
from longtake.pipeline.networks import NETWORKS
from longtake.pipeline.placed import placement_of

CALL: dict[str, Any] = {
    "prompt": "a red ball bounces",
    "num_frames": 9,
    "latent_window_size": 2,
    "num_inference_steps": 1,
    "sampling_type": "vanilla",
    "output_type": "np",
}
on_torch = pytest.mark.skipif(backend.name != "torch", reason="the device that is not there is PyTorch's")


def made_of(pipe: Any) -> Any:
    """A pipeline over copies of the parts, with a scheduler that is data."""
    from longtake.sampling.driven import schedule_of

    parts = {name: copy.deepcopy(getattr(pipe, name)) for name in NETWORKS}
    made = type(pipe)(**{**pipe.components, **parts}, settings=pipe.settings)
    made.scheduler = schedule_of(pipe.scheduler)
    made.set_progress_bar_config(disable=True)
    return made


def video(pipe: Any, picture: Image.Image) -> np.ndarray:
    return np.asarray(pipe(image=picture, generator=np.random.default_rng(0), **CALL).frames[0])


def lies(pipe: Any, part: str = "transformer") -> Any:
    placed: Any = placement_of(pipe.components)
    return placed._carried[part].lies


@on_torch
def test_each_makes_the_same_video_and_lies_as_it_says(pipe: Any, picture: Image.Image) -> None:
    import torch

    from fake_device import accelerator

    with accelerator(), torch.no_grad():
        plain = made_of(pipe).to("npu")
        wanted = video(plain, picture)
        made = made_of(pipe)
        made.enable_model_cpu_offload(device="npu")
        assert (lies(made).how, lies(made).modulations) == ("whole", True)
        assert str(made.device).startswith("npu")
        assert (video(made, picture) == wanted).all()
        made.enable_sequential_cpu_offload(device="npu")
        assert (lies(made).how, lies(made).resident, lies(made, "vae").how) == ("streamed", 0, "whole")
        assert (video(made, picture) == wanted).all()
        made.enable_group_offload("npu", num_blocks_per_group=3, exclude_modules="vae")
        assert (lies(made).how, lies(made).ring) == ("streamed", 3)
        assert str(next(made.vae.parameters()).device).startswith("npu")
        assert (video(made, picture) == wanted).all()
        # A second pipeline over the same parts knows how they lie.
        other = type(made).from_pipe(made)
        other.set_progress_bar_config(disable=True)
        assert (video(other, picture) == wanted).all()
        # A part that is called by itself brings itself, as in a callback.
        made.enable_model_cpu_offload(device="npu")
        latents = torch.ones(1, 4, 1, 4, 6, device="npu")
        decoded = (each.vae.decode(latents, return_dict=False)[0].to("cpu") for each in (made, plain))
        assert torch.equal(*decoded)
        placed: Any = placement_of(made.components)
        assert placed.peak() > 0
        made.maybe_free_model_hooks()
        assert placed.peak() == 0
        made.remove_all_hooks()
        assert placement_of(made.components) is None and str(made.device) == "cpu"


@on_torch
def test_to_ends_a_placement(pipe: Any, picture: Image.Image) -> None:
    from fake_device import accelerator

    with accelerator():
        made = made_of(pipe)
        wanted = video(made_of(pipe), picture)
        made.enable_sequential_cpu_offload(device="npu")
        video(made, picture)
        made.to("cpu")
        assert placement_of(made.components) is None
        assert all(str(weight.device) == "cpu" for weight in made.transformer.parameters())
        assert (video(made, picture) == wanted).all()
        # A dtype leaves it as it is.
        made.enable_sequential_cpu_offload(device="npu")
        before = video(made, picture)
        made.to(made.dtype)
        assert placement_of(made.components) is not None
        assert (video(made, picture) == before).all()


@on_torch
def test_what_cannot_be_done_is_refused_with_its_reason(pipe: Any) -> None:
    from fake_device import accelerator

    with pytest.raises(BackendError, match="there is none here"):
        pipe.enable_model_cpu_offload()
    with pytest.raises(JobError, match="cpu was asked for"):
        pipe.enable_sequential_cpu_offload(device="cpu")
    with accelerator():
        made = made_of(pipe)
        with pytest.raises(JobError, match="gpu_id is 1 and device is npu:0"):
            made.enable_model_cpu_offload(gpu_id=1, device="npu:0")
        with pytest.raises(JobError, match="needs num_blocks_per_group"):
            made.enable_group_offload("npu")
        with pytest.raises(JobError, match="at least 1 block"):
            made.enable_group_offload("npu", num_blocks_per_group=0)
        with pytest.raises(JobError, match="there are: block_level, leaf_level"):
            made.enable_group_offload("npu", offload_type="rows")
        with pytest.raises(JobError, match="would write the weights once more"):
            made.enable_group_offload("npu", num_blocks_per_group=1, offload_to_disk_path="somewhere")
        with pytest.raises(JobError, match="needs a device with streams"):
            made.enable_group_offload("npu", num_blocks_per_group=1, use_stream=True)
        with pytest.raises(JobError, match="leave it at 'cpu'"):
            made.enable_group_offload("npu", offload_device="npu", num_blocks_per_group=1)
        with pytest.raises(JobError, match="exclude_modules names 'unet'"):
            made.enable_group_offload("npu", num_blocks_per_group=1, exclude_modules=["unet"])
        assert placement_of(made.components) is None
        with pytest.warns(LongtakeWarning, match="here a block comes at once"):
            made.enable_group_offload("npu", offload_type="leaf_level")
        assert lies(made).ring == 1
