"""The figure of a path: its caption, its names, and what it refuses."""

import numpy as np
import pytest

from jaxclf import load_dataset, losses, make_batch, make_objective, minimize_path, penalties
from jaxclf.models import linear
from jaxclf.models.linear import LinearParams
from jaxclf.reports.path_figure import _apart, draw_path


def wine_path(num_classes):
    data = load_dataset("wine", dtype=np.float64)
    x = (data.features - data.features.mean(0)) / data.features.std(0)
    loss = losses.categorical_nll if num_classes else losses.bernoulli_nll
    outputs = (num_classes,) if num_classes else ()
    start = LinearParams(np.zeros((*outputs, 13), np.float32), np.zeros(outputs, np.float32))
    batch = make_batch(x, data.labels if num_classes else data.labels == 0)
    objective = make_objective(linear.logits, loss, penalties.l1(1.0))
    return minimize_path(objective, start, batch, num=4, min_ratio=0.05, tol=1e-4), data


def test_the_caption_says_what_is_drawn(tmp_path):
    path, data = wine_path(None)
    names = [f"{name} $x_{{" for name in data.feature_names]  # no formula of a name is set
    drawn = draw_path(path, tmp_path / "path.png", names=names, chosen=2)
    assert drawn.path.read_bytes().startswith(b"\x89PNG")
    assert drawn.caption.startswith("The coefficients along λ")
    assert f"marks λ = {path.strengths[2]:.3g}" in drawn.caption
    several, _ = wine_path(3)
    drawn = draw_path(several, tmp_path / "several.png")
    assert drawn.caption.startswith("The norm of each feature's coefficients along λ")


def test_names_do_not_cover_each_other():
    found = _apart(np.array([0.0, 1.0, 0.0, 0.001]), 2.0)
    assert np.diff(np.sort(found)).min() > 0.1
    assert np.argmax(found) == 1


def test_bad_input_is_refused(tmp_path):
    path, _ = wine_path(None)
    with pytest.raises(ValueError, match=r"names must have shape \(13,\)"):
        draw_path(path, tmp_path / "path.png", names=["one"])
    with pytest.raises(ValueError, match="chosen must be the number of a λ, 0 … 3, got 4"):
        draw_path(path, tmp_path / "path.png", chosen=4)
