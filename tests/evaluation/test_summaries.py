"""The summaries of a curve, against the formulas written out."""

import numpy as np
import pytest

from longtake.evaluation.meter import Curve
from longtake.evaluation.summaries import downsampled, is_gated, summarise, vde


@pytest.fixture
def values():
    return np.random.default_rng(0).random(200) + np.linspace(0, 3, 200)


def test_each_figure_is_its_formula(values):
    found = summarise(Curve(np.arange(200), values), 200, section=36)
    assert found.mean == pytest.approx(values.mean()) and found.median == pytest.approx(np.median(values))
    assert found.start == pytest.approx(values[:30].mean()) and found.end == pytest.approx(
        values[170:].mean()
    )
    assert found.drift == pytest.approx(abs(values[:30].mean() - values[170:].mean()))
    assert found.first == pytest.approx(values[1:37].mean())
    assert found.slope == pytest.approx(100 * np.polyfit(np.arange(200), values, 1)[0])
    assert found.worst == pytest.approx(max(values[n : n + 15].mean() for n in range(186)))
    chunks = values.reshape(10, 20).mean(1)
    weights = [10 - i + 1 for i in range(2, 11)]
    total = sum(w * abs(m - chunks[0]) / chunks[0] for w, m in zip(weights, chunks[1:], strict=True))
    assert found.vde == pytest.approx(total / 45)


def test_the_worst_is_what_the_measure_calls_bad(values):
    curve = Curve(np.arange(200), values)
    runs = np.array([values[n : n + 15].mean() for n in range(186)])
    assert summarise(curve, 200, better="high").worst == pytest.approx(runs.min())
    falling = Curve(np.arange(200), 5 - values)
    assert summarise(falling, 200, better="like").worst == pytest.approx((5 - runs).min())


def test_what_is_not_known_is_left_out(values):
    holes = values.copy()
    holes[::3] = np.nan
    found = summarise(Curve(np.arange(200), holes), 200)
    known = np.flatnonzero(np.isfinite(holes))
    assert found.mean == pytest.approx(holes[known].mean())
    assert found.slope == pytest.approx(100 * np.polyfit(known, holes[known], 1)[0])
    nothing = summarise(Curve(np.arange(3), np.full(3, np.nan)), 3)
    assert np.isnan(nothing.mean) and np.isnan(nothing.drift)


def test_few_values_have_a_start_and_an_end():
    found = summarise(Curve(np.array([30, 60]), np.array([1.0, 0.0])), 100)
    assert (found.start, found.end, found.drift) == (1, 0, 1)
    assert np.isnan(summarise(Curve(np.array([30]), np.array([1.0])), 100).slope)


def test_vde_of_nothing_is_unknown():
    assert np.isnan(vde(np.arange(100), np.zeros(100), 100))


def test_gates():
    assert is_gated("prompted", 0.2) and not is_gated("prompted", 0.9) and is_gated("psnr", 12)


def test_coarse_curves_keep_the_mean(values):
    coarse = downsampled(Curve(np.arange(200), values), 40)
    assert len(coarse.at) == 40 and coarse.values == pytest.approx(values.reshape(40, 5).mean(1))
    assert coarse.at[0] == 2 and coarse.at[-1] == 197
    short = Curve(np.arange(9), values[:9])
    assert downsampled(short, 40) is short
