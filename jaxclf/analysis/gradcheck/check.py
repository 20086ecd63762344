"""``check_gradients`` tests whether a derivative is the derivative of a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from jaxclf.analysis.gradcheck.comparisons import Comparisons
from jaxclf.analysis.gradcheck.derivatives import Derivatives
from jaxclf.analysis.gradcheck.problem import make_problem
from jaxclf.analysis.gradcheck.report import GradientReport
from jaxclf.checks import check_option

MODES = ("forward", "reverse", "finite", "taylor")
KINKS = ("detect", "fail", "ignore")


def check_gradients(
    fn: Callable,
    args: Sequence,
    *,
    grad: Callable | None = None,
    argnums: int | Sequence[int] | None = None,
    order: int = 1,
    modes: Sequence[str] = MODES,
    directions: int = 5,
    kinks: str = "detect",
    seed: int = 0,
    rtol: float | None = None,
) -> GradientReport:
    """Compares the derivatives of ``fn`` at ``args`` with differences and with each other.

    The gradient under test is evaluated in float64 (without touching global settings) and compared
    with Richardson-extrapolated central differences of ``fn`` in float64, along ``directions``
    random directions, the gradient's own direction, and two that weigh every coordinate alike
    however small its derivative. Then the gradient in the dtypes of ``args`` is compared with the
    float64 one, array by array, down to 2 ε. So an error of 0.1 % in a float32 rule is far above
    the rounding of the reference, and the rounding of float32 itself is not taken for an error.

    Directions are scaled by the size of each coordinate. With g the scaled gradient and u a
    unit direction, a comparison fails when ``|g·u - difference|`` exceeds the largest of

    - ``rtol · ‖g ∘ u‖``: rounding of the gradient. By default 1e-7 if it is computed in float64,
      where correct gradients agree to about 1e-10 and a wrong term of one part in a million of a
      norm still shows; 128 ε if it is computed in float32 inside (a sum of 10⁴ terms rounds to
      about √10⁴ ε); 8 ε in float16 and bfloat16, which round once;
    - ten times the difference's own error estimate (from the extrapolation and the measured noise
      of ``fn``; steps go down to 5e-10 of a coordinate, so faster oscillations are not resolved);
    - for a gradient in less than float64, 16 times its rounding as its differences along a line
      show it, and four times the change of the exact gradient over a few ulp.

    Args:
      fn: a pure function of ``args`` with scalar or array outputs (pytrees too); outputs are made
        scalar with a random cotangent. Compiled programs are reused as by ``jax.jit``. It must
        accept float64; if it is another function there (random draws differ), the comparison of
        the dtypes is left out and named.
      args: tuple of pytrees. Integer leaves are passed through.
      grad: a function of ``args`` that returns the gradient of the scalar ``fn`` as ``jax.grad``
        does (NumPy is fine); by default ``fn`` is differentiated by JAX, custom rules included.
      argnums: which arguments to differentiate; by default all with floating leaves.
      order: 2 also checks Hessian-vector products: forward-over-reverse against
        reverse-over-reverse, symmetry, differences of the gradient, and the Taylor order 3.
      modes: any of ``forward`` and ``reverse`` (the derivatives under test), ``finite`` and
        ``taylor`` (the tests). With both of the first two they are also compared with each other,
        ``⟨c, Ju⟩ = ⟨Jᵀc, u⟩``.
      directions: the number of random directions.
      kinks: ``detect`` accepts a corner if the gradient lies in the subdifferential along every
        direction, and tests the rest beside the corner; ``fail`` fails; ``ignore`` only tests
        beside the corner.
      seed: the seed of the directions.
      rtol: the relative tolerance, which replaces the default above.

    Returns:
      A :class:`GradientReport`, true if every comparison holds. Its outcome may also be
      ``not_deterministic``, ``not_finite`` or ``inconclusive``, or ``nothing_to_check`` where no
      argument has a floating number; ``low_precision`` is true, but small errors cannot be seen.

    Raises:
      ValueError: bad options, or a ``grad`` whose result does not match the arguments, or that is
        given for an ``fn`` with more than one scalar output.
      RuntimeError: ``fn`` closes over 64-bit NumPy arrays of which a live jitted function holds a
        copy at another precision, which JAX 0.10 to 0.12 confuses.
      TypeError: ``fn`` returns nothing to differentiate, or JAX cannot differentiate it and no
        ``grad`` is given.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf import check_gradients
      >>> check_gradients(jnp.logaddexp, (0.3, 0.0)).outcome
      'passed'
      >>> check_gradients(jnp.logaddexp, (0.3, 0.0), grad=lambda a, b: (0.575, 0.425)).outcome
      'failed'

    Source: Griewank and Walther, Evaluating Derivatives (2008), section 3.1 (duality of modes);
    Ridders (1982) for the differences.
    """
    argnums = _check_options(fn, args, argnums, order, modes, directions, kinks)
    call = _reproduce(
        fn, grad=grad, argnums=argnums, order=order, modes=tuple(modes), directions=directions,
        kinks=kinks, seed=seed, rtol=rtol,
    )  # fmt: skip
    problem = make_problem(fn, tuple(args), argnums, scalar_only=grad is not None)
    report = GradientReport("", "", skipped=problem.skipped, seed=seed, reproduce=call)
    if not len(problem.theta):
        return report._replace(outcome="nothing_to_check")

    derivatives = Derivatives(problem, grad)
    settings = {
        "order": order, "modes": tuple(modes), "directions": directions, "rtol": rtol, "seed": seed,
    }  # fmt: skip
    try:
        return _examine(derivatives, report, kinks, settings)
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        if "verifier errors" in str(error) or "RuntimeProgramInputMismatch" in str(error):
            raise RuntimeError(
                "fn closes over 64-bit NumPy arrays that JAX still holds at another precision for "
                "another jitted function: pass them as arguments, or make them JAX arrays"
            ) from error
        raise
    finally:
        derivatives.release()


def assert_gradients(fn: Callable, args: Sequence, **options) -> None:
    """Raises AssertionError with the report's text unless :func:`check_gradients` passes.

    Args:
      fn, args, options: the arguments of :func:`check_gradients`.
    """
    report = check_gradients(fn, args, **options)
    if not report:
        raise AssertionError(str(report))


def gradient_cases(cases: Mapping[str, tuple], **options):
    """A pytest parametrisation over functions: each test gets a ``check`` to call.

    Paste this into a test file::

        import jax.numpy as jnp
        from jaxclf.analysis.gradcheck import gradient_cases

        @gradient_cases({
            "softplus": (jnp.logaddexp, (0.3, 0.0)),
            "mean of squares": (lambda w: jnp.mean(w**2), (jnp.arange(3.0),)),
        }, order=2)
        def test_gradients(check):
            check()

    Args:
      cases: test name -> ``(fn, args)`` or ``(fn, args, options)``.
      **options: the options for every case; see :func:`check_gradients`.
    """
    import pytest

    def bind(fn, args, own=None):
        return lambda: assert_gradients(fn, args, **(options | (own or {})))

    rows = [pytest.param(bind(*case), id=name) for name, case in cases.items()]
    return pytest.mark.parametrize("check", rows)


def _examine(
    derivatives: Derivatives, report: GradientReport, kinks: str, settings: dict
) -> GradientReport:
    """Fills in the report with checks at the point, or beside the point if it is a corner."""
    problem = derivatives.problem
    fault = _fault(derivatives)
    if fault:
        return report._replace(outcome=fault[0], detail=fault[1])
    point = Comparisons(derivatives, problem.theta, **settings)
    corners, beside = point.kinks(), ""
    if corners:
        report = report._replace(kinks=tuple(corners))
        if kinks == "fail":
            return report._replace(outcome="kink_failed")
        if kinks == "detect" and not all(corner.inside for corner in corners):
            detail = "at a kink the gradient lies outside the subdifferential"
            return report._replace(outcome="failed", detail=detail)
        rng = np.random.default_rng([report.seed, 2])
        moved = problem.theta + 1e-2 * problem.scales * rng.uniform(-1, 1, len(problem.theta))
        point = Comparisons(derivatives, problem.round(moved), **settings)
        beside = " beside the kink"

    checks, notes = point.run()
    if beside:
        checks = [check._replace(name=check.name + beside) for check in checks]
    report = report._replace(
        checks=tuple(checks), skipped=(*problem.skipped, *notes), outcome=point.outcome(checks)
    )
    if report.outcome == "failed":
        wrong, more = point.locate()
        return report._replace(wrong=tuple(wrong), more_wrong=more)
    if report.outcome == "passed" and corners:
        return report._replace(outcome="kink")
    return report


def _fault(derivatives: Derivatives) -> tuple[str, str] | None:
    """The fault that makes a comparison pointless, as an outcome and a sentence, or ``None``."""
    theta = derivatives.problem.theta
    first, second = derivatives.native_value(theta), derivatives.native_value(theta)
    if not (np.isfinite(first) and np.isfinite(second)):
        return "not_finite", f"fn returns {first} (summed over its outputs if it has many)"
    # Parallel hardware may sum in another order from run to run, which is rounding.
    if abs(first - second) > 1e-5 * max(abs(first), abs(second)):
        return "not_deterministic", f"two calls gave {first:.9g} and {second:.9g}"
    problem = derivatives.problem
    try:
        finite = np.isfinite(derivatives.gradient(problem.theta))
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            "JAX cannot differentiate fn, which needs NumPy arrays; give its gradient as grad="
        ) from error
    if not finite.all():
        return "not_finite", f"the gradient is not finite at {problem.name(int(finite.argmin()))}"
    return None


def _check_options(fn, args, argnums, order, modes, directions, kinks):
    if not callable(fn):
        raise TypeError(f"fn must be a function, got {type(fn).__name__}")
    if not isinstance(args, tuple | list):
        raise TypeError(f"args must be a tuple of arguments, got {type(args).__name__}")
    check_option("order", order, (1, 2))
    check_option("kinks", kinks, KINKS)
    for mode in modes:
        check_option("modes", mode, MODES)
    if not {"forward", "reverse"} & set(modes):
        raise ValueError("modes must hold forward or reverse, or there is nothing to test")
    if len(set(modes)) < 2:
        raise ValueError(f"modes must hold something to test against, got {modes[0]} alone")
    if directions < 1:
        raise ValueError(f"directions must be at least 1, got {directions}")
    if argnums is None:
        return None
    argnums = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for i in argnums:
        if not -len(args) <= i < len(args):
            raise ValueError(f"argnums must lie in 0 … {len(args) - 1}, got {i}")
    return tuple(i % len(args) for i in argnums)


def _reproduce(fn, **options) -> str:
    defaults = {
        "grad": None, "argnums": None, "order": 1, "modes": MODES, "directions": 5,
        "kinks": "detect", "rtol": None,
    }  # fmt: skip
    name = lambda f: getattr(f, "__name__", type(f).__name__)  # noqa: E731
    given = [
        f"{key}={name(value) if callable(value) else repr(value)}"
        for key, value in options.items()
        if key == "seed" or value != defaults[key]
    ]
    return f"jaxclf.check_gradients({name(fn)}, args, {', '.join(given)})"
