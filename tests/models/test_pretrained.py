"""Loading and saving on a stand-in network: every damage gives one sentence that names the file and the key."""

from __future__ import annotations

import copy
import json
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from longtake import backend
from longtake.backend import nn, ops, runtime
from longtake.config import Config
from longtake.errors import JobError, ModelError
from longtake.models import adapters
from longtake.models.pretrained import PretrainedModel
from longtake.weights import saving
from longtake.weights.lora import LowRank

NAME = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class PairConfig(Config):
    """Two layers."""

    class_name: ClassVar[str] = "Pair"
    also_in: ClassVar[Mapping[str, tuple[str, ...]]] = {"PairWithHead": ("head.",)}

    width: int = 4
    scale: float = 1.0
    sizes: tuple[int, ...] = (1, 2)


class Pair(PretrainedModel):
    config_class = PairConfig

    def __init__(self, config: Any = None, **fields: Any) -> None:
        super().__init__(config, **fields)
        self.first = nn.Linear(self.config.width, 3)
        self.second = nn.Linear(3, 2, bias=False)

    @classmethod
    def rename(cls, name: str) -> str:
        return name.removeprefix("old.")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "pair"
    Pair(width=5).save_pretrained(place)
    return place


def weights_of(model: Any) -> dict[str, np.ndarray]:
    """Copies of the weights, as arrays."""
    return {name: ops.to_numpy(weight).copy() for name, weight in runtime.named_weights(model).items()}


def same(model: Any, weights: dict[str, np.ndarray]) -> bool:
    """Whether these are the network's weights, bit for bit."""
    found = weights_of(model)
    return found.keys() == weights.keys() and all(
        np.array_equal(found[name], weights[name]) for name in found
    )


def dtypes(model: Any) -> set[str]:
    return {runtime.dtype_name(weight.dtype) for weight in model.parameters()}


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


def write(folder: Path, weights: dict[str, np.ndarray]) -> None:
    tensors = {name: ops.from_numpy(weight) for name, weight in weights.items()}
    saving.write_weights(folder, "diffusion_pytorch_model", tensors)


def replaced(folder: Path, dtype: str | None = None, **changes: Any) -> None:
    tensors = runtime.named_weights(Pair.from_pretrained(folder, dtype=dtype)) | {
        name: None if value is None else ops.from_numpy(value) for name, value in changes.items()
    }
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    saving.write_weights(folder, "diffusion_pytorch_model", kept)


def config_with(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("size", ["10GB", 20])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_what_is_saved_comes_back(tmp_path: Path, size: int | str, variant: str | None) -> None:
    model = Pair(width=5, scale=0.5)
    model.save_pretrained(tmp_path / "a" / "b", max_shard_size=size, variant=variant)
    again = Pair.from_pretrained(tmp_path / "a", subfolder="b", variant=variant)
    assert again.config == model.config
    assert same(again, weights_of(model))
    assert not again.training and all(weight.requires_grad for weight in again.parameters())


@pytest.mark.parametrize(
    "asked",
    [{"torch_dtype": runtime.dtype("float16")}, {"dtype": "float16"}, {"mindspore_dtype": "float16"}],
    ids=["the framework's own", "a name", "the other framework's name"],
)
def test_the_dtype_is_chosen_by_any_of_its_names(folder: Path, asked: dict[str, Any]) -> None:
    assert dtypes(Pair.from_pretrained(folder, **asked)) == {"float16"}


def test_the_dtype_is_the_files_own_or_float32_where_they_mix(folder: Path) -> None:
    Pair.from_pretrained(folder, dtype="float16").save_pretrained(folder)
    assert dtypes(Pair.from_pretrained(folder)) == dtypes(Pair.from_pretrained(folder, dtype="auto"))
    assert runtime.dtype_name(Pair.from_pretrained(folder).dtype) == "float16"
    replaced(folder, **{"second.weight": zeros(2, 3)})
    assert dtypes(Pair.from_pretrained(folder)) == {"float32"}


def test_two_different_dtypes_are_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="one setting"):
        Pair.from_pretrained(folder, torch_dtype="float16", dtype="float32")


