"""What a certified fit means: errors, tests, intervals, influence."""

from jaxclf.inference.table import Inference as Inference
from jaxclf.inference.table import infer as infer
