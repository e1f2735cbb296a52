"""Host nodes: the text in the ``node`` attribute of a ``host`` operation, and how ``onnx.reference`` runs it.

The text is base64 of a serialized ModelProto with one node. The graph inputs of that model are the operands
of the host operation in order, its graph outputs the results in order; opset imports and the functions that
the node calls travel along. An outer value that a subgraph (of If, Loop, Scan) reads is an operand too, so it
is a graph input like the others.

onnx is imported inside the functions: a program without host nodes never loads it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx


def encode_host(
    node: onnx.NodeProto,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opsets: Mapping[str, int],
    functions: Iterable[onnx.FunctionProto] = (),
) -> str:
    """The text of a host node.

    ``inputs`` are the ONNX names that the node and its subgraphs read, in the order of the operands;
    ``outputs`` the node's output names that are wanted, in the order of the results. ``opsets`` gives the
    version of every domain.
    """
    import onnx

    graph = onnx.GraphProto(name="host", node=[node])
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in inputs)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    imports = [onnx.OperatorSetIdProto(domain=domain, version=v) for domain, v in sorted(opsets.items())]
    model = onnx.ModelProto(graph=graph, opset_import=imports, functions=list(functions))
    # The newest IR version admits every opset, and the reference evaluator uses it for nothing else.
    model.ir_version = onnx.IR_VERSION
    return base64.b64encode(model.SerializeToString(deterministic=True)).decode()


def decode_host(text: str) -> onnx.ModelProto:
    """The one-node model of a host node's text."""
    import onnx

    return onnx.ModelProto.FromString(base64.b64decode(text))


def run_host(text: str, args: Sequence[Any]) -> list[Any]:
    """The results of a host node over ``args`` (arrays; lists and None for sequences and optionals).

    Whatever ``onnx.reference`` raises comes through. Its scalars come back as arrays of rank 0,
    its text as arrays of objects.
    """
    names, evaluator = _evaluator(text)
    with np.errstate(all="ignore"):
        results = evaluator.run(None, dict(zip(names, args, strict=True)))
    return [_plain(value) for value in results]


def _plain(value: Any) -> Any:
    """A result as egc holds it: scalars as arrays of rank 0, text as objects."""
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "UST":
        return value.astype(object)
    return value


@lru_cache(maxsize=64)
def _evaluator(text: str) -> tuple[tuple[str, ...], Any]:
    from onnx.reference import ReferenceEvaluator

    from egc.ir.host_ops import OPERATORS

    model = decode_host(text)
    return tuple(value.name for value in model.graph.input), ReferenceEvaluator(
        model, new_ops=list(OPERATORS)
    )
