"""Numbers as people read them."""

from __future__ import annotations


def shown(value: float) -> str:
    """A number for people: a whole one as it is, any other with three digits.

    What is below 1 is not rounded to 1, which for a share would mean that nothing is missing.
    """
    if isinstance(value, int):
        return str(value)
    if 1000 <= abs(value) < 1e6:
        return f"{float(f'{value:.3g}'):.0f}"
    return "> 0.999" if 0.9995 <= value < 1 else f"{value:.3g}"


def percent(share: float) -> str:
    """A share in percent, of which only 1 is 100 %."""
    return "over 99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"


def titled(name: str) -> str:
    """The name of a measure as people write it."""
    words = name.replace("_", " ")
    own = {"brier score": "Brier score", "roc auc": "ROC AUC", "f1 macro": "macro F1"}
    return own.get(words, words)
