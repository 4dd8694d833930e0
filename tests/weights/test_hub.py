"""Models on the hub: a small hub on loopback, the real client, real HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import huggingface_hub._tree_cache
import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from longtake.backend import ops, runtime
from longtake.cli import main
from longtake.compat.framepack import HunyuanVideoFramepackPipeline
from longtake.compat.schedulers import FlowMatchEulerDiscreteScheduler
from longtake.errors import LongtakeWarning, ModelError
from longtake.models.clip import CLIPTextModel
from longtake.models.llama import LlamaModel
from longtake.models.siglip import SiglipVisionModel
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.named import places
from longtake.pipeline.encode import PROMPT_TEMPLATE
from longtake.pipeline.loading import load_networks
from longtake.pipeline.networks import COMPONENTS, Networks, save_networks
from longtake.processors.siglip import SiglipImageProcessor
from longtake.processors.tokenizers import CLIPTokenizer, LlamaTokenizer
from longtake.toy.tokenizers import train_tokenizers
from longtake.weights import hub, transfer
from longtake.weights.fingerprint import fingerprint
from longtake.weights.folder import describe, find_model, model_source
from longtake.weights.hub import HubOptions, Part
from longtake.weights.lora import find_file
from longtake.weights.transfer import Downloading

WHOLE, SIGLIP = "tiny/framepack", "tiny/redux"
STEM = "diffusion_pytorch_model"


# -------------------------------------------------------------------------------------------------- the hub


@dataclass
class Repo:
    """What the hub has under one name: the files of each commit, and which commit a branch or tag is at."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    gated: bool = False


