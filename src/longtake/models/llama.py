"""Llama, as a text encoder: token ids in, the states after each layer out.

- RMS norms in front, rotary positions (half-split pairs), grouped key/value heads, gated MLP, causal attention.
- It can stop early: FramePack reads the states two layers before the end.

Shapes: B batch, L tokens, H query heads, D per head, C channels.
"""

from __future__ import annotations

from itertools import islice

import numpy as np

from longtake.backend import modules, nn, ops
from longtake.config import LlamaConfig
from longtake.errors import ModelError
from longtake.models.layers import activation, rows_of
from longtake.models.outputs import TextStates
from longtake.models.pretrained import PretrainedModel


def causal_mask(attention_mask: ops.Tensor) -> ops.Tensor:
    """The keys that each query may see, (B, 1, L, L): the real tokens, from `attention_mask` (B, L), up to itself."""
    real = (attention_mask != 0)[:, None, None, :]
    length = attention_mask.shape[-1]
    return real & ops.from_numpy(np.tri(length, dtype=bool), like=real)


def angles(config: LlamaConfig, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of the rotary angles, each (L, D) float32.

    The frequencies are rounded to float32 before the product, as in transformers: at position 300 the angles of
    another order of operations differ by 1e-5.
    """
    size = config.head_dim or config.hidden_size // config.num_attention_heads
    frequencies = 1.0 / np.power(config.rope_theta, np.arange(0, size, 2) / size).astype(np.float32)
    phases = np.arange(length, dtype=np.float32)[:, None] * frequencies
    both = np.concatenate([phases, phases], axis=1)
    return np.cos(both), np.sin(both)


class Attention(nn.Module):
    """Causal self-attention in which several query heads share one head of keys and values."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        channels, bias = config.hidden_size, config.attention_bias
        self.head_dim = config.head_dim or channels // config.num_attention_heads
        inner = config.num_attention_heads * self.head_dim
        shared = config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(channels, inner, bias=bias)
        self.k_proj = nn.Linear(channels, shared, bias=bias)
        self.v_proj = nn.Linear(channels, shared, bias=bias)
        self.o_proj = nn.Linear(inner, channels, bias=bias)

    def forward(self, x: ops.Tensor, cos: ops.Tensor, sin: ops.Tensor, mask: ops.Tensor | None) -> ops.Tensor:
        query = self._rotate(self._heads(self.q_proj(x)), cos, sin)
        key = self._rotate(self._heads(self.k_proj(x)), cos, sin)
        value = self._heads(self.v_proj(x))
        seen = ops.attention(query, key, value, mask, causal=mask is None)
        return self.o_proj(seen.permute(0, 2, 1, 3).flatten(2))

    def _heads(self, x: ops.Tensor) -> ops.Tensor:
        return x.reshape(*x.shape[:2], -1, self.head_dim).permute(0, 2, 1, 3)

    def _rotate(self, x: ops.Tensor, cos: ops.Tensor, sin: ops.Tensor) -> ops.Tensor:
        first, second = x.chunk(2, -1)
        return x * cos + ops.cat((-second, first), -1) * sin


class GatedMLP(nn.Module):
    """down(activation(gate(x)) · up(x)); published Llamas have SiLU."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        channels, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.activation = activation(config.hidden_act)
        self.gate_proj = nn.Linear(channels, inner, bias=bias)
        self.up_proj = nn.Linear(channels, inner, bias=bias)
        self.down_proj = nn.Linear(inner, channels, bias=bias)

    def forward(self, x: ops.Tensor) -> ops.Tensor:
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Attention and MLP, each behind an RMS norm and added to its input."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = GatedMLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, x: ops.Tensor, cos: ops.Tensor, sin: ops.Tensor, mask: ops.Tensor | None) -> ops.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class LlamaModel(PretrainedModel):
    """Llama without its language head; parameter names and hidden states are those of transformers' LlamaModel."""

    config_class = LlamaConfig
    block_lists = ("layers",)
    config: LlamaConfig

    def __init__(self, config: object = None, **fields: object) -> None:
        super().__init__(config, **fields)
        config = self.config
        if config.num_attention_heads % config.num_key_value_heads:
            raise ModelError(
                f"LlamaModel cannot share {config.num_key_value_heads} key/value heads among "
                f"{config.num_attention_heads} query heads; choose a divisor."
            )
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([DecoderLayer(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    @classmethod
    def rename(cls, name: str) -> str:
        """The parameter's name here for its name in a file: those of LlamaForCausalLM start with `model.`."""
        return name.removeprefix("model.")

    def forward(
        self,
        input_ids: ops.Tensor,
        attention_mask: ops.Tensor | None = None,
        output_hidden_states: bool = False,
        layers: int | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
    ) -> TextStates | tuple[ops.Tensor, ...]:
        """States (B, L, C) of the tokens `input_ids` (B, L); padding is on the right, 0 in `attention_mask` (B, L).

        `hidden_states` (if asked for) are the embeddings, then the states after each layer, the last of them
        normed. `layers`: stop after so many layers (negative: so many before the end); the last state is then what
        `hidden_states[layers]` would be in a full run, so `layers=-2` gives transformers' `hidden_states[-3]`.
        `return_dict=False` gives a tuple. Raises ModelError for `use_cache=True`: nothing is generated token by token.
        """
        if use_cache:
            raise ModelError(
                "LlamaModel keeps no keys and values (use_cache=True), for it encodes whole texts."
            )
        depth = len(self.layers)
        count = depth if layers is None else layers + depth * (layers < 0)
        if not 0 <= count <= depth:
            raise ModelError(f"LlamaModel has {depth} layers and cannot stop after layers={layers}.")
        x = self._embedded(input_ids)
        cos, sin = (ops.from_numpy(table, like=x) for table in angles(self.config, input_ids.shape[1]))
        mask = None if attention_mask is None else causal_mask(attention_mask)
        states = [x]
        for number, layer in enumerate(self.walked(islice(self.layers, count)), start=1):
            x = layer(x, cos, sin, mask)
            x = self.norm(x) if number == depth else x
            states = [*states, x] if output_hidden_states else states
        out = TextStates(x, hidden_states=tuple(states) if output_hidden_states else None)
        return out.to_tuple() if return_dict is False else out

    def _embedded(self, ids: ops.Tensor) -> ops.Tensor:
        """The rows (B, L, C) of the tokens, from a table that may have stayed in its file."""
        if "embed_tokens.weight" in self.apart:
            return rows_of(self.embed_tokens, ids, modules.placed(self))
        return self.embed_tokens(ids)
