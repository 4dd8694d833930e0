"""Small tokenizers for the embedded model, made in the manner of the published ones.

A published tokenizer has a token for every common word. These have one for every word of the prompt template and of
the prompts that they are made from, so that the template costs the same 95 tokens and the pipeline needs no exception.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE

from longtake.errors import ModelError
from longtake.processors.tokenizers import CLIPTokenizer, LlamaTokenizer

Word = tuple[str, ...]
Pair = tuple[str, str]

# How Llama 3 cuts text before merging: contractions, words with the character in front, digits by threes, punctuation
# with the line ends behind it, line ends, spaces.
LLAMA_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BOS, EOS, PAD = "<|begin_of_text|>", "<|eot_id|>", "<|finetune_right_pad_id|>"
LLAMA_SPECIALS = (BOS, "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", EOS, PAD)
CLIP_SPECIALS = ("<|startoftext|>", "<|endoftext|>")  # last, since CLIP pools at the highest id
END_OF_WORD = "</w>"
MOST_TOKENS = 1500
TEMPLATE_COUNT = 10**6  # the template's words are merged before any prompt's


def train_tokenizers(
    prompts: Iterable[str], template: str, folder: str | Path, crop_start: int = 95
) -> tuple[LlamaTokenizer, CLIPTokenizer]:
    """Make both tokenizers from the prompts and save them in `folder`/tokenizer and `folder`/tokenizer_2.

    `template` has `{}` where the prompt goes; raises ModelError if the text before it, with the token that
    begins a text, is not `crop_start` tokens long. The same prompts give the same files.
    """
    prompts = list(prompts)
    llama = llama_tokenizer(prompts, template)
    found = len(llama.encode(template.split("{}")[0]))
    if found != crop_start:
        raise ModelError(
            f"The template is {found} tokens long before its prompt; the pipeline crops {crop_start}."
        )
    clip = clip_tokenizer(prompts)
    llama.save_pretrained(Path(folder, "tokenizer"))
    clip.save_pretrained(Path(folder, "tokenizer_2"))
    return llama, clip


def llama_tokenizer(prompts: Iterable[str], template: str) -> LlamaTokenizer:
    """A byte-level BPE in Llama 3's manner; its special tokens have the highest ids."""
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words = Counter({tuple(piece): TEMPLATE_COUNT for piece in _pieces(_plain_parts(template), splitter)})
    words.update(tuple(piece) for piece in _pieces(prompts, splitter))
    merges = learn_merges(words, MOST_TOKENS - 256 - len(LLAMA_SPECIALS))
    tokens = [*_bytes(), *("".join(pair) for pair in merges)]
    model = BPE(_numbered(tokens), merges, ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(list(LLAMA_SPECIALS))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return LlamaTokenizer(tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=8192)


def clip_tokenizer(prompts: Iterable[str]) -> CLIPTokenizer:
    """A tokenizer in CLIP's manner; the token that ends a text has the highest id."""
    alphabet = _bytes()
    empty = CLIPTokenizer.of(_numbered([*alphabet, *CLIP_SPECIALS]), []).tokenizer
    lowered = (empty.normalizer.normalize_str(prompt) for prompt in prompts)
    words: Counter[Word] = Counter()
    for piece in _pieces(lowered, empty.pre_tokenizer):
        words[(*piece[:-1], piece[-1] + END_OF_WORD)] += 1
    base = [*alphabet, *(symbol + END_OF_WORD for symbol in alphabet)]
    merges = learn_merges(words, MOST_TOKENS - len(base) - len(CLIP_SPECIALS))
    tokens = [*base, *("".join(pair) for pair in merges), *CLIP_SPECIALS]
    return CLIPTokenizer.of(_numbered(tokens), merges)


def learn_merges(words: Counter[Word], most: int) -> list[Pair]:
    """Byte-pair merges, most frequent pair first (then in the alphabet's order), until every word is one token.

    Own and not the library's trainer, which breaks ties by the order of a hash table: its files differ by run.

    >>> learn_merges(Counter({("c", "a", "t"): 2, ("h", "a", "t"): 1}), most=9)
    [('a', 't'), ('c', 'at'), ('h', 'at')]
    """
    merges: list[Pair] = []
    made: set[str] = set()
    while len(made) < most:
        counts: Counter[Pair] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                counts[pair] += count
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        made.add("".join(best))
        merged: Counter[Word] = Counter()
        for word, count in words.items():
            merged[_merge(word, best)] += count
        words = merged
    return merges


def _merge(word: Word, pair: Pair) -> Word:
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def _plain_parts(template: str) -> Iterator[str]:
    """The texts between the special tokens and around the prompt's place."""
    return (part for part in re.split(r"<\|\w+\|>|\{\}", template) if part)


def _pieces(texts: Iterable[str], splitter: pre_tokenizers.PreTokenizer) -> Iterator[str]:
    return (piece for text in texts for piece, _ in splitter.pre_tokenize_str(text))


def _bytes() -> list[str]:
    """The letters that stand for the 256 bytes."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _numbered(tokens: Sequence[str]) -> dict[str, int]:
    """Each different token's id."""
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}
