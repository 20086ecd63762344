"""Gradient checks: differences in float64, modes against each other, Taylor orders."""

from jaxclf.analysis.gradcheck.check import assert_gradients as assert_gradients
from jaxclf.analysis.gradcheck.check import check_gradients as check_gradients
from jaxclf.analysis.gradcheck.check import gradient_cases as gradient_cases
from jaxclf.analysis.gradcheck.report import GradientReport as GradientReport
