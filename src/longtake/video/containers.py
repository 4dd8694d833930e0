"""The containers that a video is written to, as data: FFmpeg's names, the codec, and what both are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from longtake.errors import JobError
from longtake.picture import MAX_PIXELS

LONGEST_SIDE = 16384
"""Pixels; x264 and libvpx open no larger one."""

BEST, WORST, CRF = 1, 51, 17
"""The quality of a video, and its default: x264's constant rate factor; 17 looks lossless."""


@dataclass(frozen=True)
class Container:
    """One kind of video file: FFmpeg's `format` and `codec`, the form of its `pixels`, and its limits.

    `told` is what the encoder is told beside the quality, which is `worst_crf` long on its own scale (None: it has no
    such choice). `whole` and `growing` are the muxer's options for the finished file and for one that plays while it
    grows, whose pieces begin with `piece`, `at` so many bytes.
    """

    name: str
    format: str
    codec: str
    pixels: str
    largest: int
    worst_crf: int | None
    piece: bytes
    at: int
    told: Mapping[str, str] = field(default_factory=dict)
    whole: Mapping[str, str] = field(default_factory=dict)
    growing: Mapping[str, str] = field(default_factory=dict)

    def quality(self, crf: float | None) -> dict[str, str]:
        """The encoder's options for the quality; JobError if this one has none to choose, or not this."""
        if self.worst_crf is None:
            if crf is not None:
                raise JobError(f"{self.name} has no quality (crf) to choose; leave it out, or name an .mp4.")
            return {}
        crf = CRF if crf is None else crf
        # Unlike the reference: 0 is refused. It makes x264 write a lossless profile that browsers show as black.
        if not BEST <= crf <= WORST:
            raise JobError(
                f"The quality (crf) lies between {BEST} (best) and {WORST}; {crf:g} was asked for."
            )
        own = crf if self.worst_crf == WORST else round(crf * self.worst_crf / WORST)
        return {"crf": f"{own:g}"}

    def check_size(self, width: int, height: int, zoom: int) -> None:
        """Raise JobError if frames of this size, enlarged, are larger than the codec takes."""
        across, down = even(width * zoom), even(height * zoom)
        if max(across, down) > LONGEST_SIDE or across * down > self.largest:
            enlarged = f", enlarged {zoom} times, is {across} x {down}" if zoom > 1 else " was asked for"
            raise JobError(
                f"{self.name} has frames of at most {LONGEST_SIDE} pixels on a side and {self.largest} in all; "
                f"{width} x {height}{enlarged}."
            )


# delay_moov: the index waits for the first frame, to say that it is shown at 0 although B-frames come later.
FRAGMENTS = "+delay_moov+default_base_moof+frag_every_frame+skip_trailer"

MP4 = Container(
    name="An MP4 (H.264)",
    format="mp4",
    codec="libx264",
    pixels="yuv420p",
    largest=139_264 * 16 * 16,  # H.264's highest level, 6.2 (its table A-1): 8192 x 4352
    worst_crf=WORST,
    piece=b"moof",
    at=4,
    # x264's macroblock tree reads memory that it never wrote (AVX-512, seen in PyAV 18.1): one file in about a
    # hundred differed, and MALLOC_PERTURB_ decided how. Without it files are larger, and a little better; and the
    # encoder keeps 5 frames back instead of 40.
    told={"profile": "high", "preset": "medium", "x264-params": "mbtree=0"},
    whole={"movflags": "+faststart"},
    growing={"movflags": FRAGMENTS, "flush_packets": "1"},
)

WEBM = Container(
    name="A WebM (VP9)",
    format="webm",
    codec="libvpx-vp9",
    pixels="yuv420p",
    largest=MAX_PIXELS,
    worst_crf=63,
    piece=b"\x1f\x43\xb6\x75",  # a cluster
    at=0,
    # Without a bit rate the quality alone decides. The encoder looks 8 frames ahead instead of 25.
    told={"b": "0", "deadline": "good", "cpu-used": "2", "lag-in-frames": "8"},
    whole={"cues_to_front": "1", "fflags": "+bitexact"},
    growing={"cluster_time_limit": "1", "flush_packets": "1", "fflags": "+bitexact"},
)

# QuickTime's own tags hold 64 kB at most; a job with a long timeline is longer.
TAGS = "+use_metadata_tags"

MOV = Container(
    name="A MOV (ProRes)",
    format="mov",
    codec="prores_ks",
    pixels="yuv422p10le",
    largest=MAX_PIXELS,
    worst_crf=None,
    piece=b"moof",
    at=4,
    told={"profile": "hq", "vendor": "apl0"},
    whole={"movflags": f"+faststart{TAGS}"},
    growing={"movflags": f"{FRAGMENTS}{TAGS}", "flush_packets": "1"},
)

CONTAINERS = {".mp4": MP4, ".webm": WEBM, ".mov": MOV}
"""By how a file's name ends."""


def even(size: int) -> int:
    """The size, one larger if it is odd: 4:2:0 has no odd sizes."""
    return size + size % 2