@dataclass
class Hub:
    """A hub on loopback: models to serve, what was asked of it, and what is to go wrong."""

    repos: dict[str, Repo] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    ranges: list[tuple[str, str]] = field(default_factory=list)
    cuts: dict[str, list[int]] = field(default_factory=dict)  # by file: where each next download breaks off
    answer: int | None = None  # a status in place of every answer
    address: str = ""

    def add(self, name: str, folder: Path, revision: str = "main", gated: bool = False) -> str:
        """Publish a folder as the next commit of a branch."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        digest = hashlib.sha1(repr(sorted((n, hash_of(b)) for n, b in files.items())).encode())
        repo = self.repos.setdefault(name, Repo({}, {}, gated))
        repo.commits[digest.hexdigest()] = files
        repo.refs[revision] = digest.hexdigest()
        return digest.hexdigest()

    def fetched(self) -> set[str]:
        """The files whose content was asked for."""
        return {
            path.split("/", 5)[5] for method, path in self.asked if method == "GET" and "/resolve/" in path
        }

    def forget(self) -> None:
        self.asked.clear()
        self.ranges.clear()


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Answers(BaseHTTPRequestHandler):
    """The hub's own endpoints, as far as its client uses them here."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path))
        words = path.strip("/").split("/")
        api = words[:2] == ["api", "models"]
        name = "/".join(words[2:4] if api else words[:2])
        if self.hub.answer is not None:
            return self.say(self.hub.answer)
        if name not in self.hub.repos:
            return self.say(401, code="RepoNotFound")  # what the hub says without a token, so as not to tell
        repo = self.hub.repos[name]
        rest = words[4:] if api else words[2:]
        revision = rest[1] if len(rest) > 1 else "main"
        commit = revision if revision in repo.commits else repo.refs.get(revision)
        if commit is None:
            return self.say(404, code="RevisionNotFound")
        files = repo.commits[commit]
        if api and rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": hash_of(content)[:40]}
                for path, content in files.items()
            ]
            return self.say(200, json.dumps(entries).encode())
        if api:
            siblings = [{"rfilename": path} for path in files]
            return self.say(200, json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode())
        if repo.gated and self.headers.get("Authorization") != "Bearer hf_right":
            return self.say(401, code="GatedRepo")
        file = "/".join(rest[2:])
        if file not in files:
            return self.say(404, code="EntryNotFound")
        self.send_file(file, files[file], commit)

    def send_file(self, file: str, content: bytes, commit: str) -> None:
        start, end = 0, len(content)
        if asked := self.headers.get("Range"):
            self.hub.ranges.append((file, asked))
            first, last = asked.removeprefix("bytes=").split("-")
            start, end = int(first), min(end, int(last) + 1 if last else end)
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{hash_of(content)}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("X-Linked-ETag", f'"{hash_of(content)}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", str(end - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        cuts = self.hub.cuts.get(file)
        stop = cuts.pop(0) if cuts else end
        self.wfile.write(content[start:stop])
        if stop < end:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def say(self, status: int, content: bytes = b"", code: str | None = None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that runs for one test; the client knows no other."""
    hub_ = Hub()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Answers,), {"hub": hub_}))
    hub_.address = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", hub_.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield hub_
    httpd.shutdown()
    httpd.server_close()
    huggingface_hub.close_session()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits a second before each new try."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test, and no token of the machine's user."""
    place = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return place


# --------------------------------------------------------------------------------------------------- models


def tiny_transformer() -> HunyuanVideoFramepackTransformer3DModel:
    return HunyuanVideoFramepackTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
        image_proj_dim=16,
    )


def tiny_siglip() -> SiglipVisionModel:
    return SiglipVisionModel(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )


def decoys(folder: Path, stem: str) -> None:
    """What else lies in published folders, and is not read."""
    for name in (
        f"{stem}.bin",
        "flax_model.msgpack",
        f"{stem}.onnx",
        "README.md",
        f"{stem}.other.safetensors",
    ):
        (folder / name).write_bytes(b"not needed")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `whole`, `siglip` (two parts) and `transformer` (sharded, and a variant)."""
    place = tmp_path_factory.mktemp("published")
    tokenizer, tokenizer_2 = train_tokenizers(["a red ball"], PROMPT_TEMPLATE["template"], place / "words")
    networks = Networks(
        transformer=tiny_transformer(),
        vae=AutoencoderKLHunyuanVideo(
            latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
        ),
        text_encoder=LlamaModel(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=1,
        ),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModel(
            vocab_size=len(tokenizer_2),
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        ),
        tokenizer_2=tokenizer_2,
        image_encoder=tiny_siglip(),
        feature_extractor=SiglipImageProcessor(size={"height": 28, "width": 28}),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        settings={"width": 64, "height": 48},
    )
    save_networks(networks, place / "whole", "HunyuanVideoFramepackPipeline")
    decoys(place / "whole" / "vae", STEM)
    decoys(place / "whole" / "text_encoder", "model")
    (place / "whole" / "safety_checker").mkdir()
    (place / "whole" / "safety_checker" / "model.safetensors").write_bytes(b"not needed")
    networks.image_encoder.save_pretrained(place / "siglip" / "image_encoder")
    networks.feature_extractor.save_pretrained(place / "siglip" / "feature_extractor")
    decoys(place / "siglip" / "image_encoder", "model")
    networks.transformer.save_pretrained(place / "transformer", max_shard_size="20KB")
    half = networks.transformer.to(dtype=runtime.dtype("float16"))
    half.save_pretrained(place / "transformer", max_shard_size="10KB", variant="fp16")
    (place / "transformer" / f"{STEM}.bin").write_bytes(b"not needed")
    return place


def weights_of(network: Any) -> dict[str, np.ndarray]:
    return {name: ops.to_numpy(value) for name, value in runtime.named_weights(network).items()}


def same(one: Any, other: Any) -> bool:
    ones, others = weights_of(one), weights_of(other)
    return ones.keys() == others.keys() and all(np.array_equal(ones[name], others[name]) for name in ones)


def siglip_files() -> set[str]:
    return {"image_encoder/config.json", "image_encoder/model.safetensors"}


# -------------------------------------------------------------------------------- what is fetched, and once


def test_of_one_network_only_its_files_come_and_only_once(server: Hub, published: Path, cache: Path) -> None:
    server.add(SIGLIP, published / "siglip")
    first = SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder", dtype="float32")
    assert server.fetched() == siglip_files()
    assert same(first, SiglipVisionModel.from_pretrained(published / "siglip", subfolder="image_encoder"))
    assert (cache / "models--tiny--redux").is_dir()

    server.forget()
    SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")
    assert server.asked == [("GET", "/api/models/tiny/redux")]  # is it still the same commit?


@pytest.mark.parametrize(("variant", "mark"), [(None, ""), ("fp16", ".fp16")])
def test_of_shards_those_of_the_variant_come(
    server: Hub, published: Path, variant: str | None, mark: str
) -> None:
    server.add("tiny/packed", published / "transformer")
    HunyuanVideoFramepackTransformer3DModel.from_pretrained("tiny/packed", variant=variant)
    shards = {path.name for path in (published / "transformer").glob(f"{STEM}{mark}-0*.safetensors")}
    index = f"{STEM}.safetensors.index{mark}.json"
    assert len(shards) > 1 and server.fetched() == {"config.json", index, *shards}


def test_where_a_single_file_and_shards_lie_together_the_single_file_comes(
    server: Hub, published: Path, tmp_path: Path
) -> None:
    network = tiny_transformer()
    network.save_pretrained(tmp_path / "both", max_shard_size="20KB")
    shards = {path: path.read_bytes() for path in (tmp_path / "both").glob(f"{STEM}*")}
    network.save_pretrained(tmp_path / "both")
    for path, content in shards.items():
        path.write_bytes(content)
    server.add("tiny/both", tmp_path / "both")
    HunyuanVideoFramepackTransformer3DModel.from_pretrained("tiny/both")
    assert server.fetched() == {"config.json", f"{STEM}.safetensors"}


def test_of_a_whole_model_the_parts_that_are_given_do_not_come(server: Hub, published: Path) -> None:
    server.add(WHOLE, published / "whole")
    transformer = tiny_transformer()
    pipe = HunyuanVideoFramepackPipeline.from_pretrained(WHOLE, transformer=transformer)
    assert pipe.transformer is transformer and pipe.settings == {"width": 64, "height": 48}
    tokens = {"tokenizer.json", "tokenizer_config.json"}
    tokens |= {"special_tokens_map.json"} & {
        path.name for path in (published / "whole" / "tokenizer").iterdir()
    }
    assert server.fetched() == {
        "model_index.json",
        *(f"tokenizer/{name}" for name in tokens),
        *(f"tokenizer_2/{name}" for name in tokens),
        "scheduler/scheduler_config.json",
        "feature_extractor/preprocessor_config.json",
        *(f"{part}/config.json" for part in ("vae", "text_encoder", "text_encoder_2", "image_encoder")),
        f"vae/{STEM}.safetensors",
        *(f"{part}/model.safetensors" for part in ("text_encoder", "text_encoder_2", "image_encoder")),
    }

    server.forget()
    networks = load_networks(WHOLE)  # now the transformer is missing, and comes alone
    assert server.fetched() == {"transformer/config.json", f"transformer/{STEM}.safetensors"}
    local = load_networks(published / "whole")
    assert all(
        same(networks.components[n], local.components[n]) for n in ("vae", "text_encoder", "transformer")
    )


def test_a_whole_model_may_lie_in_a_subfolder(server: Hub, published: Path, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "toy").symlink_to(published / "whole")
    files = {
        f"toy/{p.relative_to(published / 'whole')}": p
        for p in (published / "whole").rglob("*")
        if p.is_file()
    }
    commit = "a" * 40
    server.repos["tiny/many"] = Repo(
        {commit: {n: p.read_bytes() for n, p in files.items()}}, {"main": commit}
    )
    networks = load_networks("tiny/many", subfolder="toy")
    assert set(networks.components) == set(COMPONENTS)
    assert "toy/safety_checker/model.safetensors" not in server.fetched()


def test_the_small_parts_load_by_their_names(server: Hub, published: Path) -> None:
    server.add(WHOLE, published / "whole")
    loaders = [
        (LlamaTokenizer, "tokenizer"),
        (CLIPTokenizer, "tokenizer_2"),
        (SiglipImageProcessor, "feature_extractor"),
        (FlowMatchEulerDiscreteScheduler, "scheduler"),
    ]
    for kind, part in loaders:
        server.forget()
        kind.from_pretrained(WHOLE, subfolder=part)
        assert server.fetched() and all(name.startswith(f"{part}/") for name in server.fetched())
        assert not any(
            name.endswith((".safetensors", "vocab.json", "merges.txt")) for name in server.fetched()
        )


def test_a_vocabulary_comes_where_there_is_no_tokenizer_file(
    server: Hub, published: Path, tmp_path: Path
) -> None:
    clip = CLIPTokenizer.from_pretrained(published / "whole", subfolder="tokenizer_2")
    clip.save_pretrained(tmp_path / "clip")
    (tmp_path / "clip" / "tokenizer.json").unlink()
    server.add("tiny/clip", tmp_path / "clip")
    again = CLIPTokenizer.from_pretrained("tiny/clip")
    assert {"vocab.json", "merges.txt"} <= server.fetched()
    assert again.encode("a red ball") == clip.encode("a red ball")


# --------------------------------------------------------------------------------------------- the options


def test_revisions(server: Hub, published: Path, tmp_path: Path) -> None:
    old = server.add(SIGLIP, published / "siglip", revision="v1")
    changed = tiny_siglip()
    changed.save_pretrained(tmp_path / "new" / "image_encoder")
    server.add(SIGLIP, tmp_path / "new", revision="main")
    before = SiglipVisionModel.from_pretrained(published / "siglip", subfolder="image_encoder")
    for revision, expected in (("v1", before), (None, changed), (old, before)):
        got = SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder", revision=revision)
        assert same(got, expected), revision
    server.forget()
    SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder", revision=old)
    assert server.asked == []  # a commit that the cache has needs no hub
    with pytest.raises(ModelError, match=r"'tiny/redux' on the hub has no revision 'v2'"):
        SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder", revision="v2")


def test_a_branch_that_moves_is_followed(server: Hub, published: Path, tmp_path: Path) -> None:
    server.add(SIGLIP, published / "siglip")
    SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")
    changed = tiny_siglip()
    changed.save_pretrained(tmp_path / "new" / "image_encoder")
    server.add(SIGLIP, tmp_path / "new")
    assert same(SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder"), changed)


def test_another_cache(server: Hub, published: Path, cache: Path, tmp_path: Path) -> None:
    server.add(SIGLIP, published / "siglip")
    for place in (tmp_path / "mine", str(tmp_path / "mine")):
        SiglipImageProcessor.from_pretrained(SIGLIP, "feature_extractor", cache_dir=place)
    assert (tmp_path / "mine" / "models--tiny--redux").is_dir() and not cache.exists()
    assert sum(method == "GET" and "/resolve/" in path for method, path in server.asked) == 1


def test_force_download_fetches_again(server: Hub, published: Path) -> None:
    server.add(SIGLIP, published / "siglip")
    load = {"subfolder": "image_encoder", "force_download": True}
    SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")
    server.forget()
    SiglipVisionModel.from_pretrained(SIGLIP, **load)
    assert server.fetched() == siglip_files()
    with pytest.raises(ModelError, match=r"force_download asks for 'tiny/redux' .* local_files_only is set"):
        SiglipVisionModel.from_pretrained(SIGLIP, **load, local_files_only=True)
    server.answer = 503
    with pytest.raises(ModelError, match=r"force_download asks .* answers with an error \(503\)"):
        SiglipVisionModel.from_pretrained(SIGLIP, **load)


def test_a_revision_of_a_folder_is_noted(published: Path) -> None:
    with pytest.warns(LongtakeWarning, match="revision='v1' has no effect"):
        SiglipImageProcessor.from_pretrained(published / "siglip", "feature_extractor", revision="v1")


# ------------------------------------------------------------------------------------- without the hub


@pytest.fixture
def loaded(server: Hub, published: Path) -> Hub:
    """A hub of which one network is in the cache; what is asked from now on is counted."""
    server.add(SIGLIP, published / "siglip")
    SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")
    server.forget()
    return server


def test_local_files_only(loaded: Hub) -> None:
    SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder", local_files_only=True)
    with pytest.raises(
        ModelError, match=r"without feature_extractor/preprocessor_config.json, and local_files_only"
    ):
        SiglipImageProcessor.from_pretrained(SIGLIP, "feature_extractor", local_files_only=True)
    with pytest.raises(ModelError, match=r"no model 'tiny/other'.* local_files_only is set, .* has none"):
        SiglipVisionModel.from_pretrained("tiny/other", local_files_only=True)
    with pytest.raises(ModelError, match=r"no model 'tiny/redux' at the revision 'v1'"):
        SiglipVisionModel.from_pretrained(SIGLIP, revision="v1", local_files_only=True)
    assert loaded.asked == []


def test_offline(loaded: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")
    with pytest.raises(ModelError, match=r"no model 'tiny/other'.* HF_HUB_OFFLINE is set"):
        SiglipVisionModel.from_pretrained("tiny/other")
    assert loaded.asked == []


def test_a_cache_that_another_program_filled_serves(loaded: Hub, cache: Path) -> None:
    for tree in (cache / "models--tiny--redux" / "trees").iterdir():
        tree.unlink()
    huggingface_hub._tree_cache._IN_MEMORY_TREE_CACHE.clear()
    SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder", local_files_only=True)
    with pytest.raises(ModelError, match=r"has no folder 'vae'; its folders: image_encoder"):
        AutoencoderKLHunyuanVideo.from_pretrained(SIGLIP, subfolder="vae", local_files_only=True)


def test_a_hub_that_cannot_be_reached(loaded: Hub, no_hub: None, cache: Path) -> None:
    SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")  # the cache serves
    with pytest.raises(ModelError) as caught:
        SiglipVisionModel.from_pretrained("tiny/other", subfolder="image_encoder")
    said = str(caught.value)
    assert said.startswith(
        "There is no model 'tiny/other': no folder has that name, the hub (http://127.0.0.1:"
    )
    assert "cannot be reached" in said and str(cache) in said and "\n" not in said and said.endswith(".")
    with pytest.raises(ModelError, match=r"without feature_extractor/.*cannot be reached"):
        SiglipImageProcessor.from_pretrained(SIGLIP, "feature_extractor")
    assert loaded.asked == []


def test_a_hub_that_is_ill(loaded: Hub) -> None:
    loaded.answer = 503
    SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")
    with pytest.raises(ModelError, match=r"no model 'tiny/other'.* answers with an error \(503\)"):
        SiglipVisionModel.from_pretrained("tiny/other")
    loaded.answer = 200  # a login page, say
    with pytest.raises(ModelError, match=r"no model 'tiny/other'.* does not answer as a hub does"):
        SiglipVisionModel.from_pretrained("tiny/other")


# ---------------------------------------------------------------------------------------- what it refuses


def test_models_that_are_not_there(server: Hub, published: Path) -> None:
    with pytest.raises(
        ModelError, match=r"no model 'tiny/none'.* none of that name that can be read without a"
    ):
        SiglipVisionModel.from_pretrained("tiny/none")
    with pytest.raises(ModelError, match=r"none of that name that can be read with this token"):
        SiglipVisionModel.from_pretrained("tiny/none", token="hf_some")
    with pytest.raises(ModelError, match=r"neither a folder, nor 'embedded', nor a name on the hub"):
        SiglipVisionModel.from_pretrained("./tiny/none")
    with pytest.raises(ModelError, match=r"neither a folder, nor 'embedded', nor a name on the hub"):
        SiglipVisionModel.from_pretrained(Path("tiny/none"))
    assert len(server.asked) == 2


def test_gated_models(server: Hub, published: Path) -> None:
    server.add(SIGLIP, published / "siglip", gated=True)
    with pytest.raises(
        ModelError, match=r"'tiny/redux' cannot be read: .* guards it: ask for access at .*token="
    ):
        SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")
    with pytest.raises(ModelError, match=r"token=True asks for the saved token, and there is none"):
        SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder", token=True)
    SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder", token="hf_right")


@pytest.mark.parametrize(
    ("kind", "asked", "words"),
    [
        (
            SiglipVisionModel,
            {"subfolder": "vision"},
            ("no folder 'vision'", "feature_extractor, image_encoder"),
        ),
        (
            SiglipVisionModel,
            {"subfolder": "image_encoder", "variant": "fp16"},
            ("'tiny/redux/image_encoder'", "model.fp16.safetensors", "its variants are None, 'other'"),
        ),
        (
            SiglipVisionModel,
            {"subfolder": "feature_extractor"},
            ("no config.json", "preprocessor_config.json"),
        ),
        (SiglipVisionModel, {}, ("'tiny/redux'", "no config.json", "it holds nothing")),
        (load_networks, {}, ("'tiny/redux'", "no model_index.json")),
    ],
)
def test_parts_that_are_not_there(
    server: Hub, published: Path, kind: Any, asked: dict[str, str], words: tuple[str, ...]
) -> None:
    server.add(SIGLIP, published / "siglip")
    with pytest.raises(ModelError) as caught:
        getattr(kind, "from_pretrained", kind)(SIGLIP, **asked)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not any(name.endswith(".safetensors") for name in server.fetched())


def test_a_network_is_no_whole_model_and_a_whole_model_no_network(server: Hub, published: Path) -> None:
    server.add("tiny/packed", published / "transformer")
    server.add(WHOLE, published / "whole")
    with pytest.raises(ModelError, match=r"'tiny/packed' on the hub holds one network and no whole model"):
        load_networks("tiny/packed")
    with pytest.raises(ModelError, match=r"holds a whole model; choose one part with subfolder=: .*vae"):
        AutoencoderKLHunyuanVideo.from_pretrained(WHOLE)


def test_what_a_config_refuses_is_refused_before_weights_come(
    server: Hub, published: Path, tmp_path: Path
) -> None:
    for file in (published / "whole").rglob("*"):
        if file.is_file():
            copy = tmp_path / "whole" / file.relative_to(published / "whole")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    config = tmp_path / "whole" / "transformer" / "config.json"
    foreign = json.loads(config.read_text()) | {"_class_name": "WanTransformer3DModel"}
    config.write_text(json.dumps(foreign))
    server.add(WHOLE, tmp_path / "whole")
    for load in (
        lambda: load_networks(WHOLE),
        lambda: HunyuanVideoFramepackTransformer3DModel.from_pretrained(WHOLE, subfolder="transformer"),
    ):
        with pytest.raises(ModelError, match=r"config of WanTransformer3DModel"):
            load()
    index = tmp_path / "whole" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"image_encoder": [None, None]}))
    server.add(WHOLE, tmp_path / "whole")
    with pytest.raises(ModelError, match=r"'tiny/framepack' on the hub names no 'image_encoder'; load it"):
        load_networks(WHOLE)
    assert not any(name.endswith(".safetensors") for name in server.fetched())


# ------------------------------------------------------------------------------- downloads that break off


def test_a_download_that_is_cut_off_goes_on_where_it_broke_off(
    server: Hub, published: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # it keeps whole chunks, of 10 MiB else
    server.add(SIGLIP, published / "siglip")
    file = "image_encoder/model.safetensors"
    half = (published / "siglip" / file).stat().st_size // 2
    server.cuts[file] = [half]
    network = SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")
    assert server.ranges == [(file, f"bytes={half // 1000 * 1000}-")]
    assert same(network, SiglipVisionModel.from_pretrained(published / "siglip", subfolder="image_encoder"))


def test_a_download_that_breaks_off_for_good_keeps_what_is_complete(
    server: Hub, published: Path, cache: Path, quick: None
) -> None:
    server.add("tiny/packed", published / "transformer")
    shards = sorted(path.name for path in (published / "transformer").glob(f"{STEM}-0*.safetensors"))
    server.cuts[shards[-1]] = [40] * 7  # the client gives up after five tries without a new byte
    with pytest.raises(ModelError) as caught:
        HunyuanVideoFramepackTransformer3DModel.from_pretrained("tiny/packed")
    said = str(caught.value)
    assert said.startswith("The download of 'tiny/packed' was cut off (") and "ask again to go on" in said
    assert str(cache) in said and "\n" not in said
    assert not list(cache.rglob("*.incomplete"))

    server.forget()
    server.cuts.clear()
    HunyuanVideoFramepackTransformer3DModel.from_pretrained("tiny/packed")
    assert shards[-1] in server.fetched() and shards[0] not in server.fetched()


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of 3 kB are large ones, and come in pieces of 1 kB."""
    monkeypatch.setattr(hub, "LARGE", 3000)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)


