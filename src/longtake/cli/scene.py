"""`longtake scene`: a sentence becomes a cartoon of the kind that the embedded model knows, as a picture or a video."""

from __future__ import annotations

import argparse

from longtake.cli.options import number, size
from longtake.errors import JobError

USAGE = "TEXT [options]"
EXAMPLES = """\
longtake scene "a penguin in the snow" -o penguin.png
longtake scene "a red bird flies over the beach" --size 96x64 --seed 3 --frame 90
longtake scene "a green ball bounces" -o ball.mp4 --seconds 10 --variant pan
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sentence, and the file and size of the picture or video."""
    parser.add_argument("text", metavar="TEXT", help='such as "a penguin in the snow"')
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default="scene.png",
        help="a .png, or with --seconds a .mp4 (default: %(default)s)",
    )
    parser.add_argument("--size", type=size, default=(64, 64), metavar="WxH", help="pixels (default: 64)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides what the text leaves open")
    parser.add_argument("--frame", type=int, default=0, metavar="N", help="begin at this frame (default: 0)")
    parser.add_argument("--seconds", type=number, metavar="X", help="draw a true video of this length")
    parser.add_argument(
        "--variant",
        metavar="NAME",
        default="plain",
        help="what a study adds: pan, light, guest, hidden, 'hidden guest', circles, change (default: plain)",
    )


def run(args: argparse.Namespace) -> None:
    """Draw the scene and save it."""
    import numpy as np

    from longtake.picture import load_image, save_picture
    from longtake.toyworld import FPS, prompts, render, scene_from_text, study_scene
    from longtake.video import check_output, check_writable, writer_for

    _check(args)
    width, height = args.size
    scene = scene_from_text(args.text, args.seed)
    if args.variant != "plain":
        scene = study_scene(args.variant, np.random.default_rng(args.seed), scene)
    output = check_writable(args.output, ".png") if args.seconds is None else check_output(args.output)
    if args.seconds is None:
        save_picture(load_image(render(scene, [args.frame], height, width)[0]), output)
    else:
        with writer_for(output, fps=FPS) as video:
            last = args.frame + round(args.seconds * FPS)
            for first in range(args.frame, last, FPS):
                video.write(render(scene, range(first, min(first + FPS, last)), height, width))
    told = " Then: ".join(
        f"{said} ({frame / FPS:.1f} s)" if frame else said for frame, said in prompts(scene)
    )
    print(f"{output}: {width} x {height}; it can begin: {told}")


def _check(args: argparse.Namespace) -> None:
    width, height = args.size
    if not (16 <= width <= 4096 and 16 <= height <= 4096):
        raise JobError(f"A scene is 16 to 4096 pixels wide and high; {width} x {height} was asked for.")
    if args.seed < 0:
        raise JobError(f"The seed must not be negative; {args.seed} was asked for.")
    if args.frame < 0:
        raise JobError(f"A scene begins at frame 0; frame {args.frame} was asked for.")
    if args.seconds is not None and not 0.1 <= args.seconds <= 600:
        raise JobError(f"A scene's video is 0.1 to 600 seconds long; {args.seconds:g} was asked for.")
