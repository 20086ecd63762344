"""Measures of a model on rows it was not trained on, as a compiled function of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jaxclf import metrics
from jaxclf.models.batched_logits import make_logits
from jaxclf.objectives import Batch, plus_offset
from jaxclf.programs import programs_by_shape


def make_evaluation(
    logits_fn: Callable, batch: Batch, measures: Mapping[str, Callable] | None = None
) -> Callable:
    """A function ``params -> {name: number}`` of the measures over the rows of ``batch``.

    Args:
      logits_fn: ``(params, features of one example) -> logits``; the one used for prediction.
      batch: rows to judge by, from :func:`jaxclf.make_batch`. Their offset is added to the logits.
      measures: ``{name: (logits, labels, weights) -> ()}``; by default ``log_loss`` and
        ``accuracy`` of :mod:`jaxclf.metrics`. The same functions are compiled once.
    """
    chosen = {"log_loss": metrics.log_loss, "accuracy": metrics.accuracy}
    chosen = chosen if measures is None else dict(measures)
    measure = _measuring(tuple(chosen.items()), like=batch)

    def evaluate(params) -> dict[str, float]:
        all_logits = make_logits(logits_fn, like=(params, batch.features))
        logits = all_logits(params, batch.features)
        found = measure(logits, *batch[1:])
        return {name: float(value) for name, value in found.items()}

    return evaluate


@programs_by_shape
def _measuring(chosen: tuple[tuple[str, Callable], ...]) -> Callable:
    @jax.jit
    def measure(logits, labels, weights, offset):
        logits = logits if offset is None else plus_offset(logits, offset)
        return {name: jnp.asarray(f(logits, labels, weights)) for name, f in chosen}

    return measure