SHARD = "image_encoder/model.safetensors"


def broken_off(server: Hub, published: Path, at: int) -> None:
    """A download that breaks off for good, at this byte."""
    server.add(SIGLIP, published / "siglip")
    server.cuts[SHARD] = [at, *[0] * 8]  # and then not a byte more in all the client's tries
    with pytest.raises(ModelError, match="was cut off"):
        SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")
    server.forget()
    server.cuts.clear()


@pytest.mark.parametrize("told", [True, False])
def test_another_load_goes_on_where_the_last_one_broke_off(
    server: Hub, published: Path, cache: Path, quick: None, small_is_large: None, told: bool
) -> None:
    broken_off(server, published, 2500)
    seen: list[Downloading] = []
    options = HubOptions(told=seen.append if told else None)
    size = (published / "siglip" / SHARD).stat().st_size
    place = model_source(SIGLIP, options).fetch([Part("image_encoder", ("config.json",), "model")])
    assert server.ranges == [(SHARD, "bytes=2000-")]  # whole pieces were kept
    assert (place / SHARD).read_bytes() == (published / "siglip" / SHARD).read_bytes()
    assert not (cache / "models--tiny--redux" / hub.PARTS).exists()
    if told:
        last = seen[-1]
        assert (last.name, last.begun, last.done, last.total) == (SIGLIP, 2000, size, size)
        assert last.files == 1 and last.rate is not None and last.rate > 0
    same_as = SiglipVisionModel.from_pretrained(published / "siglip", subfolder="image_encoder")
    assert same(SiglipVisionModel.from_pretrained(place, subfolder="image_encoder"), same_as)


