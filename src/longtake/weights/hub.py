"""Models on the Hugging Face hub: of a repository, the files that are needed, in the hub's own cache.

The only user of huggingface_hub, which talks, caches and takes up what was cut off; it is imported when it is first
needed. If the hub does not answer, the cache serves, as it does for huggingface_hub itself.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from longtake import disk
from longtake.config import read_json
from longtake.errors import ModelError
from longtake.weights import files
from longtake.weights.header import DTYPES, Weight, read_header
from longtake.weights.transfer import Meter, Told, check_room, sha256_of

# What huggingface_hub takes for a repository: two words, neither of which begins or ends in a dot or a dash.
REPOSITORY = re.compile(r"(?!.*(?:--|\.\.))\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
LARGE = 2**26
"""Bytes of a file whose download goes on where another process broke it off."""
AT_ONCE = 4
"""Large files that are fetched side by side."""
PARTS = "longtake-parts"
"""The folder of unfinished files, beside the cache's own folders of a repository."""


@dataclass(frozen=True)
class HubOptions:
    """The options of reading a repository, by the field's names.

    `revision` is a branch, a tag or a commit (None: the main branch); `cache_dir` stands in for the hub's cache;
    `local_files_only` asks nothing of the hub; `token` is a token, True for the saved one or False for none;
    `force_download` fetches the files again that the cache has. `told` is called with each `Downloading` on the way.
    """

    revision: str | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    token: str | bool | None = None
    force_download: bool = False
    told: Told | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Part:
    """The files to read of one folder: those of `files` that are there, and the weights that begin with `stem`.

    If the first of `files` is missing, those in `instead` are read too.
    """

    folder: str = ""
    files: tuple[str, ...] = ()
    stem: str | None = None
    instead: tuple[str, ...] = ()


