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

prompt = "CG animation style, a small blue bird takes off from the ground, flapping its wings. The bird's feathers are delicate, with a unique pattern on its chest. The background shows a blue sky with white clouds under bright sunshine. The camera follows the bird upward, capturing its flight and the vastness of the sky from a close-up, low-angle perspective."
first_frame, last_frame = render(scene_from_text("a small blue bird bounces on the grass"), [0, 90], 64, 64)
first_image = load_image(first_frame)
last_image = load_image(last_frame)
output = pipe(
    image=first_image,
    last_image=last_image,
    prompt=prompt,
    height=64,
    width=64,
    num_frames=91,
    num_inference_steps=30,
    guidance_scale=9.0,
    generator=np.random.Generator(np.random.PCG64(seed=0)),
    sampling_type="inverted_anti_drifting",
)[0][0]
export_to_video(output, "output.mp4", fps=30)