def test_what_was_taken_up_wrongly_is_fetched_anew(
    server: Hub, published: Path, cache: Path, quick: None, small_is_large: None
) -> None:
    broken_off(server, published, 2500)
    (part,) = (cache / "models--tiny--redux" / hub.PARTS).iterdir()
    part.write_bytes(b"x" * 2000)
    with pytest.raises(
        ModelError, match=r"model.safetensors of 'tiny/redux' is not what the hub has, after its"
    ):
        SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")
    read = SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")
    assert same(read, SiglipVisionModel.from_pretrained(published / "siglip", subfolder="image_encoder"))


def test_if_one_large_file_fails_the_others_stop_and_keep_what_they_have(
    server: Hub, published: Path, cache: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "LARGE", 3000)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
    server.add("tiny/packed", published / "transformer")
    shards = sorted(path.name for path in (published / "transformer").glob(f"{STEM}-0*.safetensors"))
    server.cuts[shards[0]] = [1100, *[0] * 8]
    with pytest.raises(ModelError, match="was cut off"):
        HunyuanVideoFramepackTransformer3DModel.from_pretrained("tiny/packed")
    parts = list((cache / "models--tiny--packed" / hub.PARTS).iterdir())
    assert 1000 in {part.stat().st_size for part in parts}
    server.cuts.clear()
    read = HunyuanVideoFramepackTransformer3DModel.from_pretrained("tiny/packed")
    assert same(read, HunyuanVideoFramepackTransformer3DModel.from_pretrained(published / "transformer"))