def test_a_loaded_network_can_be_saved_over_its_own_files(folder: Path) -> None:
    model = Pair.from_pretrained(folder)  # memory-mapped from the file that is replaced
    before = weights_of(model)
    model.save_pretrained(folder)
    assert same(Pair.from_pretrained(folder), before)
    assert same(model, before)


def test_changing_a_loaded_network_leaves_its_file_alone(folder: Path) -> None:
    before = (folder / NAME).read_bytes()
    model = Pair.from_pretrained(folder)
    weight = runtime.named_weights(model)["first.weight"]
    runtime.write(weight, ops.to_numpy(weight) + 1)
    assert not same(Pair.from_pretrained(folder), weights_of(model))
    assert (folder / NAME).read_bytes() == before


def test_other_spellings_other_parts_and_stored_constants_are_read(folder: Path) -> None:
    weights = {f"old.{name}": weight for name, weight in weights_of(Pair.from_pretrained(folder)).items()}
    write(folder, weights | {"head.weight": zeros(3), "embeddings.position_ids": np.arange(4)})
    config_with(folder, _class_name="PairWithHead")
    Pair.from_pretrained(folder)
    config_with(folder, _class_name="Pair")
    with pytest.raises(ModelError, match=r"head\.weight"):
        Pair.from_pretrained(folder)


def test_a_weight_under_two_spellings_is_refused(folder: Path) -> None:
    replaced(folder, **{"old.first.bias": zeros(3)})
    with pytest.raises(ModelError, match=r"'first.bias' twice"):
        Pair.from_pretrained(folder)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: replaced(f, **{"first.bias": None}), ("pair", "lacks", "'first.bias'", "Pair")),
        (lambda f: replaced(f, extra=zeros(2)), (NAME, "'extra'", "does not have")),
        (lambda f: replaced(f, **{"first.bias": zeros(4)}), (NAME, "'first.bias'", "[4]", "[3]")),
        (
            lambda f: replaced(f, **{"first.bias": zeros(3, dtype=np.uint8)}),
            (NAME, "'first.bias'", "uint8"),
        ),
        (lambda f: config_with(f, widht=3), ("config.json", "'widht'")),
        (lambda f: config_with(f, width="4"), ("config.json", "'width'", "int")),
        (lambda f: config_with(f, width=True), ("config.json", "'width'", "int")),
        (lambda f: config_with(f, sizes=[1, "2"]), ("config.json", "'sizes'")),
        (lambda f: config_with(f, sizes=3), ("config.json", "'sizes'")),
        (lambda f: config_with(f, quantization_config={"bits": 4}), ("config.json", "'quantization_config'")),
        (
            lambda f: config_with(f, _class_name="FluxTransformer2DModel"),
            ("config.json", "FluxTransformer2DModel"),
        ),
        (lambda f: (f / "config.json").write_text("{"), ("config.json", "not valid JSON")),
        (lambda f: (f / "config.json").write_text("[]"), ("config.json", "not a JSON object")),
        (lambda f: (f / "config.json").write_bytes(b"\xff"), ("config.json", "not valid JSON")),
        (lambda f: (f / "config.json").unlink(), ("no model folder", "config.json")),
        (lambda f: (f / NAME).rename(f / "x.bin"), ("x.bin", "only safetensors is read")),
        (lambda f: (f / NAME).write_bytes((f / NAME).read_bytes()[:-1]), (NAME, "truncated")),
        (lambda f: (f / NAME).write_bytes(b"<html>not found</html>"), (NAME, "truncated or no safetensors")),
        (lambda f: (f / NAME).unlink(), (NAME, "config.json")),
    ],
)
def test_a_damaged_folder_is_one_sentence(folder: Path, damage, words: tuple[str, ...]) -> None:
    damage(folder)
    with pytest.raises(ModelError) as caught:
        Pair.from_pretrained(folder)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message and message.endswith(".")


def test_a_missing_weight_is_found_before_data_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(folder, **{"first.bias": None})
    monkeypatch.setattr("longtake.weights.files.read_tensors", lambda *_: pytest.fail("data was read"))
    with pytest.raises(ModelError, match="lacks the weight"):
        Pair.from_pretrained(folder)


