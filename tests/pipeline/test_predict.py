"""The velocity at each step: what is computed once, what hangs on it, and what is done for a network that is touched."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from longtake import backend
from longtake.backend import ops, runtime
from longtake.errors import JobError
from longtake.models import rope
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.pipeline.networks import Networks
from longtake.pipeline.predict import Predictor
from longtake.plan.layout import Slot
from longtake.plan.plans import Section

SLOTS = {
    1: Slot(1, (0, 7), (0, 7)),
    2: Slot(2, (5, 6), (5, 6)),
    4: Slot(4, (1, 2, 3, 4), (1, 2, 3, 4)),
}
SECTION = Section(0, (8, 9), (8, 9), SLOTS)
SIGMAS = (1.0, 0.6, 0.3)
# A whole call and an opened network do the same operations; graphs and masks may order sums otherwise.
CLOSE: dict[str, Any] = {"atol": 4e-6, "rtol": 1e-5}


@dataclass(frozen=True)
class Text:
    """A prompt that was read."""

    states: Any
    mask: Any
    pooled: Any


class History:
    """Noise in the place of what was made."""

    def read(self, slot: Slot) -> np.ndarray:
        return noise(slot.scale, 1, 4, len(slot.frames), 4, 6)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def text(seed: int, words: int = 5) -> Text:
    mask = (np.arange(7) < words)[None].astype(np.int64)
    return Text(*map(ops.from_numpy, (noise(seed, 1, 7, 16), mask, noise(seed + 1, 1, 8))))


POSITIVE, NEGATIVE = text(1), text(11, 3)
STATES, LATENTS = ops.from_numpy(noise(21, 1, 4, 16)), ops.from_numpy(noise(22, 1, 4, 2, 4, 6))


@pytest.fixture
def transformer(networks: Networks) -> Any:
    """A network of the test's own."""
    return copy.deepcopy(networks.transformer)


def predictor(transformer: Any, **options: Any) -> Predictor:
    made = Predictor(transformer, guidance=9.0, cfg_scale=2.0, **options)
    made.begin(SECTION, History())
    return made


def velocities(made: Predictor, negative: Text | None = NEGATIVE) -> list[np.ndarray]:
    return [ops.to_numpy(made(POSITIVE, negative, STATES, LATENTS, sigma)) for sigma in SIGMAS]


def test_a_whole_call_gives_what_an_opened_network_gives(transformer: Any) -> None:
    opened = velocities(predictor(transformer))

    class Theirs:
        """A transformer of the field."""

        dtype, device, config = transformer.dtype, transformer.device, transformer.config

        def __call__(self, **given: Any) -> Any:
            return transformer(**given)

    for one, other in zip(opened, velocities(predictor(Theirs())), strict=True):
        np.testing.assert_allclose(other, one, **CLOSE)


