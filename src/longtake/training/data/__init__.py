"""Data: folders of videos and pictures become examples, encoded once into a cache that knows what it was made from.

`open_data(place, encoders, settings)` is the one way in; docs/data.md tells what `place` may be.
"""

from longtake.training.data.makers import Encoders, encoders, encoders_of
from longtake.training.data.opened import Data, Encoded, Plan, encode, examples_of, open_data, plan
from longtake.training.data.sources import Skipped
from longtake.training.data.surveying import Settings, Survey, reading, survey

__all__ = [
    "Data",
    "Encoded",
    "Encoders",
    "Plan",
    "Settings",
    "Skipped",
    "Survey",
    "encode",
    "encoders",
    "encoders_of",
    "examples_of",
    "open_data",
    "plan",
    "reading",
    "survey",
]
