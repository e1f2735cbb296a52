"""Ensembles of decision trees, walked over all samples and all trees at once.

``onnx.reference`` leaves post_transform out, loses the member 0 of a set and refuses most single class
labels; a target that no leaf names is the lowest float under MAX. What the specification leaves open, above
all two classes of which the leaves name one, is done as ONNX Runtime does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from onnx.reference.op_run import OpRun

from egc.ir.host_ops.scores import classify, name_classes, transform

# The modes of operator TreeEnsemble by number; _LEAF is ours.
_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")
_COMPARISONS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "BRANCH_LEQ": np.less_equal,
    "BRANCH_LT": np.less,
    "BRANCH_GTE": np.greater_equal,
    "BRANCH_GT": np.greater,
    "BRANCH_EQ": np.equal,
    "BRANCH_NEQ": np.not_equal,
}
_LEAF = "LEAF"
_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


class _Forest(Struct, frozen=True):
    """All nodes of all trees in one numbering.

    ``roots`` has each tree's first node; the other arrays are by node. ``true`` and ``false`` are the nodes
    that follow. ``members`` are the sets of BRANCH_MEMBER nodes. Entry ``i`` of ``weights`` belongs to the
    leaf ``leaves[i]`` and adds to ``targets[i]``.
    """

    roots: np.ndarray
    modes: np.ndarray
    features: np.ndarray
    values: np.ndarray
    true: np.ndarray
    false: np.ndarray
    missing_true: np.ndarray
    members: Mapping[int, np.ndarray]
    leaves: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    def reached(self, x: np.ndarray) -> np.ndarray:
        """The leaf that each sample of ``x`` [N, features] reaches in each tree: [N, trees]."""
        at = np.broadcast_to(self.roots, (len(x), len(self.roots))).copy()
        # A path has at most as many nodes as there are.
        for _ in range(len(self.modes)):
            rows, trees = np.nonzero(self.modes[at] != _LEAF)
            if not len(rows):
                return at
            nodes = at[rows, trees]
            at[rows, trees] = np.where(
                self._holds(nodes, x[rows, self.features[nodes]]), self.true[nodes], self.false[nodes]
            )
        raise ValueError("the nodes of a tree form a cycle")

    def _holds(self, nodes: np.ndarray, x: np.ndarray) -> np.ndarray:
        result = np.zeros(len(nodes), bool)
        modes = self.modes[nodes]
        for mode in np.unique(modes):
            where = modes == mode
            if mode == "BRANCH_MEMBER":
                pairs = zip(nodes[where], x[where], strict=True)
                result[where] = [value in self.members[node] for node, value in pairs]
            elif mode in _COMPARISONS:
                result[where] = _COMPARISONS[mode](x[where], self.values[nodes[where]])
            else:
                raise ValueError(f"the mode {mode!r} of a node is unknown")
        return result | (np.isnan(x) & self.missing_true[nodes])

    def aggregate(self, x: np.ndarray, how: str, targets: int) -> tuple[np.ndarray, np.ndarray]:
        """The scores [N, targets] over all trees, and which of them any leaf gave."""
        if how not in _AGGREGATES:
            raise ValueError(f"aggregate_function {how!r} is unknown")
        reached = self.reached(x)
        # Which entries of `weights` a leaf has: those from first[leaf] to first[leaf + 1].
        order = np.argsort(self.leaves, kind="stable")
        first = np.searchsorted(self.leaves[order], np.arange(len(self.modes) + 1))
        combine = {"MIN": np.minimum, "MAX": np.maximum}.get(how, np.add)
        start = {"MIN": np.inf, "MAX": -np.inf}.get(how, 0.0)
        scores = np.full((len(x), targets), start, self.weights.dtype)
        given = np.zeros(scores.shape, bool)
        for column in reached.T:
            counts = first[column + 1] - first[column]
            rows = np.repeat(np.arange(len(x)), counts)
            within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            entries = order[np.repeat(first[column], counts) + within]
            combine.at(scores, (rows, self.targets[entries]), self.weights[entries])
            given[rows, self.targets[entries]] = True
        if how == "AVERAGE":
            scores /= len(self.roots)
        return np.where(given, scores, 0), given


class TreeEnsembleRegressor(OpRun):
    """Forms 1 and 3: nodes by tree and number; base values are added to what the trees give."""

    op_domain = "ai.onnx.ml"

    def _run(self, X: Any, **attributes: Any) -> Any:
        targets = int(attributes["n_targets"])
        forest = _listed_forest(attributes, "target")
        how = attributes.get("aggregate_function") or "SUM"
        scores, _ = forest.aggregate(_samples(X), how, targets)
        base = _floats(attributes, "base_values")
        if base is not None:
            scores = scores + base
        return (transform(scores, attributes.get("post_transform")).astype(np.float32),)


class TreeEnsembleClassifier(OpRun):
    """Forms 1 and 3: the label of the best class, and the scores of all."""

    op_domain = "ai.onnx.ml"

    def _run(self, X: Any, **attributes: Any) -> Any:
        labels = attributes.get("classlabels_strings") or attributes.get("classlabels_int64s") or []
        forest = _listed_forest(attributes, "class")
        scores, given = forest.aggregate(_samples(X), "SUM", len(labels))
        base = _floats(attributes, "base_values")
        classes = np.unique(forest.targets)
        only = int(classes[0]) if len(classes) == 1 and len(labels) == 2 else None
        positive = bool((forest.weights >= 0).all())
        best, scores = classify(scores, given, base, only, positive, attributes.get("post_transform"))
        return name_classes(labels, best), scores.astype(np.float32)


class TreeEnsemble(OpRun):
    """Form 5: nodes by index, leaves apart from them."""

    op_domain = "ai.onnx.ml"

    def _run(self, X: Any, **attributes: Any) -> Any:
        forest = _indexed_forest(attributes)
        how = _AGGREGATES[int(attributes.get("aggregate_function", 1))]
        scores, _ = forest.aggregate(_samples(X), how, int(attributes["n_targets"]))
        post = _TRANSFORMS[int(attributes.get("post_transform") or 0)]
        return (transform(scores, post).astype(X.dtype),)


def _samples(x: np.ndarray) -> np.ndarray:
    """The samples as floats [N, features]."""
    x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
    return x.reshape(1, -1) if x.ndim == 1 else x


def _floats(attributes: Mapping[str, Any], name: str) -> np.ndarray | None:
    """A list of floats, or the tensor of doubles that may stand in its place."""
    tensor = attributes.get(f"{name}_as_tensor")
    if tensor is not None and np.size(tensor):
        return np.asarray(tensor).reshape(-1)
    values = attributes.get(name)
    return np.array(values, np.float32) if values is not None and len(values) else None


def _listed_forest(attributes: Mapping[str, Any], kind: str) -> _Forest:
    trees, numbers = attributes["nodes_treeids"], attributes["nodes_nodeids"]
    index = {pair: i for i, pair in enumerate(zip(trees, numbers, strict=True))}
    first: dict[int, int] = {}
    for i, tree in enumerate(trees):
        first.setdefault(tree, i)
    modes = np.array(attributes["nodes_modes"], object)

    def follow(name: str) -> np.ndarray:
        nodes = zip(trees, attributes[name], modes, strict=True)
        return np.array([0 if mode == _LEAF else index[tree, node] for tree, node, mode in nodes], np.int64)

    weights = _floats(attributes, f"{kind}_weights")
    owners = zip(attributes[f"{kind}_treeids"], attributes[f"{kind}_nodeids"], strict=True)
    missing = attributes.get("nodes_missing_value_tracks_true")
    values = _floats(attributes, "nodes_values")
    return _Forest(
        np.array([first[tree] for tree in sorted(first)], np.int64),
        modes,
        np.array(attributes["nodes_featureids"], np.int64),
        np.zeros(len(modes), np.float32) if values is None else values,
        follow("nodes_truenodeids"),
        follow("nodes_falsenodeids"),
        np.array(missing, bool) if missing else np.zeros(len(modes), bool),
        {},
        np.array([index[owner] for owner in owners], np.int64),
        np.array(attributes[f"{kind}_ids"], np.int64),
        np.zeros(0, np.float32) if weights is None else weights,
    )


def _indexed_forest(attributes: Mapping[str, Any]) -> _Forest:
    """The leaves are numbered behind the nodes."""
    modes = [_MODES[int(mode)] for mode in attributes["nodes_modes"]]
    count, leaves = len(modes), len(attributes["leaf_weights"])

    def follow(side: str) -> np.ndarray:
        nodes = np.array(attributes[f"nodes_{side}nodeids"], np.int64)
        nodes += count * np.array(attributes[f"nodes_{side}leafs"], np.int64)
        return np.concatenate([nodes, np.zeros(leaves, np.int64)])

    def lengthen(values: Any, dtype: Any) -> np.ndarray:
        return np.concatenate([np.array(values, dtype), np.zeros(leaves, dtype)])

    true, false = follow("true"), follow("false")
    # A root whose two sides are the same leaf is a tree of that leaf alone, which its walk finds, too.
    missing = attributes.get("nodes_missing_value_tracks_true")
    return _Forest(
        np.array(attributes["tree_roots"], np.int64),
        np.array([*modes, *[_LEAF] * leaves], object),
        lengthen(attributes["nodes_featureids"], np.int64),
        lengthen(attributes["nodes_splits"], np.asarray(attributes["nodes_splits"]).dtype),
        true,
        false,
        lengthen([False] * count if missing is None else missing, bool),
        _members(modes, attributes.get("membership_values")),
        np.arange(count, count + leaves),
        np.array(attributes["leaf_targetids"], np.int64),
        np.asarray(attributes["leaf_weights"]),
    )


def _members(modes: Sequence[str], values: Any) -> dict[int, np.ndarray]:
    """The sets of BRANCH_MEMBER nodes, in the order of the nodes, each ended by a NaN."""
    owners = [i for i, mode in enumerate(modes) if mode == "BRANCH_MEMBER"]
    if not owners:
        return {}
    values = np.asarray([] if values is None else values)
    ends = np.nonzero(np.isnan(values))[0]
    if len(ends) != len(owners):
        raise ValueError(f"{len(owners)} nodes ask for members; membership_values has {len(ends)} sets")
    return dict(zip(owners, np.split(values, ends + 1), strict=False))
