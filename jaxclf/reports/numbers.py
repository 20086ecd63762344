"""Numbers and names of measures as people read them."""

from __future__ import annotations

from numbers import Integral

_NAMES = {"brier score": "Brier score", "roc auc": "ROC AUC", "f1 macro": "macro F1"}


def shown(value: float) -> str:
    """A number for people: a whole one as it is, any other with three digits.

    A number below 1 is not rounded to 1: a share of 0.9997 is shown as ``> 0.999``, as something is
    missing.
    """
    if isinstance(value, Integral):
        return str(int(value))
    if 0.9995 <= value < 1:
        return "> 0.999"
    rounded = float(f"{value:.3g}")
    return f"{rounded:.0f}" if 1000 <= abs(rounded) < 1e6 else f"{value:.3g}"


def percent(share: float) -> str:
    """A share in percent, of which only 1 is 100 %."""
    return "over 99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"


def titled(name: str) -> str:
    """The name of a measure as people write it."""
    words = name.replace("_", " ")
    return _NAMES.get(words, words)


def sentence_case(text: str) -> str:
    """A text with a capital first letter; the others stay as they are."""
    return text[:1].upper() + text[1:]
