"""Operators of ai.onnx.ml that are arithmetic: what scikit-learn's preprocessing and linear models become.

Results are float32, as the operators' schemas say. Integers and doubles are computed in double and rounded
once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from egc.frontend.arithmetic import numeric
from egc.frontend.context import Context, NotCompiled, OnnxNode
from egc.frontend.registry import operator
from egc.ir.dims import product
from egc.ir.types import is_float, numpy_dtype

DOMAIN = "ai.onnx.ml"
FAMILY = "ml"


def _wide(ctx: Context, value: str) -> str:
    """``value`` as the floats in which it is computed."""
    value = numeric(ctx, value)
    return value if ctx.dtype(value) == "float32" else ctx.cast(value, "float64")


def _rows(ctx: Context, value: str) -> int:
    """The number of features of ``value`` [N, features]; NodeError where it is no matrix of known width."""
    shape = ctx.shape(value)
    if len(shape) != 2 or not isinstance(shape[1], int):
        ctx.fail(
            f"its operand is {ctx.type(value)}; a matrix of a known number of features is supported",
            "give the shape of the model's input",
        )
    return shape[1]


def _per_feature(ctx: Context, node: OnnxNode, name: str, value: str, dtype: str) -> str:
    """The attribute ``name``, one entry for all features or one for each, to broadcast over ``value``
    [..., features]."""
    entries = np.asarray(node.attr(name) or [], numpy_dtype(dtype))
    if entries.size == 1:
        return ctx.constant(entries.reshape(()))
    features = ctx.shape(value)[-1] if ctx.rank(value) else 1
    if entries.size != features:
        ctx.fail(f"{name} has {entries.size} entries for {features} features")
    return ctx.constant(entries)


@operator("Scaler", family=FAMILY, domain=DOMAIN)
def scaler(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """(x - offset) * scale."""
    x = _wide(ctx, node.required(0))
    offset, scale = (_per_feature(ctx, node, name, x, ctx.dtype(x)) for name in ("offset", "scale"))
    return [ctx.cast(ctx.map("mul", ctx.map("sub", x, offset), scale), "float32")]


@operator("Imputer", family=FAMILY, domain=DOMAIN)
def imputer(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The imputed value of the feature where the element is the replaced one; NaN is replaced as a value."""
    x = numeric(ctx, node.required(0))
    if is_float(ctx.dtype(x)):
        replaced = node.attr("replaced_value_float", 0.0)
        hit = ctx.map("isnan", x) if np.isnan(replaced) else ctx.map("eq", x, ctx.like(replaced, x))
        values = _per_feature(ctx, node, "imputed_value_floats", x, ctx.dtype(x))
    else:
        replaced = ctx.scalar(node.attr("replaced_value_int64", 0), "int64")
        hit = ctx.map("eq", ctx.cast(x, "int64"), replaced)
        values = _per_feature(ctx, node, "imputed_value_int64s", x, ctx.dtype(x))
    return [ctx.map("select", hit, values, x)]


