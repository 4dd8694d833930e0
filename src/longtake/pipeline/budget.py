"""The layout while a job runs, computed before anything is loaded: pure sums over headers, sizes and allowances.

    sizes = read_sizes("models/framepack", dtype="bfloat16", quantize="none")   # longtake.pipeline.sizes
    work = Work(640, 480)                                                       # longtake.pipeline.working
    layout = lay_out(sizes, work, vram=6, memory=24, device="cuda")             # in gigabytes
    layout.parts["transformer"].how          # "whole" | "streamed" | "mapped"
    layout.parts["transformer"].resident     # so many of its blocks stay on the device
    layout.tile                              # (height, width) of the decoder's tiles, None: whole frames
    layout.device_peak, layout.host_peak     # bytes; host_peak counts what the kernel cannot drop
    layout.mapped                            # bytes of files that the kernel keeps in memory as far as there is room
    layout.sentences                         # the same in words
    layout.lacking                           # what would have to change, in words; empty if it fits

A gigabyte is 10^9 bytes. `vram=None` means that there is no accelerator: everything is computed by the CPU, from
the mapped files where they have the dtype that is computed in, else converted block by block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from longtake.pipeline.sizes import NETWORKS, STREAMED, Sizes
from longtake.pipeline.working import (
    Work,
    decode_bytes,
    encode_bytes,
    encoder_bytes,
    kept_bytes,
    step_bytes,
)

GB = 10**9
RESERVE = int(0.5 * GB)
"""Device memory that is not ours to count: the framework's context, its kernels, a matrix product's workspace."""
SPARE = 1.08
"""An allocator's holes: by so much more than what lives at once."""
BASE, BASE_BESIDE_DEVICE = int(0.45 * GB), int(2.0 * GB)
"""Main memory of the process itself, without and with an accelerator's libraries."""
PIN = 1.19
"""Pinned memory is rounded up: torch takes powers of two, for a block of the published transformer so much more."""
RING = 2
"""Blocks that are on their way or at work, beside those that stay."""
SMALL = 256 * 10**6
"""A part of fewer bytes is not worth streaming."""
TILES = (768, 640, 512, 448, 384, 320, 256, 192, 128)
"""Sides of the decoder's tiles, in pixels; the overlap is a quarter."""


@dataclass(frozen=True)
class Lies:
    """The place of one part while it runs.

    `how`: "whole", all of it on the device (or, without one, in main memory in the dtype that it computes in);
    "streamed", `resident` of its blocks stay and the others come one by one `source`; "mapped", computed by the CPU
    from the file itself. `source` is "pinned" or "plain" (copies in main memory) or "mapped" (the file).
    """

    part: str
    how: str
    blocks: int = 0
    resident: int = 0
    modulations: bool = False
    """The weights that blocks make their modulations of stay too; else they come once a job."""
    source: str = "mapped"
    ring: int = RING
    """Blocks that are at work or on their way at once, of those that do not stay."""
    device: int = 0
    """Bytes of its weights on the device while it runs."""
    working: int = 0
    """Bytes that it works in, where it runs."""
    host: int = 0
    """Bytes in main memory that cannot be dropped, without `made`."""
    made: int = 0
    """Bytes of main memory that are made while it is read, which no file holds so."""
    mapped: int = 0
    """Bytes of its files that are read."""

    @property
    def streamed(self) -> int:
        """Blocks that come one by one."""
        return self.blocks - self.resident if self.how == "streamed" else 0


@dataclass(frozen=True)
class Layout:
    """The places of all parts. `together`: all stay on the device at once; else one makes room for the next."""

    device: str
    vram: int | None
    memory: int | None
    parts: Mapping[str, Lies]
    together: bool
    tile: tuple[int, int] | None
    device_peak: int
    host_peak: int
    mapped: int
    sentences: tuple[str, ...]
    lacking: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Tell if it stays within the allowances."""
        return not self.lacking

    @property
    def is_plain(self) -> bool:
        """Tell if every part lies whole where it runs and stays there, as if there were no placement."""
        plain = (
            lies.how == "mapped" or (lies.how == "whole" and (lies.modulations or not lies.blocks))
            for lies in self.parts.values()
        )
        return self.together and self.tile is None and all(plain)

    @property
    def resident_blocks(self) -> frozenset[int]:
        """The transformer's blocks that stay, spread evenly so that the others come while these compute."""
        lies = self.parts.get("transformer")
        return spread(lies.resident, lies.blocks) if lies else frozenset()


