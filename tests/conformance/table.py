"""The ONNX node tests through egc.backend, tabulated by operator: compiled, fixed, host, failing, and why.

    python -m tests.conformance.table [--interpret] [--match softmax] [--json OUT]

``--interpret`` evaluates the imported graph in numpy instead of compiling it, which tells the frontend's
share of what fails from the compiler's. "fixed" are tests whose shapes are inputs, and that were compiled for
their values.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto

from egc.backend import EgcRep, Executable, prepare
from egc.frontend.importer import import_model
from egc.ir.evaluate import evaluate
from tests.conformance import harness


class Interpreted:
    """An imported model evaluated in numpy, behind the interface of a session."""

    def __init__(self, model: ModelProto, values: Mapping[str, np.ndarray]) -> None:
        self._imported = import_model(model, values=values)

    @property
    def coverage(self) -> dict[str, Any]:
        host = [f"{node.op_type}: {node.why}" for node in self._imported.hosted]
        return {"compiled": len(self._imported.graph.nodes) - len(host), "host": host}

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any]:
        given = {port.value: feeds[port.name] for port in self._imported.inputs}
        results = evaluate(self._imported.graph, given)
        return [results[port.value] for port in self._imported.outputs]


def interpret(model: ModelProto, *, values: Mapping[str, np.ndarray]) -> Executable:
    """What egc.compile does, without a compiler."""
    return Interpreted(model, values)


def compiled(model: ModelProto, inputs: Sequence[Any]) -> harness.Outcome:
    """A node test through egc.backend."""
    return _outcome(prepare(model), inputs)


def interpreted(model: ModelProto, inputs: Sequence[Any]) -> harness.Outcome:
    """A node test through egc.backend's representation over the numpy meaning of the graph."""
    return _outcome(EgcRep(model, interpret), inputs)


def _outcome(rep: EgcRep, inputs: Sequence[Any]) -> harness.Outcome:
    outputs = rep.run(list(inputs))
    return harness.Outcome(list(outputs), rep.coverage["host"], rep.fixed)


def main() -> int:
    """The harness with the backend chosen here."""
    arguments = [a for a in sys.argv[1:] if a != "--interpret"]
    function = "interpreted" if "--interpret" in sys.argv else "compiled"
    sys.argv[1:] = ["--backend", f"tests.conformance.table:{function}", *arguments]
    return harness.main()


if __name__ == "__main__":
    sys.exit(main())
