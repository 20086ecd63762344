"""The report of a gradient check."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """One comparison: it holds if ``error <= tolerance``."""

    name: str
    error: float
    tolerance: float
    holds: bool
    note: str = ""


class WrongCoordinate(NamedTuple):
    """One entry of the gradient that disagrees with the differences."""

    name: str
    given: float
    expected: float
    step: float


class Kink(NamedTuple):
    """A direction along which the function has a corner at the point."""

    direction: int
    before: float
    """One-sided derivative from behind, per unit of the direction."""
    after: float
    """One-sided derivative ahead, per unit of the direction."""
    given: float
    """The derivative that the gradient under test gives, per unit of the direction."""
    inside: bool
    """Whether ``given`` lies between ``before`` and ``after``, and so in the subdifferential along
    this direction."""


OUTCOMES = {
    "passed": "every comparison holds",
    "failed": "a comparison does not hold",
    "kink": "the function has a kink here; the gradient lies in its subdifferential",
    "kink_failed": "the function has a kink here and kinks were to fail",
    "low_precision": "every comparison holds, but fn computes in less than float64 inside, "
    "so small errors cannot be seen",
    "inconclusive": "fn is too noisy for differences to confirm or refute the gradient",
    "not_deterministic": "fn gives different values for the same arguments",
    "not_finite": "the value or the gradient is not finite",
    "nothing_to_check": "the chosen arguments hold no floating number",
}
_GOOD = {"passed", "kink", "low_precision"}


class GradientReport(NamedTuple):
    """The result of :func:`check_gradients`; it is true for a right gradient, a table in print."""

    outcome: str
    """A key of ``OUTCOMES``."""
    detail: str
    checks: tuple[Check, ...] = ()
    kinks: tuple[Kink, ...] = ()
    wrong: tuple[WrongCoordinate, ...] = ()
    """The wrong coordinates that bisection found, the worst first."""
    more_wrong: bool = False
    """Whether there are more wrong coordinates than those listed."""
    skipped: tuple[str, ...] = ()
    seed: int = 0
    reproduce: str = ""
    """The call that gives this report again."""

    def __bool__(self) -> bool:
        return self.outcome in _GOOD

    def to_dict(self) -> dict:
        """The report as plain dictionaries, lists, strings and numbers."""
        plain = self._asdict()
        for key in ("checks", "kinks", "wrong"):
            plain[key] = [row._asdict() for row in plain[key]]
        return plain | {"ok": bool(self), "skipped": list(self.skipped)}

    def __str__(self) -> str:
        lines = [f"gradient check: {self.outcome}: {self.detail or OUTCOMES[self.outcome]}"]
        if self.checks:
            width = max(len(check.name) for check in self.checks)
            lines.append(f"  {'comparison':<{width}}  {'error':>9}  {'allowed':>9}")
            for check in self.checks:
                mark = "" if check.holds else "  WRONG"
                note = f"  {check.note}" if check.note else ""
                numbers = f"{check.error:9.2e}  {check.tolerance:9.2e}"
                lines.append(f"  {check.name:<{width}}  {numbers}{mark}{note}".rstrip())
        for kink in self.kinks[:3]:
            side = "inside" if kink.inside else "OUTSIDE"
            lines.append(
                f"  kink along direction {kink.direction}: derivative {kink.before:.6g} before, "
                f"{kink.after:.6g} after, given {kink.given:.6g}: {side}"
            )
        if len(self.kinks) > 3:
            lines.append(f"  and along {len(self.kinks) - 3} more directions")
        for entry in self.wrong:
            lines.append(
                f"  wrong: {entry.name}: given {entry.given:.9g}, "
                f"differences say {entry.expected:.9g} (step {entry.step:.1e})"
            )
        if self.more_wrong:
            lines.append("  and more coordinates are wrong")
        if self.skipped:
            lines.append(f"  not differentiated: {', '.join(self.skipped)}")
        lines.append(f"  reproduce: {self.reproduce}")
        return "\n".join(lines)
