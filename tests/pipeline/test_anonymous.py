"""Main memory that the kernel cannot drop, measured in a process of its own: what is mapped is not copied."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from longtake import backend
from longtake.pipeline.allowance import anonymous_memory, free_memory

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="memory is told by Linux alone"
)
CONFIG = {
    "vocab_size": 24000,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
}
DTYPE = "bfloat16" if backend.name == "torch" else "float32"
WIDTH = 2 if backend.name == "torch" else 4
CODE = """
import json, sys
import numpy as np
from longtake.backend import ops, runtime
from longtake.models.llama import LlamaModel
from longtake.pipeline.allowance import anonymous_memory
from longtake.pipeline.placed import Placed, left_mapped

folder, dtype, placed = sys.argv[1], sys.argv[2], sys.argv[3] == "placed"
ids = ops.from_numpy(np.arange(8, dtype=np.int64)[None])
before = anonymous_memory()
mapped = left_mapped("text_encoder", "cpu", dtype, 24) if placed else None
model = LlamaModel.from_pretrained(folder, dtype=dtype, mapped=mapped)
placement = Placed({"text_encoder": model}, "cpu", memory=24)
inside = []
with runtime.no_grad():
    for _ in range(2):
        with placement.using("text_encoder", model) as network:
            told = network.norm.register_forward_pre_hook(lambda *_: inside.append(anonymous_memory()))
            states = network(ids).last_hidden_state
            told.remove()
found = ops.to_numpy(states).astype(np.float64)
how = placement.layout.parts["text_encoder"].how
print(json.dumps({"used": max(inside) - before, "sum": float(np.abs(found).sum()), "how": how}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 MB of Llama in float16, without a network in this process."""
    from safetensors.numpy import save_file

    place = tmp_path_factory.mktemp("llama")
    (place / "config.json").write_text(json.dumps({"architectures": ["LlamaModel"], **CONFIG}))
    wide, inner, rng = 1024, 2816, np.random.default_rng(0)
    square = (rng.standard_normal((wide, wide)) / 32).astype(np.float16)
    tall = (rng.standard_normal((inner, wide)) / 32).astype(np.float16)
    weights = {
        "embed_tokens.weight": np.tile(square, (24, 1))[: CONFIG["vocab_size"]],
        "norm.weight": square[0],
    }
    for number in range(CONFIG["num_hidden_layers"]):
        block = f"layers.{number}."
        weights |= {f"{block}self_attn.{name}_proj.weight": square for name in "qkvo"}
        weights |= {f"{block}mlp.{name}_proj.weight": tall for name in ("gate", "up")}
        weights[f"{block}mlp.down_proj.weight"] = np.ascontiguousarray(tall.T)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{block}{name}.weight"] = np.ones(wide, np.float16)
    save_file(
        {name: np.ascontiguousarray(value) for name, value in weights.items()}, place / "model.safetensors"
    )
    return place


def run(folder: Path, how: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(folder), DTYPE, how], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(
    backend.name != "torch", reason="MindSpore's pool keeps what it converted: 0.6 GB of 0.75"
)
def test_blocks_that_are_converted_one_by_one_are_never_there_at_once(folder: Path) -> None:
    whole, placed = run(folder, "whole"), run(folder, "placed")
    values = (folder / "model.safetensors").stat().st_size // 2
    block = 4 * 1024**2 + 3 * 1024 * 2816
    assert whole["used"] > 0.95 * WIDTH * values
    # One block, what a framework needs for its first products, and none of the rest.
    assert placed["used"] < 2 * WIDTH * block + 60e6 < 0.45 * whole["used"]
    assert placed["sum"] == whole["sum"] and placed["how"] == "streamed"


def test_what_is_free_is_known_here_and_within_a_group_s_limit(tmp_path: Path) -> None:
    assert anonymous_memory() and free_memory()
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 32000 kB\nMemAvailable: 20000 kB\n")
    assert free_memory(tmp_path) == 20000 * 1024
    group = tmp_path / "sys/fs/cgroup/a/b"
    group.mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n")
    for place, most, used in ((group, "max", 5), (group.parent, str(8 * 2**20), 3 * 2**20)):
        (place / "memory.max").write_text(most)
        (place / "memory.current").write_text(str(used))
    (group.parent / "memory.stat").write_text("anon 5\nactive_file 1000\ninactive_file 24\n")
    # The group above allows less than the machine has; pages of files that count there can be dropped.
    assert free_memory(tmp_path) == 5 * 2**20 + 1024
    (group.parent / "memory.max").write_text("max")
    assert free_memory(tmp_path) == 20000 * 1024
    assert anonymous_memory(tmp_path) is None
