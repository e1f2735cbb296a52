"""The tensor operators of a Graph: one table that the frontend, the e-graph, extraction and lowering read.

An operator has a fixed list of attributes, each of a kind that says how it is checked,
printed and encoded for egglog:

    kind    Python value          in rule files
    int     int                   i64
    float   float                 f64
    str     str                   String
    bool    bool                  bool
    ints    tuple[int, ...]       IVec     (vec-of 1 2)
    dims    tuple[Dim, ...]       Dims     (D (vec-of 2 3)) or symbolic (S "2, seq")
    perm    tuple[int, ...]       Perm     (P (vec-of 0 2 3 1))
    fn      str (scalar function) Fn       (Add)

Shapes that ONNX passes as tensors are attributes here, so a result type is a function of operand types and
attributes (egc.ir.infer), and a meaning in numpy is one of operand values and attributes (egc.ir.evaluate).
Reductions keep their dims; images are `N, C, spatial…` except where the name says channels_last.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class Op(Struct, frozen=True):
    """One operator: ``arity`` is the (least, greatest) number of operands, None for no upper bound."""

    name: str
    arity: tuple[int, int | None]
    attrs: tuple[tuple[str, str], ...] = ()
    doc: str = ""
    outputs: int = 1

    @property
    def constructor(self) -> str:
        """The name of this operator in rule files; ``map`` and ``concat`` append their number of operands."""
        return "".join(part.capitalize() for part in self.name.split("_"))


_CONV = (("strides", "ints"), ("dilations", "ints"), ("low", "ints"), ("high", "ints"), ("groups", "int"))

_TABLE = (
    Op("map", (1, 3), (("fn", "fn"),), "A scalar function over operands broadcast as numpy broadcasts."),
    Op(
        "cast",
        (1, 1),
        (("dtype", "str"),),
        "Every element converted to dtype; floats of 8 and 4 bits saturate.",
    ),
    Op(
        "reduce", (1, 1), (("fn", "str"), ("axes", "ints")), "fn in add mul max min and or; extents become 1."
    ),
    Op(
        "arg_reduce",
        (1, 1),
        (("fn", "str"), ("axis", "int"), ("last", "bool")),
        "int64 position of the max or min along axis (extent then 1); the last one on ties if `last`.",
    ),
    Op(
        "cumulate",
        (1, 1),
        (("fn", "str"), ("axis", "int"), ("exclusive", "bool"), ("reverse", "bool")),
        "Prefix fn.",
    ),
    Op("matmul", (2, 2), (), "[..., m, k] x [..., k, n] -> [..., m, n]; leading dims broadcast."),
    Op(
        "conv",
        (2, 2),
        _CONV,
        "x [N, C, s…], w [M, C/groups, k…] -> [N, M, o…]; low and high are zero padding.",
    ),
    Op("conv_channels_last", (2, 2), _CONV, "x [N, s…, C], w [k…, C/groups, M] -> [N, o…, M]."),
    Op(
        "pool",
        (1, 1),
        (
            ("fn", "str"),
            ("window", "ints"),
            ("strides", "ints"),
            ("dilations", "ints"),
            ("low", "ints"),
            ("high", "ints"),
        ),
        "fn (add, max, min) over a window of full rank; padding is fn's identity.",
    ),
    Op("reshape", (1, 1), (("shape", "dims"),), "The same elements in row-major order."),
    Op("transpose", (1, 1), (("perm", "perm"),), "Axis i of the result is axis perm[i] of the operand."),
    Op(
        "slice",
        (1, 1),
        (("starts", "dims"), ("sizes", "dims"), ("steps", "ints")),
        "Element i of axis a is element starts[a] + i*steps[a]; every axis has an entry, all in range.",
    ),
    Op(
        "pad",
        (2, 2),
        (("low", "dims"), ("high", "dims"), ("interior", "ints")),
        "x and a scalar: low and high elements at the ends of an axis, interior between neighbours; all ≥ 0.",
    ),
    Op("expand", (1, 1), (("shape", "dims"),), "Broadcast to shape (of at least the operand's rank)."),
    Op("concat", (1, None), (("axis", "int"),), "Operands side by side along axis."),
    Op(
        "gather",
        (2, 2),
        (("axis", "int"),),
        "numpy.take(x, indices, axis); negative indices count from the end.",
    ),
    Op("gather_elements", (2, 2), (("axis", "int"),), "numpy.take_along_axis."),
    Op("gather_nd", (2, 2), (("batch_dims", "int"),), "ONNX GatherND."),
    Op(
        "scatter_elements",
        (3, 3),
        (("axis", "int"), ("fn", "str")),
        "ONNX ScatterElements; fn: set add mul max min.",
    ),
    Op("scatter_nd", (3, 3), (("fn", "str"),), "ONNX ScatterND; fn: set add mul max min."),
    Op(
        "iota",
        (0, 0),
        (("shape", "dims"), ("axis", "int")),
        "int64: each element is its position along axis.",
    ),
    Op("dim", (0, 0), (("value", "dims"),), "int64 [len(value)]: extents as data."),
    Op(
        "topk",
        (1, 1),
        (("k", "dims"), ("axis", "int"), ("largest", "bool")),
        "Values and int64 positions, sorted.",
        2,
    ),
    Op(
        "host",
        (0, None),
        (("node", "str"), ("types", "str")),
        "An ONNX node run by onnx.reference: egc.ir.host writes `node`; result types are separated by ';'.",
        -1,
    ),
    # Recognised by rules, never made by the frontend.
    Op("softmax", (1, 1), (("axis", "int"),), "exp(x - max) / sum(exp(x - max)) along axis."),
    Op(
        "layer_norm",
        (3, 3),
        (("axes", "ints"), ("epsilon", "float")),
        "(x - mean) / sqrt(var + epsilon) * scale + bias over axes; scale and bias broadcast.",
    ),
    Op(
        "rms_norm", (2, 2), (("axes", "ints"), ("epsilon", "float")), "x / sqrt(mean(x*x) + epsilon) * scale."
    ),
    Op(
        "attention",
        (4, 4),
        (("scale", "float"),),
        "softmax(q @ k^T * scale + mask) @ v over [..., len, head]; k is [..., len, head]; mask broadcasts.",
    ),
)

OPS: Mapping[str, Op] = {op.name: op for op in _TABLE}
BY_CONSTRUCTOR: Mapping[str, Op] = {op.constructor: op for op in _TABLE}
VIEWS = frozenset({"reshape", "transpose", "slice", "expand"})
