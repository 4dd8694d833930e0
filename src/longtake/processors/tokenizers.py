"""Prompts to token ids: Llama's and CLIP's tokenizers over the `tokenizers` library, called as transformers' are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from tokenizers import (
    AddedToken,
    Encoding,
    Regex,
    Tokenizer,
    decoders,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers.models import BPE

from longtake.backend import ops
from longtake.config import read_json
from longtake.errors import JobError, ModelError
from longtake.weights.folder import TOKENIZER, find_model
from longtake.weights.hub import HubOptions

T = TypeVar("T", bound="PretrainedTokenizer")

SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")
# transformers writes 1e30 if a tokenizer knows no limit; nothing is padded to that.
UNLIMITED = 10**6

CLIP_PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Batch(dict[str, Any]):
    """Named arrays, one row for each text or picture; also read as attributes and unpacked with `**`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"The batch has no {name!r}; it has {', '.join(self)}.") from None

    def to(self, device: Any = None, dtype: Any = None) -> Batch:
        """The tensors on `device`; those of floating point in `dtype`."""
        moved = {}
        for name, value in self.items():
            value = value if device is None else value.to(device)
            moved[name] = (
                value.to(dtype) if dtype is not None and "float" in str(value.dtype).lower() else value
            )
        return Batch(moved)


def batch(arrays: dict[str, np.ndarray], return_tensors: str | None) -> Batch:
    """The arrays as they are (None, "np") or as the framework's tensors ("pt", "ms")."""
    if return_tensors not in (None, "np", "pt", "ms"):
        raise JobError(f'return_tensors is {return_tensors!r}; it can be None, "np", "pt" or "ms".')
    if return_tensors in (None, "np"):
        return Batch(arrays)
    return Batch({name: ops.from_numpy(array) for name, array in arrays.items()})


