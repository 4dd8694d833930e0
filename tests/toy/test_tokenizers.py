from collections import Counter

import pytest

from longtake.errors import ModelError
from longtake.processors.tokenizers import CLIPTokenizer, LlamaTokenizer
from longtake.toy.tokenizers import learn_merges, train_tokenizers

# HunyuanVideo's default, which FramePack uses.
TEMPLATE = (
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
)
PROMPTS = [
    f"{article} {size} {colour} {kind} {motion} {place}."
    for article in ("A", "the")
    for size in ("small", "big")
    for colour in ("red", "blue")
    for kind in ("penguin", "bird", "star")
    for motion in ("dances", "takes off and flies, flapping its wings,")
    for place in ("in the snow", "at night")
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return folder, *train_tokenizers(PROMPTS, TEMPLATE, folder)


def test_the_template_costs_what_it_costs_with_the_published_tokenizer(made):
    _, llama, _ = made
    assert len(llama.encode(TEMPLATE.split("{}")[0])) == 95
    for prompt in PROMPTS:
        ids = llama.encode(TEMPLATE.format(prompt))
        # The crop falls exactly in front of the prompt, and the last token ends the turn.
        assert ids[95:] == [*llama.encode(prompt, add_special_tokens=False), llama.eos_token_id]


def test_every_word_is_one_token(made):
    _, llama, clip = made
    for prompt in PROMPTS:
        words = len(prompt.replace(".", " .").replace(",", " ,").split())
        assert len(llama.encode(prompt)) == 1 + words
        assert len(clip.encode(prompt)) == 2 + words


def test_the_vocabularies_are_small(made):
    assert all(len(tokenizer) < 1500 for tokenizer in made[1:])


def test_any_text_has_tokens(made):
    text = "naïve 🐧 zebras"
    for tokenizer in made[1:]:
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


def test_what_is_saved_is_what_was_made(made):
    folder, llama, clip = made
    for tokenizer, again in (
        (llama, LlamaTokenizer.from_pretrained(folder, "tokenizer")),
        (clip, CLIPTokenizer.from_pretrained(folder, "tokenizer_2")),
    ):
        assert again.encode(PROMPTS[0]) == tokenizer.encode(PROMPTS[0])
        assert again.pad_token_id == tokenizer.pad_token_id


def test_the_same_prompts_give_the_same_files(made, tmp_path):
    train_tokenizers(PROMPTS, TEMPLATE, tmp_path)
    files = sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*.*"))
    assert len(files) == 8
    for file in files:
        assert (tmp_path / file).read_bytes() == (made[0] / file).read_bytes()


def test_another_template_length_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"5 tokens long .* crops 95"):
        train_tokenizers(PROMPTS, "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>", tmp_path)
    assert not list(tmp_path.iterdir())


def test_merges_stop_at_the_limit():
    words = Counter({tuple("abcdef"): 1})
    assert len(learn_merges(words, 3)) == 3
    assert len(learn_merges(words, 99)) == 5
    assert learn_merges(Counter({tuple("aaaa"): 1}), 9) == [("a", "a"), ("aa", "aa")]
