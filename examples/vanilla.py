import mindspore as ms
from longtake import (
    HunyuanVideoFramepackPipeline,
    HunyuanVideoFramepackTransformer3DModel,
    SiglipImageProcessor,
    SiglipVisionModel,
    export_to_video,
    load_image,
)
from longtake.toyworld import render, scene_from_text
import numpy as np

transformer = HunyuanVideoFramepackTransformer3DModel.from_pretrained(
    "embedded", subfolder="transformer", mindspore_dtype=ms.bfloat16
)
feature_extractor = SiglipImageProcessor.from_pretrained(
    "embedded", subfolder="feature_extractor"
)
image_encoder = SiglipVisionModel.from_pretrained(
    "embedded", subfolder="image_encoder", mindspore_dtype=ms.float16
)
pipe = HunyuanVideoFramepackPipeline.from_pretrained(
    "embedded",
    transformer=transformer,
    feature_extractor=feature_extractor,
    image_encoder=image_encoder,
    mindspore_dtype=ms.float16,
)

# Enable memory optimizations
pipe.vae.enable_tiling()

image = load_image(render(scene_from_text("a penguin in the snow"), [0], 64, 64)[0])
output = pipe(
    image=image,
    prompt="A penguin dancing in the snow",
    height=64,
    width=64,
    num_frames=91,
    num_inference_steps=30,
    guidance_scale=9.0,
    generator=np.random.Generator(np.random.PCG64(seed=0)),
    sampling_type="vanilla",
)[0][0]
export_to_video(output, "output.mp4", fps=30)
