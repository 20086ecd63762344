import numpy as np
import pytest

from jaxclf.reports.probe import interval, most_confused


def test_the_interval_is_wilsons_also_where_all_rows_are_right():
    # Wilson's interval for n of n rows begins at n / (n + z²).
    z = 1.959963984540054
    assert interval(1.0, 30) == pytest.approx((30 / (30 + z**2), 1))
    low, high = interval(0.5, 100)
    assert (low + high) / 2 == pytest.approx(0.5)
    assert high - low == pytest.approx(2 * z * np.sqrt(0.25 / (100 + z**2)))


def test_the_most_frequent_confusions_come_first():
    counts = np.array([[9, 1, 0], [4, 6, 0], [0, 2, 0]])
    table = most_confused(counts, ["a", "b", "c"])
    assert table.rows == [["b", "a", "4", "40%"], ["c", "b", "2", "100%"]]
    assert most_confused(np.eye(3, dtype=int), ["a", "b", "c"]) is None
    assert most_confused(counts[:2, :2], ["a", "b"]) is None