@dataclass(frozen=True)
class Repository:
    """A repository at one commit, and what it holds; `offline` says why only the cache can serve it, if so."""

    name: str
    options: HubOptions
    commit: str
    holds: frozenset[str]
    offline: str | None = None

    def fetch(self, parts: Iterable[Part], variant: str | None = None) -> Path:
        """The folder in which the files of `parts`, and none that are not needed, now lie.

        Raises ModelError for a part that the repository does not have, or if the hub does not give it.
        """
        parts = list(parts)
        root = self._take([file for part in parts for file in self._small_files(part, variant)])
        return self._take(
            [file for part in parts if part.stem for file in self._weights(root, part, variant)]
        )

    def has_folder(self, folder: str) -> bool:
        """Tell if there is a folder of this name in it."""
        return any(name.startswith(f"{folder}/") for name in self.holds)

    def headers(self, folder: str, stem: str, variant: str | None) -> dict[str, Weight]:
        """The weights of one folder by name, as `files.read_weights` tells them, without fetching the weights."""
        part = Part(folder, stem=stem)
        root = self._take(self._small_files(part, variant))
        weights = self._weights(root, part, variant)
        if self.offline is not None:
            self._take(weights)  # raises if one is not in the cache
        found: dict[str, Weight] = {}
        for file in weights:
            found |= read_header(root / file) if (root / file).is_file() else self._header(file)
        return found

    def file_headers(self, folder: str, name: str) -> dict[str, Weight]:
        """The weights of one safetensors file, without fetching them."""
        file = _join(folder, name)
        if file not in self.holds:
            raise ModelError(self._no_part(Part(folder, (name,))))
        if self.offline is not None:
            self._take([file])  # raises if it is not in the cache
        if not name.endswith(".safetensors"):
            raise ModelError(
                f"The header of {_join(self.name, file)!r} on the hub is not read from afar; fetch it first."
            )
        return read_header(self.folder / file) if (self.folder / file).is_file() else self._header(file)

    def variants(self, folder: str, stem: str) -> list[str | None]:
        """The variants of the weights that one folder has; None is the plain one."""
        return files.variants_among(self._names_in(folder), stem)

    @property
    def folder(self) -> Path:
        """The cache's folder for the files of this commit."""
        return _cache(self.options) / f"models--{self.name.replace('/', '--')}" / "snapshots" / self.commit

    def _small_files(self, part: Part, variant: str | None) -> list[str]:
        there = self._names_in(part.folder)
        wanted = list(part.files)
        if part.files and part.files[0] not in there:
            wanted += part.instead
        found = [name for name in wanted if name in there]
        if wanted and not found:
            raise ModelError(self._no_part(part))
        if part.stem:
            first = self._first_file(part, variant)
            found += [first] if first.endswith(".json") else []
        return [_join(part.folder, name) for name in found]

    def _weights(self, root: Path, part: Part, variant: str | None) -> list[str]:
        """The files of the weights; the index of shards lies under `root` already."""
        assert part.stem
        first = self._first_file(part, variant)
        if not first.endswith(".json"):
            return [_join(part.folder, first)]
        named = read_json(root / part.folder / first).get("weight_map")
        shards = (
            {name for name in named.values() if isinstance(name, str)} if isinstance(named, dict) else set()
        )
        # A wrong name in the index is an error for whoever reads the index; here it is only not asked for.
        return sorted(_join(part.folder, shard) for shard in shards & self._names_in(part.folder))

    def _first_file(self, part: Part, variant: str | None) -> str:
        where = f"{_join(self.name, part.folder)!r} on the hub"
        return files.weights_among(self._names_in(part.folder), part.stem or "", variant, where)

    def _names_in(self, folder: str) -> set[str]:
        place = PurePosixPath(folder)
        return {path.name for path in map(PurePosixPath, self.holds) if path.parent == place}

    def _no_part(self, part: Part) -> str:
        folders = sorted({name.split("/")[0] for name in self.holds if "/" in name})
        there = sorted(self._names_in(part.folder))
        if part.folder and not there:
            others = ", ".join(folders) or "none"
            return f"{self.name!r} on the hub has no folder {part.folder!r}; its folders: {others}."
        where = _join(self.name, part.folder)
        if "model_index.json" in part.files and "config.json" in there:
            return (
                f"{where!r} on the hub holds one network and no whole model; read it by its class's from_pretrained "
                "and pass it beside a whole model's name."
            )
        if "model_index.json" in there:
            return f"{where!r} on the hub holds a whole model; choose one part with subfolder=: {', '.join(folders)}."
        wanted = " or ".join(part.files)
        return f"{where!r} on the hub has no {wanted}; it holds {', '.join(there) or 'nothing'}."

    def _take(self, wanted: Sequence[str]) -> Path:
        """The snapshot's folder with these files in it."""
        missing = [name for name in wanted if not (self.folder / name).is_file()]
        if self.offline is not None:
            if missing:
                others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
                raise ModelError(
                    f"The cache ({_cache(self.options)}) has {self.name!r} without {missing[0]}{others}, "
                    f"and {self.offline}."
                )
            return self.folder
        if wanted and (missing or self.options.force_download or not self._is_current()):
            with _told(self.name, self.options):
                # By the revision's name first, so that the cache notes its commit; by the commit if it has moved.
                if self._download(wanted, self.options.revision) != self.folder:
                    self._download(wanted, self.commit)
        return self.folder

    def _is_current(self) -> bool:
        """Tell if the cache takes this commit for the revision, so that it serves the same files without the hub."""
        revision = self.options.revision or "main"
        ref = self.folder.parents[1] / "refs" / revision
        return revision == self.commit or (ref.is_file() and ref.read_text().strip() == self.commit)

    def _download(self, wanted: Sequence[str], revision: str | None) -> Path:
        """Fetch files that are missing, if the disk has room for them; large ones go on where they broke off."""
        sizes = self._missing(wanted)
        meter = Meter(self.name, sizes, self.options.told)
        large = {} if self.options.force_download else {n: s for n, s in sizes.items() if s >= LARGE}
        begun = {name: self._part(name) for name in large}
        check_room(self.name, self.folder, sizes, sum(size_of(part) for part in begun.values()))
        blobs = self._fetch_all(large, meter)
        if blobs:
            with suppress(OSError):  # not empty: another process fetches other files
                (self.folder.parents[1] / PARTS).rmdir()
        place = Path(self._snapshot(wanted, revision, tqdm_class=_bars(meter)))
        for name, blob in blobs.items():
            if blob is not None and (place / name).exists() and not (place / name).is_symlink():
                blob.unlink(missing_ok=True)  # where there are no links the client has made a copy
        if sizes:
            meter.end()
        return place

    def _fetch_all(self, names: Iterable[str], meter: Meter) -> dict[str, Path | None]:
        """Large files, some side by side; if one fails, or the user has enough, the others stop too."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            running = {name: pool.submit(self._fetch_large, name, meter) for name in names}
            try:
                wait(running.values(), return_when=FIRST_EXCEPTION)
                failed = next((each for each in running.values() if each.done() and each.exception()), None)
                return {name: (failed or each).result() for name, each in running.items()}
            except BaseException:
                meter.stop()
                pool.shutdown(cancel_futures=True)
                raise

    def _missing(self, wanted: Sequence[str]) -> dict[str, int]:
        """The sizes of the files that the cache does not have, as the hub tells them before the first byte comes."""
        silent = Meter(self.name, {}, None).bars()
        infos = self._snapshot(wanted, self.commit, dry_run=True, tqdm_class=silent)
        return {info.filename: info.file_size or 0 for info in infos if info.will_download}

    def _snapshot(self, wanted: Sequence[str], revision: str | None, **options: Any) -> Any:
        from huggingface_hub import snapshot_download

        return snapshot_download(
            self.name,
            revision=revision,
            cache_dir=self.options.cache_dir,
            token=self.options.token,
            force_download=self.options.force_download,
            endpoint=_endpoint(),
            allow_patterns=[glob.escape(name) for name in wanted],
            **options,
        )

    def _part(self, name: str) -> Path:
        """The part of a large file that is here already, or will be."""
        digest = hashlib.sha256(f"{self.commit}/{name}".encode()).hexdigest()[:32]
        return self.folder.parents[1] / PARTS / digest

    def _fetch_large(self, name: str, meter: Meter) -> Path | None:
        """Bring a file into the cache by a part that outlives this process; the client finds it there.

        Unlike the client's own downloads, which begin anew in each process (huggingface_hub from version 2 on).
        """
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(self.name, name, revision=self.commit, endpoint=_endpoint())
        facts = get_hf_file_metadata(url, token=self.options.token, endpoint=_endpoint())
        etag, size = facts.etag or "", facts.size
        if not size or facts.commit_hash != self.commit or not re.fullmatch(r"[\w-]+", etag):
            return None  # what becomes of such an answer is the client's own matter
        repository, part = self.folder.parents[1], self._part(name)
        blob = repository / "blobs" / etag
        locks = disk.make_folder(repository.parent / ".locks" / repository.name)
        for folder in (part.parent, blob.parent):
            disk.make_folder(folder)
        try:
            lock = disk.lock(locks / f"{etag}.lock")  # the client's own
        except BlockingIOError:
            raise ModelError(
                f"Another process fetches {name} of {self.name!r} at this moment; wait for it, and ask again."
            ) from None
        try:
            if size_of(part) > size:
                part.unlink()
            begun = size_of(part)
            meter.skip(begun)
            with part.open("ab") as opened:
                http_get(
                    url, opened, resume_size=begun, headers=build_hf_headers(token=self.options.token),
                    expected_size=size, displayed_filename=name, tqdm_class=_bars(meter),
                )  # fmt: skip
            if begun and len(etag) == 64 and sha256_of(part) != etag:
                part.unlink()
                raise ModelError(
                    f"{name} of {self.name!r} is not what the hub has, after its download was taken up where it broke "
                    "off; what was here is deleted: ask again to fetch it anew."
                )
            os.replace(part, blob)
        finally:
            lock.release()
        return blob

    def _header(self, file: str) -> dict[str, Weight]:
        from huggingface_hub import HfApi

        with _told(self.name, self.options):
            client = HfApi(endpoint=_endpoint(), token=self.options.token)
            header = client.parse_safetensors_file_metadata(self.name, file, revision=self.commit)
        return {
            name: Weight(
                self.folder / file,
                DTYPES.get(tensor.dtype, (tensor.dtype, 0))[0],
                tuple(tensor.shape),
                tensor.data_offsets[1] - tensor.data_offsets[0],
            )
            for name, tensor in header.tensors.items()
        }


def is_repository(name: object) -> bool:
    """Tell if this has the form of a repository's name, "owner/name".

    >>> is_repository("lllyasviel/FramePackI2V_HY"), is_repository("./models/mine"), is_repository("mine")
    (True, False, False)
    """
    return isinstance(name, str) and len(name) <= 96 and REPOSITORY.fullmatch(name) is not None


def look(name: str, options: HubOptions | None = None) -> Repository:
    """Ask the hub which commit a repository is at and what it holds, or the cache if the hub does not answer.

    Raises ModelError if neither has it, and for a revision that is not there.
    """
    from huggingface_hub import HfApi, constants, errors, is_offline_mode

    options = options or HubOptions()
    if options.local_files_only:
        return _cached(name, options, "local_files_only is set")
    if is_offline_mode():
        return _cached(name, options, "HF_HUB_OFFLINE is set")
    if options.revision and COMMIT.fullmatch(options.revision) and not options.force_download:
        known = _cached_files(name, options, options.revision)
        if known is not None:  # a commit never changes
            return Repository(name, options, options.revision, known)
    try:
        client = HfApi(endpoint=_endpoint(), token=options.token)
        # The client's own look-up waits for ever if a network swallows what is sent.
        info = client.model_info(name, revision=options.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except errors.RevisionNotFoundError:
        raise ModelError(
            f"{name!r} on the hub has no revision {options.revision!r}; name a branch, a tag or a commit of it."
        ) from None
    except (errors.LocalTokenNotFoundError, errors.HFValidationError) as error:
        raise ModelError(_sentence(error, name, options)) from error
    except (errors.HTTPError, OSError, ValueError, LookupError) as error:
        return _cached(name, options, _reason(error, name, options), error)
    present = frozenset(sibling.rfilename for sibling in info.siblings or ())
    return Repository(name, options, str(info.sha), present)


def _cached_files(name: str, options: HubOptions, commit: str) -> frozenset[str] | None:
    """The files that a repository has at a commit, if the cache knows them."""
    from huggingface_hub import errors, get_cached_repo_tree

    try:
        tree = get_cached_repo_tree(name, revision=commit, cache_dir=options.cache_dir)
    except (errors.CachedRepoTreeNotFoundError, errors.HFValidationError):
        return None
    return frozenset(entry.path for entry in tree)


def _cached(name: str, options: HubOptions, offline: str, error: Exception | None = None) -> Repository:
    """The repository as the cache has it."""
    from huggingface_hub import errors, snapshot_download

    if options.force_download:
        raise ModelError(f"force_download asks for {name!r} from the hub, and {offline}.") from error
    try:
        # No file is asked for: one that is missing is told later, by its name.
        folder = Path(
            snapshot_download(
                name,
                revision=options.revision,
                cache_dir=options.cache_dir,
                local_files_only=True,
                allow_patterns=[],
            )
        )
    except errors.LocalEntryNotFoundError:
        at = f" at the revision {options.revision!r}" if options.revision else ""
        raise ModelError(
            f"There is no model {name!r}{at}: no folder has that name, {offline}, "
            f"and the cache ({_cache(options)}) has none."
        ) from error
    except (errors.HFValidationError, OSError) as refused:
        raise ModelError(_sentence(refused, name, options)) from refused
    present = _cached_files(name, options, folder.name)
    if present is None:  # an older client fetched it
        present = frozenset(
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        )
    return Repository(name, options, folder.name, present, offline)


@contextmanager
def _told(name: str, options: HubOptions) -> Iterator[None]:
    """Inside, an error of the hub's client becomes a ModelError of one sentence."""
    from huggingface_hub import errors

    # Its network errors are httpx's, by a name that changes with its version; Xet's client raises RuntimeError.
    kinds = (errors.HTTPError, OSError, ValueError, RuntimeError, errors.SafetensorsParsingError)
    try:
        yield
    except ModelError:
        raise
    except kinds as error:
        raise ModelError(_sentence(error, name, options)) from error


