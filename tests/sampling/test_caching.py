"""Step caches: their texts, and their decisions on changes with known answers."""

import json
import math
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.errors import JobError, JobTypeError
from longtake.sampling.caching import KEPT, METHODS, SKIPS, TEA, Cache, Decisions, nearest, parse, reach
from longtake.sampling.configs import text_of
from longtake.sampling.ratios import FRAMEPACK, FRAMEPACK_F1, published, with_file, write_ratios


def decisions(text: str, changes: list[float], ratios=()) -> str:
    """C for each step that is computed and . for each that is not; inf where nothing is to be measured."""
    made = Decisions(parse(text), len(changes), ratios)
    return "".join("C" if made.computes(lambda change=change: change) else "." for change in changes)


def test_easy_computes_when_the_sum_of_changes_reaches_the_threshold():
    #                                first  three are kept
    assert decisions("easy:0.1,0.3", [9, 9, 9, 0.04, 0.04, 0.04, 0.04, 0.04, 0.04, 0]) == "CCC..C..CC"
    assert decisions("easy:0.1,0", [9, 0.2, 0.05, 0.04, 0.02, 0.2, 0.09, 0]) == "CC..CC.C"


def test_first_looks_at_each_change_alone():
    assert decisions("first:0.1", [0, 0.09, 0.09, 0.09, 0.11, 0.1, 0.05, 0.05]) == "C...CC.C"


def test_tea_adds_what_its_polynomial_makes_of_the_changes():
    # At 0 the polynomial is 0.096, so that at 0.15 one step is skipped; at its lowest, 0.052 at 0.031, two are.
    assert decisions("tea:0.15", [0] * 7) == "C.C.C.C"
    assert decisions("tea:0.15", [0.031] * 8) == "C..C..CC"
    assert sum(factor * 0.031**power for factor, power in zip(TEA, (4, 3, 2, 1, 0), strict=True)) < 0.0525


def test_mag_multiplies_the_ratios_that_it_knows():
    ratios = [1, 0.5, 1.0, 0.95, 0.95, 1.0, 0.99, 0.9, 1.0, 1.0]
    # The step of 0.5 changes too much. 0.95 and 0.95 * 0.95 make 0.05 + 0.0975, above 0.1. 0.9 is not steady.
    assert decisions("mag:0.1,5,0", [math.nan] * 10, ratios) == "CC..C..C.C"
    assert decisions("mag:0.3,1,0", [math.nan] * 10, ratios) == "CC.C.C.C.C"
    # A quarter of ten steps is three: nothing is skipped before.
    assert decisions("mag:10,9,0.25", [math.nan] * 10, [1.0] * 10) == "CCC......C"


def test_a_change_that_cannot_be_measured_is_computed_and_begins_anew():
    assert decisions("easy:0.1,0", [0, math.inf, 0.06, math.nan, 0.06, 0.06, 0]) == "CC.C.CC"


def test_what_is_computed_anyway_is_not_measured():
    made = Decisions(parse("easy:1,0.4"), 5)
    assert made.computes(pytest.fail) and made.computes(pytest.fail)
    assert not made.computes(lambda: 0.0)
    assert made.computes(pytest.fail, forced=True)
    assert made.forced and made.computes(pytest.fail)


@pytest.mark.parametrize("method", METHODS)
@given(changes=st.lists(st.floats(0, 10), min_size=1, max_size=40), threshold=st.floats(0, 5))
@settings(max_examples=30)
def test_whatever_changes(method, changes, threshold):
    ratios = [1.0 + change for change in changes] if METHODS[method].ratios else ()
    made = decisions(f"{method}:{threshold}", changes, ratios)
    assert made[0] == made[-1] == "C"
    assert decisions(f"{method}:0", changes, ratios) == "C" * len(changes)
    most = parse(method).number(SKIPS)
    assert most is None or "." * (int(most) + 1) not in made
    kept = math.floor((parse(method).number(KEPT) or 0) * len(changes) + 0.5)
    assert "." not in made[:kept]


def test_the_published_ratios_of_framepack_skip_half_of_the_steps():
    for forward, ratios in ((False, FRAMEPACK), (True, FRAMEPACK_F1)):
        assert published(forward) is ratios and len(ratios[0]) == 25
        assert decisions("mag", [math.nan] * 25, ratios[0]).count("C") in range(12, 17)


