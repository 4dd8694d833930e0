"""Procedural cartoons with known truth: scenes, their pixels, their prompts, and measurements that find them again."""

from longtake.toyworld.draw import background, guest_masks, render, render_float, render_masks
from longtake.toyworld.extras import Extras, light
from longtake.toyworld.measure import Measurement, classify_motion, joined, measure, motion_of
from longtake.toyworld.motion import FPS, centres
from longtake.toyworld.prompts import prompt, prompts, vocabulary
from longtake.toyworld.scenes import (
    COLOURS,
    KINDS,
    MOTIONS,
    PLACES,
    SIZES,
    STUDY_MOTIONS,
    Scene,
    random_scene,
    scene_from_text,
)
from longtake.toyworld.study import VARIANTS, changing, study_scene
from longtake.toyworld.truth import truth_of

__all__ = [
    "COLOURS",
    "FPS",
    "KINDS",
    "MOTIONS",
    "PLACES",
    "SIZES",
    "STUDY_MOTIONS",
    "VARIANTS",
    "Extras",
    "Measurement",
    "Scene",
    "background",
    "centres",
    "changing",
    "classify_motion",
    "guest_masks",
    "joined",
    "light",
    "measure",
    "motion_of",
    "prompt",
    "prompts",
    "random_scene",
    "render",
    "render_float",
    "render_masks",
    "scene_from_text",
    "study_scene",
    "truth_of",
    "vocabulary",
]