def _sentence(error: Exception, name: str, options: HubOptions) -> str:
    from huggingface_hub import errors

    cache = _cache(options)
    if isinstance(error, (errors.GatedRepoError, errors.RepositoryNotFoundError)):
        return f"The model {name!r} cannot be read: {_reason(error, name, options)}."
    if isinstance(error, errors.LocalTokenNotFoundError):
        return (
            "token=True asks for the saved token, and there is none; run `hf auth login`, or pass the token."
        )
    if isinstance(error, errors.HFValidationError):
        return f"{name!r} is neither a folder nor a name that a model on the hub can have."
    if isinstance(error, errors.SafetensorsParsingError):
        return f"A file of {name!r} on the hub is corrupt: its header is not that of safetensors."
    if isinstance(error, errors.HfHubHTTPError):
        return f"The download of {name!r} was refused: {_reason(error, name, options)}."
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or os.strerror(errno.ENOSPC) in str(error):  # Xet's client says it in words alone
        return f"The disk is full: {cache} has no room for {name!r}; make some, or choose another cache_dir."
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        return f"{error.filename or cache} cannot be written: {error.strerror}."
    return (
        f"The download of {name!r} was cut off ({_first_line(error.__cause__ or error)}); "
        f"what is complete stays in {cache}: ask again to go on."
    )


