"""Operators for ``onnx.reference`` in place of its own, which ignore attributes, misread them or refuse them.

A host node runs with :data:`OPERATORS`; so does what its subgraphs and functions hold. Each class says what
``onnx.reference`` gets wrong. Imported only where a host node runs: it imports onnx.
"""

from __future__ import annotations

from onnx.reference.op_run import OpRun

from egc.ir.host_ops.control import Loop, Scan
from egc.ir.host_ops.core import (
    LRN,
    GridSample,
    Hardmax,
    LogSoftmax,
    LpNormalization,
    NonMaxSuppression,
    OneHot,
    Softmax,
)
from egc.ir.host_ops.linear import (
    LinearClassifier,
    LinearRegressor,
    Normalizer,
    Scaler,
    SVMClassifier,
    SVMRegressor,
)
from egc.ir.host_ops.pool import GlobalLpPool, LpPool, MaxPool
from egc.ir.host_ops.recurrent import GRU, LSTM, RNN
from egc.ir.host_ops.trees import TreeEnsemble, TreeEnsembleClassifier, TreeEnsembleRegressor

OPERATORS: tuple[type[OpRun], ...] = (
    GRU,
    GlobalLpPool,
    GridSample,
    Hardmax,
    LRN,
    LSTM,
    LinearClassifier,
    LinearRegressor,
    LogSoftmax,
    Loop,
    LpNormalization,
    LpPool,
    MaxPool,
    NonMaxSuppression,
    Normalizer,
    OneHot,
    RNN,
    SVMClassifier,
    SVMRegressor,
    Scaler,
    Scan,
    Softmax,
    TreeEnsemble,
    TreeEnsembleClassifier,
    TreeEnsembleRegressor,
)
