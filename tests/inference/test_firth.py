"""Firth's logistic regression beside firthmodels, and by its definition."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, special

from jaxclf import losses, make_batch, make_objective
from jaxclf.inference import firth, infer
from jaxclf.models import linear
from tests.inference.problems import FIRTH, firth_rows

FIRTHMODELS = json.loads(Path(__file__).with_name("firthmodels.json").read_text())


def start(d):
    return linear.LinearParams(np.zeros(d), np.zeros(()))


@pytest.mark.parametrize("name", FIRTH)
def test_the_table_is_that_of_firthmodels(name):
    x, y = firth_rows(name)
    fit = firth(start(x.shape[1]), make_batch(x, y))
    expected = FIRTHMODELS[name]
    assert fit.log_likelihood == pytest.approx(expected["log_likelihood"], rel=1e-10)
    for column in ("estimate", "p_value", "lower", "upper"):
        given, other = getattr(fit.inference, column), np.array(expected[column], float)
        other = np.where(np.isnan(other), given, other)
        np.testing.assert_allclose(given, other, 1e-5, 0, err_msg=column)
    assert fit.scaled_score < 1e-9
    assert fit.params.weights.tolist() == fit.inference.estimate[:-1].tolist()


SEX2 = """
000010:1/1 001000:14/2 001010:3/1 001100:10/8 001110:12/18 001111:1/0 010000:44/42 010001:3/0
010010:0/1 011000:15/1 011001:1/0 011010:2/0 011100:7/5 011110:3/6 101000:2/0 101010:1/0 101011:1/0
101100:1/2 101110:0/4 101111:1/0 110000:5/14 110010:0/1 111000:3/1 111110:0/2
"""
"""Women with a first urinary tract infection, and without one, by age below 24 and by six ways of
contraception: age, oc, vic, vicl, vis and dia are 0 or 1 (Foxman et al., Urogenital infections and
use of contraceptives, Epidemiology 8 (1997); 239 women). Nobody without an infection has dia."""

LOGISTF = [
    [-1.10598131, -1.9737884, -0.30742514, 7.50773092],
    [-0.06881673, -0.9414363, 0.78920202, 0.02467044],
    [2.26887464, 1.2730216, 3.43543273, 22.93139022],
    [-2.11140817, -3.2608611, -1.11773495, 19.10407252],
    [-0.78831694, -1.6080879, 0.01518468, 3.69740975],
    [3.09601166, 0.7745682, 8.03029352, 7.89693139],
    [0.12025405, -0.8185591, 1.07315122, 0.06286298],
]
"""Estimate, ends of the profile interval of 95 %, and χ² of the penalised likelihood ratio, by
logistf for R, as its documentation and the tests of firthlogist 0.5 have them."""


def test_the_published_fit_of_separated_counts():
    """A row counts as so many women; logistf was run with a tolerance of 1e-5."""
    patterns = [row.split(":") for row in SEX2.split()]
    counts = np.array([list(map(int, pair.split("/"))) for _, pair in patterns])
    x = np.array([list(map(int, bits)) for bits, _ in patterns], np.float64)
    y = np.repeat([1, 0], len(x))
    fit = firth(start(6), make_batch(np.r_[x, x], y, counts.T.ravel().astype(np.float64)))
    assert fit.inference.total == 239
    expected = np.array(LOGISTF)
    ours = fit.inference
    np.testing.assert_allclose(ours.estimate, expected[:, 0], 1e-5)
    np.testing.assert_allclose(np.c_[ours.lower, ours.upper], expected[:, 1:3], 1e-5)
    np.testing.assert_allclose(special.chdtri(1, ours.p_value), expected[:, 3], 1e-4)


ENDOMETRIAL = """
00 13:164 16:226 8:314 34:268 20:128 5:231 17:180 10:168 26:156 17:231 8:201 7:189 20:315 10:123
  18:127 16:176 18:200 28:150 11:133 19:237 10:182 10:313 18:131 14:192 21:164 11:201 17:188 25:193
  16:211 19:129 15:172 33:75 24:192 29:202 15:229 12:233 3:290 20:170 23:141 12:225 22:154 42:197
  15:175 13:216 14:257 19:137 12:361 13:204 10:217
01 8:264 29:88 12:127 20:137 7:97 48:184 12:111 19:161 2:118 21:119 15:106 12:169 6:184 5:130 17:96
  5:35 33:85
