"""What a certified fit means: errors, tests, intervals, influence."""

from jaxclf.inference.bootstrap import Bootstrap as Bootstrap
from jaxclf.inference.bootstrap import bootstrap as bootstrap
from jaxclf.inference.criteria import InformationCriteria as InformationCriteria
from jaxclf.inference.criteria import information_criteria as information_criteria
from jaxclf.inference.effects import OddsRatios as OddsRatios
from jaxclf.inference.effects import average_marginal_effects as average_marginal_effects
from jaxclf.inference.effects import odds_ratios as odds_ratios
from jaxclf.inference.firth import FirthFit as FirthFit
from jaxclf.inference.firth import firth as firth
from jaxclf.inference.influence import influence as influence
from jaxclf.inference.influence import leave_one_out as leave_one_out
from jaxclf.inference.nested import ChiSquareTest as ChiSquareTest
from jaxclf.inference.nested import likelihood_ratio_test as likelihood_ratio_test
from jaxclf.inference.nested import score_test as score_test
from jaxclf.inference.nested import wald_test as wald_test
from jaxclf.inference.predictive import predictive as predictive
from jaxclf.inference.profile import ProfileInterval as ProfileInterval
from jaxclf.inference.profile import profile_interval as profile_interval
from jaxclf.inference.table import Inference as Inference
from jaxclf.inference.table import infer as infer
