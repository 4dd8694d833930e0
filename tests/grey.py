"""A pipeline that makes grey frames at no cost: the events that the command line follows."""

import numpy as np

from longtake.errors import ModelError
from longtake.events import Encoded, FramesReady, Planned, SectionDone, Stepped
from longtake.plan.plans import plan_of


def events_of(job):
    """What the pipeline tells of a video of two sections of three steps."""
    yield Planned(sections=2, frames=job.frames, steps=3, notice="a notice.")
    yield Encoded({})
    latents = np.zeros((1, 16, 9, 8, 8))
    for section in range(2):
        for step in range(3):
            yield Stepped(section, step, 3, 1 - step / 3, latents, latents)
        yield SectionDone(section, 1 - section, latents)
    for start in range(0, job.frames, 16):
        count = min(16, job.frames - start)
        yield FramesReady(start, np.full((1, count, job.height, job.width, 3), 90, np.uint8))


def job_events(folder, numbers=None):
    """The same for a job's folder, whose missing sections (or `numbers` of them) are made."""
    plan, steps = plan_of(folder.job), folder.job.steps
    yield Planned(plan.count, plan.frames, steps, plan.notice)
    for place, section in enumerate(plan):
        latents = folder.read_section(section.number)
        if latents is None:
            if numbers is not None and place >= numbers:
                raise ModelError("The power is out.")
            latents = np.full(
                (1, 4, len(section.frames), folder.job.height // 8, folder.job.width // 8),
                folder.job.seed,
                np.float32,
            )
            for step in range(steps):
                yield Stepped(place, step, steps, 1 - step / steps, latents, latents)
            folder.write_section(section.number, latents)
        yield SectionDone(place, section.number, latents)
    yield FramesReady(0, np.full((1, plan.frames, folder.job.height, folder.job.width, 3), 90, np.uint8))
