"""Our encoders, picture processor and tokenizers against transformers' own."""

import itertools
import json
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from longtake.backend import runtime
from longtake.config import PUBLISHED
from longtake.models.clip import CLIPTextModel
from longtake.models.llama import LlamaModel
from longtake.models.siglip import SiglipVisionModel
from longtake.processors.siglip import SiglipImageProcessor
from longtake.processors.tokenizers import CLIPTokenizer, LlamaTokenizer
from longtake.toy.tokenizers import train_tokenizers

# float32 has 6e-8 per operation; a few layers of tiny width stay far below the bound.
RELATIVE = 1e-5

LLAMA = {
    "vocab_size": 99,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
}
CLIP = {
    "vocab_size": 99,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 20,
    "bos_token_id": 97,
    "pad_token_id": 1,
}
SIGLIP = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 31,
    "patch_size": 7,
}
PROMPTS = [
    "A penguin dances in the snow.",
    "a small blue bird takes off and flies, flapping its wings, over the sea",
    "It's 12 o'clock: the bird doesn't move!  Two   spaces\nand a line.",
    "Ünïcödé 🐧 and <|endoftext|> inside",
    "",
]
TEMPLATE = "<|start_header_id|>user<|end_header_id|>\n\nShow 1. the video:{}<|eot_id|>"


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + 0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= RELATIVE * theirs.abs().max()


