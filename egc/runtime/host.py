"""Host steps: ONNX operators that are not compiled, run by `onnx.reference` on numpy arrays."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from egc.errors import EgcError
from egc.runtime.manifest import HostStep


class HostError(EgcError):
    """An operator that runs on the host could not run."""


class HostNode:
    """A host step made ready to run. Building it imports onnx: HostError where that is not installed."""

    def __init__(self, step: HostStep) -> None:
        self.step = step
        self.title = step.label or "a host operator"
        self._evaluator = self._build()

    def _build(self) -> Any:
        try:
            import onnx
            from onnx.reference import ReferenceEvaluator
        except ImportError as error:
            raise HostError(
                f"{self.title} is not compiled and needs the package onnx to run",
                why=str(error),
                hint="pip install onnx, or see `egc ops` for the operators that are compiled",
            ) from None
        node = onnx.NodeProto.FromString(base64.b64decode(self.step.node))
        functions = [onnx.FunctionProto.FromString(base64.b64decode(f)) for f in self.step.functions]
        graph = onnx.GraphProto(name="host", node=[node])
        graph.input.extend(onnx.ValueInfoProto(name=name) for name, _ in self.step.inputs)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name, _ in self.step.outputs)
        opsets = [onnx.OperatorSetIdProto(domain=d, version=v) for d, v in self.step.opsets]
        # The newest IR version reads every opset; the reference evaluator ignores it otherwise.
        model = onnx.ModelProto(
            ir_version=onnx.IR_VERSION, graph=graph, opset_import=opsets, functions=functions
        )
        try:
            return ReferenceEvaluator(model)
        except Exception as error:
            raise self._failed(error) from error

    def run(self, inputs: list[Any]) -> list[Any]:
        """The outputs in order: arrays, or lists and None for sequences and optionals."""
        feeds = {name: value for (name, _), value in zip(self.step.inputs, inputs, strict=True)}
        try:
            # Data may hold NaN and infinities; numpy's warnings about them say nothing about the program.
            with np.errstate(all="ignore"):
                return self._evaluator.run(None, feeds)
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> HostError:
        return HostError(
            f"{self.title} failed on the host",
            where="onnx.reference",
            why=f"{type(error).__name__}: {error}",
            hint="check the values that reach this operator, or try another version of onnx",
        )
