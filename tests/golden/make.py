"""Make the golden files from diffusers and transformers, in float64: `python tests/golden/make.py`.

Run it again only where a case is added or the reference was wrong: the files are what both frameworks are held to.
"In float64" is as far as the reference goes: its own code rounds sinusoids, rotary angles and RMS norms to float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import recipe
import torch
import transformers
from diffusers.models.autoencoders import vae as diffusers_vae
from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video_framepack as diffusers_framepack

TRANSFORMER = {
    "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2,
    "num_single_layers": 2, "num_refiner_layers": 2, "text_embed_dim": 24, "pooled_projection_dim": 12,
    "rope_axes_dim": [4, 6, 6], "image_proj_dim": 20, "has_image_proj": True, "has_clean_x_embedder": True,
}  # fmt: skip
VAE = {
    "block_out_channels": [8, 8, 16, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
}
# Every third pixel of a row and a column: 3 and the 8 pixels of a latent have no common divisor.
PIXELS = (..., slice(None, None, 3), slice(None, None, 3))

# Parts of the pipeline in whose place encoded prompts and pictures are given.
UNUSED = (
    "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "image_encoder", "feature_extractor"
)  # fmt: skip


def stock(model: torch.nn.Module) -> Any:
    """A network of the reference with the recipe's weights, in float64."""
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    weights = {name: torch.from_numpy(value) for name, value in recipe.weights(shapes).items()}
    model.load_state_dict(weights, strict=False)
    return model.double().eval()


def tensors(golden: recipe.Golden) -> dict[str, torch.Tensor]:
    """A file's inputs as the reference takes them."""
    found = {name: torch.from_numpy(value) for name, value in golden.inputs.items()}
    return {name: x.double() if x.is_floating_point() else x for name, x in found.items()}


def transformer(
    name: str, batch: int, counts: list[int], changes: dict[str, Any], **given: Any
) -> recipe.Golden:
    """One velocity, and what goes into the blocks: packed tokens, conditioning, text, rotary tables."""
    height, width, length = 4, 6, 7
    times = {
        "indices_latents": np.arange(20, 23),
        "indices_latents_clean": np.array([0, 19]),
        "indices_latents_history_2x": np.array([17, 18]),
        "indices_latents_history_4x": np.arange(1, 17),
        **given,
    }
    # The window's times are called indices_latents and its latents hidden_states.
    slots = {
        key.removeprefix("indices_"): (batch, 4, len(value), height, width) for key, value in times.items()
    }
    slots["hidden_states"] = slots.pop("latents")
    golden = recipe.Golden(
        name,
        {**TRANSFORMER, **changes},
        {
            **slots,
            "encoder_hidden_states": (batch, length, 24),
            "pooled_projections": (batch, 12),
            "image_embeds": (batch, 5, 20),
        },
        {
            **{key: np.asarray(value, np.int32) for key, value in times.items()},
            "timestep": np.array([937.5, 41.25], np.float32)[:batch],
            "guidance": np.full(batch, 6000.0, np.float32),
            "encoder_attention_mask": (np.arange(length) < np.array(counts)[:, None]).astype(np.int32),
        },
    )
    network = stock(diffusers.HunyuanVideoFramepackTransformer3DModel(**golden.config))
    seen: list[Any] = []
    network.transformer_blocks[0].register_forward_pre_hook(lambda module, inputs: seen.extend(inputs))
    golden.expected["sample"] = network(**tensors(golden)).sample.numpy()
    latents, text, conditioning, _, (cos, sin) = seen
    golden.expected |= {
        "latents": latents.numpy(),
        "conditioning": conditioning.numpy(),
        # The picture's tokens, then the valid text of the longest row; behind it the reference has padding.
        "text": text[:, : 5 + max(counts)].numpy(),
        # Each angle stands there twice.
        "cos": cos[:, ::2].numpy(),
        "sin": sin[:, ::2].numpy(),
    }
    return golden


