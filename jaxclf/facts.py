"""The known facts of a loss: one record, stated where the loss is defined.

Solvers, certificates and checks of labels read the record and never ask which function a loss is.
The record stays with a loss under ``functools.partial`` with keywords and under ``jax.jit``. Any
other function around a loss is a new loss, of which nothing is known until somebody states it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

import jax

from jaxclf.checks import check_option

LABELS = ("class", "sign", "probability", "probabilities", "distribution", "number")
STRUCTURES = ("separable", "softmax", "any")


class Facts(NamedTuple):
    """The facts of ``loss(logits, label)`` as a function of the logits, for every label."""

    convex: bool | None = None
    """Whether the loss is convex. Where this is ``None`` it is not known, and a proof is sought if
    one is needed."""
    lower_bound: float = -math.inf
    """A number that the loss is never below."""
    attains_minimum: bool = True
    """False if the loss is above its infimum at all finite logits whenever the label is hard. Data
    that a hyperplane separates then have no minimiser without a penalty."""
    labels: str | None = None
    """The kind of label that the loss takes: ``class``, an integer in 0 … K-1; ``sign``, -1 or +1;
    ``probability`` in [0, 1]; ``probabilities``, one for each logit; ``distribution``, ``(K,)``;
    ``number``, one or as many as logits. ``None`` where it is not known."""
    structure: str = "any"
    """``separable`` for a sum of functions of one logit each; ``softmax`` for
    ``log Σ exp z - ⟨t, z⟩`` with a target t that sums to one; else ``any``."""
    ignores_shifts: bool = False
    """True if the loss stays the same when all logits rise by the same amount, as a softmax does.
    The intercepts of a fit then have a mean of zero."""
    self_concordance: float | None = None
    """The M with ``|D³ℓ[u, v, v]| ≤ M max|u| D²ℓ[v, v]``, or ``None`` where it is not known."""
    accurate: bool = False
    """True if the computed loss and its slope are right to a few roundoffs of their own size for
    every hard label. In ``logaddexp(0, z) - y * z`` the logit cancels, so it is not accurate."""


UNKNOWN = Facts()
_STATED: WeakKeyDictionary[Callable, Callable[..., Facts]] = WeakKeyDictionary()


def states(**facts) -> Callable[[Callable], Callable]:
    """Decorates a loss with its record: ``@states(convex=True, lower_bound=0.0)``.

    A fact other than ``labels`` and ``structure`` may be a function of the loss's options, such as
    ``lambda *, smoothing=0.0: smoothing > 0``, which must take every option as a keyword.

    Args:
      facts: fields of :class:`Facts`.

    Raises:
      TypeError: a fact that does not exist, or a loss that is a partial with keywords.
      ValueError: a kind of label or a structure that does not exist.
    """
    Facts(**facts)
    if facts.get("labels") is not None:
        check_option("labels", facts["labels"], LABELS)
    check_option("structure", facts.get("structure", "any"), STRUCTURES)

    def record(**options) -> Facts:
        return Facts(**{name: x(**options) if callable(x) else x for name, x in facts.items()})

    def decorate(loss: Callable) -> Callable:
        inner, options = unwrapped(loss)
        if options:
            raise TypeError("facts are stated of a function with all its options, not of a partial")
        _STATED[inner] = record
        return loss

    return decorate


def state_facts(loss: Callable, **facts) -> Callable:
    """States what you know of a loss of your own, and returns it.

    The certificates of :func:`jaxclf.minimize` rest on these facts: a loss that is stated convex
    and is not gets false certificates. Where convexity is not stated, a proof is sought by the
    rules of :func:`jaxclf.certify_convexity`.

    Args:
      loss: ``(logits, label) -> ()``; the facts of a function in ``jax.jit`` are those of the
        function.
      facts: fields of :class:`Facts`.

    Raises:
      TypeError: a fact that does not exist, or a loss that is a partial with keywords.
      ValueError: a kind of label or a structure that does not exist.

    Example:
      >>> quartic = state_facts(lambda z, y: (z - y) ** 4, convex=True, lower_bound=0.0)
      >>> facts_of(quartic).convex
      True
    """
    return states(**facts)(loss)


def facts_of(loss: Callable) -> Facts:
    """The record of a loss, or :data:`UNKNOWN` for a loss that has none."""
    inner, options = unwrapped(loss)
    try:
        record = _STATED.get(inner)
    except TypeError:  # neither hashed nor referred to weakly
        return UNKNOWN
    return UNKNOWN if record is None else record(**options)


def unwrapped(loss: Callable) -> tuple[Callable, dict]:
    """The function below partials with keywords and ``jax.jit``, and the keywords."""
    options: dict = {}
    while True:
        if isinstance(loss, partial) and not loss.args:
            loss, options = loss.func, {**loss.keywords, **options}
        elif type(loss) is _JITTED:
            loss = loss.__wrapped__
        else:
            return loss, options


_JITTED = type(jax.jit(lambda: None))
