"""Results: put together, written, read again, merged, compared; the table says what they are."""

import json
import math

import numpy as np
import pytest

from longtake.errors import BackendError, JobError, PictureError
from longtake.evaluation import pictures
from longtake.evaluation.meter import Curve, Measured
from longtake.evaluation.records import record_of
from longtake.evaluation.results import arm_of, differences, merged, read_results, write_results
from longtake.evaluation.table import table
from longtake.picture import load_image


def record(arm, scene, seed, rise, asked="dances", seen="dances", level=0.01):
    """A video whose background gets worse by `rise`."""
    at = np.arange(100)
    curves = {
        "background": Curve(at, np.linspace(level, level + rise, 100)),
        "luma": Curve(at, np.full(100, 0.5 + scene / 100)),
        "prompted": Curve(np.array([30, 60]), np.array([1.0, 0.0])),
        "lost": Curve(at, (at > 90) * float(scene == 2)),
    }
    stills = np.full((3, 16, 24, 3), 40 * scene, np.uint8)
    return record_of(Measured(100, curves, {1: 0.9}, seen), arm, scene, seed, asked=asked, stills=stills)


@pytest.fixture
def results():
    return {
        "flat": arm_of([record("flat", scene, seed, 0.001) for scene in range(3) for seed in (0, 1)], {"a": 1}),
        "rising": arm_of(
            [
                record("rising", scene, seed, 0.02 + 0.001 * seed, seen="walks left")
                for scene in range(3)
                for seed in (0, 1)
            ],
            {},
        ),
        "truth": arm_of([record("truth", scene, None, 0.0) for scene in range(3)], {}),
    }  # fmt: skip


def test_means_and_motions(results):
    found = results["flat"].summary()
    assert found["background"]["drift"].mean == pytest.approx(0.001 * 85 / 99)
    assert found["background"]["drift"].videos == 6
    assert results["flat"].median("background") == pytest.approx(0.0105)
    assert results["flat"].motions() == {"dances": {"videos": 6, "right": 1, "prompted": 0.5}}
    assert results["rising"].motions()["dances"]["right"] == 0
    assert results["flat"].lost_videos() == 2 and results["flat"].gated() == []


def test_arms_are_compared_in_pairs(results):
    found = differences(results, "flat")["rising"]["background"]["drift"]
    expected = [(0.02 + 0.001 * seed - 0.001) * 85 / 99 for _ in range(3) for seed in (0, 1)]
    assert found.mean == pytest.approx(np.mean(expected)) and found.low > 0.016
    # The truth has one video a scene, for all seeds.
    assert differences(results, "truth")["flat"]["background"]["drift"].videos == 6
    assert differences(results, "truth")["flat"]["luma"]["mean"].mean == pytest.approx(0)


def test_what_is_written_is_read(results, tmp_path):
    write_results(tmp_path / "results.json", results, "flat")
    again = read_results(tmp_path / "results.json")
    # Numbers are written with five digits.
    for each in ("background", "luma"):
        for name, value in results["rising"].summary()[each].items():
            assert again["rising"].summary()[each][name] == pytest.approx(value, rel=1e-4, abs=1e-6)
    assert again["flat"].of == {"a": 1} and again["truth"].seeds == [None, None, None]
    values = json.loads((tmp_path / "results.json").read_text())
    assert values["differences"]["to"] == "flat" and set(values["differences"]["arms"]) == {"rising", "truth"}
    assert values["arms"]["flat"]["summary"]["background"]["drift"][3] == 6
    assert len(values["arms"]["flat"]["curves"]["background"]["at"]) == 60
    assert (tmp_path / "results.json").stat().st_size < 60_000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not an evaluation"),
        ('{"frames": 9}', "longtake evaluate writes one"),
        ('{"format": "longtake evaluation", "version": 99}', "of version 1 but of 99"),
        ('{"format": "longtake evaluation", "version": 1, "arms": {"a": {}}}', "that is whole"),
    ],
)
def test_other_files_are_refused(text, told, tmp_path):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(JobError, match=told):
        read_results(tmp_path / "r.json")


def test_names_that_are_taken_get_their_file(results):
    found = merged([("a", results), ("b", {"flat": results["rising"]}), ("b", {"flat": results["flat"]})])
    assert list(found) == ["flat", "rising", "truth", "flat (b)", "flat (b, 2)"]
    assert found["flat (b)"] is results["rising"]


def test_the_table_marks_what_was_bad_from_the_first(results):
    text = table(results, ["background"], differences(results, "flat"), "flat")
    assert "luma" not in text and "*" not in text and "drift less flat's" in text
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith("  ")}
    assert lines["rising"][1:3] == ["0.0202", "2.02"]  # the mean, and its ratio to the truth's
    bad = {"bad": arm_of([record("bad", scene, 0, 0.01, level=0.3) for scene in range(2)], {})}
    assert "]*" in table(bad, ["background"]) and "bad from the first section on" in table(
        bad, ["background"]
    )
    assert "bad from" not in table(bad, ["luma"])


def test_videos_of_several_lengths_share_their_curve():
    short = record_of(Measured(50, {"luma": Curve(np.arange(50), np.full(50, 0.2))}, {}), "x", "a.mp4")
    long = record_of(Measured(90, {"luma": Curve(np.arange(90), np.full(90, 0.4))}, {}), "x", "b.mp4")
    band = arm_of([short, long], {}).curves["luma"]
    assert band.mean[0] == pytest.approx(0.3) and band.mean[-1] == pytest.approx(0.4)
    assert not any(map(math.isnan, band.mean))


def test_a_sheet_has_a_row_for_each_video(tmp_path):
    records = [record(arm, scene, 0, 0) for arm in ("a", "b") for scene in (1, 2)]
    assert pictures.sheet(records, tmp_path / "s.png") == ["1 a", "1 b", "2 a", "2 b"]
    picture = np.asarray(load_image(tmp_path / "s.png"))
    assert picture.shape == (4 * 18 + 2, 3 * 26 + 2, 3)
    assert picture[8, 10].tolist() == [40] * 3 and picture[50, 10].tolist() == [80] * 3
    assert pictures.sheet([], tmp_path / "none.png") == [] and not (tmp_path / "none.png").exists()


def test_a_plot_is_drawn(results, tmp_path):
    pytest.importorskip("matplotlib")
    pictures.plot(results, tmp_path / "c.png")
    assert load_image(tmp_path / "c.png").width > 600
    with pytest.raises(PictureError, match="cannot be written"):
        pictures.plot(results, tmp_path / "no" / "c.png")


def test_without_matplotlib_a_plot_is_refused(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(BackendError, match=r"pip install longtake\[plot\]"):
        pictures.check_plots()
