"""The treatments of the history: their arithmetic against direct formulas, and the texts that name them."""

from __future__ import annotations

import numpy as np
import pytest

from longtake.errors import JobError
from longtake.sampling import treatments
from longtake.sampling.treatments import (
    Drift,
    adaptive,
    added,
    chain,
    corruption,
    discrete,
    matched,
    noise,
    over_scales,
    sometimes,
    treatment_of,
)
from longtake.sampling.ways import Wanted, check_discrete, check_sampling, parse, wanted_of

RNG = np.random.default_rng(0)
LATENTS = RNG.standard_normal((2, 4, 5, 6, 8)).astype(np.float32)
MADE = np.array([[False, True, True, True, False], [True, True, False, True, True]])


def no_codes(count: int, groups: int) -> np.ndarray:
    raise AssertionError("nothing here is discrete")


def rng(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


def check_only_made(treatment: treatments.Treatment) -> np.ndarray:
    """Frames that are given or blank stay as they are, all others change; returns the treated latents."""
    done = treatment(LATENTS, MADE, rng())
    assert done.shape == LATENTS.shape and done.dtype == LATENTS.dtype
    changed = (done != LATENTS).any((1, 3, 4))
    assert (changed == MADE).all()
    return done


def test_noise_is_that_of_flow_matching() -> None:
    done = check_only_made(noise(0.25))
    drawn = rng().standard_normal(LATENTS.shape).astype(np.float32)
    assert np.allclose(done[0, :, 1], 0.75 * LATENTS[0, :, 1] + 0.25 * drawn[0, :, 1], atol=1e-6)


def test_added_noise_lies_on_top() -> None:
    done = check_only_made(added(0.1))
    drawn = rng().standard_normal(LATENTS.shape).astype(np.float32)
    assert np.allclose(done[1, :, 4], LATENTS[1, :, 4] + 0.1 * drawn[1, :, 4], atol=1e-6)


def test_discrete_pixels_are_the_nearest_codes() -> None:
    codes = RNG.standard_normal((9, 4)).astype(np.float32)
    done = check_only_made(discrete(codes))
    pixel = LATENTS[1, :, 3, 2, 5]
    assert np.array_equal(done[1, :, 3, 2, 5], codes[((codes - pixel) ** 2).sum(1).argmin()])


def test_statistics_become_the_pictures() -> None:
    picture = (3 * RNG.standard_normal((2, 4, 1, 6, 8)) + 1).astype(np.float32)
    done = check_only_made(matched(picture))
    for row, frame in zip(*np.nonzero(MADE), strict=True):
        assert np.allclose(done[row, :, frame].mean((1, 2)), picture[row, :, 0].mean((1, 2)), atol=1e-5)
        assert np.allclose(done[row, :, frame].std((1, 2)), picture[row, :, 0].std((1, 2)), atol=1e-5)
    half = matched(picture, 0.5)(LATENTS, MADE, rng())
    assert np.allclose(half, (LATENTS + done) / 2, atol=1e-5)
    flat = np.ones((2, 4, 5, 6, 8), np.float32)
    assert np.isfinite(matched(picture)(flat, MADE, rng())).all()


def test_corruption_leaves_a_tenth_clean_and_blurs_a_tenth_of_the_rest() -> None:
    latents = np.broadcast_to(LATENTS[:1, :, :1], (4, 4, 500, 6, 8)).copy()
    done = corruption()(latents, np.ones((4, 500), bool), rng())
    change = (done - latents).reshape(4, 4, 500, 48)
    clean = (change == 0).all((1, 3))
    # 2000 frames: 5 standard deviations of a share of 0.1 are 0.034.
    assert clean.mean() == pytest.approx(0.1, abs=0.034)
    # What is blurred is a linear map of the frame; there are few sizes from 0.9 to 1 of 6 x 8 latents.
    sizes = {done[b, :, t].tobytes() for b, t in zip(*np.nonzero(~clean), strict=True)}
    blurred = (~clean).sum() - (len(sizes) - 2)
    assert blurred / 2000 == pytest.approx(0.09, abs=0.034)
    # Noise of a level from 0 to 1/3, evenly: its mean square is that of the level, 1/27, times 1 + the frame's own.
    noisy = corruption(clean=0, noised=1)(latents, np.ones((4, 500), bool), rng())
    mean_square = ((noisy - latents) ** 2).mean()
    assert mean_square == pytest.approx((1 + (latents**2).mean()) / 27, rel=0.1)


def test_a_frame_made_smaller_and_larger_keeps_a_plane() -> None:
    # Linear interpolation keeps what is constant, whatever the size; a checkerboard loses most of itself.
    flat = np.full((2, 9, 16), 0.7, np.float32)
    assert np.allclose(treatments._blurred(flat, 0.93), flat, atol=1e-6)
    board = (np.indices((9, 16)).sum(0) % 2 * 2.0 - 1)[None].astype(np.float32)
    assert treatments._blurred(board, 0.9).std() < 0.8 * board.std()
    assert np.allclose(treatments._blurred(board, 1.0), board)


def test_drift_is_seen_when_mean_and_variance_both_leave() -> None:
    drift = Drift(threshold=0.15, rho=0.9)
    first = LATENTS[:, :, :3]
    moved = first.copy()
    moved[1] = 2 * first[1] + 1
    drift.add(first)
    assert drift.left is not None and not drift.left.any()
    drift.add(moved)
    assert drift.left.tolist() == [False, True]
    # The mean has moved a tenth of the way, and this is where it was: still far for the second row.
    mean = 0.9 * first.mean((2, 3, 4)) + 0.1 * moved.mean((2, 3, 4))
    assert np.allclose(drift._known[0], mean)  # type: ignore[index]
    drift.add(moved + 10 * np.array([0, 0]).reshape(2, 1, 1, 1, 1))
    assert drift.left.tolist() == [False, True]
    # A shift alone leaves the variance where it was.
    shifted = Drift()
    shifted.add(first)
    shifted.add(first + 5)
    assert not shifted.left.any()  # type: ignore[union-attr]


def test_adaptive_noise_comes_to_the_row_that_drifts() -> None:
    drift = Drift()
    treatment = adaptive(0.1, drift)
    assert treatment(LATENTS, MADE, rng()) is LATENTS
    drift.left = np.array([False, True])
    done = treatment(LATENTS, MADE, rng())
    assert np.array_equal(done[0], LATENTS[0])
    assert np.array_equal(done[1], added(0.1)(LATENTS, MADE, rng())[1])


def test_a_row_gets_the_same_alone_and_beside_others_and_all_scales_are_one() -> None:
    clean, made = {1: LATENTS[:, :, :2], 4: LATENTS[:, :, 2:]}, {1: MADE[:, :2], 4: MADE[:, 2:]}
    both = over_scales(noise(0.3), clean, made, [rng(1), rng(2)])
    alone = over_scales(
        noise(0.3),
        {scale: array[1:] for scale, array in clean.items()},
        {scale: array[1:] for scale, array in made.items()},
        [rng(2)],
    )
    assert all(np.array_equal(both[scale][1:], alone[scale]) for scale in (1, 4))
    joined = noise(0.3)(LATENTS[:1], MADE[:1], rng(1))
    assert np.array_equal(np.concatenate([both[1][:1], both[4][:1]], 2), joined)
    assert over_scales(noise(0.3), {}, {}, rng()) == {}


def test_sometimes_treats_whole_rows() -> None:
    many = np.repeat(LATENTS[:1], 400, 0)
    done = over_scales(
        sometimes(added(1.0), 0.3),
        {1: many[:, :, :2], 2: many[:, :, 2:]},
        {1: np.ones((400, 2), bool), 2: np.ones((400, 3), bool)},
        rng(),
    )
    first, second = (
        (done[scale] != part).any((1, 2, 3, 4)) for scale, part in ((1, many[:, :, :2]), (2, many[:, :, 2:]))
    )
    assert (first == second).all()
    assert first.mean() == pytest.approx(0.3, abs=0.1)


def test_a_text_is_done_in_its_order() -> None:
    codes = RNG.standard_normal((5, 4)).astype(np.float32)
    found = treatment_of("noise:0.5+discrete:5", lambda count, groups: {(5, 1): codes}[count, groups])
    assert found is not None
    expected = chain([noise(0.5), discrete(codes)])(LATENTS, MADE, rng())
    assert np.array_equal(found(LATENTS, MADE, rng()), expected)
    assert treatment_of("forget+sink:4", no_codes, drift=Drift()) is None
    assert treatment_of("", no_codes) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        ("noise", (Wanted("noise", (0.1,)),)),
        ("noise:1e-2,discrete:64", (Wanted("noise", (0.01,)), Wanted("discrete", (64, 1)))),
        ("adaptive:1e+0,.2 + forget", (Wanted("adaptive", (1.0, 0.2, 0.9)), Wanted("forget"))),
        ("correct", (Wanted("correct", (2, 0.5)),)),
    ],
)
def test_texts(text: str, found: tuple[Wanted, ...]) -> None:
    assert parse(text) == found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("blur", "Nothing 'blur' can be done to the history; there are: discrete, "),
        ("noise:x", "'noise' takes LEVEL; 'x' was given"),
        ("noise:0.1,0.2", "'noise' takes one number; 2 were given"),
        ("forget:1", "'forget' takes no numbers; 1 were given"),
        ("noise:2", "The noise level of the history's 'noise' must be at most 1"),
        ("discrete:0", "must be at least 1"),
        ("discrete:1.5", "must be a whole number"),
        ("discrete:256,0", "The number of groups of channels of the history's 'discrete' must be at least 1"),
        ("noise+noise:0.2", "asks twice for 'noise'"),
        ("noise:nan", "finite"),
        ("noise+", "'noise' takes|Nothing"),
    ],
)
def test_wrong_texts_are_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(JobError, match=sentence):
        parse(text)


def test_what_is_for_one_side_alone_is_refused_by_the_other() -> None:
    with pytest.raises(JobError, match="'corrupt' is for training alone"):
        check_sampling("corrupt")
    with pytest.raises(
        JobError, match="'forget' is for sampling alone; training takes: discrete, noise, corrupt"
    ):
        treatment_of("forget", no_codes)
    with pytest.raises(JobError, match="needs a picture"):
        treatment_of("statistics", no_codes, drift=Drift())
    check_discrete("g9+D", True, "noise+discrete:8")
    check_discrete("g9", False, "")
    with pytest.raises(JobError, match="has a discrete history; say of how many codes"):
        check_discrete("td_f16k4f2k2f1k1_g9+D", True, "noise")
    assert wanted_of("noise:0.2", "noise") == Wanted("noise", (0.2,))
