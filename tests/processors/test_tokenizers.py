import numpy as np
import pytest

from longtake.backend import ops, runtime
from longtake.errors import JobError, ModelError
from longtake.processors.tokenizers import Batch, CLIPTokenizer, LlamaTokenizer
from longtake.toy.tokenizers import clip_tokenizer, llama_tokenizer

TEMPLATE = "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
PROMPTS = ["A penguin dances in the snow.", "a bird flies"]


@pytest.fixture(scope="module")
def llama():
    return llama_tokenizer(PROMPTS, TEMPLATE)


@pytest.fixture(scope="module")
def clip():
    return clip_tokenizer(PROMPTS)


def test_rows_are_filled_on_the_right(llama):
    out = llama(PROMPTS, padding="max_length", max_length=10, truncation=True, return_length=True)
    assert out.input_ids.shape == (2, 10)
    assert out.input_ids.dtype == out.attention_mask.dtype == np.int64
    assert out.attention_mask.sum(1).tolist() == [8, 4]
    assert (out.input_ids[1, 4:] == llama.pad_token_id).all()
    assert out.length.tolist() == [10, 10]


def test_truncation_cuts_the_end_of_the_text_and_keeps_what_the_tokenizer_adds(clip, llama):
    ids = clip(PROMPTS[0], truncation=True, max_length=4).input_ids[0]
    assert ids[0] == clip.bos_token_id
    assert ids[-1] == clip.eos_token_id
    assert ids.tolist()[:-1] == clip.encode(PROMPTS[0])[:3]
    assert (
        llama(PROMPTS[0], truncation=True, max_length=4).input_ids[0].tolist() == llama.encode(PROMPTS[0])[:4]
    )


def test_padding_does_not_shorten(llama):
    assert llama(PROMPTS, padding="max_length", max_length=3).input_ids.shape == (2, 8)


def test_one_call_leaves_no_trace_for_the_next(clip):
    before = clip.encode(PROMPTS[0])
    clip(PROMPTS, padding="max_length", max_length=5, truncation=True)
    assert clip.encode(PROMPTS[0]) == before


def test_tensors_on_request(clip):
    out = clip(PROMPTS, padding=True, return_tensors="pt").to("cpu")
    assert isinstance(out.input_ids, ops.Tensor)
    assert runtime.dtype_name(out.input_ids.dtype) == "int64"
    assert set({**out}) == {"input_ids", "attention_mask"}
    assert "attention_mask" not in clip("a bird", return_attention_mask=False)


def test_without_the_special_tokens(clip):
    ids = clip.encode("a bird", add_special_tokens=False)
    assert len(ids) == 2
    assert clip.encode("a bird") == [clip.bos_token_id, *ids, clip.eos_token_id]


def test_text_comes_back(llama, clip):
    text = "Ünïcödé penguin 123"
    assert llama.decode(llama.encode(text), skip_special_tokens=True) == text
    assert clip.decode(clip.encode(text), skip_special_tokens=True) == "ünïcödé penguin 1 2 3"
    assert llama.batch_decode(np.array([llama.encode("a bird")])) == ["<|begin_of_text|>a bird"]


def test_clip_ends_with_the_highest_id(clip):
    # The models' pooling looks for it.
    assert clip.eos_token_id == len(clip) - 1
    assert clip.pad_token_id == clip.eos_token_id


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"padding": "shortest"},
        {"padding": True, "return_tensors": "tf"},
        {"return_overflowing_tokens": True},
    ],
)
def test_what_cannot_be_met_is_refused(llama, call):
    with pytest.raises(JobError):
        llama(PROMPTS, **call)


def test_a_batch_is_moved_by_kind():
    batch = Batch(ids=ops.from_numpy(np.arange(2)), pixels=ops.zeros(2))
    moved = batch.to("cpu", runtime.dtype("float16"))
    assert runtime.dtype_name(moved.ids.dtype) == "int64"
    assert runtime.dtype_name(moved.pixels.dtype) == "float16"
    with pytest.raises(AttributeError, match="no 'masks'; it has ids, pixels"):
        _ = moved.masks


def test_clip_is_read_from_its_published_form(clip, tmp_path):
    clip.save_pretrained(tmp_path / "tokenizer_2")
    for file in ("tokenizer.json", "special_tokens_map.json", "tokenizer_config.json"):
        (tmp_path / "tokenizer_2" / file).unlink()
    again = CLIPTokenizer.from_pretrained(tmp_path, subfolder="tokenizer_2")
    assert again.encode(PROMPTS[0]) == clip.encode(PROMPTS[0])
    assert again.model_max_length == 77


def test_special_tokens_may_be_written_as_dictionaries(llama, tmp_path):
    llama.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        '{"pad_token": {"content": "<|end_of_text|>", "special": true}, "model_max_length": 1e30}'
    )
    again = LlamaTokenizer.from_pretrained(tmp_path)
    assert again.pad_token_id == llama.convert_tokens_to_ids("<|end_of_text|>")
    assert again(PROMPTS, padding="max_length").input_ids.shape == (2, 8)


@pytest.mark.parametrize("content", ["", "{}", '{"model": 3}'])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    for tokenizer in (LlamaTokenizer, CLIPTokenizer):
        with pytest.raises(ModelError, match=r"tokenizer\.json is no tokenizer"):
            tokenizer.from_pretrained(tmp_path)


def test_a_missing_or_broken_vocabulary_is_named(clip, tmp_path):
    with pytest.raises(ModelError, match=r"tokenizer\.json does not exist"):
        LlamaTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"vocab\.json does not exist"):
        CLIPTokenizer.from_pretrained(tmp_path)
    clip.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(ModelError, match="line 2"):
        CLIPTokenizer.from_pretrained(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nxx yy\n")
    with pytest.raises(ModelError, match="do not fit"):
        CLIPTokenizer.from_pretrained(tmp_path)
