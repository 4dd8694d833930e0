"""Speed of the embedded model's training: sections a second, and the share of the rate at which matrices multiply here.

    python benchmarks/toy_training.py [--batch 24] [--rounds 5] [--threads 1]

Times one step of the transformer's stage as it is, and with one thing as it was before: attention in bfloat16, each
matrix orthogonalised alone. All variants take turns in one process, and processor time is counted, so that a busy
machine falsifies little; the figures are medians. Prints them, last one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from longtake.backend import training
from longtake.backend.torch import kernels
from longtake.backend.torch import training as torch_training
from longtake.pipeline.loading import load_networks
from longtake.toy.codes import load_or_fit_codebook
from longtake.toy.pool import load_or_make_pool
from longtake.toy.transformer import SIZE, TransformerStage
from longtake.training.loop import trained


@contextmanager
def half_attention() -> Iterator[None]:
    """Attention as autocast alone has it."""
    with mock.patch.object(torch_training, "_wide_attention", kernels.native):
        yield


@contextmanager
def one_by_one() -> Iterator[None]:
    """Muon's products of each matrix for itself."""
    alone = lambda matrices: [training.orthogonalised(matrix) for matrix in matrices]  # noqa: E731
    with mock.patch.object(torch_training, "all_orthogonalised", alone):
        yield


VARIANTS: dict[str, Callable[[], object]] = {
    "as it is": nullcontext,
    "attention in bfloat16": half_attention,
    "matrices one by one": one_by_one,
}


def matrix_rate(seconds: float = 0.5) -> float:
    """Products of bfloat16 matrices of 1024 x 1024, in GFLOP a second of processor time."""
    a = torch.randn(1024, 1024, dtype=torch.bfloat16)
    count, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        a @ a
        count += 1
    return 2 * 1024**3 * count / (time.process_time() - began) / 1e9


def main() -> None:
    """Time the steps and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        stage = small_stage(Path(name), args.batch)
    optimiser = training.Optimiser(trained(stage), average=stage.average, plain=stage.plain)

    def step(number: int) -> None:
        stage.steps = 4 * number  # no scene comes new in this step
        loss, _ = stage.loss(np.random.default_rng((0, number)), 0.0)
        optimiser.step(loss, 1e-4)

    step(0)
    with FlopCounterMode(display=False) as counter:
        step(1)
    work = counter.get_total_flops() / 1e9
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for number in range(args.rounds):
        for name, variant in VARIANTS.items():
            with variant():
                began = time.process_time()
                step(number)
                seconds[name].append(time.process_time() - began)
    rate, medians = matrix_rate(), {name: float(np.median(found)) for name, found in seconds.items()}
    print(
        f"{platform.machine()}, {args.threads} threads; {work:.0f} GFLOP a step; matrices at {rate:.0f} GFLOP/s"
    )
    for name, found in medians.items():
        share = work / found / rate
        print(
            f"{name:24} {found:6.2f} s a step  {args.batch / found:6.1f} sections a second  {share:6.1%} of the rate"
        )
    print(json.dumps({"gflop": work, "matrix_rate": rate, "seconds": medians, **vars(args)}))


def small_stage(folder: Path, batch: int) -> TransformerStage:
    """The transformer's stage with the embedded autoencoder, a pool of a few scenes, and blocks that do something."""
    start = load_networks("embedded")
    vae = training.channels_last(start.vae.float())
    pool, origin = load_or_make_pool(folder, vae, 0, 9, SIZE)
    codebook = load_or_fit_codebook(folder, pool, origin, float(vae.config.scaling_factor))
    words = (start.tokenizer, start.tokenizer_2)
    return TransformerStage(folder, vae, pool, origin, codebook, lambda *_: {}, batch, tokenizers=words)


if __name__ == "__main__":
    main()
