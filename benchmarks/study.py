"""The drift study of docs/study.md: its arms and worlds, each group made and measured by one `longtake evaluate`.

    python benchmarks/study.py plans --world plain pan
    python benchmarks/study.py all -- --scenes 4 --seeds 1 --seconds 5 --steps 4

What stands after -- is for `longtake evaluate`, in place of the study's own options. A run that was stopped goes on.
The commands are printed, so that each can be run alone.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

ASKED = shlex.split(
    "--scenes 64 --seeds 3 --seconds 60 --steps 8 --dtype bfloat16 --batch 32 --first-scene 1000"
)
WORLDS = ("plain", "pan", "light", "guest", "hidden guest", "change")
CODES = ("1", "16", "256", "4096", "256,4", "256,8", "256,16")

Arms = dict[str, dict[str, str]]


def treated(history: tuple[str, ...], samplings: tuple[str, ...] = ("unanchored", "vanilla")) -> Arms:
    """An arm for each treatment of the history under each sampling, and one without."""
    return {
        f"{sampling} {text}".strip(): {"sampling": sampling, "history": text}
        for sampling in samplings
        for text in ("", *history)
    }


GROUPS: dict[str, tuple[str, Arms]] = {
    # The first arm of each is the one that the others are compared with.
    "plans": (
        "vanilla",
        {
            name: {"sampling": name}
            for name in ("vanilla", "inverted", "endpoint", "planned", "unanchored", "sliding", "repeat")
        },
    ),
    "discrete": ("unanchored", treated(tuple(f"discrete:{codes}" for codes in CODES))),
    "tricks": (
        "unanchored",
        {
            **treated(("noise:0.1", "adaptive", "statistics", "sink:4", "forget")),
            # It goes by the picture, which the other sampling does not keep in sight.
            "vanilla correct:2": {"sampling": "vanilla", "history": "correct:2"},
        },
    ),
}


def command(group: str, world: str, folder: Path, model: str, asked: list[str]) -> list[str]:
    """The command of one group in one world; writes its arms into its folder."""
    base, arms = GROUPS[group]
    place = folder / f"{group}-{world.replace(' ', '-')}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "arms.json").write_text(json.dumps(arms, indent=1))
    return [
        *("longtake", "evaluate", model, "--arms", str(place / "arms.json"), "--against", base),
        *("--world", world, "-o", str(place), "--sheet", *asked),
    ]


def main() -> None:
    """Run the groups that are asked for in the worlds that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("group", choices=(*GROUPS, "all"))
    parser.add_argument("--world", nargs="+", choices=WORLDS, default=["plain"])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--folder", type=Path, default=Path("runs/study"))
    parser.add_argument("--dry-run", action="store_true", help="print the commands alone")
    own = sys.argv[1:]
    asked = own[own.index("--") + 1 :] if "--" in own else ASKED
    args = parser.parse_args(own[: own.index("--")] if "--" in own else own)
    for group in GROUPS if args.group == "all" else (args.group,):
        for world in args.world:
            words = command(group, world, args.folder, args.model, asked)
            print("$", shlex.join(words), flush=True)
            if not args.dry_run and (code := subprocess.run([sys.executable, "-m", *words]).returncode):
                sys.exit(code)


if __name__ == "__main__":
    main()
