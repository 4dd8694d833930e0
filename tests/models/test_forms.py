"""A quantization_config as the field writes it, and the libraries that it names; ours beside theirs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from longtake import backend
from longtake.backend import eight, ops, runtime
from longtake.errors import BackendError, ModelError
from longtake.models import adapters, forms
from longtake.models.pretrained import is_untouched
from longtake.models.quantised import EightBitConfig, EightBitLinear
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel as Transformer
from longtake.weights.lora import LowRank

BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
without_bitsandbytes = importlib.util.find_spec("bitsandbytes") is None
# Libraries warn of their own futures, and of kernels for devices that are not here.
pytestmark = pytest.mark.filterwarnings("default")


class BitsAndBytesConfig:
    """The field's, as far as it is looked at: an enum for the method, some settings behind properties."""

    def __init__(self, **settings: Any) -> None:
        self.quant_method = SimpleNamespace(value="bitsandbytes")
        self._load_in_4bit = settings.get("load_in_4bit", False)
        self._load_in_8bit = settings.get("load_in_8bit", False)
        self.bnb_4bit_quant_type = settings.get("quant_type", "fp4")
        self.llm_int8_skip_modules = settings.get("skip")


def test_our_own_form_by_any_of_its_spellings() -> None:
    config = EightBitConfig("fp8", 1, 2)
    assert forms.asked(config) is config and forms.asked(None) is None
    assert forms.asked(config.to_dict()) == config
    assert (config.word, EightBitConfig("int8-dynamic").word) == ("fp8(1,2)", "int8-dynamic")


