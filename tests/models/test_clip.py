import numpy as np
import pytest

from longtake.backend import ops
from longtake.errors import ModelError
from longtake.models.clip import CLIPTextModel

TINY = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 12,
}
IDS = np.array([[38, 5, 6, 39, 39, 39], [38, 7, 39, 39, 39, 39]])


@pytest.mark.parametrize("end", [2, 39])
def test_the_pooled_state_is_that_of_the_first_end_token(end, filled):
    out = filled(CLIPTextModel(**TINY, eos_token_id=end))(input_ids=ops.from_numpy(IDS))
    states = ops.to_numpy(out.last_hidden_state)
    np.testing.assert_array_equal(ops.to_numpy(out.pooler_output), states[[0, 1], [3, 2]])


def test_the_pooled_state_does_not_know_the_padding(filled):
    model = filled(CLIPTextModel(**TINY))
    short, long = (ops.to_numpy(model(ops.from_numpy(IDS[:1, :n])).pooler_output) for n in (4, 6))
    # Causal: only the shapes of the matrix products differ.
    np.testing.assert_allclose(short, long, rtol=0, atol=2e-6)


def test_outputs_answer_as_tuples_and_by_name():
    out = CLIPTextModel(**TINY)(ops.from_numpy(IDS), output_hidden_states=True)
    assert out[1] is out.pooler_output is out["pooler_output"]
    assert len(out.hidden_states) == 3
    assert CLIPTextModel(**TINY)(ops.from_numpy(IDS), output_hidden_states=False).hidden_states is None
    assert len(CLIPTextModel(**TINY)(ops.from_numpy(IDS), return_dict=False)) == 2


def test_too_many_tokens_are_refused():
    with pytest.raises(ModelError, match="12 positions"):
        CLIPTextModel(**TINY)(ops.from_numpy(np.zeros((1, 13), np.int64)))


def test_an_unknown_activation_is_refused():
    with pytest.raises(ModelError, match="swish"):
        CLIPTextModel(**{**TINY, "hidden_act": "swish"})


def test_names_with_the_published_prefix_are_understood():
    assert CLIPTextModel.rename("text_model.final_layer_norm.bias") == "final_layer_norm.bias"
    assert CLIPTextModel.rename("final_layer_norm.bias") == "final_layer_norm.bias"
