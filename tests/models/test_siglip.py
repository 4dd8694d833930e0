import numpy as np
import pytest
from PIL import Image

from longtake.backend import ops
from longtake.errors import ModelError, PictureError
from longtake.models.siglip import SiglipVisionModel
from longtake.processors.siglip import SiglipImageProcessor, resize

TINY = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 20,
    "patch_size": 6,
}
SMALL = SiglipImageProcessor(size={"height": 20, "width": 20})
PICTURE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def test_from_picture_to_states():
    model = SiglipVisionModel(**TINY)
    prepared = SMALL(images=Image.fromarray(PICTURE), return_tensors="pt").to(
        device=model.device, dtype=model.dtype
    )
    out = model(**prepared, output_hidden_states=True)
    assert out.last_hidden_state.shape == (1, 9, 24)  # 20 pixels hold three patches of 6
    assert out.pooler_output.shape == (1, 24)
    assert len(out.hidden_states) == 3
    assert isinstance(model(**prepared, return_dict=False), tuple)


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ModelError, match="20 x 20 pixels and was given 21 x 20"):
        SiglipVisionModel(**TINY)(ops.zeros(1, 3, 21, 20))


def test_names_with_the_published_prefix_are_understood():
    assert SiglipVisionModel.rename("vision_model.head.probe") == "head.probe"
    assert SiglipVisionModel.rename("head.probe") == "head.probe"


def test_every_form_of_one_picture_gives_the_same_pixels():
    expected = SMALL(Image.fromarray(PICTURE)).pixel_values
    assert expected.shape == (1, 3, 20, 20)
    assert expected.dtype == np.float32
    channels_first = ops.from_numpy(PICTURE.transpose(2, 0, 1))
    for form in (PICTURE, [PICTURE], PICTURE[None], channels_first, channels_first[None], [channels_first]):
        np.testing.assert_array_equal(SMALL.preprocess(images=form)["pixel_values"], expected)


def test_float_pictures_are_not_rounded_to_8_bits():
    dark = np.full((30, 40, 3), 0.3001, dtype=np.float32)
    pixels = SMALL(dark, do_rescale=False).pixel_values
    np.testing.assert_allclose(pixels, (0.3001 - 0.5) / 0.5, rtol=0, atol=1e-6)


def test_switches_win_over_the_fields():
    raw = SMALL(PICTURE, do_resize=False, do_rescale=False, do_normalize=False).pixel_values
    np.testing.assert_array_equal(raw[0], PICTURE.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_other_modes_become_rgb(mode):
    picture = Image.fromarray(PICTURE).convert(mode)
    expected = SMALL(picture.convert("RGB")).pixel_values
    np.testing.assert_array_equal(SMALL(picture).pixel_values, expected)


def test_grey_and_transparent_arrays_become_rgb():
    grey = SMALL(PICTURE[..., :1]).pixel_values
    np.testing.assert_array_equal(grey, SMALL(PICTURE[..., 0]).pixel_values)
    assert grey.shape == (1, 3, 20, 20)
    transparent = np.concatenate([PICTURE, PICTURE[..., :1]], axis=2)
    np.testing.assert_array_equal(SMALL(transparent).pixel_values, SMALL(PICTURE).pixel_values)


@pytest.mark.parametrize("wrong", ["a.png", [], np.zeros(5), np.zeros((5, 5, 7)), [None]])
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(PictureError):
        SMALL(wrong)


def test_resize_leaves_the_right_size_alone():
    assert resize(PICTURE, 30, 40) is PICTURE


def test_saved_and_read_back(tmp_path):
    SMALL.save_pretrained(tmp_path / "feature_extractor")
    again = SiglipImageProcessor.from_pretrained(tmp_path, subfolder="feature_extractor")
    np.testing.assert_array_equal(again(PICTURE).pixel_values, SMALL(PICTURE).pixel_values)
    with pytest.raises(ModelError, match="preprocessor_config"):
        SiglipImageProcessor.from_pretrained(tmp_path)
