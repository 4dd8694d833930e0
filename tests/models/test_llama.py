import numpy as np
import pytest

from longtake.backend import ops
from longtake.config import LlamaConfig
from longtake.errors import ModelError
from longtake.models import llama
from longtake.models.llama import LlamaModel, angles

TINY = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module")
def model(filled):
    return filled(LlamaModel(**TINY))


def some_ids(rows=2, length=9):
    return np.random.default_rng(1).integers(0, 40, (rows, length))


def states_of(model, ids, mask=None, **options):
    mask = None if mask is None else ops.from_numpy(mask)
    return model(ops.from_numpy(ids), attention_mask=mask, **options)


def test_stopping_early_gives_the_states_of_the_full_run(model):
    ids = some_ids()
    states = [ops.to_numpy(state) for state in states_of(model, ids, output_hidden_states=True).hidden_states]
    assert len(states) == 4
    for count in range(4):
        early = states_of(model, ids, output_hidden_states=True, layers=count)
        np.testing.assert_array_equal(ops.to_numpy(early.last_hidden_state), states[count])
        assert len(early.hidden_states) == count + 1
    last = ops.to_numpy(states_of(model, ids, layers=-2).last_hidden_state)
    np.testing.assert_array_equal(last, states[-3])


def test_stopping_early_runs_no_later_layer(model, monkeypatch):
    calls = []
    forward = llama.GatedMLP.forward
    name = "construct" if hasattr(llama.GatedMLP, "construct") else "forward"

    def counted(self, x):
        calls.append(1)
        return forward(self, x)

    monkeypatch.setattr(llama.GatedMLP, name, counted)
    states_of(model, some_ids(), layers=-2)
    assert len(calls) == 1


@pytest.mark.parametrize("layers", [4, -4])
def test_a_layer_that_is_not_there_is_refused(model, layers):
    with pytest.raises(ModelError, match="3 layers"):
        states_of(model, some_ids(), layers=layers)


def test_padding_on_the_right_changes_nothing(model):
    ids = some_ids(1, 9)
    mask = np.array([[1, 1, 1, 1, 1, 0, 0, 0, 0]])
    padded = ops.to_numpy(states_of(model, ids, mask).last_hidden_state)[:, :5]
    alone = ops.to_numpy(states_of(model, ids[:, :5]).last_hidden_state)
    # The same sums in another kernel (with and without a mask).
    np.testing.assert_allclose(padded, alone, rtol=0, atol=2e-6)


def test_a_token_sees_none_behind_it(model):
    ids = some_ids(1, 9)
    changed = ids.copy()
    changed[:, -1] = (ids[:, -1] + 1) % 40
    first, second = (ops.to_numpy(states_of(model, each).last_hidden_state) for each in (ids, changed))
    np.testing.assert_array_equal(first[:, :-1], second[:, :-1])
    assert not np.array_equal(first[:, -1], second[:, -1])


def test_angles_start_at_one_radian_per_position():
    cos, sin = angles(LlamaConfig(**TINY), 5)
    assert cos.shape == sin.shape == (5, 6)
    assert cos.dtype == np.float32
    np.testing.assert_allclose(sin[:, 0], np.sin(np.arange(5)), rtol=1e-6)
    np.testing.assert_allclose(sin[:, 3], np.sin(np.arange(5)), rtol=1e-6)


def test_names_of_a_language_model_are_understood():
    assert LlamaModel.rename("model.layers.0.mlp.up_proj.weight") == "layers.0.mlp.up_proj.weight"
    assert LlamaModel.rename("norm.weight") == "norm.weight"


@pytest.mark.parametrize("fields", [{"hidden_act": "relu6"}, {"num_key_value_heads": 3}])
def test_configs_that_it_cannot_follow_are_refused(fields):
    with pytest.raises(
        ModelError, match=r"LlamaModel cannot share|hidden_act is 'relu6'; known activations: silu"
    ):
        LlamaModel(**{**TINY, **fields})


def test_gelu_is_taken_as_other_activations_are(filled):
    one, other = (filled(LlamaModel(**TINY, hidden_act=name)) for name in ("silu", "gelu"))
    ids = some_ids()
    found = ops.to_numpy(states_of(other, ids).last_hidden_state)
    assert np.isfinite(found).all()
    assert not np.array_equal(found, ops.to_numpy(states_of(one, ids).last_hidden_state))


def test_the_fields_keywords_are_taken_or_refused(model):
    ids = some_ids()
    states = states_of(model, ids, use_cache=False, return_dict=True).last_hidden_state
    (plain,) = states_of(model, ids, return_dict=False)
    np.testing.assert_array_equal(ops.to_numpy(plain), ops.to_numpy(states))
    with pytest.raises(ModelError, match="keeps no keys and values"):
        states_of(model, ids, use_cache=True)