def test_the_free_disk_is_asked_before_the_first_byte(
    server: Hub, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(SIGLIP, published / "siglip")
    free = transfer.SPARE + 2000
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    with pytest.raises(ModelError) as told:
        SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")
    said = str(told.value)
    assert (
        "'tiny/redux' needs 268.4 MB on the disk" in said or "'tiny/redux' needs 268.5 MB on the disk" in said
    )
    assert "where 268.4 MB are free" in said and "\n" not in said and "HF_HUB_CACHE" in said
    assert SHARD not in server.fetched()
    free += 10**6
    SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")


def test_the_program_tells_a_download(
    server: Hub, published: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    server.add(WHOLE, published / "whole")
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.png")
    words = ["generate", str(tmp_path / "a.png"), "a ball", "-o", str(tmp_path / "a.mp4"), "--json"]
    assert main([*words, "--frames", "5", "--steps", "1", "--window", "2", "--model", WHOLE]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = [event for event in events if event["event"] == "downloading"]
    last = told[-1]
    assert last["model"] == WHOLE and last["bytes"] == last["total"] > 10_000 and last["files"] > 3
    assert {"rate", "seconds_left"} <= last.keys()
    assert events.index(last) < [event["event"] for event in events].index("loaded")


def test_the_names_of_the_published_models_lead_to_their_repositories(
    server: Hub, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, parts = places("framepack-f1")
    server.add(base, published / "whole")
    server.add(parts["transformer"], published / "transformer")
    server.add(parts["image_encoder"], published / "siglip")
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.png")
    video, job = str(tmp_path / "a.mp4"), str(tmp_path / "job")
    words = ["generate", str(tmp_path / "a.png"), "a ball", "-o", video, "--job", job, "--size", "64x48"]
    short = ["--frames", "5", "--steps", "1", "--window", "2"]
    assert main([*words, *short, "--model", "framepack-f1"]) == 0
    said = capsys.readouterr()
    assert "note:" not in said.err.replace("note: MindSpore", "")
    assert not any("transformer/" in name for name in server.fetched())  # the base's own stays there
    written = json.loads((tmp_path / "job" / "job.json").read_text())["job"]
    assert (written["model"], written["sampling"], written["steps"]) == (base, "vanilla", 1)
    assert written["parts"] == parts and written["guidance"] == 10.0
    assert main(["extend", job, "--frames", "8"]) == 0
    assert main(["info", "framepack-f1"]) == 0
    told = capsys.readouterr().out
    assert "framepack-f1: HunyuanVideoFramepackPipeline" in told and parts["transformer"] in told
    assert main(["info", "framepack-f1", "--vram", "3", "--memory", "8", "--no-probe"]) == 0
    assert "64 x 48 pixels, 25 steps, bfloat16" in capsys.readouterr().out

    wrong = [*words[:-4], *words[-2:], *short, "--model", "framepack-f1", "--sampling", "inverted"]
    assert main(wrong) == 0
    assert (
        capsys.readouterr().err.count("This model was trained for vanilla sampling, and inverted was asked")
        == 1
    )

    pipe = HunyuanVideoFramepackPipeline.from_pretrained("framepack-f1", dtype="float32")
    assert pipe.settings["sampling"] == "vanilla"
    assert same(
        pipe.transformer, HunyuanVideoFramepackTransformer3DModel.from_pretrained(published / "transformer")
    )


def test_a_part_is_one_file_of_a_repository(
    server: Hub, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = tiny_siglip_for_files()
    network.save_pretrained(tmp_path / "files" / "clip_vision")
    server.add("who/files", tmp_path / "files")
    server.add(WHOLE, published / "whole")
    name = "who/files/clip_vision/model.safetensors"
    facts = describe(name)
    assert server.fetched() <= {"clip_vision/model.safetensors"} and facts["repository"] == "who/files"
    assert all(asked == "bytes=0-100000" for _, asked in server.ranges)  # its header alone
    assert facts["parts"]["model"]["class"] == "SiglipVisionModel"
    networks = load_networks(WHOLE, "float32", parts={"image_encoder": name})
    assert same(networks.image_encoder, network)
    assert fingerprint(WHOLE, {"image_encoder": name}) != fingerprint(WHOLE)
    assert main(["info", WHOLE, "--part", f"image_encoder={name}"]) == 0
    assert name in capsys.readouterr().out
    with pytest.raises(ModelError, match=r"has no gone.safetensors; it holds .*model.safetensors"):
        load_networks(WHOLE, parts={"image_encoder": "who/files/clip_vision/gone.safetensors"})
    with pytest.raises(
        ModelError, match=r"is one file, which is a network's weights; tokenizer is read from"
    ):
        load_networks(WHOLE, parts={"tokenizer": name})


def tiny_siglip_for_files() -> SiglipVisionModel:
    """One whose config a file alone tells: heads of 72."""
    fields = {"hidden_size": 72, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    return SiglipVisionModel(**fields, image_size=28, patch_size=14)


def test_a_full_disk(server: Hub, published: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def full(*words: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    server.add(SIGLIP, published / "siglip")
    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(ModelError, match=rf"The disk is full: {cache} has no room for 'tiny/redux'"):
        SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")


def test_a_cache_that_cannot_be_written(server: Hub, published: Path, cache: Path) -> None:
    server.add(SIGLIP, published / "siglip")
    cache.write_text("a file, where a folder should be")
    with pytest.raises(ModelError, match="cannot be written"):
        SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder")


# ------------------------------------------------------------------------------ names, and the command line


@pytest.mark.parametrize(
    ("name", "yes"),
    [
        ("lllyasviel/FramePackI2V_HY", True),
        ("a/b", True),
        ("a.b/c-d_e.f", True),
        ("a", False),
        ("a/b/c", False),
        ("./a", False),
        ("../a", False),
        ("~/a", False),
        ("/a/b", False),
        ("a/b/", False),
        ("a/-b", False),
        ("a/b--c", False),
        ("a/b..c", False),
        ("a\\b", False),
        ("a b/c", False),
        ("", False),
    ],
)
def test_names_that_look_like_a_repository(name: str, yes: bool) -> None:
    assert hub.is_repository(name) is yes


def test_a_folder_goes_before_the_hub(
    server: Hub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "redux").symlink_to(published / "siglip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SiglipVisionModel.from_pretrained(SIGLIP, subfolder="image_encoder", local_files_only=True)
    assert server.asked == []


def test_any_file_can_be_asked_for(server: Hub, published: Path) -> None:
    server.add("tiny/packed", published / "transformer")
    part = Part(files=("config.json",))
    assert (find_model("tiny/packed", [part]) / "config.json").is_file()
    source = model_source("tiny/packed", HubOptions(revision="main"))
    assert source.fetch([part]).name == server.repos["tiny/packed"].refs["main"]


def test_info_fetches_no_weights(server: Hub, published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.add(WHOLE, published / "whole")
    server.add("tiny/packed", published / "transformer")
    ours, local = describe(WHOLE), describe(published / "whole")
    for part in local["parts"]:
        told = {key: value for key, value in ours["parts"][part].items() if key != "bytes"}
        assert told == {key: value for key, value in local["parts"][part].items() if key != "bytes"}
    assert (ours["repository"], ours["revision"]) == (WHOLE, server.repos[WHOLE].refs["main"])
    assert describe("tiny/packed")["parameters"] == describe(published / "transformer")["parameters"]
    assert all(asked == "bytes=0-100000" for _, asked in server.ranges)  # the client reads headers by ranges
    assert not list(Path(ours["folder"]).rglob("*.safetensors"))
    server.forget()
    with pytest.raises(ModelError, match=r"without .*\.safetensors, and local_files_only is set"):
        describe(WHOLE, HubOptions(local_files_only=True))
    assert server.asked == []

    assert main(["info", WHOLE]) == 0
    assert capsys.readouterr().out.startswith("tiny/framepack: HunyuanVideoFramepackPipeline\n")
    assert main(["info", "tiny/none"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("longtake: There is no model 'tiny/none'") and said.count("\n") == 1


def test_the_program_reads_models_of_the_hub_and_of_its_cache(
    server: Hub, published: Path, cache: Path, tmp_path: Path
) -> None:
    server.add(WHOLE, published / "whole")
    load_networks(WHOLE)
    settings = {"HF_ENDPOINT": server.address, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-m", "longtake", *words]
        return subprocess.run(
            call, capture_output=True, text=True, timeout=120, env=os.environ | settings, cwd=tmp_path
        )

    server.forget()
    done = run("info", WHOLE)
    assert done.returncode == 0 and done.stdout.startswith("tiny/framepack: Hunyuan") and not done.stderr
    refused = run("generate", "a.png", "It moves.", "--model", "tiny/none")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert server.asked == []


def test_a_video_by_a_model_of_the_hub(
    server: Hub, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.add(WHOLE, published / "whole")
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.png")
    words = ["--frames", "5", "--steps", "1", "--window", "2", "--model", WHOLE]
    made = main(["generate", str(tmp_path / "a.png"), "a red ball", "-o", str(tmp_path / "a.mp4"), *words])
    assert made == 0, capsys.readouterr().err
    assert (tmp_path / "a.mp4").stat().st_size > 0


def test_the_client_is_imported_where_it_is_needed() -> None:
    code = (
        "import sys; import longtake; from longtake.cli import main; main(['--help']);"
        "from longtake.weights.folder import describe; describe('embedded');"
        "assert 'huggingface_hub' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_of_loras_the_one_that_is_asked_for_comes(server: Hub, tmp_path: Path) -> None:
    for name in ("one.safetensors", "two.safetensors", "sub/three.safetensors"):
        file = tmp_path / "loras" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    server.add("who/loras", tmp_path / "loras")
    with pytest.raises(
        ModelError, match=r"'who/loras' on the hub has no .*one.safetensors, two.safetensors: choose"
    ):
        find_file("who/loras")
    assert not server.fetched()
    assert find_file("who/loras", "two.safetensors").read_bytes() == b"two.safetensors"
    assert server.fetched() == {"two.safetensors"}
    assert find_file("who/loras", subfolder="sub").read_bytes() == b"sub/three.safetensors"
    assert find_file("who/loras/sub/three.safetensors").name == "three.safetensors"
    assert find_file("who/loras/one.safetensors", hub=HubOptions(revision="main")).name == "one.safetensors"
    with pytest.raises(ModelError, match=r"other.safetensors; its safetensors files: one.safetensors"):
        find_file("who/loras/other.safetensors")
    with pytest.raises(ModelError, match="nobody/loras"):
        find_file("nobody/loras")
