"""CLIP's text tower: token ids in, one pooled vector per prompt out; its layers also serve SigLIP.

Shapes: B batch, L tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from longtake.backend import nn, ops
from longtake.config import CLIPTextConfig
from longtake.errors import ModelError
from longtake.models.layers import activation
from longtake.models.llama import causal_mask
from longtake.models.outputs import TextStates
from longtake.models.pretrained import PretrainedModel

# Checkpoints from before transformers' change of rule name id 2 as the end: there the end is the highest id.
HIGHEST_IS_END = 2


class EncoderConfig(Protocol):
    """The settings that the layers need; CLIP's and SigLIP's configs have them."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def hidden_act(self) -> str: ...
    @property
    def layer_norm_eps(self) -> float: ...


class Attention(nn.Module):
    """Self-attention with biases."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, x: ops.Tensor, mask: ops.Tensor | None, causal: bool) -> ops.Tensor:
        query, key, value = (
            split_heads(part(x), self.heads) for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(join_heads(ops.attention(query, key, value, mask, causal)))


def split_heads(x: ops.Tensor, heads: int) -> ops.Tensor:
    """(B, L, C) -> (B, heads, L, C / heads)."""
    return x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads).permute(0, 2, 1, 3)


def join_heads(x: ops.Tensor) -> ops.Tensor:
    """(B, heads, L, D) -> (B, L, heads · D)."""
    return x.permute(0, 2, 1, 3).flatten(2)


class MLP(nn.Module):
    """Two linear layers with the config's activation between them."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.activation = activation(config.hidden_act)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: ops.Tensor) -> ops.Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class EncoderLayer(nn.Module):
    """Attention and MLP, each behind a layer norm and added to its input."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config.hidden_size, config.num_attention_heads)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: ops.Tensor, mask: ops.Tensor | None, causal: bool) -> ops.Tensor:
        x = x + self.self_attn(self.layer_norm1(x), mask, causal)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    """The stack of layers, or `layers` in their place; returns the embeddings and the states after each layer."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(
        self,
        x: ops.Tensor,
        mask: ops.Tensor | None = None,
        causal: bool = False,
        layers: Iterable[Any] | None = None,
    ) -> tuple[ops.Tensor, ...]:
        states = [x]
        for layer in self.layers if layers is None else layers:
            states.append(layer(states[-1], mask, causal))
        return tuple(states)


class TextEmbeddings(nn.Module):
    """A learned vector for each token and each position."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids: ops.Tensor) -> ops.Tensor:
        return self.token_embedding(input_ids) + self.position_embedding.weight[: input_ids.shape[1]]


class CLIPTextModel(PretrainedModel):
    """CLIP's text tower without projection; parameter names and outputs are those of transformers 5's class."""

    config_class = CLIPTextConfig
    config: CLIPTextConfig

    def __init__(self, config: object = None, **fields: object) -> None:
        super().__init__(config, **fields)
        config = self.config
        self.embeddings = TextEmbeddings(config)
        self.encoder = Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    @classmethod
    def rename(cls, name: str) -> str:
        """The parameter's name here for its name in a file: transformers up to 4 puts `text_model.` in front."""
        return name.removeprefix("text_model.")

    def forward(
        self,
        input_ids: ops.Tensor,
        attention_mask: ops.Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool | None = None,
    ) -> TextStates | tuple[ops.Tensor, ...]:
        """Normed states (B, L, C) of `input_ids` (B, L), and in `pooler_output` (B, C) that of each row's end token.

        `hidden_states` (if asked for) are the embeddings and the states after each layer, before the last norm.
        `return_dict=False` gives a tuple.
        """
        length, room = input_ids.shape[1], self.config.max_position_embeddings
        if length > room:
            raise ModelError(
                f"CLIPTextModel has {room} positions and was given {length} tokens; truncate the prompt."
            )
        mask = None if attention_mask is None else causal_mask(attention_mask)
        states = self.encoder(self.embeddings(input_ids), mask, causal=mask is None)
        last = self.final_layer_norm(states[-1])
        out = TextStates(last, self._pooled(last, input_ids), states if output_hidden_states else None)
        return out.to_tuple() if return_dict is False else out

    def _pooled(self, last: ops.Tensor, input_ids: ops.Tensor) -> ops.Tensor:
        end = self.config.eos_token_id
        ids = input_ids if end == HIGHEST_IS_END else (input_ids == end).int()
        return last[ops.arange(ids.shape[0], like=input_ids), ops.argmax(ids, -1)]
