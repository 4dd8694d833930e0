"""Procedural cartoons with known truth: scenes, their pixels, their prompts, and measurements that find them again."""

from longtake.toyworld.draw import render, render_float, render_masks
from longtake.toyworld.measure import Measurement, classify_motion, joined, measure, motion_of
from longtake.toyworld.motion import FPS
from longtake.toyworld.places import background
from longtake.toyworld.prompts import prompt, vocabulary
from longtake.toyworld.scenes import (
    COLOURS,
    KINDS,
    MOTIONS,
    PLACES,
    SIZES,
    Scene,
    random_scene,
    scene_from_text,
)
from longtake.toyworld.truth import truth_of

__all__ = [
    "COLOURS",
    "FPS",
    "KINDS",
    "MOTIONS",
    "PLACES",
    "SIZES",
    "Measurement",
    "Scene",
    "background",
    "classify_motion",
    "joined",
    "measure",
    "motion_of",
    "prompt",
    "random_scene",
    "render",
    "render_float",
    "render_masks",
    "scene_from_text",
    "truth_of",
    "vocabulary",
]
