"""The interface of an objective to a solver: points, lines through them, and the curvature there.

A solver sees no loss and no features. It works with any oracle that has these methods:

- ``evaluate(params) -> Point``: the value and the gradient.
- ``ray(point, direction) -> Ray``: the objective along ``params + t direction``.
- ``product(point) -> (d -> H d)``: products with the Hessian there.
- ``model(point, size, old, budget, rng) -> (Model, passes)``: the curvature there, made of ``size``
  rows, with a metric for conjugate gradients, and the readings of the features that it took.
  ``old`` is the model before, or ``None``; ``budget`` is the number of products that a closer
  metric may cost, or 0 where none is needed; ``rng`` draws the rows.

- ``is_narrow(params)``: whether that curvature is in float32 where the parameters are in float64;
  ``exact()``: the oracle whose curvature is in the dtype of the parameters.

An oracle also has ``num_rows``; ``most_rows``, the most rows of a sample; ``passes``, which says
how often each call reads the features; and ``noise``, the relative error of a value by rounding.
``control`` says how its loops run: traced, or on the host where every call reads rows from a file.

A solver calls ``evaluate`` and ``model`` as they are, and takes steps by :func:`move`. It gives
functions that call ``ray`` or ``product`` to :func:`run`, which compiles each function once. Such a
function is defined in a module, because one that is made for each call compiles each time.
:func:`hessian_product` is such a function, for one product.

Rows in memory have the oracle of :mod:`jaxclf.solvers.linear_oracle`. Rows in chunks have the
oracle of :mod:`jaxclf.solvers.chunked_oracle`. Any other objective has the oracle of this module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.conjugate_gradients import TRACED, Control
from jaxclf.objectives import Objective
from jaxclf.penalties import penalty_value
from jaxclf.programs import jit_by_shape
from jaxclf.solvers.line_search import line_search


class Point(NamedTuple):
    """A point that a solver has reached."""

    params: Any
    value: Any
    gradient: Any = None
    largest: Any = np.inf
    """The largest absolute entry of the gradient."""
    gap_bound: Any = np.inf
    """A bound on the gap where the intercept is at its minimum, else an estimate; infinite where
    the gradient alone gives none."""
    kept: Any = None
    """Arrays that the oracle keeps of the point, for instance the logits of rows in memory."""


class Ray(NamedTuple):
    """The objective φ along a direction."""

    at: Callable
    """``t -> (φ(t), φ′(t))``."""
    arrive: Callable
    """``(t, φ(t)) -> (Point, φ′(t) or None)``."""
    curvature: Any = None
    """φ″(0) where it costs no reading of the features, else ``None``."""


class Model(NamedTuple):
    """The curvature at a point."""

    oracle: Any
    """The oracle, of some rows or of all, whose products with the Hessian are the model's."""
    metric: Any = None
    """``r -> M⁻¹ r``, a rough inverse of the Hessian, as a :class:`jax.tree_util.Partial`; ``None``
    where none is known."""
    block_rows: int = 0
    """The rows per feature of the factors of the metric, if it is a dear one that has a factor for
    each logit, else 0. Later models keep such a metric until there is a budget for a closer one."""
    price: float = np.inf
    """The least budget for a closer metric."""


class Passes(NamedTuple):
    """The readings of the features that each call takes."""

    start: float
    ray: float
    """The readings of a step along a direction, with the gradient where the step ends."""
    trial: float
    product: float


class Moved(NamedTuple):
    """A step along a direction."""

    point: Point
    length: Any
    """The length of the step; 0 where no length was good."""
    trials: Any
    curvature_ratio: Any
    """The curvature along the step over that in the quadratic model; 1 if it is not known."""


def run(function: Callable, oracle: Any, *args: Any) -> Any:
    """``function(oracle, *args)``, compiled once per function where the oracle can be traced."""
    return (_compiled(function) if oracle.control is TRACED else function)(oracle, *args)


@cache
def _compiled(function: Callable) -> Callable:
    return jit_by_shape(function)


def move(
    oracle: Any, point: Point, d: Any, slope: Any = None, wolfe_c2: Any = 0.5, first: Any = 1.0
) -> Moved:
    """A step to where the slope's absolute value is at most ``wolfe_c2`` times that at the start.

    Args:
      oracle: the oracle of the objective.
      point: the point where the step starts.
      d: the direction.
      slope: the slope along the direction, which is negative, where it is known.
      wolfe_c2: a number in (0, 1).
      first: the length that is tried first, or a shorter one where the known curvature says so.
    """
    slope = run(_slope, oracle, point.gradient, d) if slope is None else slope
    # Without the gradient all points have the same program. On the host none is compiled, and the
    # point itself comes back where no length is good.
    traced = oracle.control is TRACED
    bare = Point(point.params, point.value, kept=point.kept) if traced else point
    return run(_move, oracle, bare, d, slope, wolfe_c2, first)


