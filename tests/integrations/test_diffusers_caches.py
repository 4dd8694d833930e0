"""diffusers' step caches under our loop, which tells them the timestep, the step and the branch of guidance.

Unlike stock, which runs PyramidAttentionBroadcast and FasterCache and refuses the others: its call tells no branch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from longtake.errors import JobError  # noqa: E402
from longtake.integrations.diffusers import HunyuanVideoFramepackPipeline  # noqa: E402
from longtake.pipeline.networks import Networks  # noqa: E402

STEPS = 6
SECTIONS = 2  # of 13 frames in windows of 2


@pytest.fixture
def pipe(read: Callable[..., Any]) -> Any:
    return read(HunyuanVideoFramepackPipeline)


@pytest.fixture
def call(call: dict[str, Any]) -> dict[str, Any]:
    return {**call, "num_inference_steps": STEPS, "true_cfg_scale": 2.0, "negative_prompt": "a red ball"}


def first_block(pipe: Any) -> Any:
    return diffusers.FirstBlockCacheConfig(threshold=100.0)


def broadcast(pipe: Any) -> Any:
    return diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(100, 990),
        spatial_attention_block_identifiers=["transformer_blocks"],
        current_timestep_callback=lambda: pipe.current_timestep,
    )


def faster(pipe: Any) -> Any:
    return diffusers.FasterCacheConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 901),
        unconditional_batch_skip_range=2,
        attention_weight_callback=lambda _: 0.5,
        is_guidance_distilled=True,
        current_timestep_callback=lambda: pipe.current_timestep,
    )


def taylor(pipe: Any) -> Any:
    return diffusers.TaylorSeerCacheConfig(cache_interval=2, disable_cache_before_step=1)


def magnitude(pipe: Any) -> Any:
    return diffusers.MagCacheConfig(
        num_inference_steps=STEPS,
        mag_ratios=torch.ones(STEPS),
        threshold=0.5,
        max_skip_steps=2,
        retention_ratio=0.2,
    )


@pytest.mark.parametrize("cache", [first_block, broadcast, faster, taylor, magnitude])
def test_a_cache_saves_work_and_leaves_nothing_behind(
    cache: Any, pipe: Any, call: dict[str, Any], assert_same: Any
) -> None:
    if cache in (broadcast, faster):
        call |= {"true_cfg_scale": 1.0, "negative_prompt": None}
    plain = pipe(**call).frames
    pipe.transformer.enable_cache(cache(pipe))
    cached = pipe(**call).frames
    assert np.isfinite(cached).all() and np.abs(cached - plain).max() > 1e-4
    # Nothing of the first run is left in the second.
    assert_same(pipe(**call).frames, cached, 1e-9)
    pipe.transformer.disable_cache()
    assert_same(pipe(**call).frames, plain, 1e-9)


@pytest.mark.parametrize("cache", [broadcast, faster])
def test_a_cache_that_would_mix_branches_is_refused(cache: Any, pipe: Any, call: dict[str, Any]) -> None:
    pipe.transformer.enable_cache(cache(pipe))
    with pytest.raises(ValueError, match="keeps one state, which two branches of guidance would mix"):
        pipe(**call)


def test_each_branch_of_each_section_is_a_run_of_its_own(pipe: Any, call: dict[str, Any]) -> None:
    """With a threshold that nothing exceeds, the later blocks run once in each."""
    pipe.transformer.enable_cache(first_block(pipe))
    block, calls = pipe.transformer.single_transformer_blocks[-1], 0
    forward = block.attn.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return forward(*args, **kwargs)

    block.attn.forward = counted
    pipe(**call)
    assert calls == 2 * SECTIONS


def test_sections_and_branches_are_told(
    pipe: Any, call: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, float, int, float]] = []
    from contextlib import contextmanager

    @contextmanager
    def cache_context(
        name: str, *, step_index: int, sigma: float, num_inference_steps: int
    ) -> Iterator[None]:
        told.append((name, step_index, sigma, num_inference_steps, float(pipe.current_timestep)))
        yield

    monkeypatch.setattr(pipe.transformer, "cache_context", cache_context)
    pipe(**call)
    assert len(told) == 2 * SECTIONS * STEPS
    names, steps, sigmas, counts, timesteps = zip(*told, strict=True)
    assert names == ("cond", "uncond") * (SECTIONS * STEPS)
    assert steps[::2] == steps[1::2] == tuple(range(STEPS)) * SECTIONS
    assert sigmas[0] == 1.0 and sigmas[: 2 * STEPS] == sigmas[2 * STEPS :]
    assert set(counts) == {STEPS}
    np.testing.assert_allclose(timesteps, 1000 * np.asarray(sigmas), rtol=1e-6)


# Ours -----------------------------------------------------------------------------------------------------------------


def test_a_cache_of_ours_goes_around_a_transformer_of_diffusers(pipe: Any, call: dict[str, Any]) -> None:
    plain = pipe(**call).frames
    pipe.enable_cache("easy:1.5")
    cached = pipe(**call).frames
    assert np.isfinite(cached).all() and np.abs(cached - plain).max() > 1e-4
    pipe.disable_cache()
    np.testing.assert_array_equal(pipe(**call).frames, plain)
    pipe.enable_cache("first")
    with pytest.raises(JobError, match="'first' stands between the blocks of longtake's own transformer"):
        pipe(**call)


def test_one_cache_at_a_time(pipe: Any) -> None:
    pipe.enable_cache(first_block(pipe))
    assert pipe.transformer.is_cache_enabled
    with pytest.raises(JobError, match="The transformer has a cache already"):
        pipe.enable_cache("easy")


@pytest.mark.parametrize(
    ("cache", "text"), [(first_block, "first:100"), (magnitude, "mag:0.5,2,0.2,1;1,1,1,1,1,1")]
)
def test_our_transformer_takes_diffusers_configs(
    cache: Any, text: str, pipe: Any, networks: Networks
) -> None:
    networks.transformer.enable_cache(cache(pipe))
    assert networks.transformer.cache == text
    networks.transformer.disable_cache()


@pytest.mark.parametrize("cache", [broadcast, faster, taylor])
def test_our_transformer_refuses_other_configs(cache: Any, pipe: Any, networks: Networks) -> None:
    with pytest.raises(JobError, match=r"is not made here; .* longtake\.integrations.diffusers"):
        networks.transformer.enable_cache(cache(pipe))
    with pytest.raises(JobError, match="longtake calibrate"):
        networks.transformer.enable_cache(diffusers.MagCacheConfig(calibrate=True))