def _reason(error: Exception, name: str, options: HubOptions) -> str:
    """Why the hub does not give the repository, as a part of a sentence."""
    from huggingface_hub import errors

    hub = f"the hub ({_endpoint_name()})"
    if isinstance(error, errors.GatedRepoError):
        return f"{hub} guards it: ask for access at {_endpoint_name()}/{name}, then pass token= or run `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        given = "with this token" if isinstance(options.token, str) else "without a token"
        return f"{hub} has none of that name that can be read {given}"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return f"{hub} refuses the token" if options.token else f"{hub} asks for a token (token=)"
        return f"{hub} answers with an error ({status})"
    if isinstance(error, (ValueError, LookupError)):
        return f"{hub} does not answer as a hub does"
    return f"{hub} cannot be reached ({_first_line(error)})"


def _bars(meter: Meter) -> Any:
    """The counter of bytes for the client: the meter's, or its own bars on the terminal if nobody is told."""
    from huggingface_hub.utils import tqdm

    if meter.is_told:
        return meter.bars()

    def update(bar: Any, count: float | None = 1) -> Any:
        meter.check()
        return tqdm.update(bar, count)

    return type("StoppableBar", (tqdm,), {"update": update})


def size_of(file: Path) -> int:
    """The bytes of a file; 0 if there is none."""
    return file.stat().st_size if file.is_file() else 0


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _join(folder: str, name: str) -> str:
    return str(PurePosixPath(folder, name))


def _cache(options: HubOptions) -> Path:
    from huggingface_hub import constants

    return Path(options.cache_dir or constants.HF_HUB_CACHE).expanduser().resolve()


def _endpoint() -> str | None:
    """The hub's address if another one is set; the client itself reads it only once, at its import."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _endpoint_name() -> str:
    from huggingface_hub import constants

    return _endpoint() or constants.ENDPOINT
