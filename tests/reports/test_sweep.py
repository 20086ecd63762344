"""The choice of a sweep in words, in a table and in figures."""

import math

import numpy as np
import pytest

from jaxclf.reports.sweep import (
    best_configurations,
    described,
    draw_choice,
    draw_seconds,
    edges,
)
from jaxclf.sweeps.grid import lanes_of
from jaxclf.sweeps.selection import Candidate, Selection


def selection(grid, means, error=math.nan, chosen=0) -> Selection:
    lanes = lanes_of(grid, "convex")
    candidates = tuple(Candidate(lane, x, error) for lane, x in zip(lanes, means, strict=True))
    return Selection(lanes[chosen], "best", "log_loss", "5 folds", candidates)


def test_a_configuration_in_words_leaves_out_what_is_usual():
    lanes = lanes_of({"l2": [0.0123456, 0], "class_weight": [None, "balanced"]}, "convex")
    assert [described(lane) for lane in lanes] == [
        "λ = 0.0123", "λ = 0.0123, class weight = balanced",
        "no penalty", "no penalty, class weight = balanced",
    ]  # fmt: skip


def test_the_best_ten_are_in_order_with_three_digits():
    strengths = np.geomspace(1e-3, 1, 12).tolist()
    found = selection({"l2": strengths}, [0.5 - 0.01234567 * k for k in range(12)], 0.0123456, 11)
    table = best_configurations(found)
    assert table.header == ["λ", "log loss on 5 folds ± its standard error", "chosen"]
    assert len(table.rows) == 10
    assert table.rows[0] == ["1", "0.364 ± 0.012", "yes"]
    assert {row[2] for row in table.rows[1:]} == {""}


@pytest.mark.parametrize(
    ("chosen", "said"), [(0, ["weakest", "weaker"]), (1, []), (2, ["strongest", "stronger"])]
)
def test_a_choice_at_the_end_of_the_grid_is_said(chosen, said):
    found = edges(selection({"l2": [0.1, 1, 10]}, [0.3, 0.2, 0.1], chosen=chosen))
    assert all(word in found[0] for word in said) if said else found == []


def test_each_other_key_has_a_line_and_lines_that_agree_are_seen(tmp_path, sheets):
    grid = {"l2": [0.1, 1], "class_weight": [None, "balanced"]}
    (figure,) = draw_choice(selection(grid, [0.3, 0.3, 0.2, 0.2]), tmp_path)
    (ax,) = sheets[0].axes
    assert "Log loss on 5 folds" in figure.caption
    lines = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_marker() == "o"]
    assert len({line.get_linestyle() for line in lines}) == len(lines) == 2
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert set(names) > {"class weight = none", "class weight = balanced"}


def test_no_figure_where_the_grid_has_none(tmp_path, sheets):
    assert draw_choice(selection({"l1_ratio": [0, 1]}, [0.1, 0.2]), tmp_path) == []
    assert sheets == []


@pytest.mark.parametrize(("seconds", "scale"), [((7.0, 9.0), "linear"), ((0.01, 3.0), "log")])
def test_seconds_have_labels_on_their_axis(seconds, scale, tmp_path, sheets):
    draw_seconds([{"seconds": x} for x in seconds], tmp_path / "s.png")
    (ax,) = sheets[0].axes
    assert ax.get_yscale() == scale
    low, high = ax.get_ylim()
    assert sum(low <= tick <= high for tick in ax.get_yticks()) >= 2
