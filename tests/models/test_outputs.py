"""Outputs are read as the field's are."""

from __future__ import annotations

import pytest

from longtake.models.outputs import Sample, TextStates


def test_an_output_is_read_by_attribute_place_and_name() -> None:
    out = TextStates("last", hidden_states=("a", "b"))
    assert out.last_hidden_state == out[0] == out["last_hidden_state"] == "last"
    assert out.to_tuple() == ("last", ("a", "b")) == out[:]
    assert "hidden_states" in out and "pooler_output" not in out
    assert list(out) == list(out.keys()) == ["last_hidden_state", "hidden_states"] and len(out) == 2
    assert dict(out) == {**out} == dict(out.items())
    assert out.get("pooler_output", "none") == "none"
    with pytest.raises(KeyError):
        out["pooler_output"]


def test_a_value_that_is_set_is_seen() -> None:
    out = Sample(1)
    out.sample = 2
    assert out["sample"] == out[0] == 2
