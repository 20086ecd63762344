"""Figures of classifiers say what is shown, and fade what is uncertain."""

import numpy as np
import pytest

from jaxclf.data.transforms import Standardiser
from jaxclf.models.classifier import Architecture, Classifier
from jaxclf.models.linear import LinearParams
from jaxclf.reports.classifier_figures import calibration_bins, draw_calibration, draw_confusion
from jaxclf.reports.coefficient_figures import draw_coefficients, largest


def predictions(rng, count: int, confidence: float, right: float):
    probabilities = np.tile([confidence, 1 - confidence], (count, 1))
    return probabilities, (rng.random(count) >= right).astype(int)


def linear_classifier(weights, names, scaled: bool) -> Classifier:
    classes, features = weights.shape
    return Classifier(
        Architecture("linear", (features,), classes, (), 0.0, ""),
        LinearParams(weights, np.zeros(classes)),
        tuple(f"class {k}" for k in range(classes)),
        names,
        Standardiser(np.zeros(features), np.ones(features)) if scaled else None,
    )


def tick_names(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_bins_of_few_rows_are_known_and_faded(rng, tmp_path, sheets):
    few, labels = predictions(rng, 3, 0.97, 1.0)
    many, more = predictions(rng, 200, 0.7, 0.7)
    probabilities, labels = np.concatenate([few, many]), np.concatenate([labels, more])
    bins = calibration_bins(probabilities, labels)
    np.testing.assert_array_equal(bins.count, [200, 3])
    np.testing.assert_array_equal(bins.few, [False, True])
    figure = draw_calibration(probabilities, labels, tmp_path / "c.png")
    assert "fewer than 10 rows are faded" in figure.caption
    above, below = sheets[0].axes
    assert sorted(patch.get_alpha() for patch in below.patches) == [0.3, 1]
    assert [patch.get_height() for patch in below.patches if patch.get_alpha() == 0.3] == [3]
    names = [text.get_text() for text in above.get_legend().get_texts()]
    assert "measured on fewer than 10 rows" in names
    assert above.get_title() == ""


def test_without_a_thin_bin_nothing_is_faded(rng, tmp_path, sheets):
    probabilities, labels = predictions(rng, 200, 0.7, 0.7)
    draw_calibration(probabilities, labels, tmp_path / "c.png")
    above, below = sheets[0].axes
    assert [patch.get_alpha() for patch in below.patches] == [1]
    names = [text.get_text() for text in above.get_legend().get_texts()]
    assert names == ["calibrated", "measured"]


@pytest.mark.parametrize("num_classes", [2, 10, 26])
def test_a_confusion_matrix_names_its_scale_its_classes_and_their_rows(
    num_classes, tmp_path, sheets
):
    counts = 40 * np.eye(num_classes, dtype=int)
    counts[1] = 0
    counts[1, 0] = 3
    names = [f"class {k}" for k in range(num_classes)]
    figure = draw_confusion(counts, names, tmp_path / "c.png")
    ax, bar = sheets[0].axes
    assert bar.get_ylabel() == "share of the rows of the true class"
    assert tick_names(ax.yaxis)[:2] == ["class 0 (40)", "class 1 (3)"]
    assert tick_names(ax.xaxis) == names
    assert sorted({text.get_text() for text in ax.texts}) == ["3", "40"]
    assert ax.get_title() == ""
    assert "number of its rows" in figure.caption
    # A cell is wide enough for its number on the page, which is at most 930 pixels wide.
    width = sheets[0].get_figwidth() * sheets[0].dpi
    pixels = ax.get_window_extent().width / num_classes * min(1, 930 / width)
    assert pixels > 20


def test_a_hundred_classes_are_numbered(tmp_path, sheets):
    names = [f"class {k}" for k in range(100)]
    figure = draw_confusion(np.eye(100, dtype=int), names, tmp_path / "c.png")
    assert "numbered from 0" in figure.caption
    assert list(sheets[0].axes[0].texts) == []


def test_the_largest_coefficients_have_their_names(rng, tmp_path, sheets):
    weights = rng.normal(size=(2, 50)) / 100
    weights[1, 17], weights[1, 3] = -4, 2
    names = tuple(f"feature $ {j}" for j in range(50))
    figure = draw_coefficients(linear_classifier(weights, names, True), None, tmp_path / "c.png")
    (ax,) = sheets[0].axes
    assert tick_names(ax.yaxis)[:2] == ["feature $ 17", "feature $ 3"]
    assert len(tick_names(ax.yaxis)) == len(ax.patches) == 20
    assert ax.patches[0].get_width() == pytest.approx(weights[1, 17] - weights[0, 17])
    assert "largest 20 of 50" in figure.caption
    assert "class 1 against class 0" in figure.caption
    assert "per standard deviation" in figure.caption


@pytest.mark.parametrize("num_classes", [3, 26, 100])
def test_coefficients_are_shown_by_class(num_classes, rng, tmp_path, sheets):
    weights = rng.normal(size=(num_classes, 30))
    figure = draw_coefficients(linear_classifier(weights, (), False), None, tmp_path / "c.png")
    ax = sheets[0].axes[0]
    centred = weights - weights.mean(0)
    shown = largest(centred)
    assert tick_names(ax.yaxis) == [f"feature {j}" for j in shown]
    np.testing.assert_allclose(ax.images[0].get_array(), centred[:, shown].T)
    assert len(ax.get_xticks()) == num_classes or num_classes == 100
    assert "20 of 30 features" in figure.caption
    assert "per unit" in figure.caption


def test_coefficients_of_pixels_are_images(rng, tmp_path, sheets):
    weights = rng.normal(size=(26, 12))
    figure = draw_coefficients(linear_classifier(weights, (), True), (3, 4), tmp_path / "c.png")
    images = [ax.images[0] for ax in sheets[0].axes if ax.images]
    assert len(images) == 20
    assert {image.get_array().shape for image in images} == {(3, 4)}
    assert "first 20 of 26 classes" in figure.caption
