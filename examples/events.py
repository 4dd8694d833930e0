"""The stream of events under the pipeline: watch the steps, take the frames, stop whenever you like."""

from longtake import (
    FramesReady,
    Inputs,
    Job,
    Planned,
    SectionDone,
    Stepped,
    export_to_video,
    generate,
    load_networks,
)
from longtake.toyworld import render, scene_from_text

picture = render(scene_from_text("a penguin in the snow"), [0], 64, 64)[0]
job = Job(prompt="A penguin dances in the snow.", frames=73, steps=12, sampling="inverted", seed=3)

frames = []
for event in generate(job, load_networks("embedded"), Inputs(picture)):
    match event:
        case Planned(sections=sections):
            print(f"{sections} sections for {event.frames} frames")
        case Stepped(section=section, step=step, sigma=sigma):
            print(f"section {section}, step {step}: noise {sigma:.2f}")
        case SectionDone(section=section):
            print(f"section {section} is done")  # a `break` here would end the job and free what it holds
        case FramesReady(frames=batch):  # (B, T, H, W, 3) uint8
            frames.extend(batch[0])
export_to_video(frames, "output.mp4", fps=30)
