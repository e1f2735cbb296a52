"""RNN, GRU and LSTM over sequences that are not unrolled: every attribute, against onnxruntime and PyTorch,
and against the unrolled form, which the same model has where its shapes are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import egc
from egc.errors import EgcError

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
HIDDEN, INPUT = 5, 4
ALL = ("RNN", "GRU", "LSTM")
# operators, what the node has beside X, W and R, its attributes
CASES: list[tuple[tuple[str, ...], str, dict[str, Any]]] = [
    (ALL, "", {}),
    (ALL, "bias lengths state", {}),
    (ALL, "bias lengths state", {"direction": "reverse"}),
    (ALL, "bias lengths state", {"direction": "bidirectional"}),
    (ALL, "bias state", {"clip": 0.4}),
    (("GRU",), "bias lengths state", {"linear_before_reset": 1, "direction": "bidirectional"}),
    (("GRU",), "bias", {"linear_before_reset": 1, "clip": 0.3}),
    (("LSTM",), "bias lengths state peepholes", {"direction": "bidirectional"}),
    (("LSTM",), "bias peepholes", {"input_forget": 1}),
    (("RNN",), "", {"activations": ["Relu"]}),
    (("RNN",), "lengths", {"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.1]}),
    (("RNN",), "", {"activations": ["ScaledTanh"], "activation_alpha": [0.5], "activation_beta": [0.7]}),
    (("RNN",), "", {"activations": ["ThresholdedRelu"], "activation_alpha": [0.2]}),
    (("RNN",), "", {"activations": ["Softsign"]}),
    (("RNN",), "", {"activations": ["Softplus"]}),
    (
        ("GRU",),
        "bias",
        {
            "activations": ["HardSigmoid", "LeakyRelu", "Sigmoid", "Elu"],
            "activation_alpha": [0.3, 0.05, 0.7],
            "activation_beta": [0.4],
            "direction": "bidirectional",
        },
    ),
    (("LSTM",), "bias", {"activations": ["HardSigmoid", "Relu", "Tanh"]}),
]
EXPANDED = [(op, *rest) for ops, *rest in CASES for op in ops]
# onnxruntime does not clip the operand of LSTM's h, which the specification says of all activations.
COMPARABLE = [case for case in EXPANDED if case[0] != "LSTM" or "clip" not in case[2]]


def make(
    op: str,
    beside: str,
    attributes: dict[str, Any],
    shape: tuple[Any, Any],
    opset: int = 17,
    dtype: Any = None,
) -> tuple[bytes, list[np.ndarray]]:
    """The model over a sequence of ``shape`` (length, batch), and its weights W, R, B and P."""
    dtype = np.dtype(dtype or np.float32)
    code = helper.np_dtype_to_tensor_dtype(dtype)
    rng = np.random.default_rng(7)
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    gates = GATES[op] * HIDDEN
    sizes = {"w": (gates, INPUT), "r": (gates, HIDDEN), "b": (2 * gates,), "p": (3 * HIDDEN,)}
    weights = {k: rng.uniform(-0.7, 0.7, (directions, *s)).astype(dtype) for k, s in sizes.items()}
    names = ["x", "w", "r", "b" if "bias" in beside else "", "n" if "lengths" in beside else ""]
    states = ["h", "c"][: 2 if op == "LSTM" else 1]
    names += states if "state" in beside else [""] * len(states)
    names += ["p"] if "peepholes" in beside else []
    outputs = ["y", "yh", "yc"][: 1 + len(states)]
    node = helper.make_node(op, names, outputs, hidden_size=HIDDEN, **attributes)
    length, batch = shape
    first = bool(attributes.get("layout"))
    state = [batch, directions, HIDDEN] if first else [directions, batch, HIDDEN]
    types = {
        "x": (code, [batch, length, INPUT] if first else [length, batch, INPUT]),
        "n": (TensorProto.INT32, [batch]),
        "h": (code, state),
        "c": (code, state),
    }
    inputs = [helper.make_tensor_value_info(k, *types[k]) for k in types if k in names]
    graph = helper.make_graph(
        [node],
        "recurrent",
        inputs,
        [helper.make_tensor_value_info(o, code, None) for o in outputs],
        [numpy_helper.from_array(v, k) for k, v in weights.items() if k in names],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return model.SerializeToString(), list(weights.values())


def feeds_for(model: bytes, length: int, batch: int, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Random inputs; the lengths are all different, one of them full."""
    rng = np.random.default_rng(length)
    feeds = {}
    for value in free_inputs(model):
        extents = [
            d.dim_value or {"t": length, "b": batch}[d.dim_param] for d in value.type.tensor_type.shape.dim
        ]
        feeds[value.name] = rng.standard_normal(extents).astype(dtype)
        if value.name == "n":
            feeds["n"] = np.maximum(length - np.arange(batch)[::-1] * 2, 1).astype(np.int32)
    return feeds


