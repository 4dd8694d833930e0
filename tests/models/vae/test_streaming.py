"""A video piece by piece through the autoencoder: the same frames as at once, in the memory of a piece."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake import backend
from longtake.backend import ops, runtime
from longtake.errors import ModelError
from longtake.models.vae import causal, vae
from longtake.models.vae.streaming import REACH, StreamingDecoder, StreamingEncoder
from longtake.models.vae.upsample import Upsample

TINY = {
    "block_out_channels": (4, 4, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "latent_channels": 4,
}
TORCH = backend.name == "torch"
# A graph for every length of a tile would take the test minutes; eager code is the same.
EXAMPLES = settings(max_examples=40 if TORCH else 4)


@pytest.fixture(scope="module")
def network(filled):
    return filled(vae.AutoencoderKLHunyuanVideo(**TINY))


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    if not TORCH:
        monkeypatch.setattr(runtime, "graph", False)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def streamed(stream, array, lengths, found=lambda each: each):
    """All results, and how many frames each call gave; pieces of `lengths`, the last one takes what is left."""
    results, counts, start = [], [], 0
    for length in [*lengths, array.shape[2]]:
        if start < array.shape[2]:
            given = stream.push(ops.from_numpy(array[:, :, start : start + length]))
            start += length
            results += given
            counts.append(sum(found(each).shape[2] for each in given))
    results += stream.finish()
    return np.concatenate([ops.to_numpy(found(each)) for each in results], 2), counts


def decoded(network, latents):
    with runtime.no_grad():
        return ops.to_numpy(network.decode(ops.from_numpy(latents)).sample)


def encoded(network, frames):
    with runtime.no_grad():
        return ops.to_numpy(network.encode(ops.from_numpy(frames)).latent_dist.mean)


pieces = st.lists(st.integers(1, 11), max_size=12)


@EXAMPLES
@given(length=st.integers(1, 30), lengths=pieces)
def test_exact_frames_do_not_depend_on_the_pieces(network, length, lengths):
    latents = noise(1, 4, length, 2, 3)
    frames, _ = streamed(StreamingDecoder(network), latents, lengths)
    assert frames.shape[2] == 1 + 4 * (length - 1)
    # The same tiles in the same order: on one machine the same bits.
    np.testing.assert_array_equal(frames, decoded(network, latents))


@EXAMPLES
@given(length=st.integers(0, 22), lengths=pieces)
def test_encoded_latents_do_not_depend_on_the_pieces(network, length, lengths):
    frames = noise(1, 3, 1 + 4 * length, 16, 24)
    latents, _ = streamed(StreamingEncoder(network), frames, lengths, lambda posterior: posterior.mode())
    assert latents.shape[2] == 1 + length
    np.testing.assert_array_equal(latents, encoded(network, frames))


@EXAMPLES
@given(length=st.integers(1, 20), lengths=pieces)
def test_causal_frames_do_not_depend_on_the_pieces(network, length, lengths):
    latents = noise(1, 4, length, 2, 3)
    frames, counts = streamed(StreamingDecoder(network, "causal"), latents, lengths)
    assert frames.shape[2] == sum(counts) == 1 + 4 * (length - 1)  # every latent frame's frames leave at once
    whole, _ = streamed(StreamingDecoder(network, "causal"), latents, [])
    # The same sums, by kernels that add in another order.
    np.testing.assert_allclose(frames, whole, atol=2e-5 * np.abs(whole).max())


def test_causal_frames_begin_as_exact_ones(network):
    # One latent frame has no past, and the norms see it alone in both.
    latents = noise(1, 4, 1, 2, 3)
    frames, _ = streamed(StreamingDecoder(network, "causal"), latents, [])
    np.testing.assert_allclose(frames, decoded(network, latents), atol=2e-6 * np.abs(frames).max())


@pytest.mark.parametrize("mode", ["exact", "causal"])
def test_batches_slices_and_tiles_of_space(network, mode):
    latents = noise(2, 4, 6, 5, 4)
    alone = [streamed(StreamingDecoder(network, mode), latents[i : i + 1], [4])[0] for i in (0, 1)]
    together, _ = streamed(StreamingDecoder(network, mode), latents, [2, 3])
    network.enable_slicing()
    sliced, _ = streamed(StreamingDecoder(network, mode), latents, [2, 3])
    network.enable_tiling(24, 24, 16, 16, 16, 12)
    tiled, _ = streamed(StreamingDecoder(network, mode), latents, [2, 3])
    again, _ = streamed(StreamingDecoder(network, mode), latents, [1, 4])
    network.disable_tiling()
    network.disable_slicing()
    for found in (together, sliced):
        np.testing.assert_allclose(found, np.concatenate(alone), atol=2e-5 * np.abs(found).max())
    assert tiled.shape == together.shape
    assert not np.array_equal(tiled, together)
    np.testing.assert_allclose(tiled, again, atol=2e-5 * np.abs(tiled).max())


def test_pieces_inside_a_tile_do_not_change_it(network, monkeypatch):
    latents, frames = noise(2, 4, 7, 2, 3), noise(1, 3, 17, 16, 24)
    whole, mean = decoded(network, latents), encoded(network, frames)
    # So little that every convolution takes one frame at a time, and some one step of the kernel.
    for values in (1, 6000):
        monkeypatch.setattr(causal.ops, "piece_values", lambda x, values=values: values)
        np.testing.assert_allclose(decoded(network, latents), whole, atol=2e-5 * np.abs(whole).max())
        np.testing.assert_allclose(encoded(network, frames), mean, atol=2e-5 * np.abs(mean).max())


@pytest.mark.parametrize("factor", [(1, 2, 2), (2, 2, 2), (2, 1, 1)])
@pytest.mark.parametrize("frames", [1, 4])
def test_enlarging_is_repeating_and_convolving(filled, factor, frames):
    layer = filled(Upsample(3, factor))
    x = noise(1, 3, frames, 3, 4)
    large = x.repeat(factor[0], 2)[:, :, factor[0] - 1 :].repeat(factor[1], 3).repeat(factor[2], 4)
    with runtime.no_grad():
        found = ops.to_numpy(layer([ops.from_numpy(x)])[0])
        expected = ops.to_numpy(layer.conv(ops.from_numpy(large)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_stream_can_be_used_again(network):
    latents = noise(1, 4, 7, 2, 3)
    for mode in ("exact", "causal"):
        stream = StreamingDecoder(network, mode)
        first, second = (streamed(stream, latents, [3])[0] for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert StreamingDecoder(network, mode).finish() == []


def held(value, seen=None):
    """How many values all tensors have that hang on an object, without those of networks."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, backend.nn.Module):
        return 0
    seen.add(id(value))
    if isinstance(value, ops.Tensor):
        # A view keeps what it looks into.
        return value.untyped_storage().nbytes() // value.itemsize if TORCH else int(np.prod(value.shape))
    if isinstance(value, dict):
        return sum(held(each, seen) for each in value.values())
    if isinstance(value, list | tuple):
        return sum(held(each, seen) for each in value)
    return held(vars(value), seen) if hasattr(value, "__dict__") and not callable(value) else 0


