"""Classifiers with scikit-learn's interface; thin, over the solvers and the training loop."""

from jaxclf.estimators.logistic import LogisticRegression as LogisticRegression
from jaxclf.estimators.logistic_cv import LogisticRegressionCV as LogisticRegressionCV
from jaxclf.estimators.minibatch import MinibatchClassifier as MinibatchClassifier
from jaxclf.estimators.one_vs_rest import (
    OneVsRestLogisticRegression as OneVsRestLogisticRegression,
)
from jaxclf.estimators.squared import RidgeClassifier as RidgeClassifier
from jaxclf.estimators.svc import LinearSVC as LinearSVC
