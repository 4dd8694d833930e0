"""The measures by name: what each one tells, which way is better, and from which first value a drift says something.

A measure is a curve: a value for each frame, for each stretch of three seconds (`prompted`) or for each seam (`seam`).
docs/evaluation.md has the definitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal


@dataclass(frozen=True)
class Measure:
    """One measure.

    `better`: low and high values are good, or those that are like the truth's ("like"). `gate` is what the value of the
    first section lies in if the thing that is measured was there to begin with: outside of it a drift is marked.
    """

    help: str
    better: Literal["low", "high", "like"]
    gate: tuple[float, float] = (-inf, inf)
    of_truth: bool = True


MEASURES: dict[str, Measure] = {
    "background": Measure("mean absolute error of the empty place, in [0, 1]", "low", (0, 0.06)),
    "size": Measure("the character's area, relative error", "low", (0, 0.3)),
    "colour": Measure("the character's mean colour, relative error", "low", (0, 0.2)),
    "shape": Measure("1 - overlap with the nearest of its true shapes", "low", (0, 0.35)),
    "look": Measure("difference to the nearest of its true pictures", "low", (0, 0.3)),
    "count": Measure("characters, torn pieces among them", "like", (0.75, 1.5)),
    "lost": Measure("share of time in which the character is missing or not to be recognised", "low", (0, 0.1)),
    "speed": Measure("speed of the character's centre, in frames' shorter sides a second", "like"),
    "prompted": Measure("share of stretches of three seconds with the prompted motion", "high", (0.5, 1)),
    "psnr": Measure("peak signal-to-noise ratio to the truth where that is certain, in dB", "high", (18, inf)),
    "guest": Measure("mean absolute error inside a second character, in [0, 1]", "low", (0, 0.15)),
    "recalled": Measure("the guest's error, else the look, in two seconds after a curtain went up", "low"),
    "luma": Measure("mean brightness, in [0, 1]", "like", of_truth=False),
    "saturation": Measure("mean of largest - smallest of red, green, blue", "like", of_truth=False),
    "contrast": Measure("deviation of the brightness within a frame", "like", of_truth=False),
    "sharpness": Measure(
        "energy of the Laplacian, relative to the truth's (else to the first second's, or the reference's)",
        "like",
        (0.1, 3),
        of_truth=False,
    ),
    "motion": Measure("change within a sixth of a second beyond what noise makes", "like", of_truth=False),
    "change": Measure("mean absolute change from frame to frame", "like", of_truth=False),
    "seam": Measure("change across seams of sections over the change near by", "like", of_truth=False),
    "colours": Measure(
        "distance of the histograms of red, green and blue to those of the first second", "low", of_truth=False
    ),
}  # fmt: skip
"""All measures, in the order of the table."""

TRUTH, AUTOENCODER = "truth", "autoencoder"
"""The arms that stand beside every model's: true videos, and those after the autoencoder."""