def spread(count: int, among: int) -> frozenset[int]:
    """`count` numbers below `among`, evenly apart.

    >>> sorted(spread(2, 8)), len(spread(8, 8))
    ([2, 6], 8)
    """
    return (
        frozenset(min(among - 1, (2 * i + 1) * among // (2 * count)) for i in range(count))
        if count
        else frozenset()
    )


def lay_out(
    sizes: Mapping[str, Sizes],
    work: Work,
    vram: float | None = None,
    memory: float | None = None,
    device: str = "cuda",
    pins: bool = True,
) -> Layout:
    """The layout that is fastest within `vram` and `memory` (gigabytes; None of the first: no accelerator).

    `memory` None is no limit. `pins` tells if host memory may be pinned, which an accelerator reads twice as fast.
    """
    if vram is None:
        return _without_device(sizes, work, memory)
    allowed = int(vram * GB)
    working = {name: int(SPARE * _working(each, work)) for name, each in sizes.items()}
    tile, decoding = _tile(sizes.get("vae"), work, allowed)
    if "vae" in working:
        working["vae"] = int(SPARE * decoding)
    free = {name: allowed - RESERVE - working[name] for name in sizes}
    parts = {name: _on_device(each, free[name], working[name]) for name, each in _ordered(sizes)}
    total, most = sum(lies.device for lies in parts.values()), max(working.values(), default=0)
    together = all(lies.how == "whole" for lies in parts.values()) and total + most + RESERVE <= allowed
    made = sum(each.made for each in sizes.values())
    room = None if memory is None else int(memory * GB) - BASE_BESIDE_DEVICE - made
    parts = {name: _sourced(lies, sizes[name], room, pins) for name, lies in parts.items()}
    peaks = [lies.device + lies.working + RESERVE for lies in parts.values()]
    peak = total + most + RESERVE if together else max(peaks, default=0)
    host = BASE_BESIDE_DEVICE + sum(lies.host + lies.made for lies in parts.values())
    found = Layout(
        device, allowed, None if memory is None else int(memory * GB), parts, together, tile, peak, host,
        sum(lies.mapped for lies in parts.values()), (), (),
    )  # fmt: skip
    lacking = _lacking(found, sizes, work)
    return replace(found, sentences=_told(found, work), lacking=lacking)


def smaller(
    layout: Layout, sizes: Mapping[str, Sizes], work: Work, measured: int | None = None, pins: bool = True
) -> Layout | None:
    """The next smaller layout after this one did not fit in truth; None if there is none.

    It is made for four fifths of what this one expected, or of what was `measured` to be there. The last one may not
    fit by these sums: they are made for the worst moment, and it is tried before a job is given up.
    """
    if layout.vram is None:
        return None
    at = min(layout.device_peak, layout.vram, measured or layout.vram)
    memory = None if layout.memory is None else layout.memory / GB
    for part in (0.8, 0.65, 0.5, 0.4, 0.3):
        other = lay_out(sizes, work, at * part / GB, memory, layout.device, pins)
        if _weight(other) != _weight(layout):
            return other
    return None


def _weight(layout: Layout) -> tuple[object, ...]:
    kept = tuple((lies.how, lies.resident) for lies in layout.parts.values())
    return (*kept, layout.together, layout.tile)


def _ordered(sizes: Mapping[str, Sizes]) -> list[tuple[str, Sizes]]:
    return [(name, sizes[name]) for name in NETWORKS if name in sizes]


def _working(each: Sizes, work: Work, on_cpu: bool = False) -> int:
    """The bytes that a part works in; 0 for one whose config is not known."""
    config = each.config
    if config is None:
        return 0
    if each.part == "transformer":
        return step_bytes(config, work, each.width, on_cpu) + kept_bytes(config, work, each.width)
    if each.part == "vae":
        whole = decode_bytes(config, work.width, work.height, each.width, work.rows, on_cpu)
        return max(whole, encode_bytes(config, work.width, work.height, each.width, work.rows))
    return encoder_bytes(config, each.part, work, each.width)


def _tile(
    vae: Sizes | None, work: Work, allowed: int, on_cpu: bool = False
) -> tuple[tuple[int, int] | None, int]:
    """The decoder's tile for what is allowed, and the bytes that it works in; whole frames if they fit."""
    if vae is None or vae.config is None:
        return None, 0
    room = (allowed - RESERVE - vae.whole) / SPARE
    sides = [(work.height, work.width), *((side, side) for side in TILES)]
    sides = sides[:1] + [each for each in sides[1:] if each[0] < max(work.height, work.width)]
    for height, width in sides:
        height, width = min(height, work.height), min(width, work.width)
        need = decode_bytes(vae.config, width, height, vae.width, work.rows, on_cpu)
        # With tiles the whole frames of one tile of time are put together beside them.
        need += (
            2 * work.rows * 3 * 17 * work.width * work.height * vae.width
            if (height, width) != sides[0]
            else 0
        )
        if need <= room:
            break
    return (None if (height, width) == sides[0] else (height, width)), need


def _on_device(each: Sizes, free: int, working: int) -> Lies:
    """One part on the device within `free` bytes: whole if it fits, else with as many blocks as do."""
    usual = Lies(each.part, "whole", len(each.blocks), working=working, mapped=each.stored, made=each.made)
    # A table stays in main memory: single rows of it are read.
    everything = each.whole - (each.table if each.part in STREAMED else 0)
    if everything <= free or not each.blocks:
        return replace(usual, resident=usual.blocks, modulations=True, device=everything)
    # All modulations of a job are computed first, block by block; their weights need not stay.
    ring = RING * max(each.modulations, default=0)
    whole = sum(each.blocks) + each.rest + ring
    if whole <= free:
        return replace(usual, resident=usual.blocks, device=whole)
    ring = RING * max(each.blocks)
    for resident in range(usual.blocks - RING, -1, -1):
        kept = sum(each.blocks[number] for number in spread(resident, usual.blocks))
        if each.rest + ring + kept <= free or resident == 0:
            break
    return replace(usual, how="streamed", resident=resident, device=each.rest + ring + kept)


def _sourced(lies: Lies, each: Sizes, room: int | None, pins: bool) -> Lies:
    """The part with the place that its blocks come from: pinned memory if there is room for it, else the file."""
    if lies.how != "streamed" or lies.part != "transformer":
        # What runs once a job is read once: a copy in main memory would only cost.
        return replace(lies, host=2 * each.largest if lies.how == "streamed" else 0)
    stay = spread(lies.resident, lies.blocks)
    need = sum(size for number, size in enumerate(each.blocks) if number not in stay)
    # The file's pages lie in main memory too while it is copied, but the kernel can drop them.
    if pins and (room is None or PIN * need <= 0.8 * room):
        return replace(lies, source="pinned", host=int(PIN * need))
    return replace(lies, source="mapped", host=RING * max(each.blocks))


def _without_device(sizes: Mapping[str, Sizes], work: Work, memory: float | None) -> Layout:
    """Everything computed by the CPU: from the mapped files, or converted whole where that fits and is used often."""
    allowed = None if memory is None else int(memory * GB)
    room = None if allowed is None else allowed - BASE
    tile, decoding = (None, 0)
    if "vae" in sizes:
        tile, decoding = _tile(sizes["vae"], work, room + RESERVE if room is not None else 2**62, True)
    parts: dict[str, Lies] = {}
    left = room
    for name, each in sorted(_ordered(sizes), key=lambda pair: pair[0] != "transformer"):
        working = decoding if name == "vae" else _working(each, work, True)
        lies = _on_cpu(each, working, left)
        left = None if left is None else left - (lies.host if lies.how == "whole" else lies.made)
        parts[name] = lies
    parts = {name: parts[name] for name in NETWORKS if name in parts}
    stay = sum(lies.host if lies.how == "whole" else lies.made for lies in parts.values())
    passing = [(0 if lies.how == "whole" else lies.host) + lies.working for lies in parts.values()]
    host = BASE + stay + max(passing, default=0)
    mapped = sum(lies.mapped for lies in parts.values())
    found = Layout("cpu", None, allowed, parts, True, tile, 0, host, mapped, (), ())
    return replace(found, sentences=_told(found, work), lacking=_lacking(found, sizes, work))


def _on_cpu(each: Sizes, working: int, left: int | None) -> Lies:
    if not each.converted:
        return Lies(
            each.part, "mapped", len(each.blocks), working=working, mapped=each.stored, made=each.made
        )
    encoder = each.part not in ("transformer", "vae")
    fits = left is None or each.whole <= left / 2
    if not each.blocks or each.whole <= SMALL or (fits and not encoder):
        count = len(each.blocks)
        return Lies(each.part, "whole", count, count, True, "plain", working=working, host=each.whole)
    # What runs once is converted block by block: a copy of all of it would only cost. What lies outside the blocks
    # is copied; a table is read where it lies, row by row.
    passing = each.largest + each.rest
    return Lies(
        each.part, "streamed", len(each.blocks),
        working=working, host=passing, mapped=each.stored, made=each.made,
    )  # fmt: skip


# In words -------------------------------------------------------------------------------------------------------------

NAMES = {
    "text_encoder": "text encoder (Llama)",
    "text_encoder_2": "second text encoder (CLIP)",
    "image_encoder": "picture encoder",
    "transformer": "transformer",
    "vae": "autoencoder",
}
FROM = {"pinned": "from pinned memory", "plain": "from main memory", "mapped": "from the mapped file"}


def gigabytes(count: float) -> str:
    """A number of bytes in words.

    >>> gigabytes(25_700_000_000), gigabytes(4_000_000)
    ('25.7 GB', '0.01 GB')
    """
    return f"{count / GB:.1f} GB" if count >= GB / 2 else f"{max(count / GB, 0.01):.2f} GB"


def _told(layout: Layout, work: Work) -> tuple[str, ...]:
    said = [_lies_told(lies, layout) for lies in layout.parts.values()]
    if layout.tile is not None:
        height, width = layout.tile
        said.append(
            f"decoding: in tiles of {width} x {height} pixels, since whole frames of {work.width} x {work.height} do "
            "not fit; pixels differ slightly from those of whole frames"
        )
    if layout.vram is not None and not layout.together:
        said.append("one part makes room on the device for the next")
    return tuple(said)


def _lies_told(lies: Lies, layout: Layout) -> str:
    made = f"; {gigabytes(lies.made)} are made in main memory while it is read" if lies.made else ""
    return _place_told(lies, layout) + made


def _place_told(lies: Lies, layout: Layout) -> str:
    name, source = NAMES[lies.part], FROM["plain" if lies.made and lies.source == "mapped" else lies.source]
    if lies.how == "mapped":
        return f"{name}: computed by the CPU from the mapped file, {gigabytes(lies.mapped)}"
    if layout.vram is None:
        if lies.how == "whole":
            return f"{name}: in main memory, {gigabytes(lies.host)}"
        return f"{name}: {lies.blocks} blocks are converted one by one {source}, {gigabytes(lies.mapped)}"
    if lies.how == "whole":
        return f"{name}: whole on {layout.device} while it runs, {gigabytes(lies.device)}"
    stay = f"{lies.resident} of {lies.blocks} blocks stay on {layout.device}, {lies.streamed} stream {source}"
    return f"{name}: {stay}, {gigabytes(lies.device)} there at once"


def _lacking(layout: Layout, sizes: Mapping[str, Sizes], work: Work) -> tuple[str, ...]:
    """The changes with which the layout would fit; nothing if it does."""
    said = []
    if layout.vram is not None and layout.device_peak > layout.vram:
        part = max(layout.parts.values(), key=lambda lies: lies.device + lies.working)
        cures = _cures(layout, sizes, work)
        said.append(
            f"{layout.device} needs {gigabytes(layout.device_peak)} while the {NAMES[part.part]} runs, and "
            f"{gigabytes(layout.vram)} are allowed: {cures}"
        )
    if layout.memory is not None and layout.host_peak > layout.memory:
        said.append(
            f"main memory needs {gigabytes(layout.host_peak)} that cannot be dropped, and {gigabytes(layout.memory)} "
            "are allowed: a smaller size, or bfloat16, needs less"
        )
    return tuple(said)


def _cures(layout: Layout, sizes: Mapping[str, Sizes], work: Work) -> str:
    """The size of a video that would fit, or what is needed at least."""
    for width, height in ((512, 512), (416, 320), (256, 256)):
        need = _peak(sizes, replace(work, width=width, height=height))
        if width * height < work.width * work.height and need <= (layout.vram or 0):
            return f"{width} x {height} pixels need {gigabytes(need)}"
    return f"at least {gigabytes(_peak(sizes, work))} are needed at this size"


def _peak(sizes: Mapping[str, Sizes], work: Work) -> int:
    """The least device memory in which this work can be done at all."""
    peaks = []
    for name, each in sizes.items():
        ring = RING * max(each.blocks) if each.blocks else 0
        working = _tile(each, work, 0)[1] if name == "vae" else _working(each, work)
        peaks.append(RESERVE + each.rest + ring + int(SPARE * working))
    return max(peaks, default=0)
