"""Which graph inputs a model takes as parameters of its structure rather than as data.

ONNX passes shapes, axes, sizes and scales as tensors. Where such a tensor is a graph input its value is not
known when the model is compiled, and a node that needs it goes to the host. A caller that has the values at
hand (the backend, which sees the inputs of a run) can fix these inputs, and only these, with
``import_model(…, values=…)``.
"""

from __future__ import annotations

from collections.abc import Iterator

from egc.frontend.messages import GraphProto, ModelProto

# Operands that say what shape or structure a result has; every other operand is data.
_PARAMETERS: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "SplitToSequence": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
_REDUCTIONS = frozenset(
    f"Reduce{name}"
    for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
)


def structural_inputs(model: ModelProto) -> frozenset[str]:
    """The graph inputs that are read, and only as parameters of structure."""
    roles: dict[str, set[bool]] = {}
    for name, is_parameter in _uses(model.graph):
        roles.setdefault(name, set()).add(is_parameter)
    outputs = {value.name for value in model.graph.output}
    initialized = {tensor.name for tensor in model.graph.initializer}
    return frozenset(
        value.name
        for value in model.graph.input
        if roles.get(value.name) == {True} and value.name not in outputs | initialized
    )


def _uses(graph: GraphProto) -> Iterator[tuple[str, bool]]:
    """Every value that a node of ``graph`` or of its subgraphs reads, and whether as a parameter."""
    for node in graph.node:
        parameters = (1,) if node.op_type in _REDUCTIONS else _PARAMETERS.get(node.op_type, ())
        if node.domain not in ("", "ai.onnx"):
            parameters = ()
        for i, name in enumerate(node.input):
            if name:
                yield name, i in parameters
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _uses(inner)
