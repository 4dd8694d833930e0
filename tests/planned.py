"""What is true of any plan, and any structure name of which one can be made."""

import pytest
from hypothesis import strategies as st


@st.composite
def structures(draw):
    """Any structure name of which a plan can be made, and its kind."""

    def packed():
        levels = draw(st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=4))
        return "".join(f"f{scale * draw(st.integers(1, 3))}k{scale}" for scale in levels)

    picture, before, behind = (
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.sampled_from(["", "_", "_x_"])),
    )
    # Something must lead to the picture, and what is made backwards has but that.
    picture = picture or not before
    name = ("f1k1_x_" if picture else "") + (packed() + "_" if before else "") + "g9"
    name += behind + packed() if behind else ""
    tail = draw(st.sampled_from(["", "td", "ta", "tc"]))
    if tail and (before != (behind == "_") if not (before and behind) else tail == "td"):
        name = f"{tail}_{name}" if before else f"{name}_{tail}"
        if not before and behind != "_":
            name = name.removesuffix(f"_{tail}")
    return name


def read_by(section):
    return {frame for slot in section.slots.values() for frame in slot.frames if frame is not None}


def makes_every_frame_once_and_reads_what_is_there(plan):
    there, made = set(plan.anchors), []
    for section in plan:
        assert section.number in range(len(plan))
        assert 1 <= len(section.times) == len(section.frames) <= plan.window
        for scale, slot in section.slots.items():
            assert slot.scale == scale and len(slot.frames) == len(slot.times)
        times = [time for slot in section.slots.values() for time in slot.times] + list(section.times)
        assert len(set(times)) == len(times)
        assert read_by(section) | set(section.pictures) <= there
        there.update(section.frames)
        made += section.frames
    last = max(made)
    # Every latent frame up to the last one is made once or given.
    assert sorted(made + [frame for frame in plan.anchors if frame < last]) == list(range(last + 1))
    assert [*plan.anchors] == sorted(set(plan.anchors))
    # Those that are shown hold every video frame once.
    shown = [frame for latent in range(plan.lead, last + 1) for frame in plan.shown(latent)]
    assert shown == list(range(plan.made))
    assert 1 <= plan.frames <= plan.made
    assert sorted(section.number for section in plan) == list(range(plan.count))


def knows_its_sections_without_a_list(plan):
    sections = [*plan]
    assert len(sections) == len(plan) == plan.count
    assert [plan[made] for made in range(len(plan))] == sections
    assert plan[-1] == sections[-1]
    in_order = [section.number for section in sections] == list(range(len(plan)))
    assert in_order or not plan.forward
    for made, section in enumerate(sections):
        assert plan.made_at(section.number) == made
        assert tuple(plan.latents(section.number)) == section.frames
        assert all(plan.maker(frame) == section.number for frame in section.frames)
    assert all(plan.maker(frame) is None for frame in plan.anchors)
    for outside in (len(plan), -len(plan) - 1):
        with pytest.raises(IndexError, match="none that is made"):
            plan[outside]
        with pytest.raises(IndexError, match="There is no section"):
            plan.made_at(outside)


def reads_within_its_horizon(plan):
    order = dict.fromkeys(plan.anchors, -1)
    for made, section in enumerate(plan):
        # Of what lies beyond, all is there, and the section before has seen what is new to it, or made it.
        far = section.far.frames if section.far is not None else ()
        assert all(frame in order for frame in far)
        assert all(frame in plan.lasting or made - order[frame] <= plan.horizon for frame in read_by(section))
        order.update(dict.fromkeys(section.frames, made))
