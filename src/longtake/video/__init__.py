"""Videos as files: written, also while they grow, and read; the only user of PyAV.

Frames are (T, H, W, 3) uint8. Every error about a file is a PictureError that names the file.
"""

from longtake.video.export import export_to_video
from longtake.video.reading import SUFFIXES, Metadata, read_metadata, read_video, stream_video
from longtake.video.writing import CRF, LONGEST_SIDE, VideoWriter, check_size, check_writable

__all__ = [
    "CRF",
    "LONGEST_SIDE",
    "SUFFIXES",
    "Metadata",
    "VideoWriter",
    "check_size",
    "check_writable",
    "export_to_video",
    "read_metadata",
    "read_video",
    "stream_video",
]