def vae(
    name: str, frames: int, changes: dict[str, Any], size: tuple[int, int] = (16, 24), tile: int = 0
) -> recipe.Golden:
    """Mean and deviation of frames, and the frames of latents."""
    height, width = size
    config = {**VAE, **changes}
    golden = recipe.Golden(
        name,
        config,
        {
            "frames": (1, 3, frames, height, width),
            "latents": (1, config["latent_channels"], 1 + (frames - 1) // 4, height // 8, width // 8),
        },
        {"tile": np.array(tile, np.int32)},
    )
    network = stock(diffusers.AutoencoderKLHunyuanVideo(**config))
    if tile:
        network.enable_tiling(tile, tile, 16, tile * 3 // 4, tile * 3 // 4, 12)
    inputs = tensors(golden)
    posterior = network.encode(inputs["frames"]).latent_dist
    golden.expected = {
        "mean": posterior.mean.numpy(),
        "std": posterior.std.numpy(),
        "decoded": network.decode(inputs["latents"]).sample[PIXELS].numpy(),
    }
    return golden


def llama() -> recipe.Golden:
    """The states of all layers, of a full row and a padded one; FramePack reads those two layers before the end."""
    config = {
        "vocab_size": 60, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    mask = (np.arange(9) < np.array([[9], [4]])).astype(np.int32)
    golden = recipe.Golden(
        "llama", {**config, "rope_theta": 500000.0}, {}, {"input_ids": ids(2, 9, 60), "attention_mask": mask}
    )
    rope = {"rope_type": "default", "rope_theta": 500000.0}
    network = stock(transformers.LlamaModel(transformers.LlamaConfig(**config, rope_parameters=rope)))
    states = network(**tensors(golden), output_hidden_states=True).hidden_states
    golden.expected = {f"state_{layer}": states[layer].numpy() for layer in (0, 2, 4)}
    return golden


def clip(name: str, **changes: Any) -> recipe.Golden:
    """The states and the pooled state, that of the end token."""
    config = {
        "vocab_size": 60, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 12, **changes,
    }  # fmt: skip
    tokens = ids(2, 10, 58)
    tokens[0, 6:], tokens[1, 9:] = 59, 59
    golden = recipe.Golden(name, config, {}, {"input_ids": tokens})
    network = stock(transformers.CLIPTextModel(transformers.CLIPTextConfig(**config, bos_token_id=58)))
    out = network(**tensors(golden))
    golden.expected = {"last": out.last_hidden_state.numpy(), "pooled": out.pooler_output.numpy()}
    return golden


def siglip() -> recipe.Golden:
    """The states of the patches, and the pooled state."""
    config = {
        "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": 20, "patch_size": 6,
    }  # fmt: skip
    golden = recipe.Golden("siglip", config, {"pixel_values": (2, 3, 20, 20)}, {})
    network = stock(transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**config)))
    out = network(**tensors(golden))
    golden.expected = {"last": out.last_hidden_state.numpy(), "pooled": out.pooler_output.numpy()}
    return golden


def ids(rows: int, length: int, most: int) -> np.ndarray:
    """Token ids from 3 to `most` - 1."""
    spread = (recipe.draw("ids", (rows, length)) + 1.75) / 3.5
    return (3 + spread * (most - 3)).astype(np.int32)


def sampling() -> recipe.Golden:
    """Schedules of both schedulers, and the latents of short ways down them along a made-up velocity."""
    golden = recipe.Golden(
        "sampling", {"shift": 7.0, "flow_shift": 3.0, "tokens": 2304}, {"noise": (1, 2, 1, 2, 3)}, {}
    )
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}

    def euler(**settings: Any) -> Any:
        return diffusers.FlowMatchEulerDiscreteScheduler(**settings)

    def even(steps: int) -> np.ndarray:
        return np.linspace(1.0, 0.0, steps + 1)[:-1]

    static, dynamic = euler(shift=7.0), euler(use_dynamic_shifting=True)
    static.set_timesteps(sigmas=even(25))
    # As the reference's pipeline calls it.
    dynamic.set_timesteps(sigmas=even(25), mu=min(diffusers_framepack.calculate_shift(2304), np.log(7.0)))
    golden.expected |= {"euler_static": static.sigmas.numpy(), "euler_dynamic": dynamic.sigmas.numpy()}
    schedulers = {"euler": euler(shift=7.0)}
    for order in (2, 3):
        schedulers[f"unipc_{order}"] = diffusers.UniPCMultistepScheduler(**flow, solver_order=order)
    for name, scheduler in schedulers.items():
        scheduler.set_timesteps(8)
        golden.expected[f"{name}_sigmas"] = scheduler.sigmas.numpy()
        # The schedule is float32; on it the formulas run in float64 (Euler's own step always rounds to float32).
        scheduler.sigmas = scheduler.sigmas.double()
        latents, way = tensors(golden)["noise"], []
        for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
            latents = scheduler.step(torch.sin(2 * latents) + sigma * latents, timestep, latents).prev_sample
            way.append(latents.numpy())
        golden.expected[f"{name}_way"] = np.stack(way)
    return golden


