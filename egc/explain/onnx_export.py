"""A Graph as an ONNX model (``egc optimize --emit onnx``): what the rules made of a model, for other tools.

Shapes must be known; operators without a counterpart in ONNX are spelled by several nodes. What cannot be
spelled at all is one error that names every such operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from egc.errors import CompileError, Problems
from egc.ir.graph import Graph, Node
from egc.ir.host import decode_host
from egc.ir.scalar import FUNCTIONS
from egc.ir.types import TensorType, numpy_dtype

OPSET = 21

_MAP = {
    "neg": "Neg", "abs": "Abs", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "floor": "Floor",
    "ceil": "Ceil", "round": "Round", "sign": "Sign", "sin": "Sin", "cos": "Cos", "tan": "Tan",
    "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "tanh": "Tanh",
    "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "erf": "Erf", "isnan": "IsNaN", "isinf":
    "IsInf", "not": "Not", "bit_not": "BitwiseNot", "add": "Add", "sub": "Sub", "mul": "Mul", "div":
    "Div", "pow": "Pow", "min": "Min", "max": "Max", "eq": "Equal", "lt": "Less", "le":
    "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "and": "And", "or": "Or", "xor": "Xor",
    "bit_and": "BitwiseAnd", "bit_or": "BitwiseOr", "bit_xor": "BitwiseXor", "select": "Where",
    "relu": "Relu", "reciprocal": "Reciprocal", "sigmoid": "Sigmoid", "softplus": "Softplus",
    "hard_swish": "HardSwish", "mod": "Mod",
}  # fmt: skip
_REDUCE = {"add": "ReduceSum", "mul": "ReduceProd", "max": "ReduceMax", "min": "ReduceMin"}
_SCATTER = {"set": "none"}


# Values of the graph get a prefix: the names that the user knows belong to inputs and outputs alone.
_PREFIX = "v."


def _inner(name: str) -> str:
    return _PREFIX + name


class _Unspeakable(Exception):
    """An operation that ONNX has no words for; the text says why."""


def to_onnx(graph: Graph, names: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """The ONNX model of ``graph``, every shape of which must be known.

    ``names`` gives the names of inputs and outputs. CompileError names all operations that cannot be written.
    """
    if graph.symbols:
        raise CompileError(
            f"{graph.name} has symbolic dims: {', '.join(graph.symbols)}",
            why="an ONNX model is written with known shapes",
            hint="fix the inputs' shapes with --shape NAME=1x3x224x224",
        )
    return _Writer(graph, names or {}).model()


class _Writer:
    def __init__(self, graph: Graph, names: Mapping[str, str]) -> None:
        self.graph = graph
        self.names = names
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.functions: dict[tuple[str, str], onnx.FunctionProto] = {}
        self.domains: dict[str, int] = {"": OPSET}
        self.fresh = 0

    def model(self) -> onnx.ModelProto:
        graph = self.graph
        for name, constant in graph.constants.items():
            self.initializers.append(
                numpy_helper.from_array(np.ascontiguousarray(constant.data), _inner(name))
            )
        problems = Problems()
        for node in graph.nodes:
            try:
                self.node(
                    replace(
                        node, inputs=tuple(map(_inner, node.inputs)), outputs=tuple(map(_inner, node.outputs))
                    )
                )
            except _Unspeakable as error:
                problems.add(f"{node.op} cannot be written as ONNX", where=f"%{node.output}", why=str(error))
        problems.raise_if_any(CompileError, f"{graph.name} cannot be written as an ONNX model")
        # Inputs and outputs get their names through nodes that do nothing: one value may be several outputs.
        inputs = [self.value_info(self.names.get(name, name), graph.types[name]) for name in graph.inputs]
        renamed = [
            helper.make_node("Identity", [self.names.get(name, name)], [_inner(name)])
            for name in graph.inputs
        ]
        outputs = []
        for i, value in enumerate(graph.outputs):
            name = self.names.get(f"output {i}", f"output_{i}")
            self.emit("Identity", [_inner(value)], name)
            outputs.append(self.value_info(name, graph.types[value]))
        proto = helper.make_graph([*renamed, *self.nodes], graph.name, inputs, outputs, self.initializers)
        imports = [helper.make_opsetid(domain, version) for domain, version in sorted(self.domains.items())]
        model = helper.make_model(
            proto, opset_imports=imports, functions=list(self.functions.values()), producer_name="egc"
        )
        model.ir_version = 10
        return model

    @staticmethod
    def value_info(name: str, type_: TensorType) -> onnx.ValueInfoProto:
        shape = [dim if isinstance(dim, int) else str(dim) for dim in type_.shape]
        return helper.make_tensor_value_info(name, _onnx_dtype(type_.dtype), shape)

    def emit(self, op: str, inputs: Sequence[str], output: str | None = None, **attrs: Any) -> str:
        """Append a node and return the name of its result."""
        output = output or self.name()
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attrs))
        return output

    def name(self) -> str:
        self.fresh += 1
        return f"egc.{self.fresh}"

    def constant(self, data: Any, dtype: str = "int64") -> str:
        """The name of a new initializer."""
        name = self.name()
        self.initializers.append(numpy_helper.from_array(np.asarray(data, numpy_dtype(dtype)), name))
        return name

    def node(self, node: Node) -> None:
        write: Callable[[Node], None] | None = getattr(self, f"on_{node.op}", None)
        if write is None:
            raise _Unspeakable("it has no counterpart")
        write(node)

    def type(self, value: str) -> TensorType:
        return self.graph.types[value.removeprefix(_PREFIX)]

    # -- scalar functions

    def on_map(self, node: Node) -> None:
        self.scalar(str(node.attr("fn")), node.inputs, self.type(node.inputs[-1]).dtype, node.output)

    def scalar(self, fn: str, inputs: Sequence[str], dtype: str, output: str | None = None) -> str:
        """One scalar function, by its definition where ONNX has no node for it."""
        if fn == "ne":
            return self.emit("Not", [self.emit("Equal", inputs)], output)
        if fn == "fmod":
            return self.emit("Mod", inputs, output, fmod=1)
        if fn == "mod" and dtype.startswith(("float", "bfloat")):
            quotient = self.emit("Floor", [self.emit("Div", inputs)])
            return self.emit("Sub", [inputs[0], self.emit("Mul", [inputs[1], quotient])], output)
        if fn in ("shift_left", "shift_right"):
            return self.emit("BitShift", inputs, output, direction=fn.removeprefix("shift_").upper())
        if fn in ("gelu_erf", "gelu_tanh"):
            kind = "tanh" if fn == "gelu_tanh" else "none"
            return self.emit("Gelu", inputs, output, approximate=kind)
        if fn in _MAP:
            return self.emit(_MAP[fn], inputs, output)
        definition = FUNCTIONS[fn].definition
        if definition is None:
            raise _Unspeakable(f"ONNX has no {fn}")
        result = definition(
            lambda inner, *args: self.scalar(inner, args, dtype), lambda v: self.constant(v, dtype), *inputs
        )
        return self.emit("Identity", [result], output)

    def on_cast(self, node: Node) -> None:
        self.emit("Cast", node.inputs, node.output, to=_onnx_dtype(str(node.attr("dtype"))))

    # -- reductions

    def on_reduce(self, node: Node) -> None:
        fn, axes = str(node.attr("fn")), self.constant(node.attr("axes"))
        if fn not in _REDUCE:
            number = self.emit("Cast", node.inputs, to=TensorProto.INT32)
            reduced = self.emit("ReduceMin" if fn == "and" else "ReduceMax", [number, axes], keepdims=1)
            self.emit("Cast", [reduced], node.output, to=TensorProto.BOOL)
            return
        self.emit(_REDUCE[fn], [node.inputs[0], axes], node.output, keepdims=1)

    def on_arg_reduce(self, node: Node) -> None:
        op = "ArgMax" if node.attr("fn") == "max" else "ArgMin"
        last = int(bool(node.attr("last")))
        self.emit(op, node.inputs, node.output, axis=node.attr("axis"), keepdims=1, select_last_index=last)

    def on_cumulate(self, node: Node) -> None:
        if node.attr("fn") != "add":
            raise _Unspeakable("ONNX cumulates sums only")
        flags = {key: int(bool(node.attr(key))) for key in ("exclusive", "reverse")}
        self.emit("CumSum", [node.inputs[0], self.constant(node.attr("axis"))], node.output, **flags)

    def on_pool(self, node: Node) -> None:
        attrs: dict[str, Any] = dict(node.attrs)
        window = attrs["window"]
        keys = ("window", "strides", "low", "high")
        plain = [tuple(attrs[key][axis] for key in keys) == (1, 1, 0, 0) for axis in range(len(window))]
        outer = [axis for axis, is_plain in enumerate(plain) if is_plain]
        if attrs["fn"] not in ("add", "max", "min"):
            raise _Unspeakable(f"it has no pooling by {attrs['fn']}")
        if len(window) < 3 or len(outer) < 2:
            raise _Unspeakable("a window over so many axes")
        order = [*outer[:2], *(axis for axis in range(len(window)) if axis not in outer[:2])]
        x = self.emit("Transpose", node.inputs, perm=order)
        spatial = order[2:]

        def pick(key: str) -> list[int]:
            return [int(attrs[key][axis]) for axis in spatial]

        shared: dict[str, Any] = {
            "kernel_shape": pick("window"),
            "strides": pick("strides"),
            "dilations": pick("dilations"),
            "pads": [*pick("low"), *pick("high")],
        }
        fn = attrs["fn"]
        if fn == "add":
            mean = self.emit("AveragePool", [x], count_include_pad=1, **shared)
            count = self.constant(float(np.prod(window)), self.type(node.output).dtype)
            pooled = self.emit("Mul", [mean, count])
        elif fn == "max":
            pooled = self.emit("MaxPool", [x], **shared)
        else:
            pooled = self.emit("Neg", [self.emit("MaxPool", [self.emit("Neg", [x])], **shared)])
        self.emit("Transpose", [pooled], node.output, perm=_inverse(order))

    # -- contractions

    def on_matmul(self, node: Node) -> None:
        self.emit("MatMul", node.inputs, node.output)

    def on_conv(self, node: Node) -> None:
        self.emit("Conv", node.inputs, node.output, **_conv_attrs(node))

    def on_conv_channels_last(self, node: Node) -> None:
        rank = self.type(node.inputs[0]).rank
        spatial = list(range(1, rank - 1))
        x = self.emit("Transpose", [node.inputs[0]], perm=[0, rank - 1, *spatial])
        w = self.emit("Transpose", [node.inputs[1]], perm=[rank - 1, rank - 2, *range(rank - 2)])
        y = self.emit("Conv", [x, w], **_conv_attrs(node))
        self.emit("Transpose", [y], node.output, perm=[0, *range(2, rank), 1])

    # -- views

    def on_reshape(self, node: Node) -> None:
        self.emit("Reshape", [node.inputs[0], self.constant(node.attr("shape"))], node.output, allowzero=1)

    def on_transpose(self, node: Node) -> None:
        self.emit("Transpose", node.inputs, node.output, perm=list(node.attr("perm")))  # type: ignore[arg-type]

    def on_slice(self, node: Node) -> None:
        starts, sizes, steps = (np.array(node.attr(key), np.int64) for key in ("starts", "sizes", "steps"))
        ends = starts + sizes * steps
        # Past the front, ONNX counts from the end again: stand for "all the way" with the least integer.
        ends = np.where((steps < 0) & (ends < 0), np.iinfo(np.int64).min, ends)
        axes = self.constant(np.arange(len(starts)))
        bounds = [self.constant(starts), self.constant(ends), axes, self.constant(steps)]
        self.emit("Slice", [node.inputs[0], *bounds], node.output)

    def on_pad(self, node: Node) -> None:
        attrs: dict[str, Any] = dict(node.attrs)
        x, shape = node.inputs[0], [int(d) for d in self.type(node.inputs[0]).shape]  # type: ignore[arg-type]
        for axis, gap in enumerate(attrs["interior"]):
            if gap and shape[axis]:
                x = self.spread(x, node.inputs[1], shape, axis, gap)
        amounts = self.constant([*attrs["low"], *attrs["high"]])
        self.emit("Pad", [x, amounts, node.inputs[1]], node.output)

    def spread(self, x: str, value: str, shape: list[int], axis: int, gap: int) -> str:
        """``x`` with ``gap`` elements after each one along ``axis`` but the last; ``shape`` follows."""
        extent = shape[axis]
        alone = self.emit("Reshape", [x, self.constant([*shape[: axis + 1], 1, *shape[axis + 1 :]])])
        before = [0] * (len(shape) + 1)
        after = [gap if i == axis + 1 else 0 for i in range(len(shape) + 1)]
        wide = self.emit("Pad", [alone, self.constant([*before, *after]), value])
        shape[axis] = extent * (gap + 1)
        merged = self.emit("Reshape", [wide, self.constant(shape)])
        shape[axis] -= gap
        bounds = [self.constant([0]), self.constant([shape[axis]]), self.constant([axis])]
        return self.emit("Slice", [merged, *bounds])

    def on_expand(self, node: Node) -> None:
        self.emit("Expand", [node.inputs[0], self.constant(node.attr("shape"))], node.output)

    def on_concat(self, node: Node) -> None:
        self.emit("Concat", node.inputs, node.output, axis=node.attr("axis"))

    # -- data movement

    def on_gather(self, node: Node) -> None:
        self.emit("Gather", node.inputs, node.output, axis=node.attr("axis"))

    def on_gather_elements(self, node: Node) -> None:
        self.emit("GatherElements", node.inputs, node.output, axis=node.attr("axis"))

    def on_gather_nd(self, node: Node) -> None:
        self.emit("GatherND", node.inputs, node.output, batch_dims=node.attr("batch_dims"))

    def on_scatter_elements(self, node: Node) -> None:
        fn = str(node.attr("fn"))
        self.emit(
            "ScatterElements",
            node.inputs,
            node.output,
            axis=node.attr("axis"),
            reduction=_SCATTER.get(fn, fn),
        )

    def on_scatter_nd(self, node: Node) -> None:
        fn = str(node.attr("fn"))
        self.emit("ScatterND", node.inputs, node.output, reduction=_SCATTER.get(fn, fn))

    def on_iota(self, node: Node) -> None:
        shape: Any = node.attr("shape")
        axis: Any = node.attr("axis")
        ones = [1] * len(shape)
        ones[axis] = shape[axis]
        along = self.constant(np.arange(shape[axis]).reshape(ones))
        self.emit("Expand", [along, self.constant(shape)], node.output)

    def on_dim(self, node: Node) -> None:
        self.emit("Identity", [self.constant(node.attr("value"))], node.output)

    def on_topk(self, node: Node) -> None:
        k = self.constant(node.attr("k"))
        attrs: dict[str, Any] = {
            "axis": node.attr("axis"),
            "largest": int(bool(node.attr("largest"))),
            "sorted": 1,
        }
        self.nodes.append(helper.make_node("TopK", [node.inputs[0], k], list(node.outputs), **attrs))

    def on_host(self, node: Node) -> None:
        model = decode_host(str(node.attr("node")))
        renamed = dict(zip((v.name for v in model.graph.input), node.inputs, strict=True))
        renamed |= dict(zip((v.name for v in model.graph.output), node.outputs, strict=True))
        inner = model.graph.node[0]
        if any(a.HasField("g") or a.graphs for a in inner.attribute):
            raise _Unspeakable("a subgraph reads values by their old names")
        copy = onnx.NodeProto()
        copy.CopyFrom(inner)
        copy.input[:] = [renamed.get(name, name) for name in inner.input]
        copy.output[:] = [renamed.get(name, name and self.name()) for name in inner.output]
        self.nodes.append(copy)
        for entry in model.opset_import:
            if self.domains.setdefault(entry.domain, entry.version) != entry.version:
                raise _Unspeakable(f"it is of opset {entry.version} of {entry.domain or 'ai.onnx'}")
        for function in model.functions:
            self.functions[function.domain, function.name] = function

    # -- recognised operators

    def on_softmax(self, node: Node) -> None:
        self.emit("Softmax", node.inputs, node.output, axis=node.attr("axis"))

    def normalised(self, x: str, square: str, node: Node) -> str:
        """``x`` over the root of the mean of ``square`` plus epsilon."""
        axes = self.constant(node.attr("axes"))
        mean = self.emit("ReduceMean", [square, axes], keepdims=1)
        epsilon = self.constant(node.attr("epsilon"), self.type(node.output).dtype)
        root = self.emit("Sqrt", [self.emit("Add", [mean, epsilon])])
        return self.emit("Div", [x, root])

    def on_layer_norm(self, node: Node) -> None:
        x, scale, bias = node.inputs
        mean = self.emit("ReduceMean", [x, self.constant(node.attr("axes"))], keepdims=1)
        centred = self.emit("Sub", [x, mean])
        normal = self.normalised(centred, self.emit("Mul", [centred, centred]), node)
        self.emit("Add", [self.emit("Mul", [normal, scale]), bias], node.output)

    def on_rms_norm(self, node: Node) -> None:
        x, scale = node.inputs
        normal = self.normalised(x, self.emit("Mul", [x, x]), node)
        self.emit("Mul", [normal, scale], node.output)

    def on_attention(self, node: Node) -> None:
        q, k, v, mask = node.inputs
        rank = self.type(k).rank
        turned = self.emit("Transpose", [k], perm=[*range(rank - 2), rank - 1, rank - 2])
        scale = self.constant(node.attr("scale"), self.type(q).dtype)
        scores = self.emit("Mul", [self.emit("MatMul", [q, turned]), scale])
        weights = self.emit("Softmax", [self.emit("Add", [scores, mask])], axis=-1)
        self.emit("MatMul", [weights, v], node.output)


def _conv_attrs(node: Node) -> dict[str, Any]:
    values: dict[str, Any] = dict(node.attrs)
    return {
        "strides": list(values["strides"]),
        "dilations": list(values["dilations"]),
        "pads": [*values["low"], *values["high"]],
        "group": values["groups"],
    }


def _inverse(perm: Sequence[int]) -> list[int]:
    inverse = [0] * len(perm)
    for i, axis in enumerate(perm):
        inverse[axis] = i
    return inverse


def _onnx_dtype(dtype: str) -> int:
    if dtype == "string":
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(numpy_dtype(dtype)))