class PretrainedTokenizer:
    """A tokenizer with its special tokens, loaded from and saved to a folder in the published layout."""

    published_class: ClassVar[str]
    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, tokenizer: Tokenizer, **settings: Any) -> None:
        """`settings`: the entries of tokenizer_config.json, over the class's defaults; unknown ones are kept."""
        # The file may carry the padding and truncation of the call that it was last saved after.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer = tokenizer
        self.settings = {**self.defaults, **settings}
        self.model_max_length = min(int(self.settings.get("model_max_length") or UNLIMITED), UNLIMITED)
        self.padding_side: str = self.settings.get("padding_side") or "right"
        tokens = {name: _content(self.settings.get(name)) for name in SPECIAL_NAMES}
        self.bos_token, self.eos_token, self.unk_token, self.pad_token = tokens.values()
        present = [token for token in tokens.values() if token and tokenizer.token_to_id(token) is not None]
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in present])

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def vocab_size(self) -> int:
        """The number of ids, the added tokens included."""
        return len(self)

    @property
    def bos_token_id(self) -> int | None:
        """The id that a text begins with."""
        return self._id(self.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        """The id that a text ends with."""
        return self._id(self.eos_token)

    @property
    def pad_token_id(self) -> int | None:
        """The id that fills short rows."""
        return self._id(self.pad_token)

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        padding: bool | str = False,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool = True,
        return_length: bool = False,
        return_overflowing_tokens: bool = False,
        add_special_tokens: bool = True,
    ) -> Batch:
        """`input_ids` and `attention_mask`, int64 (B, L), of one text or several.

        `padding`: "max_length", "longest" (or True) or False; `truncation` cuts the text's end and keeps the special
        tokens that the tokenizer itself adds. Arrays are numpy's, or the framework's with `return_tensors="pt"`.
        Raises JobError if rows of different lengths are left without padding.
        """
        if return_overflowing_tokens:
            raise JobError(
                "This tokenizer does not return overflowing tokens; leave return_overflowing_tokens False."
            )
        texts = [text] if isinstance(text, str) else list(text)
        most = (max_length or self.model_max_length) if truncation else None
        rows = [self._encode(single, add_special_tokens, most).ids for single in texts]
        length = self._length(rows, padding, max_length)
        padded = np.full((len(rows), length), self._fill() if padding else 0, dtype=np.int64)
        mask = np.zeros_like(padded)
        for number, row in enumerate(rows):
            place = slice(length - len(row), length) if self.padding_side == "left" else slice(len(row))
            padded[number, place] = row
            mask[number, place] = 1
        arrays = {"input_ids": padded}
        if return_attention_mask:
            arrays["attention_mask"] = mask
        if return_length:
            arrays["length"] = np.full(len(rows), length, dtype=np.int64)
        return batch(arrays, return_tensors)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of one text."""
        return list(self._encode(text, add_special_tokens, None).ids)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """The text of one row of ids."""
        return self.tokenizer.decode([int(id_) for id_ in ids], skip_special_tokens=skip_special_tokens)

    def batch_decode(self, rows: Iterable[Iterable[int]], skip_special_tokens: bool = False) -> list[str]:
        """The texts of several rows of ids."""
        return [self.decode(row, skip_special_tokens) for row in rows]

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of one token."""
        return self.tokenizer.token_to_id(token)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer.json and what names its special tokens, as transformers reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(str(folder / "tokenizer.json"))
        _write_json(
            folder / "tokenizer_config.json", {**self.settings, "tokenizer_class": self.published_class}
        )
        tokens = {name: self.settings[name] for name in SPECIAL_NAMES if self.settings.get(name)}
        _write_json(folder / "special_tokens_map.json", tokens)

    def _encode(self, text: str, specials: bool, most: int | None) -> Encoding:
        # In two steps instead of by the tokenizer's own settings, which calls from other threads would share.
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        if most is not None:
            encoding.truncate(max(0, most - specials * self.tokenizer.num_special_tokens_to_add(False)))
        return self.tokenizer.post_process(encoding, None, specials)

    def _length(self, rows: list[list[int]], padding: bool | str, max_length: int | None) -> int:
        longest = max(map(len, rows), default=0)
        if padding == "max_length":
            room = max_length or self.model_max_length
            # As transformers: without any limit there is nothing to pad to.
            return longest if room >= UNLIMITED else max(longest, room)
        if padding not in (False, True, "longest", "do_not_pad"):
            raise JobError(f'padding is {padding!r}; it can be "max_length", "longest" or False.')
        if padding in (False, "do_not_pad") and any(len(row) != longest for row in rows):
            raise JobError(
                'The texts have different numbers of tokens; ask for padding="longest" or "max_length".'
            )
        return longest

    def _fill(self) -> int:
        found = self.pad_token_id if self.pad_token else self.eos_token_id
        if found is None:
            raise ModelError(
                f"The tokenizer has no token {self.pad_token or 'to pad with'!r} in its vocabulary."
            )
        return found

    def _id(self, token: str | None) -> int | None:
        return None if token is None else self.tokenizer.token_to_id(token)


class LlamaTokenizer(PretrainedTokenizer):
    """Llama 3's tokenizer, read from tokenizer.json as it is.

    Unlike the reference: transformers 5's LlamaTokenizerFast, which the published folder names, rebuilds such a file
    with SentencePiece's rules and loses the spaces; saved folders therefore name PreTrainedTokenizerFast.
    """

    published_class = "PreTrainedTokenizerFast"
    defaults: ClassVar[dict[str, Any]] = {"clean_up_tokenization_spaces": False}

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        subfolder: str | None = None,
        *,
        revision: str | None = None,
        cache_dir: Any = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        force_download: bool = False,
    ) -> LlamaTokenizer:
        """Read tokenizer.json and tokenizer_config.json; raises ModelError, naming the file that is at fault.

        `folder` may be a model's name on the hub, which is read as the last five say (`HubOptions`).
        """
        options = HubOptions(revision, cache_dir, local_files_only, token, force_download)
        place = _tokenizer_folder(folder, subfolder, options)
        return cls(_read_tokenizer(place / "tokenizer.json"), **_read_settings(place))