def test_folders_that_are_none_are_named(folder: Path) -> None:
    with pytest.raises(ModelError, match="no folder 'vae'; its folders: pair"):
        Pair.from_pretrained(folder.parent, subfolder="vae")
    with pytest.raises(ModelError, match="no model 'nowhere/at-all'"):
        Pair.from_pretrained("nowhere/at-all")
    with pytest.raises(ModelError, match="is a file"):
        Pair.from_pretrained(folder / "config.json")
    (folder.parent / "model_index.json").write_text("{}")
    with pytest.raises(ModelError, match="whole model; choose one part"):
        Pair.from_pretrained(folder.parent)
    with pytest.raises(ModelError, match="is a file"):
        Pair().save_pretrained(folder / "config.json")


# Reading into other modules -------------------------------------------------------------------------------------------


class Eight(nn.Module):
    """A linear layer that keeps its weight in 8 bits, one scale for each row; a toy."""

    def __init__(self, weight: Any, bias: Any) -> None:
        super().__init__()
        values = ops.to_numpy(weight)
        scale = np.abs(values).max(1, keepdims=True) / 127
        whole = np.round(values / scale).astype(np.int8)
        # Beside the floating weights, and first: nobody can take its dtype for the network's.
        self.weight = nn.Parameter(ops.from_numpy(whole), requires_grad=False)
        self.scale = nn.Parameter(ops.from_numpy(scale.astype(np.float32)))
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Any) -> Any:
        weight = self.weight.to(x.dtype) * self.scale.to(x.dtype)
        return ops.linear(x, weight, self.bias)


def eighths(seen: list[Any]) -> Any:
    """A `replace` that makes every linear layer one of 8 bits, and notes what it was asked."""

    def replace(name: str, module: Any, stored: Mapping[str, Any]) -> Any:
        seen.append((name, {key: weight.weight.shape for key, weight in stored.items()}))
        if not isinstance(module, nn.Linear):
            return None
        wide = stored["weight"].read("float32")
        narrow = Eight(wide, stored["bias"].read() if "bias" in stored else None)
        if backend.name == "torch":
            seen.append(weakref.ref(wide))
        return narrow

    return replace


def test_modules_are_replaced_while_weights_are_read(folder: Path) -> None:
    seen: list[Any] = []
    plain = Pair.from_pretrained(folder)
    model = Pair.from_pretrained(folder, replace=eighths(seen))
    asked = [each for each in seen if isinstance(each, tuple)]
    assert asked == [("first", {"weight": (3, 5), "bias": (3,)}), ("second", {"weight": (2, 3)})]
    # The full weights are gone, each as soon as the next is read, and never stood in the network.
    assert not any(each() is not None for each in seen if not isinstance(each, tuple))
    assert all(isinstance(module, Eight) for module in (model.first, model.second))
    x = ops.from_numpy(np.ones((1, 5), np.float32))
    exact = ops.to_numpy(plain.second(plain.first(x)))
    # 1/254 of each row's largest weight, over five and three products.
    np.testing.assert_allclose(ops.to_numpy(model.second(model.first(x))), exact, atol=0.05)
    assert not model.training


def test_what_is_not_replaced_is_read_as_ever(folder: Path) -> None:
    only = lambda name, module, stored: Eight(stored["weight"].read(), None) if name == "second" else None  # noqa: E731
    model = Pair.from_pretrained(folder, replace=only)
    plain = Pair.from_pretrained(folder)
    np.testing.assert_array_equal(ops.to_numpy(model.first.weight), ops.to_numpy(plain.first.weight))
    assert isinstance(model.second, Eight)


def test_a_network_with_replaced_modules_cannot_be_saved_as_another(folder: Path, tmp_path: Path) -> None:
    model = Pair.from_pretrained(folder, replace=eighths([]))
    with pytest.raises(ModelError, match=r"the first is 'first'.*its config does not describe"):
        model.save_pretrained(tmp_path / "copy")