def test_bitsandbytes_config_is_known_by_its_behaviour() -> None:
    asked = forms.asked(BitsAndBytesConfig(load_in_4bit=True, quant_type="nf4", skip=["ff"]))
    assert isinstance(asked, forms.LibraryForm) and (asked.library, asked.kept) == ("bitsandbytes", ("ff",))
    assert asked.settings["load_in_4bit"] and asked.settings["bnb_4bit_quant_type"] == "nf4"
    assert asked.word == "bitsandbytes:nf4-ff"
    assert forms.asked({"load_in_8bit": True}).word == "bitsandbytes:int8(6)"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"bits": 4}, r"\{'bits': 4\} is not known here; known: longtake's own"),
        (SimpleNamespace(quant_method="quanto"), "SimpleNamespace is not known here"),
        ({"quant_method": "bitsandbytes"}, "load_in_4bit or for load_in_8bit"),
        ({"load_in_8bit": True, "load_in_4bit": True}, "set one of them"),
        ({"load_in_8bit": True, "llm_int8_has_fp16_weight": True}, "keeps the full weights"),
        (
            SimpleNamespace(components_to_quantize=None, quant_mapping={}),
            "is for a pipeline's from_pretrained",
        ),
        ({"quant_method": "longtake", "form": "int4"}, "'int4' is no form"),
    ],
)
def test_what_is_not_known_is_one_sentence(config: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        forms.asked(config)


PARTS = ("text_encoder", "transformer")


def test_a_pipelines_config_is_told_apart_by_part() -> None:
    own = EightBitConfig()
    assert forms.by_part(None, PARTS) == {}
    assert forms.by_part(own, PARTS) == {"transformer": own}
    assert forms.by_part({"text_encoder": own}, PARTS) == {"text_encoder": own}
    by_mapping = SimpleNamespace(
        components_to_quantize=None, quant_mapping={"transformer": own}, quant_backend=None
    )
    assert forms.by_part(by_mapping, PARTS) == {"transformer": own}
    by_backend = SimpleNamespace(
        components_to_quantize=None,
        quant_mapping=None,
        quant_backend="bitsandbytes_4bit",
        quant_kwargs={"load_in_4bit": True},
    )
    found = forms.by_part(by_backend, PARTS)
    assert set(found) == set(PARTS)
    assert forms.asked(found["transformer"]).library == "bitsandbytes"  # type: ignore[union-attr]
    by_backend.components_to_quantize = ["vae"]
    with pytest.raises(ModelError, match="The part 'vae' has no quantised form here"):
        forms.by_part(by_backend, PARTS)


def test_a_library_that_is_not_there_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.nn", None)
    words = "not installed" if backend.name == "torch" else "a library of PyTorch's"
    with pytest.raises(BackendError, match=words):
        Transformer.from_pretrained(folder, quantization_config=BITS)


# The libraries themselves ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(filled: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("plain")
    network = Transformer(
        num_attention_heads=2, attention_head_dim=32, num_layers=1, num_single_layers=1, num_refiner_layers=1,
        in_channels=4, out_channels=4, text_embed_dim=24, pooled_projection_dim=12, rope_axes_dim=(8, 12, 12),
        image_proj_dim=20,
    )  # fmt: skip
    filled(network).save_pretrained(place)
    return place


def torchao_config(name: str) -> Any:
    quantization = pytest.importorskip("torchao.quantization")
    return getattr(quantization, name)(**({"version": 2} if name == "Int8WeightOnlyConfig" else {}))


def velocity(network: Any) -> np.ndarray:
    source = np.random.default_rng(1)

    def noise(*shape: int) -> Any:
        return ops.from_numpy(source.standard_normal(shape).astype(np.float32))

    with runtime.no_grad():
        made = network(
            hidden_states=noise(1, 4, 3, 4, 6),
            timestep=ops.from_numpy(np.asarray([500.0], np.float32)),
            encoder_hidden_states=noise(1, 5, 24),
            pooled_projections=noise(1, 12),
            image_embeds=noise(1, 4, 20),
            guidance=ops.from_numpy(np.asarray([6000.0], np.float32)),
            return_dict=False,
        )
    return np.asarray(ops.to_numpy(made[0]))


def far(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


# Int8 and 8-bit floats lose what ours lose; nf4 has 16 numbers for a weight.
LIBRARIES = [
    ("Int8WeightOnlyConfig", 0.02),
    ("Int8DynamicActivationInt8WeightConfig", 0.04),
    ("Float8WeightOnlyConfig", 0.1),
]


def library_config(name: str) -> Any:
    if name != "nf4" and name != "bitsandbytes int8":
        return torchao_config(name)
    pytest.importorskip("bitsandbytes")
    return BITS if name == "nf4" else {"load_in_8bit": True}


@pytest.mark.parametrize(("name", "most"), [*LIBRARIES, ("nf4", 0.3), ("bitsandbytes int8", 0.03)])
def test_other_libraries_forms_and_an_adapter_beside_them(
    torch_only: Any, folder: Path, name: str, most: float
) -> None:
    config = library_config(name)
    full = Transformer.from_pretrained(folder)
    network = Transformer.from_pretrained(folder, quantization_config=config)
    assert len(network.replaced) == 17 and is_untouched(network)
    bare = velocity(network)
    assert 1e-4 < far(bare, velocity(full)) < most
    assert forms.form_of(network).startswith("float32/")
    assert adapters.shapes(network) == adapters.shapes(full)
    source = np.random.default_rng(3)
    changes = {
        layer: LowRank(
            source.standard_normal((2, shape[1])).astype(np.float32) / np.float32(shape[1] ** 0.5),
            0.2 * source.standard_normal((shape[0], 2)).astype(np.float32),
            2.0,
        )
        for layer, shape in adapters.shapes(full).items()
        if "blocks.0" in layer
    }
    for each in (full, network):
        adapters.attach(each, "a", changes, 0.7)
    assert far(velocity(network), bare) > 0.1 and far(velocity(network), velocity(full)) < most
    with pytest.raises(Exception, match="cannot be merged into weights of"):
        adapters.merge(network)
    adapters.detach(network)
    assert np.array_equal(velocity(network), bare)
    with pytest.raises(ModelError, match="its config does not describe; save the network they were made of"):
        network.save_pretrained(folder.parent / "copy")


def test_a_library_s_layers_can_be_left_out(torch_only: Any, folder: Path) -> None:
    config = SimpleNamespace(
        quant_method="torchao",
        quant_type=torchao_config("Int8WeightOnlyConfig"),
        modules_to_not_convert=["ff"],
    )
    network = Transformer.from_pretrained(folder, quantization_config=config)
    assert len(network.replaced) == 15 and not any(".ff." in name for name in network.replaced)


def test_ours_is_as_exact_as_torchaos(torch_only: Any) -> None:
    torch = torch_only
    quantization = pytest.importorskip("torchao.quantization")
    torch.manual_seed(0)
    x, layer = torch.randn(64, 256), torch.nn.Linear(256, 96)
    with torch.no_grad():
        exact = layer(x)
        step = eight.steps(layer.weight, "int8")
        ours = EightBitLinear(eight.codes(layer.weight, step, "int8"), step, layer.bias, "int8")
        error = (ours(x) - exact).norm() / exact.norm()
        holder = torch.nn.Sequential(layer)
        quantization.quantize_(holder, torchao_config("Int8WeightOnlyConfig"))
        theirs = (holder(x) - exact).norm() / exact.norm()
        # Our steps are rounded up to bfloat16: up to 0.8 % wider, and the error with them.
        assert error < 1.02 * theirs
        assert (ours(x) - holder(x)).norm() / exact.norm() < 2 * theirs


def test_what_does_not_run_here_is_refused_before_anything_is_read(
    torch_only: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch_only.cuda.is_available():
        pytest.skip("it may run here")
    monkeypatch.setattr("longtake.weights.files.read_tensors", lambda *_: pytest.fail("weights were read"))
    config = torchao_config("Float8DynamicActivationFloat8WeightConfig")
    with pytest.raises(BackendError, match=r"does not run on .* here \(.*; take another form"):
        Transformer.from_pretrained(folder, quantization_config=config)

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such kernel.\nmore")

    monkeypatch.setattr(torch_only, "_int_mm", refuse)
    with pytest.raises(
        BackendError, match=r"cannot on 'cpu' here \(no such kernel\); take the form without -dynamic"
    ):
        Transformer.from_pretrained(folder, quantization_config=EightBitConfig("int8-dynamic"))


# Memory ---------------------------------------------------------------------------------------------------------------

READING = """
import sys
from pathlib import Path
from longtake.models.llama import LlamaModel
from longtake.models import quantised


def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


peaks = []
from longtake.backend import eight
codes = eight.codes
eight.codes = lambda *a: (codes(*a), peaks.append(anonymous()))[0]
config = {"quant_method": "longtake", "form": "int8"}
LlamaModel.from_pretrained(sys.argv[1], subfolder="one", quantization_config=config)
peaks.clear()
before = anonymous()
if sys.argv[2] == "read":
    model = LlamaModel.from_pretrained(sys.argv[1], quantization_config=config)
    peaks.append(anonymous())
else:
    from longtake.pipeline.quantising import quantise
    quantise(sys.argv[1], sys.argv[1] + "-8", quantised.EightBitConfig(), ("text_encoder",))
print(max(peaks) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory is read as Linux tells it")
@pytest.mark.parametrize(("how", "most"), [("read", 0.9), ("write", 0.4)])
def test_the_full_network_is_never_in_memory(torch_only: Any, tmp_path: Path, how: str, most: float) -> None:
    from longtake.models.llama import LlamaModel

    size = {"vocab_size": 8, "hidden_size": 1024, "num_attention_heads": 4, "num_key_value_heads": 4}
    LlamaModel(**size, intermediate_size=3072, num_hidden_layers=4).to(torch_only.bfloat16).save_pretrained(
        tmp_path
    )
    small = {"vocab_size": 8, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4}
    LlamaModel(**small, intermediate_size=64, num_hidden_layers=1).save_pretrained(tmp_path / "one")
    bytes_full = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert bytes_full > 100e6
    words = [sys.executable, "-c", READING, str(tmp_path), how]
    used = int(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    # Of bfloat16, half for the codes if they are kept; beside them pieces of 4 MB, or the codes of one layer, and some
    # 20 MB that an allocator keeps. With the full weights beside its codes it would be 1.5.
    print(f"{used / 1e6:.1f} MB of {bytes_full / 1e6:.1f}")
    assert used < most * bytes_full


def test_nothing_but_what_is_asked_for_is_loaded() -> None:
    names = "{'torchao', 'bitsandbytes', 'diffusers'}"
    code = f"import sys, longtake.pipeline.loading; print({names} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.splitlines()[-1] == "set()"
