"""ONNX's messages and operator schemas, without the rest of its package.

Importing the package whole takes three times as long as the generated messages and the schemas, which are all
that most models need, and for a small model that is a seventh of the compilation. So they are imported here
before their package runs; it runs when somebody imports it or reads an attribute of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import LazyLoader, find_spec, module_from_spec

__all__ = [
    "IR_VERSION",
    "AttributeProto",
    "FunctionProto",
    "GraphProto",
    "ModelProto",
    "NodeProto",
    "SparseTensorProto",
    "TensorProto",
    "TensorShapeProto",
    "TypeProto",
    "schemas",
]


@contextmanager
def _package_put_off(name: str) -> Iterator[None]:
    """Import submodules of a package, which itself is put off until its first use if it has not run yet."""
    spec = None if name in sys.modules else find_spec(name)
    if spec is None or spec.loader is None:
        yield  # the package has run, or its absence is for the import statement to tell
        return
    package = sys.modules[name] = module_from_spec(spec)
    try:
        yield
    finally:
        LazyLoader(spec.loader).exec_module(package)


with _package_put_off("onnx"):
    from onnx.onnx_cpp2py_export import defs as schemas
    from onnx.onnx_pb import (
        IR_VERSION,
        AttributeProto,
        FunctionProto,
        GraphProto,
        ModelProto,
        NodeProto,
        SparseTensorProto,
        TensorProto,
        TensorShapeProto,
        TypeProto,
    )