def free_inputs(model: bytes) -> list[Any]:
    """The inputs of the model that are no weights."""
    import onnx

    return list(onnx.ModelProto.FromString(model).graph.input)


@pytest.mark.parametrize(("op", "beside", "attributes"), COMPARABLE)
def test_agrees_with_onnxruntime(op: str, beside: str, attributes: dict[str, Any]) -> None:
    model, _ = make(op, beside, attributes, ("t", "b"))
    session, reference = egc.compile(model), onnxruntime.InferenceSession(model)
    for length, batch in ((1, 1), (6, 3), (11, 2)):
        feeds = feeds_for(model, length, batch)
        for mine, other in zip(session.run(None, feeds), reference.run(None, feeds), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5, strict=True)


@pytest.mark.parametrize(("op", "beside", "attributes"), EXPANDED)
def test_agrees_with_the_unrolled_form(op: str, beside: str, attributes: dict[str, Any]) -> None:
    # Which takes the batch first, too; onnxruntime does not.
    attributes = {**attributes, "layout": 1}
    symbolic, _ = make(op, beside, attributes, ("t", "b"))
    unrolled, _ = make(op, beside, attributes, (3, 3))
    feeds = feeds_for(symbolic, 3, 3)
    results = egc.compile(symbolic).run(None, feeds), egc.compile(unrolled).run(None, feeds)
    for mine, other in zip(*results, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5, strict=True)


@pytest.mark.parametrize("op", ALL)
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats(op: str, dtype: Any) -> None:
    beside, attributes = "bias lengths state", {"direction": "bidirectional"}
    model, _ = make(op, beside, attributes, ("t", "b"), dtype=dtype)
    feeds = feeds_for(model, 6, 3, dtype)
    wide, _ = make(op, beside, attributes, ("t", "b"), dtype=np.float64)
    exact = {k: v if k == "n" else v.astype(np.float64) for k, v in feeds.items()}
    error = 2e-3 if dtype == np.float16 else 0
    for mine, other in zip(
        egc.compile(model).run(None, feeds), egc.compile(wide).run(None, exact), strict=True
    ):
        assert mine.dtype == dtype
        np.testing.assert_allclose(mine, other, rtol=error, atol=error)


@pytest.mark.parametrize("op", ALL)
@pytest.mark.parametrize("shape", [(150, 2), ("t", "b")], ids=["static", "symbolic"])
def test_long_sequences_of_several_lengths(op: str, shape: tuple[Any, Any]) -> None:
    # Too long to be unrolled. PyTorch's exporters write such nodes for packed sequences.
    model, _ = make(op, "bias lengths", {"direction": "bidirectional"}, shape)
    feeds = feeds_for(model, 150, 2)
    reference = onnxruntime.InferenceSession(model).run(None, feeds)
    for mine, other in zip(egc.compile(model).run(None, feeds), reference, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5, strict=True)


def test_an_unknown_activation_is_refused_when_compiling() -> None:
    model, _ = make("RNN", "", {"activations": ["Gelu"]}, ("t", "b"))
    with pytest.raises(EgcError, match="activation 'Gelu' is unknown"):
        egc.compile(model)