@pytest.mark.parametrize("mode", ["exact", "causal"])
def test_memory_does_not_grow_with_the_length(network, mode):
    stream, counts = StreamingDecoder(network, mode), []
    for start in range(30):
        stream.push(ops.from_numpy(noise(1, 4, 3, 2, 3, seed=start)))
        counts.append(held(stream))
    settled = 1 + REACH // 3
    assert len(set(counts[settled:])) == 1
    if mode == "exact":  # a tile's latents but one, and the frames to fade from
        assert counts[-1] <= 4 * (4 * 2 * 3) + 4 * (3 * 16 * 24)


def test_frames_leave_as_soon_as_their_tile_is_there(network):
    _, counts = streamed(StreamingDecoder(network), noise(1, 4, 12, 2, 3), [1] * 11)
    assert counts == [0, 0, 0, 0, 13, 0, 0, 12, 0, 0, 12, 0]


def test_another_autoencoder_is_given_the_whole_video(network):
    class Foreign:
        def decode(self, z, return_dict=True):
            return (network.decode(z).sample,)

    latents = noise(1, 4, 7, 2, 3)
    frames, counts = streamed(StreamingDecoder(Foreign()), latents, [3])
    assert sum(counts) == 0
    np.testing.assert_array_equal(frames, decoded(network, latents))
    with pytest.raises(ModelError, match=r"Causal decoding needs longtake's own autoencoder.*Foreign"):
        StreamingDecoder(Foreign(), "causal")