def pipeline(name: str, sampling_type: str, **changes: Any) -> recipe.Golden:
    """The latents and frames of a whole video of two sections, from encoded prompts and a picture."""
    config = {
        "transformer": {**TRANSFORMER, "num_layers": 1, "num_single_layers": 1, "num_refiner_layers": 1},
        "vae": {**VAE, "block_out_channels": [8, 8, 8, 8]},
        "scheduler": {"shift": 7.0},
        "call": {
            "height": 32, "width": 48, "num_frames": 9, "latent_window_size": 2, "num_inference_steps": 3,
            "guidance_scale": 6.0, "sampling_type": sampling_type, **changes,
        },
    }  # fmt: skip
    shapes = {
        "prompt_embeds": (1, 7, 24),
        "pooled_prompt_embeds": (1, 12),
        "image_states": (1, 5, 20),
        "picture": (32, 48, 3),
    }
    given = {"prompt_attention_mask": np.array([[1] * 5 + [0] * 2], np.int32)}
    if "true_cfg_scale" in changes:
        shapes |= {"negative_prompt_embeds": (1, 7, 24), "negative_pooled_prompt_embeds": (1, 12)}
        given["negative_prompt_attention_mask"] = np.array([[1] * 3 + [0] * 4], np.int32)
    golden = recipe.Golden(name, config, shapes, given)
    pipe = diffusers.HunyuanVideoFramepackPipeline(
        **dict.fromkeys(UNUSED),
        transformer=stock(diffusers.HunyuanVideoFramepackTransformer3DModel(**config["transformer"])),
        vae=stock(diffusers.AutoencoderKLHunyuanVideo(**config["vae"])),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**config["scheduler"]),
    )
    pipe.set_progress_bar_config(disable=True)
    inputs = tensors(golden)
    states, picture = inputs.pop("image_states"), inputs.pop("picture")
    pipe.encode_image = lambda image, device=None, dtype=None: states

    def run(output_type: str) -> Any:
        stream = recipe.Stream(name)

        def noise(
            shape: Any, generator: Any = None, device: Any = None, dtype: Any = None, layout: Any = None
        ) -> Any:
            return torch.from_numpy(stream.standard_normal(shape)).to(dtype)

        with (
            mock.patch.object(diffusers_vae, "randn_tensor", noise),
            mock.patch.object(diffusers_framepack, "randn_tensor", noise),
        ):
            image = (picture.numpy()[None] / 4 + 0.5).clip(0, 1)
            return pipe(image=image, **inputs, **config["call"], output_type=output_type).frames

    golden.expected = {
        "latents": run("latent")[-1].numpy(),
        "frames": run("np")[:, :, ::5, ::5],
    }
    return golden


PLAIN = {
    "guidance_embeds": False, "qk_norm": None, "out_channels": 6, "rope_theta": 100.0, "mlp_ratio": 2.5,
    "num_single_layers": 1,
}  # fmt: skip
# Inverted order, far from the start: the window stands before the clean frames; a history that fills no kernel.
FAR = {
    "indices_latents": np.arange(28, 31),
    "indices_latents_clean": np.array([0, 31]),
    "indices_latents_history_2x": np.arange(32, 33),
    "indices_latents_history_4x": np.arange(33, 38),
}
THREE_BLOCKS = {
    "block_out_channels": [4, 8, 8],
    "down_block_types": ["HunyuanVideoDownBlock3D"] * 3,
    "up_block_types": ["HunyuanVideoUpBlock3D"] * 3,
    "layers_per_block": 2,
    "norm_num_groups": 2,
}
CASES: list[Callable[[], recipe.Golden]] = [
    lambda: transformer("transformer", 1, [5], {}),
    lambda: transformer("transformer_rows", 2, [3, 7], {"rope_axes_dim": [6, 6, 4]}, **FAR),
    lambda: transformer("transformer_plain", 1, [7], PLAIN),
    lambda: vae("vae_frame", 1, {}),
    lambda: vae("vae_clip", 9, {}),
    lambda: vae("vae_time_tiles", 21, THREE_BLOCKS, size=(16, 16)),
    lambda: vae("vae_space_tiles", 1, {"mid_block_add_attention": False}, size=(48, 40), tile=32),
    llama,
    lambda: clip("clip", eos_token_id=2),
    lambda: clip("clip_end", eos_token_id=59, hidden_act="gelu"),
    siglip,
    sampling,
    lambda: pipeline("pipeline_vanilla", "vanilla"),
    lambda: pipeline("pipeline_inverted", "inverted_anti_drifting", true_cfg_scale=2.0),
]


@torch.no_grad()
def main() -> None:
    """Make every file and say how large it is."""
    for case in CASES:
        file = case().write()
        print(f"{file.name:28} {file.stat().st_size / 1000:6.1f} kB")
    print(f"{'together':28} {sum(f.stat().st_size for f in recipe.HERE.glob('*.npz')) / 1000:6.1f} kB")


if __name__ == "__main__":
    main()