@operator("Normalizer", family=FAMILY, domain=DOMAIN)
def normalizer(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Each row divided by its greatest element, the sum of its magnitudes or its length; as it is where that
    is zero. The greatest is that of the elements, as the schema and ONNX Runtime have it, and not of their
    magnitudes, as in onnx.reference."""
    x = _wide(ctx, node.required(0))
    norm, last = node.attr("norm", "MAX"), (ctx.rank(x) - 1,)
    if ctx.rank(x) not in (1, 2):
        ctx.fail(f"its operand is {ctx.type(x)}, neither [N, C] nor [C]")
    if norm == "MAX":
        divisor = ctx.reduce("max", x, last)
    elif norm == "L1":
        divisor = ctx.reduce("add", ctx.map("abs", x), last)
    elif norm == "L2":
        divisor = ctx.map("sqrt", ctx.reduce("add", ctx.map("mul", x, x), last))
    else:
        ctx.fail(f"there is no norm {norm!r}")
    zero = ctx.map("eq", divisor, ctx.like(0, divisor))
    return [ctx.cast(ctx.map("select", zero, x, ctx.map("div", x, divisor)), "float32")]


@operator("Binarizer", family=FAMILY, domain=DOMAIN)
def binarizer(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """1 where the element is greater than the threshold, else 0, in the operand's dtype."""
    x = _wide(ctx, node.required(0))
    above = ctx.map("gt", x, ctx.like(node.attr("threshold", 0.0), x))
    return [ctx.cast(above, ctx.dtype(node.required(0)))]


@operator("ArrayFeatureExtractor", family=FAMILY, domain=DOMAIN)
def array_feature_extractor(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Elements of the last axis; those of a vector as one row."""
    x, places = numeric(ctx, node.required(0)), node.required(1)
    count = product(ctx.shape(places))
    (out,) = ctx.onnx("Gather", [x, ctx.reshape(places, (count,))], axis=ctx.axis(-1, ctx.rank(x)))
    assert out is not None
    return [ctx.reshape(out, (1, count)) if ctx.rank(x) == 1 else out]


@operator("FeatureVectorizer", family=FAMILY, domain=DOMAIN)
def feature_vectorizer(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Matrices side by side, vectors as one row each; every one is cut, or filled with zeros, to its size."""
    sizes = node.attr("inputdimensions") or []
    if len(sizes) != len(node.inputs):
        ctx.fail(f"inputdimensions has {len(sizes)} entries for {len(node.inputs)} operands")
    parts = []
    for index, size in enumerate(sizes):
        part = ctx.cast(numeric(ctx, node.required(index)), "float32")
        part = ctx.unsqueeze(part, (0,)) if ctx.rank(part) == 1 else part
        width = _rows(ctx, part)
        parts.append(ctx.slice_axis(part, 1, 0, min(size, width)))
        if size > width:
            zeros = ctx.expand(ctx.scalar(0, "float32"), (ctx.shape(part)[0], size - width))
            parts.append(zeros)
    return [ctx.concat(parts, 1)]


@operator("OneHotEncoder", family=FAMILY, domain=DOMAIN)
def one_hot_encoder(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """A new last axis with 1 at the place of the category; floats are truncated to integers first."""
    x, categories = numeric(ctx, node.required(0)), node.attr("cats_int64s") or []
    if not node.attr("zeros", 1):
        raise NotCompiled("values of no category are errors")
    if not categories or len(set(categories)) < len(categories):
        raise NotCompiled("categories that are text, or name one value twice")
    values = ctx.unsqueeze(ctx.cast(x, "int64"), (ctx.rank(x),))
    hit = ctx.map("eq", values, ctx.constant(np.array(categories, np.int64)))
    return [ctx.cast(hit, "float32")]


def _scores(ctx: Context, node: OnnxNode, columns: int) -> str:
    """x @ coefficients + intercepts; the coefficients of each of ``columns`` stand together."""
    x = _wide(ctx, node.required(0))
    weights = np.asarray(node.attr("coefficients") or [], numpy_dtype(ctx.dtype(x)))
    if columns < 1 or weights.size != columns * _rows(ctx, x):
        ctx.fail(f"{weights.size} coefficients for {columns} results of {_rows(ctx, x)} features")
    scores = ctx.add("matmul", (x, ctx.constant(np.ascontiguousarray(weights.reshape(columns, -1).T))))
    if not node.attr("intercepts"):
        return scores
    return ctx.map("add", scores, _per_feature(ctx, node, "intercepts", scores, ctx.dtype(x)))


def _transformed(ctx: Context, node: OnnxNode, scores: str) -> str:
    transform = node.attr("post_transform", "NONE")
    if transform == "LOGISTIC":
        scores = ctx.map("sigmoid", scores)
    elif transform == "SOFTMAX":
        (soft,) = ctx.onnx("Softmax", [scores], axis=1)
        assert soft is not None
        scores = soft
    elif transform != "NONE":
        raise NotCompiled(f"the transformation {transform}")
    return ctx.cast(scores, "float32")


@operator("LinearRegressor", family=FAMILY, domain=DOMAIN)
def linear_regressor(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """One score for each target."""
    return [_transformed(ctx, node, _scores(ctx, node, node.attr("targets", 1)))]


@operator("LinearClassifier", family=FAMILY, domain=DOMAIN)
def linear_classifier(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The label of the greatest score, the first of several, and the scores."""
    labels, x = node.attr("classlabels_ints") or [], node.required(0)
    columns = len(node.attr("coefficients") or []) // max(_rows(ctx, x), 1)
    if len(labels) != columns or columns < 2:
        raise NotCompiled("labels that are text, or one score for two classes")
    scores = _scores(ctx, node, columns)
    (best,) = ctx.onnx("ArgMax", [scores], axis=1, keepdims=0)
    assert best is not None
    label = ctx.add("gather", (ctx.constant(np.array(labels, np.int64)), best), axis=0)
    return [label, _transformed(ctx, node, scores)]
