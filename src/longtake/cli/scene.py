"""`longtake scene`: a sentence becomes a cartoon picture of the kind that the embedded model knows."""

from __future__ import annotations

import argparse

from longtake.cli.options import size
from longtake.errors import JobError

USAGE = "TEXT [options]"
EXAMPLES = """\
longtake scene "a penguin in the snow" -o penguin.png
longtake scene "a red bird in the rain" --size 96x64 --seed 3
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sentence, and the picture's file and size."""
    parser.add_argument("text", metavar="TEXT", help='such as "a penguin in the snow"')
    parser.add_argument("-o", "--output", metavar="OUT.png", default="scene.png", help="default: %(default)s")
    parser.add_argument("--size", type=size, default=(64, 64), metavar="WxH", help="pixels (default: 64)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides what the text leaves open")


def run(args: argparse.Namespace) -> None:
    """Draw the scene's first frame and save it."""
    from longtake.picture import load_image, save_picture
    from longtake.toyworld import prompt, render, scene_from_text
    from longtake.video import check_writable

    width, height = args.size
    if not (16 <= width <= 4096 and 16 <= height <= 4096):
        raise JobError(f"A scene is 16 to 4096 pixels wide and high; {width} x {height} was asked for.")
    if args.seed < 0:
        raise JobError(f"The seed must not be negative; {args.seed} was asked for.")
    scene = scene_from_text(args.text, args.seed)
    output = check_writable(args.output, ".png")
    picture = load_image(render(scene, [0], height, width)[0])
    save_picture(picture, output)
    print(f"{output}: {width} x {height}; it can begin: {prompt(scene)}")
