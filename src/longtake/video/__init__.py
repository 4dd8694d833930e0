"""Videos as files: written, also while they grow, and read; the only user of PyAV.

Frames are (T, H, W, 3) uint8. Every error about a file is a PictureError that names the file.
"""

from longtake.video.containers import CRF, LONGEST_SIDE
from longtake.video.export import export_to_video
from longtake.video.joining import JoinedWriter
from longtake.video.names import KINDS, check_kind, check_output, check_size, writer_for
from longtake.video.numbered import is_numbered
from longtake.video.reading import SUFFIXES, Metadata, read_metadata, read_video, stream_video
from longtake.video.writer import Writer, check_writable
from longtake.video.writing import VideoWriter

__all__ = [
    "CRF",
    "KINDS",
    "LONGEST_SIDE",
    "SUFFIXES",
    "JoinedWriter",
    "Metadata",
    "VideoWriter",
    "Writer",
    "check_kind",
    "check_output",
    "check_size",
    "check_writable",
    "export_to_video",
    "is_numbered",
    "read_metadata",
    "read_video",
    "stream_video",
    "writer_for",
]
