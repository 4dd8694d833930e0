"""What can go wrong, as one small tree.

LongtakeError
├── JobError        the request cannot be met: a size, a number of frames, a sampling type, …
│   └── PictureError    a picture or video file that cannot be read or written
├── ModelError      a model folder, weight file or config that is not what it should be
└── BackendError    the framework is missing, or lacks what was asked for

A message says what was asked, what was found and what to do, in one sentence.
"""


class LongtakeError(Exception):
    """Any error whose message is meant for the user."""


class JobError(LongtakeError):
    """The request cannot be met."""


class PictureError(JobError):
    """A picture or a video file cannot be read or written."""


class ModelError(LongtakeError):
    """A model folder, a weight file or a config is not what it should be."""


class BackendError(LongtakeError):
    """The framework is missing, or lacks what was asked for."""


class LongtakeWarning(UserWarning):
    """Something was done differently from what was asked; the message says how."""
