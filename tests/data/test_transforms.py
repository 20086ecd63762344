import numpy as np
import pytest

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
