"""Make docs/pictures/demo.png again: four videos of the embedded model, twelve frames each.

python docs/pictures/demo.py [MODEL] [OUT.png]
"""

import sys
from pathlib import Path

import numpy as np

from longtake import FramesReady, Inputs, Job, generate, load_networks, toyworld
from longtake.picture import contact_sheet, spread

JOBS = [
    ("a penguin in the snow", "A penguin dances in the snow.", "inverted"),
    (
        "a blue bird on the grass",
        "A blue bird takes off and flies, flapping its wings, over the grass.",
        "vanilla",
    ),
    ("a red ball on the beach", "A red ball bounces up and down on the beach.", "inverted"),
    ("a yellow star at night", "A yellow star spins around at night.", "vanilla"),
]


def main() -> None:
    """Make the videos and lay them on one sheet."""
    networks = load_networks(sys.argv[1] if len(sys.argv) > 1 else "embedded")
    rows = []
    for words, prompt, sampling in JOBS:
        picture = toyworld.render(toyworld.scene_from_text(words), range(1), 64, 64)[0]
        job = Job(prompt, frames=145, sampling=sampling, seed=1)
        events = generate(job, networks, Inputs(picture))
        video = np.concatenate([event.frames[0] for event in events if isinstance(event, FramesReady)])
        rows.append(video[spread(145, 12)])
    out = sys.argv[2] if len(sys.argv) > 2 else Path(__file__).with_name("demo.png")
    contact_sheet(np.concatenate(rows), columns=12).save(out)


if __name__ == "__main__":
    main()
