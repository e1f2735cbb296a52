"""egc as an ONNX backend, for ``onnx.backend.test`` and all else that speaks ``onnx.backend.base``.

    rep = egc.backend.prepare(model)          # a ModelProto
    outputs = rep.run([array, …])
    rep.coverage                              # {"compiled": int, "host": [node names]}

A shape, axis or scale that the model takes as an input is data when the model is compiled, and nodes that
depend on it go to the host, or cannot be compiled at all. A run knows the values of such inputs
(egc.frontend.structural says which they are): where it leaves less to the host the representation is compiled
for them, once for each set of values.
"""

from __future__ import annotations

import atexit
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.backend.base import Backend, BackendRep, namedtupledict

from egc.codegen.workshop import Workshop
from egc.compiler import compile_model
from egc.errors import BadInput, InputError
from egc.frontend.importer import import_model
from egc.frontend.structural import structural_inputs
from egc.options import Options
from egc.runtime.session import Session

# How many sets of values a representation keeps programs for.
_MAX_PROGRAMS = 16


class Executable(Protocol):
    """A compiled model: egc.runtime.session.Session."""

    @property
    def coverage(self) -> Mapping[str, Any]:
        """``{"compiled": int, "host": [node names]}``."""

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, Any]) -> Sequence[Any]:
        """The outputs, as onnxruntime's sessions give them."""


class Compile(Protocol):
    """Makes an Executable; ``values`` are inputs whose values are fixed."""

    def __call__(self, model: ModelProto, *, values: Mapping[str, np.ndarray]) -> Executable:
        """The compiled model."""


def _compile(model: ModelProto, *, values: Mapping[str, np.ndarray]) -> Executable:
    compiled = compile_model(model, Options(values=values), _workshop())
    return Session(compiled.artifact())


@lru_cache(maxsize=1)
def _workshop() -> Workshop:
    """The workers that compile every model of this backend: test suites compile thousands of small ones."""
    workshop = Workshop().__enter__()
    # The interpreter waits for workers that stand by, for ever, before it calls what is registered here.
    workshop.warm(workshop.workers)
    atexit.register(workshop.close)
    return workshop


class EgcRep(BackendRep):
    """A model ready to run. ``coverage`` tells of the program that ran last, or the one made at first."""

    def __init__(self, model: ModelProto, compile_: Compile = _compile) -> None:
        self._model, self._compile = model, compile_
        initialized = {tensor.name for tensor in model.graph.initializer}
        self._inputs = [value.name for value in model.graph.input if value.name not in initialized]
        self._outputs = [value.name for value in model.graph.output]
        self._structural = structural_inputs(model)
        self._programs: OrderedDict[tuple[Any, ...], Executable] = OrderedDict()
        self._hosted: int | None = None
        try:
            self._hosted = len(import_model(model).hosted)
        except BadInput:
            # Shapes that are data may be settled by a run; without such inputs the model is wrong.
            if not self._structural:
                raise
        self._current = self._program({}) if self._hosted is not None else None
        self.fixed: tuple[str, ...] = ()  # the structural inputs that the last run was compiled for

    @property
    def coverage(self) -> Mapping[str, Any]:
        """How many nodes are compiled and the names of those on the host; InputError before that is known."""
        if self._current is None:
            raise InputError("the model's shapes are data", hint="run it once: the inputs settle them")
        return self._current.coverage

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs in order for ``inputs``: a sequence in the model's order, or a mapping."""
        if kwargs:
            raise TypeError(f"run takes no {', '.join(kwargs)}")
        feeds = self._feeds(inputs)
        values = {
            name: feeds[name] for name in sorted(self._structural) if isinstance(feeds[name], np.ndarray)
        }
        if values and self._hosted != 0:
            self._current = self._program(values)
            self.fixed = () if self._current is self._programs.get(()) else tuple(values)
        assert self._current is not None, "a model without structural inputs is compiled when it is prepared"
        return namedtupledict("Outputs", self._outputs)(*self._current.run(None, feeds))

    def _feeds(self, inputs: Any) -> dict[str, Any]:
        if isinstance(inputs, Mapping):
            return {name: _value(value) for name, value in inputs.items()}
        if not isinstance(inputs, list | tuple):
            inputs = [inputs]
        if len(inputs) != len(self._inputs):
            raise InputError(
                f"{len(inputs)} inputs are given",
                why=f"the model has {len(self._inputs)}: {', '.join(self._inputs)}",
            )
        return dict(zip(self._inputs, map(_value, inputs), strict=True))

    def _program(self, values: Mapping[str, np.ndarray]) -> Executable:
        """The program for these values of structural inputs, or the general one where they do not help."""
        key = tuple((name, v.dtype.str, v.shape, v.tobytes()) for name, v in values.items())
        if key in self._programs:
            self._programs.move_to_end(key)
            return self._programs[key]
        general = self._programs.get(())
        if values and general is not None and not self._helps(values):
            program = general
        else:
            program = self._compile(self._model, values=values)
        self._programs[key] = program
        while len(self._programs) > _MAX_PROGRAMS:
            # The general program stays, whatever else goes.
            self._programs.pop(next(k for k in self._programs if k))
        return program

    def _helps(self, values: Mapping[str, np.ndarray]) -> bool:
        try:
            return len(import_model(self._model, values=values).hosted) < (self._hosted or 0)
        except BadInput:
            return False


def _value(value: Any) -> Any:
    """An input as egc takes it: protos become arrays and lists, numbers arrays of rank 0."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, onnx.SequenceProto):
        return numpy_helper.to_list(value)
    if isinstance(value, onnx.OptionalProto):
        return numpy_helper.to_optional(value)
    return value if value is None or isinstance(value, np.ndarray | list | dict) else np.asarray(value)


class EgcBackend(Backend):
    """The entry points of onnx.backend.base."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the model can be imported for ``device``."""
        try:
            import_model(model)
        except BadInput:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> EgcRep:
        """Compile a model; egc.errors.EgcError where that cannot be done."""
        if not cls.supports_device(device):
            raise InputError(f"the backend does not run on {device}", hint="device='CPU'")
        return EgcRep(model)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Compile and run one node on ``inputs``, in the newest opset or ``opset_version`` of ``kwargs``."""
        arrays = [np.asarray(value) for value in inputs]
        names = [name for name in node.input if name]
        declared = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in zip(names, arrays, strict=True)
        ]
        results = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        version = int(kwargs.get("opset_version", onnx.defs.onnx_opset_version()))
        model = helper.make_model(
            helper.make_graph([node], "node", declared, results),
            opset_imports=[helper.make_opsetid(node.domain, version)],
        )
        return cls.prepare(model, device).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Only processors so far."""
        return device.split(":")[0].upper() == "CPU"


is_compatible = EgcBackend.is_compatible
prepare = EgcBackend.prepare
run = EgcBackend.run_model
run_model = EgcBackend.run_model
run_node = EgcBackend.run_node
supports_device = EgcBackend.supports_device