class CLIPTokenizer(PretrainedTokenizer):
    """CLIP's lower-casing byte-level BPE with an end-of-word mark."""

    published_class = "CLIPTokenizer"
    defaults: ClassVar[dict[str, Any]] = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 77,
    }

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        subfolder: str | None = None,
        *,
        revision: str | None = None,
        cache_dir: Any = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        force_download: bool = False,
    ) -> CLIPTokenizer:
        """Read tokenizer.json, or vocab.json with merges.txt if there is none.

        `folder` may be a model's name on the hub, which is read as the last five say (`HubOptions`).
        """
        options = HubOptions(revision, cache_dir, local_files_only, token, force_download)
        place = _tokenizer_folder(folder, subfolder, options)
        settings = _read_settings(place)
        if (place / "tokenizer.json").exists():
            return cls(_read_tokenizer(place / "tokenizer.json"), **settings)
        return cls.of(read_json(place / "vocab.json"), _read_merges(place / "merges.txt"), **settings)

    @classmethod
    def of(cls, vocabulary: dict[str, int], merges: list[tuple[str, str]], **settings: Any) -> CLIPTokenizer:
        """Build from token ids and the merges in their order; `settings` are those of tokenizer_config.json."""
        known = {**cls.defaults, **settings}
        bos, eos, unk = (str(_content(known[name])) for name in SPECIAL_NAMES[:3])
        missing = [token for token in (bos, eos) if token not in vocabulary]
        if missing:
            raise ModelError(f"CLIP's vocabulary lacks its special token {missing[0]!r}.")
        try:
            model = BPE(
                vocabulary, merges, unk_token=unk, continuing_subword_prefix="", end_of_word_suffix="</w>"
            )
        except Exception as error:  # the library raises bare Exceptions
            raise ModelError(f"CLIP's vocabulary and merges do not fit each other: {error}.") from error
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(CLIP_PIECES), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.RobertaProcessing(
            (eos, vocabulary[eos]), (bos, vocabulary[bos]), trim_offsets=False, add_prefix_space=False
        )
        return cls(tokenizer, **settings)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """The text of one row of ids."""
        return super().decode(ids, skip_special_tokens).replace("</w>", " ").strip()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write vocab.json and merges.txt beside tokenizer.json: the form in which CLIP is published."""
        super().save_pretrained(folder)
        self.tokenizer.model.save(str(folder))


def _content(token: Any) -> str | None:
    """A special token's text; configs hold it bare or as a dictionary."""
    return token["content"] if isinstance(token, dict) else token


def _tokenizer_folder(folder: str | Path, subfolder: str | None, hub: HubOptions) -> Path:
    part = replace(TOKENIZER, folder=subfolder or "")
    return find_model(folder, [part], hub=hub) / part.folder


def _read_settings(place: Path) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json; either may be absent."""
    files = [place / "special_tokens_map.json", place / "tokenizer_config.json"]
    settings: dict[str, Any] = {}
    for file in files:
        if file.exists():
            settings.update({key: value for key, value in read_json(file).items() if value is not None})
    return settings


def _read_tokenizer(file: Path) -> Tokenizer:
    if not file.is_file():
        raise ModelError(f"{file} does not exist; a tokenizer is read from that file.")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exceptions
        raise ModelError(f"{file} is no tokenizer: {error}.") from error


def _read_merges(file: Path) -> list[tuple[str, str]]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} cannot be read: {error}.") from error
    merges = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split()
        if len(parts) != 2:
            raise ModelError(f"{file} has {line!r} in line {number}, and two tokens are expected.")
        merges.append((parts[0], parts[1]))
    return merges


def _write_json(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
