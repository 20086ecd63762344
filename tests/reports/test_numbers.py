import numpy as np
import pytest

from jaxclf.reports.numbers import percent, sentence_case, shown, titled


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1797, "1797"),
        (0.123456, "0.123"),
        (1.0, "1"),
        (0.99961, "> 0.999"),
        (0.0, "0"),
        (1481.9, "1480"),
        (999.7, "1000"),
        (np.int64(1797), "1797"),
    ],
)
def test_numbers_have_three_digits_and_only_one_is_one(value, text):
    assert shown(value) == text


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100.0%"), (0.9997, "over 99.9%"), (0.5, "50.0%")]
)
def test_only_a_whole_share_is_100_percent(share, text):
    assert percent(share) == text


def test_names_of_measures_are_words():
    assert [titled(name) for name in ("log_loss", "roc_auc")] == ["log loss", "ROC AUC"]
    assert sentence_case("ROC AUC on 2 folds") == "ROC AUC on 2 folds"
    assert sentence_case("log loss") == "Log loss"
