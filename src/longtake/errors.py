"""The errors of longtake, as one small tree.

LongtakeError
├── JobError            a request that is refused: a size, a length, a plan; nothing was computed (also a ValueError)
│   ├── JobTypeError    a value of the wrong type in it (also a TypeError)
│   └── PictureError    a picture or video file that cannot be read or written (also an OSError)
├── RunError            a run that failed on its way; `section` and `step` say where, finished sections are unharmed
│   ├── MemoryRunError  there was not enough memory for it (also a MemoryError)
│   └── LostRunError    another process of the same run has ended
├── ModelError          a model folder, weight file or config that is wrong (also an OSError and a ValueError)
└── BackendError        the framework is missing, or lacks what was asked for (also a RuntimeError)

A message says what was asked, what was found and what to do, in one sentence. The second base classes are those that
diffusers and transformers raise for the same, so that an `except` of the field catches ours.
"""

from __future__ import annotations


class LongtakeError(Exception):
    """Any error whose message is meant for the user."""

    def __str__(self) -> str:
        # OSError writes its arguments in a form of its own.
        return str(self.args[0]) if self.args else ""


class JobError(LongtakeError, ValueError):
    """The request is refused; nothing was computed."""


class JobTypeError(JobError, TypeError):
    """The request is refused, for a value of the wrong type."""


class PictureError(JobError, OSError):
    """A picture or a video file cannot be read or written."""


class RunError(LongtakeError, RuntimeError):
    """A run failed on its way. `section` is a place in the video, `step` counts from 0; None is unknown."""

    def __init__(self, message: str, section: int | None = None, step: int | None = None) -> None:
        super().__init__(message)
        self.section, self.step = section, step


class MemoryRunError(RunError, MemoryError):
    """There was not enough memory for what a run needs."""


class LostRunError(RunError):
    """Another process of the same run has ended, so that this one cannot go on; `told`: that one has said why."""

    told = False


class ModelError(LongtakeError, OSError, ValueError):
    """A model folder, a weight file or a config is not what it should be."""


class BackendError(LongtakeError, RuntimeError):
    """The framework is missing, or lacks what was asked for."""


class LongtakeWarning(UserWarning):
    """Something was done differently from what was asked; the message says how."""