def test_both_branches_share_tables_and_clean_tokens(
    transformer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    rotary, context, prompted = rope.rotary, Transformer.context, Transformer.prompted
    monkeypatch.setattr(rope, "rotary", lambda *a, **k: (made.append("table"), rotary(*a, **k))[1])
    monkeypatch.setattr(Transformer, "context", lambda *a, **k: (made.append("context"), context(*a, **k))[1])
    monkeypatch.setattr(Transformer, "prompted", lambda *a: (made.append("prompt"), prompted(*a))[1])
    predict = predictor(transformer)
    velocities(predict)
    assert [made.count(what) for what in ("context", "table", "prompt")] == [1, 4, 2]
    predict.begin(SECTION, History())
    velocities(predict)
    assert [made.count(what) for what in ("context", "table", "prompt")] == [2, 8, 2]


def test_modulations_are_made_once_for_each_timestep_of_a_prompt(
    transformer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(transformer.transformer_blocks[0])
    calls, modulations = [], kind.modulations
    monkeypatch.setattr(kind, "modulations", lambda self, c: (calls.append(1), modulations(self, c))[1])
    predict = predictor(transformer)
    for _ in range(2):
        predict.begin(SECTION, History())
        velocities(predict)
    assert len(calls) == 2 * len(SIGMAS)  # one double block, two prompts


def test_each_section_and_branch_has_a_wrapper_of_its_own(transformer: Any) -> None:
    plain = velocities(predictor(transformer))
    made: list[list[float]] = []

    def every_second(velocity: Any) -> Any:
        """A step cache: gives each velocity twice."""
        seen: list[float] = []
        made.append(seen)
        kept: list[Any] = []

        def cached(latents: Any, sigma: float) -> Any:
            seen.append(sigma)
            if len(seen) % 2:
                kept[:] = [velocity(latents, sigma)]
            return kept[0]

        return cached

    predict = predictor(transformer, wrap=every_second)
    cached = velocities(predict)
    assert made == [list(SIGMAS), list(SIGMAS)]
    np.testing.assert_array_equal(cached[0], plain[0])
    np.testing.assert_array_equal(cached[1], plain[0])
    np.testing.assert_array_equal(cached[2], plain[2])
    predict.begin(SECTION, History())
    velocities(predict, None)
    assert len(made) == 3


def test_a_wrapper_hangs_on_a_foreign_transformer_too(transformer: Any) -> None:
    class Theirs:
        dtype, device, config = transformer.dtype, transformer.device, transformer.config

        def __call__(self, **given: Any) -> Any:
            return transformer(**given)

    doubled = velocities(predictor(Theirs(), wrap=lambda velocity: lambda x, s: 2 * velocity(x, s)), None)
    plain = velocities(predictor(Theirs()), None)
    np.testing.assert_allclose(doubled[0], 2 * plain[0], rtol=1e-6)  # float32


def test_what_a_callback_changes_is_told_at_the_next_step(transformer: Any) -> None:
    predict, other = predictor(transformer), text(5)
    before = ops.to_numpy(predict(POSITIVE, None, STATES, LATENTS, 0.6))
    after = ops.to_numpy(predict(other, None, STATES, LATENTS, 0.6))
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(
        ops.to_numpy(predictor(transformer)(other, None, STATES, LATENTS, 0.6)), after
    )
    assert len(predict.texts) == 1


def test_a_scale_that_no_kernel_has_is_refused(transformer: Any) -> None:
    section = replace(SECTION, slots={**SLOTS, 8: Slot(8, (1, 2), (1, 2))})
    with pytest.raises(
        JobError, match="packs clean frames by 8, and this transformer has kernels for 1, 2, 4"
    ):
        Predictor(transformer, guidance=9.0).begin(section, History())


def test_a_plan_may_leave_slots_out(transformer: Any) -> None:
    predict = Predictor(transformer, guidance=9.0)
    predict.begin(replace(SECTION, slots={2: SLOTS[2]}), History())
    few = ops.to_numpy(predict(POSITIVE, None, STATES, LATENTS, 0.6))
    assert np.isfinite(few).all()
    assert not np.array_equal(few, velocities(predictor(transformer), None)[1])


# Users' hands ---------------------------------------------------------------------------------------------------------


def hands(transformer: Any, seen: list[str]) -> Iterator[tuple[str, Any]]:
    """Ways to hang something on a network; each notes its calls."""
    torch = pytest.importorskip("torch")

    def note(*_: Any, **__: Any) -> None:
        seen.append("seen")

    def patched(original: Any) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            note()
            return original(*args, **kwargs)

        return forward

    block = transformer.single_transformer_blocks[0]
    handle = transformer.register_forward_hook(note)
    yield "a hook", transformer
    handle.remove()
    handle = transformer.register_forward_pre_hook(note)
    yield "a hook before", transformer
    handle.remove()
    handle = transformer.context_embedder.proj_in.register_forward_hook(note)
    yield "a hook on a layer that is computed once", transformer
    handle.remove()
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: note() if module is transformer else None
    )
    yield "a hook on all modules", transformer
    handle.remove()
    transformer.forward = patched(transformer.forward)
    yield "forward of the object", transformer
    del transformer.forward
    block.forward = patched(block.forward)
    yield "forward of a block", transformer
    del block.forward
    original, Transformer.forward = Transformer.forward, patched(Transformer.forward)
    try:
        yield "forward of the class", transformer
    finally:
        Transformer.forward = original

    def noting(graph: Any, _: Any) -> Any:
        return patched(graph.forward)

    transformer.compile(backend=noting)
    yield "compile()", transformer
    transformer._compiled_call_impl = None
    yield "torch.compile", torch.compile(transformer, backend=noting)
    block.compile(backend=noting)
    yield "a compiled block", transformer
    block._compiled_call_impl = None

    class Mine(Transformer):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            note()
            return super().forward(*args, **kwargs)

    mine = Mine(transformer.config)
    mine.load_state_dict(transformer.state_dict())
    yield "a subclass", mine.eval()
    hooks = pytest.importorskip("accelerate.hooks")

    class Noting(hooks.ModelHook):
        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            note()
            return args, kwargs

    hooks.add_hook_to_module(transformer, Noting())
    yield "accelerate's hook", transformer
    hooks.remove_hook_from_module(transformer)


@pytest.mark.skipif(backend.name != "torch", reason="how PyTorch's modules are hooked")
def test_whatever_users_hang_on_the_network_takes_effect_at_every_step(transformer: Any) -> None:
    plain, seen = velocities(predictor(transformer)), list[str]()
    for what, network in hands(transformer, seen):
        found = velocities(predictor(network))
        # Two branches at each step; graphs and layers may be called several times.
        assert len(seen) >= 2 * len(SIGMAS), what
        for one, other in zip(plain, found, strict=True):
            np.testing.assert_allclose(other, one, **CLOSE, err_msg=what)
        seen.clear()
    velocities(predictor(transformer))
    assert not seen


def test_a_hook_that_is_added_between_two_steps_takes_effect_at_the_next(transformer: Any) -> None:
    predict, seen = predictor(transformer), []
    predict(POSITIVE, None, STATES, LATENTS, 1.0)
    handle = transformer.register_forward_hook(lambda *_: seen.append(1))
    predict(POSITIVE, None, STATES, LATENTS, 0.6)
    assert len(seen) == 1
    handle.remove()
    predict(POSITIVE, None, STATES, LATENTS, 0.3)
    assert len(seen) == 1


@pytest.mark.skipif(backend.name != "torch", reason="accelerate is PyTorch's")
def test_accelerates_offloading_serves(transformer: Any) -> None:
    accelerate = pytest.importorskip("accelerate")
    plain = velocities(predictor(transformer))
    accelerate.cpu_offload(transformer, execution_device="cpu")
    assert {weight.device.type for weight in transformer.parameters()} == {"meta"}
    for one, other in zip(plain, velocities(predictor(transformer)), strict=True):
        np.testing.assert_allclose(other, one, **CLOSE)


# Accelerators ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(backend.name != "torch", reason="the device that is not there is PyTorch's")
@pytest.mark.parametrize("negative", [None, NEGATIVE], ids=["one branch", "two branches"])
def test_on_an_accelerator_nothing_is_left_behind_and_nothing_waits(
    transformer: Any, negative: Text | None
) -> None:
    from fake_device import accelerator

    plain = velocities(predictor(transformer), negative)
    with accelerator() as traffic:
        transformer.to("npu")
        assert (transformer.device.type, runtime.dtype_name(transformer.dtype)) == ("npu", "float32")
        there = [Text(*(x.to("npu") for x in vars(each).values())) for each in (POSITIVE, negative) if each]
        states, latents = STATES.to("npu"), LATENTS.to("npu")
        predict = Predictor(transformer, guidance=9.0, cfg_scale=2.0)
        against = there[1] if negative else None
        found, counts = [], []
        for section in range(2):
            traffic.clear()
            predict.begin(SECTION, History())
            for sigma in SIGMAS:
                found.append(predict(there[0], against, states, latents, sigma))
                counts.append(traffic.counts)
                traffic.clear()
            found = found[-len(SIGMAS) :]
            assert not any(waits for _, _, waits in counts), section
    branches = len(there)
    # A section uploads three slots, two tables and the guidance; a prompt its mask, which it read, once. A step of the
    # first section uploads its timestep once for each branch, and later sections nothing.
    assert [downloads for _, downloads, _ in counts] == [branches, 0, 0, 0, 0, 0]
    first, second = counts[: len(SIGMAS)], counts[len(SIGMAS) :]
    assert [uploads for uploads, _, _ in first[1:]] == [branches] * (len(SIGMAS) - 1)
    assert [uploads for uploads, _, _ in second[1:]] == [0] * (len(SIGMAS) - 1)
    for one, other in zip(plain, found, strict=True):
        # Rotary tables are spelt out there, and sums ordered otherwise.
        np.testing.assert_allclose(other.near.numpy(), one, **CLOSE)


@pytest.mark.skipif(backend.name != "torch", reason="the device that is not there is PyTorch's")
def test_half_precision_on_an_accelerator_is_not_widened(transformer: Any) -> None:
    torch = pytest.importorskip("torch")
    from fake_device import accelerator

    with accelerator():
        x = torch.ones(1, 3, 4, dtype=torch.bfloat16, device="npu")
        seen = []
        original = torch.addcmul
        try:
            torch.addcmul = lambda *args: (seen.extend(each.dtype for each in args), original(*args))[1]
            assert ops.scale_shift(x, x[:, :1], x).dtype == torch.bfloat16
        finally:
            torch.addcmul = original
    assert set(seen) == {torch.bfloat16}