def hessian_product(oracle: Any, point: Point, d: Any) -> Any:
    """``H d`` at a point, compiled once where the oracle can be traced."""
    bare = Point(point.params, 0.0, kept=point.kept)
    return run(_product, oracle, bare, d)


def _product(oracle: Any, point: Point, d: Any) -> Any:
    return oracle.product(point)(d)


def _slope(oracle: Any, gradient: Any, d: Any):
    return lp.dot(gradient, d)


def steepest_descent(oracle: Any, point: Point) -> tuple[Any, float, float]:
    """The direction -g, the slope along it, and a length to try first.

    It is the direction where no curvature is known. Along the length a straight line falls by the
    absolute value at the point, or by one where that is zero. So it ends at a minimum of zero
    (Polyak, Introduction to Optimization (1987), section 5.3). Elsewhere a line search corrects it.
    """
    d = jax.tree.map(jnp.negative, point.gradient)
    slope = float(run(_slope, oracle, point.gradient, d))
    return d, slope, (abs(float(point.value)) or 1.0) / -slope if slope < 0 else 1.0


def _move(oracle: Any, point: Point, d: Any, slope: Any, wolfe_c2: Any, first: Any) -> Moved:
    ray, ratio = oracle.ray(point, d), None
    if ray.curvature is not None:
        ratio = ray.curvature / jnp.abs(slope)
        # The first length stays within the minimum of the parabola with the known curvature.
        first = first / jnp.where(ratio > 1, ratio, 1)
    noise = oracle.noise * abs(point.value)
    loop = {"noise": noise, "wolfe_c2": wolfe_c2, "while_loop": oracle.control.while_loop}
    found = line_search(ray.at, point.value, slope, first, **loop)
    if oracle.control is not TRACED:
        found = jax.device_get(found)
    there, rise = ray.arrive(found.length, found.value)
    if ratio is None:
        ratio = 1.0 if rise is None else (rise - slope) / (found.length * abs(slope))
    return Moved(there, found.length, found.trials, ratio)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["data"],
    meta_fields=["function", "loss"],
)
@dataclass(frozen=True)
class GenericOracle:
    """The oracle of any differentiable objective, by automatic derivatives; :func:`generic_oracle`
    makes it."""

    data: Any
    function: Callable
    """The objective ``(params, data) -> ()``. Where there is a loss, it is the function of the
    logits, so that another strength of the penalty compiles nothing."""
    loss: Callable | None
    num_rows: ClassVar[int] = 1
    most_rows: ClassVar[int] = 1

    @property
    def control(self) -> Control:
        return TRACED

    @property
    def passes(self) -> Passes:
        return Passes(start=2.0, ray=1.0, trial=1.0, product=2.0)

    @property
    def noise(self) -> float:
        return 10 * float(jnp.finfo(jnp.result_type(float)).eps)

    def evaluate(self, params) -> Point:
        return run(_evaluated, self, params)

    def ray(self, point: Point, d) -> Ray:
        def at(t):
            near = lp.add_scaled(point.params, t, d)
            return jax.jvp(self._value, (near,), (d,))

        def arrive(t, value) -> tuple[Point, None]:
            return self._reached(lp.add_scaled(point.params, t, d), value), None

        return Ray(at, arrive)

    def product(self, point: Point) -> Callable:
        return lambda d: jax.jvp(jax.grad(self._value), (point.params,), (d,))[1]

    def model(self, point, size, old, budget, rng) -> tuple[Model, float]:
        return Model(self), 0.0

    def is_narrow(self, params) -> bool:
        return False

    def exact(self) -> GenericOracle:
        return self

    def _value(self, params):
        if self.loss is None:
            return self.function(params, self.data)
        batch, penalty = self.data
        return Objective(self.function, self.loss)(params, batch) + penalty_value(penalty, params)

    def _reached(self, params, value) -> Point:
        g = jax.grad(self._value)(params)
        return Point(params, value, g, lp.largest(g))


def _evaluated(oracle: GenericOracle, params) -> Point:
    return oracle._reached(params, oracle._value(params))


def generic_oracle(objective: Callable, batch: Any) -> GenericOracle:
    """The oracle of any differentiable ``objective(params, batch)``."""
    if isinstance(objective, Objective):
        data = batch, objective.strengths
        return GenericOracle(data, objective.logits_fn, objective.loss)
    return GenericOracle(batch, objective, None)