def test_ratios_for_other_numbers_of_steps_are_the_nearest():
    ratios = tuple(range(25))
    assert nearest(ratios, 25) == ratios
    assert nearest(ratios, 13) == ratios[::2]
    assert nearest(ratios, 50)[:3] == (0, 0, 1) and nearest(ratios, 50)[-1] == 24
    assert nearest(ratios, 1) == (24,)


def test_a_line_goes_no_farther_than_it_is_known():
    assert reach(0.7, 0.8, 0.9) == pytest.approx(1.0)
    assert reach(0.75, 0.8, 0.9) == pytest.approx(0.5)
    assert reach(0.1, 0.8, 0.9) == 1.0


# Texts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("easy", "easy:0.05,0.1,1"),
        ("easy:0.123456789", "easy:0.123456789,0.1,1"),
        ("mag:0.24,6,0.2", "mag:0.24,6,0.2,1"),
        ("mag:;1,1.3;1,1.2", "mag:0.1,2,0.25,1;1,1.3;1,1.2"),
        ("mag:a,b;c.json", "mag:0.1,2,0.25,1;a,b;c.json"),
        ("mag:0.2;C:/a.json", "mag:0.2,2,0.25,1;C:/a.json"),
        ("tea:0.1", "tea:0.1"),
        ("first", "first:0.1"),
    ],
)
def test_a_text_names_a_cache_and_is_whole(text, whole):
    cache = parse(text)
    assert cache.text == whole and parse(whole) == cache


def test_no_text_is_no_cache():
    assert parse("") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slow:1", "No cache 'slow'; there are: easy, mag, tea, first."),
        ("easy:x", "The cache 'easy' takes numbers alone .* 'x' was given"),
        ("easy:1,2,3,4", "takes up to 3 numbers .* 4 were given"),
        ("easy:-1", "must be at least"),
        ("first:nan", "must be a finite number"),
        ("mag:0.1,2.5", "steps in a row .* must be a whole number"),
        ("mag:;1;1;1", "one list, or one for each branch of guidance"),
        ("mag:;0", "A ratio of the cache 'mag' must be at least"),
        ("tea:0.1;1,1", "takes numbers alone"),
    ],
)
def test_other_texts_are_refused(text, words):
    with pytest.raises(JobError, match=words):
        parse(text)


def test_a_file_of_ratios_stands_for_them(tmp_path):
    file = tmp_path / "a, b.json"
    write_ratios(file, ((1.0, 1.3), (1.0, 1.25)), {"model": "embedded"})
    assert json.loads(file.read_text()) == {"model": "embedded", "ratios": [[1.0, 1.3], [1.0, 1.25]]}
    assert with_file(parse(f"mag:0.2;{file}")).text == "mag:0.2,2,0.25,1;1,1.3;1,1.25"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read from .*: No such file"),
        (b"\xff", "cannot be read from .*: it is no text"),
        (b"[]", "holds no ratios"),
        (b'{"ratios": [1, 2]}', "holds no ratios"),
        (b'{"ratios": [[1, "2"]]}', "must be a number"),
        (b'{"ratios": [[]]}', "must be one list"),
        (b"{", "This is not a file of ratios"),
    ],
)
def test_a_file_without_ratios_is_refused(content, words, tmp_path):
    file = tmp_path / "ratios.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(JobError, match=words):
        with_file(Cache("mag", (0.1, 2, 0.25, 1), file=str(file)))


# What the field writes ------------------------------------------------------------------------------------------------


def test_configs_are_known_by_what_they_have():
    assert text_of("easy:0.2") == "easy:0.2,0.1,1"
    assert text_of(SimpleNamespace(threshold=0.2)) == "first:0.2"
    mag = SimpleNamespace(
        threshold=0.06, max_skip_steps=3, retention_ratio=0.2, mag_ratios=[1.0, 1.25], calibrate=False
    )
    assert text_of(mag) == "mag:0.06,3,0.2,1;1,1.25"


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ("", JobError, "to have none is disable_cache"),
        (SimpleNamespace(cache_interval=5), JobTypeError, "is not made here"),
        (None, JobTypeError, "The cache of a NoneType is not made here"),
        (
            SimpleNamespace(
                threshold=1, max_skip_steps=3, retention_ratio=0.2, mag_ratios=None, calibrate=True
            ),
            JobError,
            "longtake calibrate",
        ),
    ],
)
def test_other_configs_are_refused(config, error, words):
    with pytest.raises(error, match=words):
        text_of(config)