def test_another_mode_is_refused(network):
    with pytest.raises(ModelError, match=r"mode is 'fast'.*exact, causal"):
        StreamingDecoder(network, "fast")


def test_what_users_hang_on_the_autoencoder_takes_effect(filled, torch_only):
    network = filled(vae.AutoencoderKLHunyuanVideo(**TINY))
    latents = noise(1, 4, 6, 2, 3)
    plain = decoded(network, latents)

    class Brighter(vae.AutoencoderKLHunyuanVideo):
        def decode(self, z, return_dict=True):
            found = super().decode(z, False)[0] + 1
            return vae.Sample(found) if return_dict else (found,)

    brighter = filled(Brighter(**TINY))
    # Clips are not cut in an autoencoder that was changed: sums in another order.
    found = streamed(StreamingDecoder(brighter), latents, [2])[0]
    np.testing.assert_allclose(found, plain + 1, rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match=r"Causal decoding.*Brighter"):
        StreamingDecoder(brighter, "causal")
    network.decode = lambda z, return_dict=True: (torch_only.zeros(1, 3, 21, 16, 24),)
    assert not streamed(StreamingDecoder(network), latents, [2])[0].any()
    del network.decode
    calls = []
    handle = network.decoder.register_forward_hook(lambda *_: calls.append(1))
    found, _ = streamed(StreamingDecoder(network), latents, [2])
    handle.remove()
    assert len(calls) == 2  # tiles of five and of three latents
    np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-5)
    network.encode = lambda x, return_dict=True: None
    with pytest.raises(ModelError, match="Encoding in a stream"):
        StreamingEncoder(network)


@settings(EXAMPLES, max_examples=12 if TORCH else 2)
@given(
    length=st.integers(1, 30),
    lengths=pieces,
    spans=st.lists(st.tuples(st.integers(0, 120), st.integers(1, 30)), max_size=3),
)
def test_frames_that_nobody_wants_cost_nothing_and_change_no_other(network, length, lengths, spans):
    latents = noise(1, 4, length, 2, 3)
    whole, asked, decoded_tiles = decoded(network, latents), [(n, n + count) for n, count in spans], []

    def wanted(first, stop):
        return any(begin < stop and first < end for begin, end in asked)

    stream = StreamingDecoder(network, wanted=wanted)
    decode = stream._tiles.function
    stream._tiles.function = lambda z: decoded_tiles.append(z) or decode(z)
    start, at, found = 0, 0, []
    for count in [*lengths, length]:
        found += stream.push(ops.from_numpy(latents[:, :, start : start + count]))
        start = min(length, start + count)
        if start == length:
            break
    for each in [*found, *stream.finish()]:
        if isinstance(each, int):
            assert not wanted(at, at + each)
            at += each
        else:
            np.testing.assert_array_equal(ops.to_numpy(each), whole[:, :, at : at + each.shape[2]])
            at += each.shape[2]
    assert at == whole.shape[2]
    # A tile gives 12 frames: those that lie in a span, and one before each.
    assert len(decoded_tiles) <= sum((end - begin) // 12 + 3 for begin, end in asked)