11 38:97 22:114 7:88 25:91 15:58 22:144 40:118 5:93 0:117 49:27 11:101 21:98 19:102
"""
"""Women with endometrial cancer: neovasculation and high grade (0 or 1), then pulsatility index and
a hundred times the height of the endometrium of each (Heinze and Schemper (2002); 79 women). Nobody
of low grade has neovasculation."""

ENDOMETRIAL_BY_LOGISTF = [
    [2.92927330, 0.6097244, 7.85463171],
    [-0.03475175, -0.1244587, 0.04045547],
    [-2.60416387, -4.3651832, -1.23272106],
    [3.77455951, 1.0825371, 7.20928050],
]
"""Estimate and ends of the profile interval of 95 %, by logistf for R, as the tests of firthlogist
0.5 have them."""


def endometrial():
    """Neovasculation, index and height, and the grade."""
    found = []
    for line in ENDOMETRIAL.replace("\n  ", " ").split("\n")[1:-1]:
        (nv, grade), *pairs = line.split(" ")
        found += [[int(nv), *map(int, pair.split(":")), int(grade)] for pair in pairs]
    x, y = np.array(found, np.float64)[:, :3], np.array(found)[:, 3]
    return x / [1, 1, 100], y


def test_the_published_fit_of_separated_women():
    x, y = endometrial()
    assert (len(y), y.sum()) == (79, 30)
    fit = firth(start(3), make_batch(x, y)).inference
    found = np.c_[fit.estimate, fit.lower, fit.upper]
    np.testing.assert_allclose(found, ENDOMETRIAL_BY_LOGISTF, 1e-5)
    with pytest.raises(ValueError, match="no finite maximum of the likelihood"):
        infer(make_objective(linear.logits, losses.bernoulli_nll), start(3), make_batch(x, y))


def penalised(x, y, w, theta):
    """``ℓ + ½ log det I`` from its formula."""
    design = np.c_[x, np.ones(len(x))].astype(np.float64)
    p = special.expit(design @ theta)
    information = design.T @ ((w * p * (1 - p))[:, None] * design)
    likelihood = w @ special.log_expit((2 * y - 1) * (design @ theta))
    return likelihood + np.linalg.slogdet(information)[1] / 2


def test_it_is_the_maximum_of_the_penalised_likelihood():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2)).astype(np.float32)
    y, w = (x[:, 0] > 0.5).astype(np.int32), rng.integers(1, 4, 40).astype(np.float32)
    fit = firth(start(2), make_batch(x, y, w))
    theta = fit.inference.estimate
    assert fit.log_likelihood == pytest.approx(penalised(x, y, w, theta), rel=1e-12)
    design = np.c_[x, np.ones(40)].astype(np.float64)
    p = special.expit(design @ theta)
    covariance = np.linalg.inv(design.T @ ((w * p * (1 - p))[:, None] * design))
    np.testing.assert_allclose(fit.inference.covariance, covariance, 1e-7)
    slope = optimize.approx_fprime(theta, lambda t: penalised(x, y, w, t), 1e-6)
    np.testing.assert_allclose(slope, 0, atol=1e-4)
    repeated = firth(
        start(2), make_batch(np.repeat(x, w.astype(int), 0), np.repeat(y, w.astype(int)))
    )
    np.testing.assert_allclose(repeated.inference.upper, fit.inference.upper, 1e-8)


def test_units_and_the_start_do_not_matter():
    x, y = firth_rows("separated")
    one = firth(start(2), make_batch(x, y)).inference
    far = linear.LinearParams(np.array([300.0, -5.0]), np.float64(40))
    other = firth(far, make_batch(x * np.float32([1024, 0.125]), y)).inference
    np.testing.assert_allclose(other.estimate * [1024, 0.125, 1], one.estimate, 1e-7)
    np.testing.assert_allclose(other.lower * [1024, 0.125, 1], one.lower, 1e-7)


def test_without_columns_it_adds_half_a_row_to_each_class():
    """With an intercept alone the fit is ``log((k + ½) / (n - k + ½))``."""
    y = np.array([1, 1, 1, 1, 1, 0, 0])
    fit = firth(linear.LinearParams(np.zeros(1), None), make_batch(np.ones((7, 1)), y))
    assert fit.params.weights[0] == pytest.approx(np.log(5.5 / 2.5), rel=1e-9)
    assert fit.params.intercept is None
    assert "Gap" not in str(fit.inference)


def test_what_is_refused():
    x, y = firth_rows("separated")
    with pytest.raises(ValueError, match="depend on each other"):
        firth(start(2), make_batch(np.c_[x[:, 0], -x[:, 0]], y))
    with pytest.raises(ValueError, match="must have shape"):
        firth(start(3), make_batch(x, y))
    with pytest.raises(ValueError, match="must have shape"):
        firth(linear.LinearParams(np.zeros((2, 2)), np.zeros(2)), make_batch(x, y))
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        firth(start(2), make_batch(x, 2 * y))
    with pytest.raises(ValueError, match="2 names"):
        firth(start(2), make_batch(x, y), feature_names=["a"])


def test_weights_for_which_the_information_is_singular_are_refused():
    x = np.random.default_rng(0).standard_normal((40, 2))
    batch = make_batch(x, (np.arange(40) % 3 == 0).astype(int), np.full(40, 1e-12))
    with pytest.raises(ValueError, match="singular to rounding"):
        firth(start(2), batch)
