"""Headers of every kind: whatever the safetensors package refuses is refused, soon and with a sentence."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save_file

from longtake.errors import ModelError
from longtake.weights.header import DTYPES, read_header, read_layout

ARRAYS = {
    "a": np.zeros((3, 4), np.float32),
    "b.half": np.zeros(5, np.float16),
    "d.scalar": np.array(7),
    "e.flags": np.array([True, False]),
}


def raw(path: Path, header: object, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def entry(begin: Any = 0, end: Any = 8, shape: Any = (2,), dtype: Any = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_header_says_what_safetensors_wrote(tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / "x.safetensors", {"who": "a test"})
    header = read_header(tmp_path / "x.safetensors")
    assert {name: (weight.dtype, weight.shape) for name, weight in header.items()} == {
        name: (str(array.dtype), array.shape) for name, array in ARRAYS.items()
    }
    assert read_layout(tmp_path / "x.safetensors")[1] == {"who": "a test"}


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        ({"a": entry()}, b"\0" * 7, "truncated"),
        ({"a": entry()}, b"\0" * 9, "corrupt"),
        (b"{not json", b"", "not JSON"),
        (b"\xff\xfe\x00", b"", "not JSON"),
        (b"", b"", "not JSON"),
        ([], b"", "not a JSON object"),
        ({"a": entry(shape=(3,))}, b"\0" * 8, "'a'"),
        ({"a": entry(dtype="F99")}, b"\0" * 8, "'a' as 'F99', which is not read"),
        ({"a": {"dtype": "F32"}}, b"\0" * 8, "'a'"),
        ({"a": 5}, b"", "'a'"),
        ({"a": entry(shape=(-2,))}, b"\0" * 8, "'a'"),
        ({"a": entry(), "b": entry(4, 12)}, b"\0" * 12, "'b'"),
        ({"a": entry(4, 12)}, b"\0" * 12, "'a'"),
        # The rest was taken once.
        ({"a": entry(0, 4, [True])}, b"\0" * 4, "'a'"),
        ({"a": entry(False, 8)}, b"\0" * 8, "'a'"),
        ({"a": entry(0, 4, "")}, b"\0" * 4, "'a'"),
        ({"a": entry(0, 0, [2**64, 0])}, b"", "'a'"),
        ({"a": entry(0, 0, [2**62, 2, 0])}, b"", "'a'"),
        ({"a": entry(0, 4, [1] * 65)}, b"\0" * 4, "'a'"),
        ({"a": entry(), "__metadata__": {"x": 1}}, b"\0" * 8, "'__metadata__'"),
        ({"a": entry(), "__metadata__": ["x"]}, b"\0" * 8, "'__metadata__'"),
        ({"a": entry(), "__metadata__": float("nan")}, b"\0" * 8, "not JSON"),
        ({"a": {**entry(), "more": float("inf")}}, b"\0" * 8, "not JSON"),
        (b'{"a": 1, "a": 2}', b"", "not JSON"),
        (b'{"__metadata__": {"\\ud800": ""}}', b"", "not JSON"),
        ({"n" * 10**6: 5}, b"", "'nnn"),
    ],
)
def test_damaged_headers_name_file_and_key(tmp_path: Path, header: object, body: bytes, message: str) -> None:
    file = raw(tmp_path / "model.safetensors", header, body)
    with pytest.raises(ModelError, match=message) as caught:
        read_header(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600 + len(str(file))


@pytest.mark.parametrize("length", [0, 4, 8, 30, -1])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, length: int) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"a": np.zeros(10, np.float32)}, file)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ModelError, match="truncated"):
        read_header(file)


def test_metadata_that_is_null_and_small_further_fields_are_taken_as_the_package_takes_them(
    tmp_path: Path,
) -> None:
    header = {"__metadata__": None, "é😀": {**entry(), "note": "x", "number": -1.5}}
    file = raw(tmp_path / "x.safetensors", header, b"\0" * 8)
    assert len(deserialize(file.read_bytes())) == 1
    assert list(read_header(file)) == ["é😀"]


@pytest.mark.parametrize(
    "shape",
    [
        # One shape of 100 numbers of 4,299 digits took 0.4 s, and 8.6 MB of them minutes: products grow as they go.
        ", ".join(["9" * 4299] * 2000),
        "9" * 8_000_000,
        ", ".join(["9"] * 2_000_000),
        "[" * 4_000_000,
    ],
    ids=["numbers", "number", "dimensions", "depth"],
)
def test_a_hostile_header_costs_no_more_than_its_length(tmp_path: Path, shape: str) -> None:
    text = f'{{"a": {{"dtype": "F32", "shape": [{shape}], "data_offsets": [0, 0]}}}}'
    file = raw(tmp_path / "x.safetensors", text.encode())
    begun = time.process_time()
    with pytest.raises(ModelError):
        read_header(file)
    # JSON of this length takes 0.1 s on a slow core; what was quadratic took minutes.
    assert time.process_time() - begun < 3


# Against the package itself -------------------------------------------------------------------------------------------

# Texts that stand for numbers, lists and words in all their wrong forms.
TOKENS = [
    "0", "1", "2", "-0", "-1", "01", "1.0", "1e0", "1e999", "true", "false", "null", "NaN", "Infinity", "-Infinity",
    "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "9" * 40, "9" * 400,
    '""', '"a"', '"F32"', '"F4"', '"C64"', '"\\ud800"', '"\\ud83d\\ude00"', '"\x01"', "[]", "[0]", "[0,4]", "[1,1]",
    "{}", '{"a":"b"}', '{"a":1}', "[" * 130 + "]" * 130, "\ufeff", "\0", " ", ",", ":", "{", "}", "[", "]", '"',
    '"a":', '"dtype":', '"shape":', '"data_offsets":', '"__metadata__":', '"x":1,', '"__metadata__":{},',
]  # fmt: skip


@st.composite
def headers(draw: st.DrawFn, changes: int = 3) -> tuple[bytes, int]:
    """A header that was whole, changed in a few places; and the bytes that its tensors took."""
    end, values = 0, dict[str, Any]()
    for name in draw(st.lists(st.sampled_from(["a", "b", "c.weight", ""]), unique=True, max_size=3)):
        code = draw(st.sampled_from(sorted(DTYPES)))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        size = int(np.prod(shape, dtype=np.int64)) * DTYPES[code][1]
        values[name] = {"dtype": code, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    if draw(st.booleans()):
        values["__metadata__"] = draw(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2))
    text = json.dumps(values, ensure_ascii=draw(st.booleans()))
    for _ in range(draw(st.integers(0, changes))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(0, 6)))
        text = text[:start] + draw(st.sampled_from(["", *TOKENS])) + text[stop:]
    return text.encode("utf-8"), end


VALUE = st.recursive(
    st.one_of(st.integers(-2, 2**65), st.floats(), st.booleans(), st.none(), st.sampled_from(["", "F32", "U8"])),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(VALUE, st.sampled_from(["U8", "F32"])),
        "shape": st.one_of(VALUE, st.just([4]), st.just([0])),
        "data_offsets": st.one_of(VALUE, st.just([0, 4]), st.just([0, 0])),
        "more": VALUE,
    },
)
STRANGE = st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), st.one_of(ENTRIES, VALUE), max_size=3)


def differ(file: Path, data: bytes) -> None:
    """What the package refuses must be refused."""
    file.write_bytes(data)
    try:
        tensors = {name: tuple(found["shape"]) for name, found in deserialize(data)}
    except SafetensorError:
        with pytest.raises(ModelError):
            read_layout(file)
        return
    try:
        header = read_header(file)
    except ModelError:
        return  # stricter: names that come twice, numbers that no file has, dtypes of less than a byte
    assert {name: weight.shape for name, weight in header.items()} == tensors


fuzzing = settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzzing
@given(made=headers(), surplus=st.integers(-1, 1))
@example(made=(b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', 0), surplus=0)
def test_what_safetensors_refuses_is_refused(tmp_path: Path, made: tuple[bytes, int], surplus: int) -> None:
    text, size = made
    differ(tmp_path / "x.safetensors", struct.pack("<Q", len(text)) + text + bytes(max(0, size + surplus)))


@fuzzing
@given(values=STRANGE, size=st.sampled_from([0, 4, 8]))
def test_what_safetensors_refuses_of_strange_values_is_refused(
    tmp_path: Path, values: dict[str, Any], size: int
) -> None:
    text = json.dumps(values).encode()
    differ(tmp_path / "x.safetensors", struct.pack("<Q", len(text)) + text + bytes(size))


@fuzzing
@given(made=headers(changes=0))
def test_a_header_that_is_whole_is_taken(tmp_path: Path, made: tuple[bytes, int]) -> None:
    """The tests above would hold for a reader that refuses everything."""
    text, size = made
    data = struct.pack("<Q", len(text)) + text + bytes(size)
    (tmp_path / "x.safetensors").write_bytes(data)
    assert len(read_header(tmp_path / "x.safetensors")) == len(deserialize(data))