def twins(ours_class, theirs_class, config):
    theirs = randomise(theirs_class(config))
    ours = ours_class(theirs.config).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def ids(rows: int, length: int, most: int) -> torch.Tensor:
    return torch.randint(3, most, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("theta", [10000.0, 500000.0])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_llama(theta, masked):
    rope = {"rope_type": "default", "rope_theta": theta}
    config = transformers.LlamaConfig(**LLAMA, rope_parameters=rope)
    ours, theirs = twins(LlamaModel, transformers.LlamaModel, config)
    tokens = ids(3, 351, 99)
    mask = (torch.arange(351) < torch.tensor([[351], [100], [1]])).long() if masked else None
    mine = ours(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
    other = theirs(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
    assert len(mine.hidden_states) == len(other.hidden_states) == 5
    for state, expected in zip(mine.hidden_states, other.hidden_states, strict=True):
        assert_close(state, expected)
    assert_close(mine.last_hidden_state, other.last_hidden_state)
    assert_close(ours(tokens, mask, layers=-2).last_hidden_state, other.hidden_states[-3])


@torch.no_grad()
def test_llama_in_bfloat16_is_as_near_to_float32_as_theirs():
    ours, theirs = twins(LlamaModel, transformers.LlamaModel, transformers.LlamaConfig(**LLAMA))
    tokens = ids(2, 40, 99)
    exact = theirs(tokens).last_hidden_state
    error = [
        (model.to(torch.bfloat16)(tokens).last_hidden_state.float() - exact).square().mean().sqrt()
        for model in (ours, theirs)
    ]
    # The two round at different places of the norms; neither may be clearly worse.
    assert error[0] < 1.2 * error[1]


@pytest.mark.parametrize("end", [2, 98])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_clip(end, activation, masked):
    config = transformers.CLIPTextConfig(**CLIP, eos_token_id=end, hidden_act=activation)
    ours, theirs = twins(CLIPTextModel, transformers.CLIPTextModel, config)
    tokens = ids(3, 20, 97)
    mask = torch.ones_like(tokens)
    for row, stop in enumerate((5, 11, 19)):
        tokens[row, stop:] = 98  # as CLIP pads: with the token that ends the text
        mask[row, stop + 1 :] = 0
    mask = mask if masked else None
    mine = ours(tokens, attention_mask=mask, output_hidden_states=True)
    other = theirs(tokens, attention_mask=mask, output_hidden_states=True)
    assert_close(mine.pooler_output, other.pooler_output)
    assert_close(mine.last_hidden_state, other.last_hidden_state)
    for state, expected in zip(mine.hidden_states, other.hidden_states, strict=True):
        assert_close(state, expected)


@pytest.mark.parametrize("head", [True, False])
@torch.no_grad()
def test_siglip(head):
    config = transformers.SiglipVisionConfig(**SIGLIP, vision_use_head=head)
    ours, theirs = twins(SiglipVisionModel, transformers.SiglipVisionModel, config)
    pixels = torch.randn(2, 3, 31, 31, generator=torch.Generator().manual_seed(2))
    mine = ours(pixel_values=pixels, output_hidden_states=True)
    other = theirs(pixel_values=pixels, output_hidden_states=True)
    assert_close(mine.last_hidden_state, other.last_hidden_state)
    for state, expected in zip(mine.hidden_states, other.hidden_states, strict=True):
        assert_close(state, expected)
    if head:
        assert_close(mine.pooler_output, other.pooler_output)
    else:
        assert mine.pooler_output is None


@pytest.mark.parametrize(
    ("ours", "theirs", "their_config", "name"),
    [
        (LlamaModel, transformers.LlamaModel, transformers.LlamaConfig, "llama"),
        (CLIPTextModel, transformers.CLIPTextModel, transformers.CLIPTextConfig, "clip_l"),
        (SiglipVisionModel, transformers.SiglipVisionModel, transformers.SiglipVisionConfig, "siglip_so400m"),
    ],
)
def test_published_names_and_shapes(ours, theirs, their_config, name):
    fields = PUBLISHED[name].to_dict()
    theta = fields.pop("rope_theta", None)
    if theta is not None:
        fields["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    with runtime.empty_weights():
        mine = ours(PUBLISHED[name]).state_dict()
        other = theirs(their_config(**fields)).state_dict()
    assert {key: value.shape for key, value in mine.items()} == {
        key: value.shape for key, value in other.items()
    }


@pytest.mark.parametrize(
    ("ours_class", "theirs_class", "config", "prefix"),
    [
        (LlamaModel, transformers.LlamaModel, transformers.LlamaConfig(**LLAMA), "model."),
        (CLIPTextModel, transformers.CLIPTextModel, transformers.CLIPTextConfig(**CLIP), "text_model."),
        (
            SiglipVisionModel,
            transformers.SiglipVisionModel,
            transformers.SiglipVisionConfig(**SIGLIP),
            "vision_model.",
        ),
    ],
)
def test_folders_are_shared_in_both_spellings(ours_class, theirs_class, config, prefix, tmp_path):
    theirs = randomise(theirs_class(config))
    weights = theirs.state_dict()
    theirs.save_pretrained(tmp_path / "new")
    theirs.save_pretrained(tmp_path / "old")
    published = {prefix + name: weight.contiguous() for name, weight in weights.items()}
    save_file(published, tmp_path / "old" / "model.safetensors", metadata={"format": "pt"})
    for spelling in ("new", "old"):
        ours = ours_class.from_pretrained(tmp_path, subfolder=spelling)
        assert all(torch.equal(value, weights[name]) for name, value in ours.state_dict().items())
        ours.save_pretrained(tmp_path / "ours")
        again = theirs_class.from_pretrained(tmp_path / "ours").state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in again.items())


@pytest.mark.parametrize("sizes", [((50, 70), (31, 31)), ((20, 33), (48, 31)), ((31, 31), (31, 31))])
def test_float_pictures_are_resized_as_torch_does(sizes):
    (height, width), (to_height, to_width) = sizes
    picture = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(3))
    processor = SiglipImageProcessor(size={"height": to_height, "width": to_width})
    mine = processor(images=picture, return_tensors="pt", do_rescale=False).pixel_values
    exact = torch.nn.functional.interpolate(
        picture.double(), (to_height, to_width), mode="bicubic", antialias=True
    )
    # Against float64: torch's own float32 filter is up to 2e-5 off (832 to 384 pixels), PIL's 1e-7.
    assert torch.allclose(mine.double(), (exact - 0.5) / 0.5, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sizes", [((50, 70), (31, 31)), ((31, 31), (31, 31))])
@pytest.mark.parametrize("kind", ["any", "black and white"])
def test_rounded_float_pictures_equal_transformers_without_torchvision(sizes, kind):
    pil = pytest.importorskip("transformers.models.siglip.image_processing_pil_siglip")
    picture = np.random.default_rng(5).random((*sizes[0], 3), dtype=np.float32)
    picture = picture if kind == "any" else np.rint(picture)
    size = {"height": sizes[1][0], "width": sizes[1][1]}
    asked = {"do_rescale": False, "return_tensors": "pt"}
    expected = pil.SiglipImageProcessorPil(size=size)(images=[picture], **asked).pixel_values
    mine = SiglipImageProcessor(size=size)(images=[picture], rounded=True, **asked).pixel_values
    assert torch.equal(mine, expected)
    if kind == "any":
        exact = SiglipImageProcessor(size=size)(images=[picture], **asked).pixel_values
        assert not torch.allclose(mine, exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("form", ["PIL", "array", "list"])
def test_8_bit_pictures_equal_transformers(form):
    array = np.random.default_rng(4).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    images = {"PIL": Image.fromarray(array), "array": array, "list": [Image.fromarray(array), array]}[form]
    size = {"height": 31, "width": 40}
    mine = SiglipImageProcessor(size=size)(images, return_tensors="pt")
    expected = transformers.SiglipImageProcessor(size=size)(images, return_tensors="pt")
    # Both round to 8 bits in the resize; what is left is the float32 rescale.
    assert torch.allclose(mine.pixel_values, expected.pixel_values, rtol=0, atol=1e-6)


def test_processor_files_are_shared(tmp_path):
    SiglipImageProcessor(size={"height": 31, "width": 40}).save_pretrained(tmp_path / "ours")
    stock = transformers.SiglipImageProcessor.from_pretrained(tmp_path / "ours")
    assert dict(stock.size) == {"height": 31, "width": 40}
    stock.save_pretrained(tmp_path / "theirs")
    assert SiglipImageProcessor.from_pretrained(tmp_path / "theirs").size == {"height": 31, "width": 40}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("tokenizers")
    train_tokenizers(PROMPTS[:3], TEMPLATE, made, crop_start=12)
    return made


CALLS = [
    {"padding": "max_length", "max_length": 40, "truncation": True},
    {"padding": "max_length", "max_length": 7, "truncation": True},
    {"padding": "longest"},
    {"padding": True, "add_special_tokens": False},
]


@pytest.mark.parametrize("call", CALLS)
def test_llama_tokenizer(folder, call):
    mine = LlamaTokenizer.from_pretrained(folder, subfolder="tokenizer")
    stock = transformers.PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    texts = PROMPTS + [TEMPLATE.format(prompt) for prompt in PROMPTS]
    ours, theirs = (tokenizer(texts, return_tensors="pt", **call) for tokenizer in (mine, stock))
    assert torch.equal(ours.input_ids, theirs.input_ids)
    assert torch.equal(ours.attention_mask, theirs.attention_mask)
    assert mine.batch_decode(ours.input_ids) == stock.batch_decode(theirs.input_ids)
    assert mine.pad_token_id == stock.pad_token_id
    assert len(mine) == len(stock)


@pytest.mark.parametrize("form", ["both", "published"])
@pytest.mark.parametrize("call", CALLS)
def test_clip_tokenizer(folder, tmp_path, call, form):
    place = folder / "tokenizer_2"
    if form == "published":  # vocab.json and merges.txt alone
        for file in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
            (tmp_path / file).write_text((place / file).read_text())
        place = tmp_path
    mine, stock = CLIPTokenizer.from_pretrained(place), transformers.CLIPTokenizer.from_pretrained(place)
    ours, theirs = (tokenizer(PROMPTS, return_tensors="pt", **call) for tokenizer in (mine, stock))
    assert torch.equal(ours.input_ids, theirs.input_ids)
    assert torch.equal(ours.attention_mask, theirs.attention_mask)
    assert mine.batch_decode(ours.input_ids) == stock.batch_decode(theirs.input_ids)
    assert mine.model_max_length == stock.model_max_length == 77


@torch.no_grad()
def test_ours_and_theirs_stand_in_for_each_other_in_diffusers(folder):
    """Diffusers' own methods, with all sixteen mixtures of encoder, tokenizer and their second pair."""
    pipeline = diffusers.HunyuanVideoFramepackPipeline
    llamas = twins(
        LlamaModel, transformers.LlamaModel, transformers.LlamaConfig(**{**LLAMA, "vocab_size": 1500})
    )
    config = transformers.CLIPTextConfig(
        **{**CLIP, "vocab_size": 1500, "max_position_embeddings": 77}, eos_token_id=2
    )
    clips = twins(CLIPTextModel, transformers.CLIPTextModel, config)
    tokenizers = (
        LlamaTokenizer.from_pretrained(folder, "tokenizer"),
        transformers.PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
    )
    tokenizers_2 = (
        CLIPTokenizer.from_pretrained(folder, "tokenizer_2"),
        transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
    )
    prompts = [*PROMPTS[:2], "a very long prompt " * 30]
    template = {"template": TEMPLATE, "crop_start": 12}
    expected: list[torch.Tensor] = []
    for llama, clip, tokenizer, tokenizer_2 in itertools.product(llamas, clips, tokenizers, tokenizers_2):
        parts = SimpleNamespace(
            _execution_device="cpu",
            text_encoder=llama,
            text_encoder_2=clip,
            tokenizer=tokenizer,
            tokenizer_2=tokenizer_2,
        )
        states, mask = pipeline._get_llama_prompt_embeds(parts, prompts, template, max_sequence_length=40)
        pooled = pipeline._get_clip_prompt_embeds(parts, prompts)
        expected = expected or [states, mask, pooled]
        assert torch.equal(mask, expected[1])
        assert_close(states, expected[0])
        assert_close(pooled, expected[2])


@torch.no_grad()
def test_the_picture_encoder_stands_in_in_diffusers():
    ours, theirs = twins(
        SiglipVisionModel, transformers.SiglipVisionModel, transformers.SiglipVisionConfig(**SIGLIP)
    )
    size = {"height": 31, "width": 31}
    picture = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(5)) - 0.5  # clear of clipping
    processors = (SiglipImageProcessor(size=size), transformers.SiglipImageProcessor(size=size))
    for processor in processors:
        states = [
            diffusers.HunyuanVideoFramepackPipeline.encode_image(
                SimpleNamespace(_execution_device="cpu", feature_extractor=processor, image_encoder=encoder),
                picture,
            )
            for encoder in (ours, theirs)
        ]
        assert_close(*states)
    mine, other = (
        processor(images=(picture + 1) / 2, return_tensors="pt", do_rescale=False).pixel_values
        for processor in processors
    )
    # Without torchvision theirs cuts the picture to 8 bits and rounds twice more in the resize: under 2 steps of 255.
    assert (mine - other).abs().max() < 2 / 127.5


def test_what_transformers_saves_is_read(folder, tmp_path):
    transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer_2").save_pretrained(tmp_path / "clip")
    transformers.PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer").save_pretrained(
        tmp_path / "llama"
    )
    for tokenizer_class, name, subfolder in (
        (CLIPTokenizer, "clip", "tokenizer_2"),
        (LlamaTokenizer, "llama", "tokenizer"),
    ):
        again = tokenizer_class.from_pretrained(tmp_path / name)
        first = tokenizer_class.from_pretrained(folder, subfolder)
        for prompt in PROMPTS:
            assert again.encode(prompt) == first.encode(prompt)
        assert again.pad_token_id == first.pad_token_id
        assert json.loads((folder / subfolder / "tokenizer_config.json").read_text())["tokenizer_class"]
