"""The file that a growing video can be played from: a fragmented MP4, and the ordinary one made of it in the end."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import av

from longtake.job import Job


class Fragments:
    """The file that a fragmented MP4 grows in: each fragment is in it wholly, or not at all.

    PyAV writes through it. It offers no `seek`, so that nothing behind is touched again.
    """

    def __init__(self, path: Path) -> None:
        # A new file and not the old one emptied: another process may still be at work on that.
        path.unlink(missing_ok=True)
        self.path = path
        self.file = path.open("x+b", buffering=0)
        self.size = self.count = 0
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Append one fragment, or raise OSError and stay as it was, from then on."""
        if self._error is not None:
            raise self._error
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            self._error = error
            self.file.truncate(self.size)
            raise
        self.size += len(data)
        self.count += data[4:8] == b"moof"  # the header comes first, alone
        return len(data)

    def remove(self) -> None:
        """Take the file away, unless another one has its name by now."""
        with contextlib.suppress(OSError):
            mine = os.path.samestat(os.fstat(self.file.fileno()), self.path.stat())
            self.file.close()
            if mine:
                self.path.unlink()

    def close(self) -> None:
        """Leave the file as it is; one without a fragment goes."""
        if not self.file.closed:
            self.file.close()
            if not self.count:
                self.path.unlink(missing_ok=True)


def new_mp4(place: str | Fragments, job: Job | Mapping[str, Any] | None) -> Any:
    """An MP4 to write: whole, with its index in front, or fragment by fragment."""
    if isinstance(place, str):
        container = av.open(place, "w", format="mp4", options={"movflags": "+faststart"})
    else:
        # delay_moov: the index waits for the first frame, to say that it is shown at 0 although B-frames come later.
        flags = "+delay_moov+default_base_moof+frag_every_frame+skip_trailer"
        options = {"movflags": flags, "flush_packets": "1"}
        # The buffer holds what is written at once; a larger fragment is cut if the process is killed.
        container = av.open(place, "w", format="mp4", options=options, buffer_size=2**20)
    if job is not None:
        container.metadata["comment"] = job.to_json() if isinstance(job, Job) else json.dumps(job)
    return container


def remux(fragments: BinaryIO, path: Path, job: Job | Mapping[str, Any] | None) -> None:
    """Write the packets of a fragmented MP4, as they are and one at a time, to an ordinary one."""
    fragments.seek(0)
    with av.open(fragments, "r", format="mp4") as grown, new_mp4(str(path), job) as whole:
        stream = whole.add_stream_from_template(grown.streams.video[0])
        for packet in grown.demux(video=0):
            if packet.dts is not None:  # the last one is empty: it flushes decoders
                packet.stream = stream
                whole.mux(packet)
