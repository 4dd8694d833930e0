"""A whole model in miniature, with random weights: real architecture, two seconds of work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from longtake.compat.schedulers import FlowMatchEulerDiscreteScheduler
from longtake.models.clip import CLIPTextModel
from longtake.models.llama import LlamaModel
from longtake.models.siglip import SiglipVisionModel
from longtake.models.transformer import HunyuanVideoFramepackTransformer3DModel
from longtake.models.vae import AutoencoderKLHunyuanVideo
from longtake.pipeline.encode import PROMPT_TEMPLATE
from longtake.pipeline.networks import Networks
from longtake.processors.siglip import SiglipImageProcessor
from longtake.toy.tokenizers import train_tokenizers

PROMPTS = ["A penguin dances in the snow", "a small blue bird takes off", "a red ball bounces"]
HEIGHT, WIDTH, WINDOW = 32, 48, 2


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory, filled: Callable[[Any], Any]) -> Networks:
    """Networks of a few thousand parameters each."""
    tokenizer, tokenizer_2 = train_tokenizers(
        PROMPTS, PROMPT_TEMPLATE["template"], tmp_path_factory.mktemp("words")
    )
    return Networks(
        transformer=filled(
            HunyuanVideoFramepackTransformer3DModel(
                in_channels=4,
                out_channels=4,
                num_attention_heads=2,
                attention_head_dim=10,
                num_layers=1,
                num_single_layers=1,
                num_refiner_layers=1,
                patch_size=2,
                text_embed_dim=16,
                pooled_projection_dim=8,
                rope_axes_dim=(2, 4, 4),
                image_proj_dim=16,
            )
        ),
        vae=filled(
            AutoencoderKLHunyuanVideo(
                latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
            )
        ),
        text_encoder=filled(
            LlamaModel(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=4,
                num_attention_heads=2,
                num_key_value_heads=1,
            )
        ),
        tokenizer=tokenizer,
        text_encoder_2=filled(
            CLIPTextModel(
                vocab_size=len(tokenizer_2),
                hidden_size=8,
                intermediate_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
            )
        ),
        tokenizer_2=tokenizer_2,
        image_encoder=filled(
            SiglipVisionModel(
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=28,
                patch_size=14,
            )
        ),
        feature_extractor=SiglipImageProcessor(size={"height": 28, "width": 28}),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        settings={"width": WIDTH, "height": HEIGHT},
    )


@pytest.fixture
def picture() -> Image.Image:
    """A picture of another shape than the video's."""
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8))


@pytest.fixture
def last_picture() -> Image.Image:
    """Another one."""
    return Image.fromarray(np.random.default_rng(2).integers(0, 256, (30, 60, 3), dtype=np.uint8))


@pytest.fixture
def pipe(networks: Networks) -> Any:
    """The field's pipeline over the same networks."""
    from longtake.compat.framepack import HunyuanVideoFramepackPipeline

    pipe = HunyuanVideoFramepackPipeline(**networks.components, settings=networks.settings)
    pipe.set_progress_bar_config(disable=True)
    return pipe
