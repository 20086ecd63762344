import jax
import numpy as np
import pytest

from jaxclf.data import transforms
from jaxclf.data.transforms import fit_standardiser, standardise


def test_standardised_columns_have_mean_zero_and_deviation_one():
    x = np.random.default_rng(0).normal(5, 3, size=(400, 3)).astype(np.float32)
    z = np.asarray(standardise(fit_standardiser(x), x))
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-5)
    np.testing.assert_allclose(standardise(fit_standardiser(x), x[7]), z[7])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_feature_becomes_zero(dtype, x64):
    # 0.1 is not exact and the mean of many is off: only an exact comparison finds it constant.
    x = np.full((100_000, 2), 0.1, dtype)
    x[:, 1] = np.arange(len(x))
    fitted = fit_standardiser(x)
    np.testing.assert_array_equal(standardise(fitted, x)[:, 0], 0)
    assert abs(standardise(fitted, x[0] + dtype(1e-3))[0]) < 2e-3
    pixels = np.zeros((7, 2), np.uint8)
    np.testing.assert_array_equal(standardise(fit_standardiser(pixels), pixels), 0)


def test_pixels_become_numbers_from_0_to_1():
    pixels = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(transforms.to_float(pixels), np.arange(256) / 255, rtol=2e-7)
    assert float(transforms.to_float(np.uint8(255))) == 1
    np.testing.assert_allclose(transforms.to_float(np.uint16([65535, 0])), [1, 0])
    np.testing.assert_array_equal(transforms.to_float(np.float32([-3, 300])), [-3, 300])
    np.testing.assert_array_equal(transforms.to_float(np.int32([-3, 300])), [-3, 300])
    assert transforms.flatten(np.zeros((2, 3))).shape == (6,)


def test_resize_keeps_a_constant_image_and_the_mean():
    image = jax.random.uniform(jax.random.key(0), (8, 8))
    np.testing.assert_allclose(transforms.resize(np.full((8, 8), 7, np.uint8), 3, 5), 7, rtol=1e-6)
    assert transforms.resize(np.zeros((8, 8, 3)), 4, 2).shape == (4, 2, 3)
    np.testing.assert_allclose(transforms.resize(image, 4, 4).mean(), image.mean(), atol=0.02)
    with pytest.raises(ValueError, match=r"an image must have shape .* got \(8,\)"):
        transforms.resize(np.zeros(8), 2, 2)


def test_flips_and_crops_are_drawn_from_the_key():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    keys = jax.random.split(jax.random.key(0), 200)
    flipped = np.asarray(jax.vmap(transforms.random_horizontal_flip, (0, None))(keys, image))
    mirrored = (flipped == image[:, ::-1]).all((1, 2))
    assert ((flipped == image).all((1, 2)) | mirrored).all()
    assert 60 < int(mirrored.sum()) < 140
    assert (transforms.random_horizontal_flip(keys[0], image, 1.0) == image[:, ::-1]).all()

    crops = np.asarray(jax.vmap(lambda key: transforms.random_crop(key, image, 1))(keys))
    assert crops.dtype == np.uint8
    padded = np.pad(image, 1)
    windows = {padded[i : i + 3, j : j + 4].tobytes() for i in range(3) for j in range(3)}
    assert {crop.tobytes() for crop in crops} == windows
    np.testing.assert_array_equal(transforms.random_crop(keys[0], image, 0), image)
    with pytest.raises(ValueError, match="padding must not be negative, got -1"):
        transforms.random_crop(keys[0], image, -1)


def test_a_deviation_that_float64_does_not_hold_is_refused():
    z = np.random.default_rng(0).normal(size=(20, 2))
    for factor in (1e200, 1e-200):
        with pytest.raises(ValueError, match="column 1 of the features is too large or too small"):
            fit_standardiser(z * [1, factor])


def test_wide_numbers_keep_their_digits_and_narrow_standardisers_narrow_first():
    x = 1_700_000_000 + np.arange(20)[:, None]
    expected = (np.arange(20) - 9.5) / np.arange(20).std()
    for dtype in (np.int64, np.float64, np.uint32):
        fitted = fit_standardiser(x.astype(dtype))
        np.testing.assert_allclose(standardise(fitted, x.astype(dtype))[:, 0], expected, rtol=1e-6)
    narrow = transforms.Standardiser(*(part.astype(np.float32) for part in fitted))
    inside = standardise(narrow, x.astype(np.float64))
    np.testing.assert_array_equal(inside, standardise(narrow, x.astype(np.float32)))
