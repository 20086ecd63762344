"""Datasets, splits, encodings and synthetic data."""

from jaxclf.data.dataset import Dataset as Dataset
from jaxclf.data.encoding import class_weights as class_weights
from jaxclf.data.encoding import one_hot as one_hot
from jaxclf.data.readers import register_source as register_source
from jaxclf.data.sources import load_dataset as load_dataset
from jaxclf.data.splits import split_dataset as split_dataset
from jaxclf.data.stored_files import open_rows as open_rows
from jaxclf.data.stored_files import store_rows as store_rows
from jaxclf.data.stored_files import svmlight_blocks as svmlight_blocks
from jaxclf.data.tables import TableOptions as TableOptions
from jaxclf.data.transforms import Standardiser as Standardiser
from jaxclf.stored_rows import StoredRows as StoredRows
