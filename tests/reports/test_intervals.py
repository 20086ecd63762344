import numpy as np
import pytest

from jaxclf.inference import infer
from jaxclf.reports.intervals import draw_intervals
from tests.inference.test_table import problem


def test_intervals_are_drawn(tmp_path):
    objective, start, batch, _ = problem("wine")
    figure = draw_intervals(infer(objective, start, batch), tmp_path / "forest.png")
    assert figure.path.stat().st_size > 5000
    assert "95 % intervals: errors of the model" in figure.caption


def test_the_largest_of_many_are_drawn(tmp_path):
    objective, start, batch, _ = problem("iris_pair")
    table = infer(objective, start, batch)
    many = {
        name: np.tile(getattr(table, name)[:4], 20) for name in ("estimate", "lower", "upper", "z")
    }
    wide = table._replace(
        names=tuple(f"x{i} intercept" for i in range(80)), intercepts=np.zeros(80, bool), **many
    )
    figure = draw_intervals(wide, tmp_path / "forest.png")
    assert "the 40 of 80" in figure.caption
    with pytest.raises(ValueError, match="intercepts alone"):
        draw_intervals(table._replace(intercepts=np.ones(5, bool)), tmp_path / "none.png")
