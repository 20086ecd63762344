"""The logits of many rows, from the function of one example."""

from __future__ import annotations

from collections.abc import Callable

import jax

from jaxclf.objectives import check_takes_sparse
from jaxclf.programs import programs_by_shape
from jaxclf.sparse_rows import is_sparse

_ROWS_AT_ONCE = 1000


@programs_by_shape
def make_logits(logits_fn: Callable) -> Callable:
    """A compiled ``(params, features (n, ...)) -> logits (n, ...)``, a thousand rows at a time.

    The function is kept, so that asking for the same again compiles nothing. ``like=`` may name
    arguments to come, see :func:`jaxclf.programs.programs_by_shape`.

    Args:
      logits_fn: ``(params, features of one example) -> logits``.
    """

    @jax.jit
    def all_logits(params, features):
        if is_sparse(features):
            check_takes_sparse(logits_fn)
            return logits_fn(params, features)
        return jax.lax.map(lambda x: logits_fn(params, x), features, batch_size=_ROWS_AT_ONCE)

    return all_logits
