"""The comparisons that a gradient check makes at one point."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxclf.analysis.gradcheck import differences
from jaxclf.analysis.gradcheck.derivatives import Derivatives
from jaxclf.analysis.gradcheck.differences import STEPS, Estimate, LineValues
from jaxclf.analysis.gradcheck.locate import balanced_direction, wrong_coordinates
from jaxclf.analysis.gradcheck.problem import Problem
from jaxclf.analysis.gradcheck.report import Check, Kink, WrongCoordinate


class Slope(NamedTuple):
    """The function along one direction, and the slope that its gradient gives there."""

    unit: np.ndarray
    line: LineValues
    estimate: Estimate
    given: float
    tolerance: float


class Comparisons:
    """All comparisons at one point; lines through it are evaluated once and shared."""

    def __init__(
        self,
        derivatives: Derivatives,
        theta: np.ndarray,
        *,
        order: int,
        modes: tuple[str, ...],
        directions: int,
        rtol: float | None,
        seed: int,
    ):
        problem: Problem = derivatives.problem
        gradient = derivatives.gradient(theta)
        self.derivatives, self.problem, self.theta = derivatives, problem, theta
        self.gradient, self.order, self.modes = gradient, order, modes
        self.scaled = problem.scales * gradient
        self.norm = float(np.linalg.norm(self.scaled))
        self.rng = np.random.default_rng([seed, 3])
        self.rtol = _default_rtol(derivatives.dtype) if rtol is None else rtol
        self.scatter = np.zeros(len(theta))
        if derivatives.dtype != np.float64:
            near = [derivatives.gradient(t) for t in self._neighbours(derivatives.dtype)]
            self.scatter = np.std(near, axis=0)

        units = [_unit(self.rng.normal(size=len(theta))) for _ in range(directions)]
        value = abs(float(self._values(units[0], np.zeros(len(STEPS)))[0]))
        computed_in = derivatives.value_dtype
        self.noise = differences.noise_level(
            lambda t: self._values(units[0], t),
            float(jnp.finfo(computed_in).eps) * value,
            computed_in,
        )
        if self.norm > 0:
            units.append(self.scaled / self.norm)
            units += [balanced_direction(self.scaled, self.rng) for _ in range(2)]
        slopes = [self._slope(unit) for unit in units]
        self.slopes = [slope for slope in slopes if np.isfinite(slope.estimate.error)]

    def _values(self, unit, steps) -> np.ndarray:
        return self.derivatives.line(self.theta, self.problem.scales * unit, steps)

    def _slope(self, unit) -> Slope:
        line = differences.line_values(self._values(unit, STEPS), self.noise)
        estimate = differences.central_difference(line)
        if not np.isfinite(estimate.error) and self.theta.any():
            # Every step left the domain: take steps in proportion to the coordinates themselves.
            unit = _unit(unit * np.abs(self.theta) / self.problem.scales)
            line = differences.line_values(self._values(unit, STEPS), self.noise)
            estimate = differences.central_difference(line)
        spread = 16 * np.linalg.norm(self.problem.scales * self.scatter * unit)
        rounding = self.rtol * np.linalg.norm(self.scaled * unit)
        tolerance = max(rounding, 10 * estimate.error, spread)
        return Slope(unit, line, estimate, float(self.scaled @ unit), float(tolerance))

    def _neighbours(self, dtype) -> list[np.ndarray]:
        """Random points a few ulp away from the point."""
        epsilon = float(jnp.finfo(dtype).eps)
        size = 4 * epsilon * np.maximum(np.abs(self.theta), self.problem.scales * epsilon)
        wiggles = self.rng.uniform(-1, 1, (8, len(self.theta)))
        return [self.problem.round(self.theta + size * wiggle) for wiggle in wiggles]

    def kinks(self) -> list[Kink]:
        found = []
        for i, slope in enumerate(self.slopes):
            corner = differences.kink(slope.line, 0.05 * self.rtol * self.norm)
            if corner:
                low, high = min(corner), max(corner)
                margin = 1e-5 * (high - low) + self.rtol * self.norm
                inside = low - margin <= slope.given <= high + margin
                found.append(Kink(i, *corner, slope.given, bool(inside)))
        return found

    def run(self) -> tuple[list[Check], list[str]]:
        """Every comparison that the modes and the order ask for, and notes on what was left out."""
        checks, notes, tested = [], [], {}
        if not self.slopes:
            return checks, ["along every direction fn leaves its domain at once"]
        if "reverse" in self.modes:
            kind = "gradient" if self.derivatives.grad is not None else "reverse mode"
            tested[kind] = [s.given for s in self.slopes]
        forward = self._forward_slopes(notes) if "forward" in self.modes else None
        if forward is not None:
            tested["forward mode"] = forward
        for kind, given in tested.items():
            if "finite" in self.modes:
                checks.append(self._against_differences(kind, given))
            if "taylor" in self.modes:
                checks.append(self._taylor(f"Taylor order of the {kind}", given))
        if len(tested) == 2:
            checks.append(self._forward_against_reverse(forward))
        if self.order == 2:
            checks += self._second_order(notes)
        return checks + self._native_precision(notes), notes

    def outcome(self, checks: list[Check]) -> str:
        if not all(check.holds for check in checks):
            return "failed"
        resolved = [s.tolerance / _steepness(s, self.norm) for s in self.slopes]
        if min(resolved, default=np.inf) > 1e-3:
            return "inconclusive"
        if self.derivatives.value_dtype != np.float64 or self.derivatives.dtype != np.float64:
            return "low_precision"
        return "passed"

    def locate(self) -> tuple[list[WrongCoordinate], bool]:
        """The wrong coordinates that differences show, and whether there are more."""

        def compare(unit):
            slope = self._slope(unit)
            return abs(slope.given - slope.estimate.value) / slope.tolerance, slope.estimate

        blocks = [np.arange(leaf.start, leaf.stop) for leaf in self.problem.layout.leaves]
        found, more = wrong_coordinates(
            compare, blocks, self.gradient, self.problem.scales, self.rng
        )
        return [entry._replace(name=self.problem.name(i)) for i, entry in found], more

    def _against_differences(self, kind: str, given: list[float]) -> Check:
        rows = [
            (abs(g - s.estimate.value), s.tolerance, i)
            for i, (g, s) in enumerate(zip(given, self.slopes, strict=True))
        ]
        return self._worst(f"{kind} against differences", rows)

    def _worst(self, name: str, rows, note: str = "") -> Check:
        error, tolerance, i = max(rows, key=lambda row: _ratio(row[0], row[1]))
        norm = self.norm or 1.0
        note = note or f"direction {i} of {len(rows)}"
        return Check(name, error / norm, tolerance / norm, bool(error <= tolerance), note)

    def _forward_slopes(self, notes: list[str]) -> list[float] | None:
        if self.derivatives.grad is not None:
            return None
        if not self.derivatives.traceable:
            notes.append("forward mode (JAX cannot trace fn)")
            return None
        scales = self.problem.scales
        try:
            return [
                self.derivatives.forward_slope(self.theta, scales * s.unit) for s in self.slopes
            ]
        except TypeError as error:
            if "custom_vjp" not in str(error):
                raise
            notes.append("forward mode (fn has a custom_vjp, which defines reverse mode only)")
            return None

    def _forward_against_reverse(self, forward: list[float]) -> Check:
        rows = []
        for i, (value, slope) in enumerate(zip(forward, self.slopes, strict=True)):
            allowed = self.rtol * max(np.linalg.norm(self.scaled * slope.unit), abs(value))
            allowed += 64 * np.finfo(np.float64).eps * np.abs(self.scaled * slope.unit).sum()
            rows.append((abs(value - slope.given), allowed + self.noise, i))
        return self._worst("forward against reverse mode", rows)

    def _taylor(self, name: str, given, curvatures: list[float] | None = None) -> Check:
        rows = []
        for i, slope in enumerate(self.slopes[: len(curvatures) if curvatures else None]):
            curvature = curvatures[i] if curvatures else None
            found = differences.taylor(slope.line, slope.tolerance, given[i], curvature)
            rows.append((found.leftover, slope.tolerance, found.order))
        leftover, tolerance, order = max(rows, key=lambda row: (_ratio(row[0], row[1]), -row[2]))
        expected = 3 if curvatures else 2
        # A remainder of no clean order that leaves nothing comes from a corner further away.
        regular = order > expected - 0.25 or leftover > 0
        note = f"order {order:.2f}" if regular else "exact near the point"
        norm = self.norm or 1.0
        return Check(name, leftover / norm, tolerance / norm, bool(leftover <= tolerance), note)

    def _native_precision(self, notes: list[str]) -> list[Check]:
        """Compares the gradient in the dtypes of the arguments with the float64 one, per array."""
        leaves = [leaf for leaf in self.problem.layout.leaves if leaf.dtype != np.float64]
        if not leaves:
            return []
        dtype = min((leaf.dtype for leaf in leaves), key=lambda d: d.itemsize)
        scales = self.problem.scales
        wiggle = scales * self.rng.uniform(-1, 1, len(self.theta))
        epsilon = float(jnp.finfo(dtype).eps)
        # The radii go from a few ulp, where results round differently, to 1 %, where inputs that
        # are absorbed in large constants round differently.
        radii = (4 * epsilon, max(1e-4, 4 * epsilon), max(1e-2, 4 * epsilon))
        lines = [[self.problem.round(self.theta + r * i * wiggle) for i in range(7)] for r in radii]
        points = [theta for line in lines for theta in line]
        exact = np.array([self.derivatives.gradient(theta) for theta in points])
        still = np.zeros_like(self.theta)
        values = np.array([self.derivatives.line(t, still, STEPS)[0] for t in lines[0][:4]])
        native, native_values = self.derivatives.native(points, len(values))
        differ = native_values - values
        if abs(differ[0]) > 1e-2 * abs(values[0]) + 32 * np.std(differ) + 1e-3 * self.norm:
            notes.append(f"{dtype} against float64 (fn is another function there: random draws?)")
            return []
        # Fourth differences along a line remove what is smooth in the error, a wrong factor too,
        # and leave its rounding, 1/70 of their mean square. The constants inside fn are rounded as
        # well, which moves the point by an ulp: near an optimum that alone changes a small
        # gradient entirely.
        errors = (native - exact).reshape(3, 7, -1)
        rounding = np.sqrt(np.mean(np.diff(errors, n=4, axis=1) ** 2, axis=1) / 70)
        rounding = np.nan_to_num(rounding, nan=0.0, posinf=0.0).max(axis=0)  # out of the domain
        error = scales * (native[0] - exact[0])
        spread = scales * (16 * rounding + 4 * np.abs(exact[1] - exact[0]))
        return [self._leaf_precision(leaf, error, spread) for leaf in leaves]

    def _leaf_precision(self, leaf, error, spread) -> Check:
        part = slice(leaf.start, leaf.stop)
        computed_in = min(leaf.dtype, self.derivatives.dtype, key=lambda d: d.itemsize)
        name = f"{leaf.name} in {leaf.dtype} against float64"
        if not np.isfinite(error[part]).all():
            index = leaf.start + int(np.argmin(np.isfinite(error[part])))
            note = f"not finite at {self.problem.name(index)}"
            return Check(name, np.inf, 0.0, False, note)
        norm = float(np.linalg.norm(self.scaled[part]))
        rounding = float(np.linalg.norm(spread[part]))
        # Sums of terms of size 1 that cancel, as in p - 1, leave errors of ε whatever is left.
        floor = 2 * float(jnp.finfo(computed_in).eps)
        allowed = _default_rtol(computed_in) * norm + rounding + floor
        note = "ill-conditioned: rounding alone moves the gradient by this much"
        note = note if norm and rounding > 1e-2 * norm else " "
        return self._worst(name, [(float(np.linalg.norm(error[part])), allowed, 0)], note)

    def _second_order(self, notes: list[str]) -> list[Check]:
        if not self.derivatives.grad_traceable:
            notes.append("second order (JAX cannot trace the gradient)")
            return []
        scales = self.problem.scales
        units = [slope.unit for slope in self.slopes[:2]]
        if len(units) == 1:
            units.append(_unit(self.rng.normal(size=len(self.theta))))
        products = [self.derivatives.hessian_products(self.theta, scales * u) for u in units]
        forward = [scales * f for f, _ in products]
        reverse = [scales * r for _, r in products]
        sizes = [float(np.linalg.norm(f)) for f in forward]
        size = max(sizes) or 1.0
        rounding = 64 * np.finfo(np.float64).eps * (self.norm + self.noise)

        def check(name, error, tolerance):
            return Check(name, error / size, tolerance / size, bool(error <= tolerance))

        error = max(float(np.linalg.norm(f - r)) for f, r in zip(forward, reverse, strict=True))
        allowed = self.rtol * size + rounding
        checks = [check("Hessian: forward-over-reverse against reverse", error, allowed)]
        error = abs(float(units[1] @ forward[0] - units[0] @ forward[1]))
        checks.append(check("Hessian: symmetry", error, allowed))
        if "finite" in self.modes:
            values = self.derivatives.slope_line(
                self.theta, scales * units[0], scales * units[1], STEPS
            )
            floor = np.finfo(np.float64).eps * (abs(float(values[0])) + self.norm)
            noise = differences.noise_level(
                lambda t: self.derivatives.slope_line(
                    self.theta, scales * units[0], scales * units[1], t
                ),
                floor,
            )
            line = differences.line_values(values, noise)
            estimate = differences.central_difference(line)
            given = float(units[1] @ forward[0])
            allowed = max(self.rtol * float(np.linalg.norm(forward[0] * units[1])), rounding)
            allowed = max(allowed, 10 * estimate.error)
            error = abs(given - estimate.value)
            corner = differences.kink(line, allowed)
            if (
                corner
            ):  # the gradient has a corner, like a squared hinge's: any value between is right
                error = max(min(corner) - given, given - max(corner), 0.0)
            checks.append(check("Hessian against differences of the gradient", error, allowed))
        if "taylor" in self.modes:
            curvatures = [float(u @ f) for u, f in zip(units, forward, strict=True)]
            curvatures = curvatures[: len(self.slopes)]
            given = [slope.given for slope in self.slopes]
            checks.append(self._taylor("Taylor order with the Hessian", given, curvatures))
        return checks


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _ratio(error: float, tolerance: float) -> float:
    return error / tolerance if tolerance > 0 else (np.inf if error > 0 else 0.0)


def _steepness(slope: Slope, norm: float) -> float:
    """The size of slope that matters: the largest at the point or a step away.

    If the gradient is zero at the point, the size of the value counts too.
    """
    away = np.abs(slope.line.ahead - slope.line.at_zero)[:4] / differences.LEVELS[:4]
    flat = abs(slope.line.at_zero) if norm == 0 else 0.0
    return float(max(norm, flat, *away[np.isfinite(away)], np.finfo(np.float64).tiny))


def _default_rtol(dtype) -> float:
    if np.dtype(dtype) == np.float64:
        return 1e-7
    epsilon = float(jnp.finfo(dtype).eps)
    return 128 * epsilon if np.dtype(dtype).itemsize >= 4 else 8 * epsilon