def test_adapters_attach_to_layers_of_8_bits_and_are_not_merged_into_them(folder: Path) -> None:
    model = Pair.from_pretrained(folder, replace=eighths([]), dtype="float16")
    change = LowRank(np.ones((1, 3), np.float32), np.ones((2, 1), np.float32), 1.0)
    adapters.attach(model, "style", {"second": change})
    part = adapters.adapted(model)["second"].adapters[0]
    assert runtime.dtype_name(part.down.dtype) == "float16"
    with pytest.raises(JobError, match="merged into weights of int8"):
        adapters.merge(model)


# dtype and device are what the network knows --------------------------------------------------------------------------


def facts(model: Any) -> tuple[str, str]:
    return runtime.dtype_name(model.dtype), str(model.device).split(":")[0].lower()


def test_dtype_and_device_are_not_those_of_the_first_weight(folder: Path) -> None:
    model = Pair.from_pretrained(folder, replace=eighths([]), dtype="float16")
    assert runtime.dtype_name(next(iter(model.parameters())).dtype) == "int8"
    assert facts(model) == ("float16", "cpu")
    assert facts(model.to(dtype=runtime.dtype("float32"))) == ("float32", "cpu")
    assert runtime.dtype_name(next(iter(model.parameters())).dtype) == "int8"


def test_dtype_and_device_follow_every_move(folder: Path) -> None:
    model = Pair.from_pretrained(folder)
    assert facts(model) == ("float32", "cpu")
    assert facts(model.to(runtime.dtype("float16"))) == ("float16", "cpu")
    if backend.name == "torch":
        import torch

        assert facts(model.float()) == ("float32", "cpu") and facts(model.half()) == ("float16", "cpu")
        assert facts(model.bfloat16()) == ("bfloat16", "cpu") and facts(model.to(None)) == ("bfloat16", "cpu")
        assert facts(copy.deepcopy(model).to(device="meta"))[1] == "meta"
        assert facts(model.to(torch.float64)) == ("float64", "cpu")
    names = set(runtime.named_weights(model))
    assert names == {"first.weight", "first.bias", "second.weight"}


def test_a_network_that_was_never_told_asks_its_weights(folder: Path) -> None:
    plain = Pair.from_pretrained(folder, dtype="float16")
    with runtime.empty_weights():
        model = Pair(plain.config)
    runtime.assign_weights(model, runtime.named_weights(plain))
    assert facts(model) == ("float16", "cpu")


# The field's keywords -------------------------------------------------------------------------------------------------

HERE = "cpu" if backend.name == "torch" else "CPU"


@pytest.mark.parametrize(
    "keywords",
    [
        {"use_safetensors": True},
        {"low_cpu_mem_usage": True},
        {"low_cpu_mem_usage": False},
        {"device_map": HERE},
        {"device_map": {"": HERE}},
        {"device_map": None, "device": "auto"},
        {"attn_implementation": "sdpa"},
        {"quantization_config": None},
    ],
)
def test_keywords_that_cost_nothing_are_taken(folder: Path, keywords: dict[str, Any]) -> None:
    assert facts(Pair.from_pretrained(folder, **keywords))[1] == "cpu"


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"use_safetensors": False}, "only safetensors is read"),
        ({"device_map": "auto"}, "name one device, or load it by longtake.integrations.diffusers"),
        ({"device_map": {"first": 0, "second": "cpu"}}, "spread one network over devices"),
        ({"device_map": HERE, "device": "meta"}, "one setting"),
        ({"attn_implementation": "flash_attention_2"}, "'sdpa'.* leave it out"),
        ({"quantization_config": {"bits": 4}}, "replace=, which makes modules of your own"),
    ],
)
def test_keywords_that_ask_for_more_are_refused(
    folder: Path, keywords: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        Pair.from_pretrained(folder, **keywords)


def test_nothing_is_saved_as_a_pickle(tmp_path: Path) -> None:
    Pair().save_pretrained(tmp_path / "good", safe_serialization=True)
    with pytest.raises(ModelError, match="safe_serialization=False asks for a pickle"):
        Pair().save_pretrained(tmp_path / "bad", safe_serialization=False)
