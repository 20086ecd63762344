"""Minibatch training: `fit`, evaluation, progress and logs, checkpoints."""

from jaxclf.models.batched_logits import make_logits as make_logits
from jaxclf.training.callbacks import Progress as Progress
from jaxclf.training.callbacks import jsonl_log as jsonl_log
from jaxclf.training.callbacks import tensorboard_log as tensorboard_log
from jaxclf.training.evaluation import make_evaluation as make_evaluation
from jaxclf.training.minibatch import FitResult as FitResult
from jaxclf.training.minibatch import fit as fit
from jaxclf.training.run import EarlyStopping as EarlyStopping
