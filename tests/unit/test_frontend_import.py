"""What becomes of a model: names, symbolic shapes, constants, functions, subgraphs, host nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from egc.cli.ops import operator_rows
from egc.errors import BadInput
from egc.frontend.hosted import check_known
from egc.frontend.importer import Imported, import_model
from egc.frontend.registry import NodeError
from egc.ir.evaluate import evaluate

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def _model(
    nodes: Sequence[Any],
    inputs: dict[str, tuple[int, Sequence[Any] | None]],
    outputs: Sequence[str],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 18,
    **settings: Any,
) -> ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, code, shape) for name, (code, shape) in inputs.items()],
        [helper.make_value_info(name, helper.make_tensor_type_proto(0, None)) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *settings.pop("opsets", [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **settings)


def _run(imported: Imported, feeds: dict[str, Any]) -> list[Any]:
    results = evaluate(imported.graph, {port.value: feeds[port.name] for port in imported.inputs})
    return [results[port.value] for port in imported.outputs]


def _ops(imported: Imported) -> list[str]:
    return [node.op for node in imported.graph.nodes]


def test_names_and_types_keep_the_models_order_and_spelling() -> None:
    nodes = [helper.make_node("Relu", ["a b"], ["out:0"]), helper.make_node("Neg", ["out:0"], ["p,q"])]
    imported = import_model(_model(nodes, {"a b": (FLOAT, ["N x", None, 3])}, ["p,q", "out:0"]))
    assert [port.name for port in imported.inputs] == ["a b"]
    assert [port.name for port in imported.outputs] == ["p,q", "out:0"]
    assert str(imported.inputs[0].type) == "float32[N_x, a_b_1, 3]"
    assert imported.graph.outputs == ("p_q", "out_0")


def test_an_output_may_be_an_input_a_constant_or_twice_the_same() -> None:
    nodes = [helper.make_node("Identity", ["x"], [name]) for name in ("a", "b")]
    nodes += [helper.make_node("Identity", ["c"], ["d"])]
    imported = import_model(_model(nodes, {"x": (FLOAT, [2])}, ["a", "b", "d"], {"c": np.float32([1, 2])}))
    x = np.float32([3, 4])
    assert [v.tolist() for v in _run(imported, {"x": x})] == [[3, 4], [3, 4], [1, 2]]
    assert not imported.graph.nodes


def test_shapes_given_replace_the_declared_ones_and_must_agree_with_them() -> None:
    model = _model([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, ["N", 3])}, ["y"])
    assert str(import_model(model, {"x": (8, 3)}).outputs[0].type) == "float32[8, 3]"
    assert str(import_model(model, {"x": ("M", 3)}).outputs[0].type) == "float32[M, 3]"
    for shapes, expected in (
        ({"x": (8, 4)}, "has the extent 3"),
        ({"x": (8,)}, "rank"),
        ({"z": (1,)}, "no input 'z'"),
    ):
        with pytest.raises(BadInput, match=expected):
            import_model(model, shapes)


def test_shape_arithmetic_stays_symbolic() -> None:
    """The head split of an attention layer as exporters write it: no shape computation is left."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["b"], axis=0),
        helper.make_node("Gather", ["s", "one"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["b", "zero_v"], ["bv"]),
        helper.make_node("Mul", ["n", "two"], ["n2"]),
        helper.make_node("Div", ["n2", "two"], ["n1"]),
        helper.make_node("Unsqueeze", ["n1", "zero_v"], ["nv"]),
        helper.make_node("Concat", ["bv", "nv", "heads", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("Transpose", ["r"], ["y"], perm=[0, 2, 1, 3]),
    ]
    constants = {
        "zero": np.int64(0), "one": np.int64(1), "two": np.int64(2),
        "zero_v": np.int64([0]), "heads": np.int64([4]), "rest": np.int64([-1]),
    }  # fmt: skip
    constants = {name: np.asarray(value) for name, value in constants.items()}
    model = _model(nodes, {"x": (FLOAT, ["batch", "seq", 32])}, ["y"], constants)
    imported = import_model(model)
    assert _ops(imported) == ["reshape", "transpose"]
    assert str(imported.outputs[0].type) == "float32[batch, 4, seq, 8]"


def test_sizes_times_scales_stay_symbolic_through_floats() -> None:
    """As exporters compute the size of an upsampled image: to float, times the scale, rounded, and back."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], start=2),
        helper.make_node("Cast", ["s"], ["f"], to=FLOAT),
        helper.make_node("Mul", ["f", "scale"], ["g"]),
        helper.make_node("Floor", ["g"], ["h"]),
        helper.make_node("Cast", ["h"], ["i"], to=INT64),
        helper.make_node("Expand", ["one", "i"], ["y"]),
    ]
    constants = {"scale": np.float32([2, 3]), "one": np.float32([1])}
    imported = import_model(_model(nodes, {"x": (FLOAT, [1, 8, "h", "w"])}, ["y"], constants))
    assert str(imported.outputs[0].type) == "float32[2*h, 3*w]"
    constants["scale"] = np.float32([0.5])
    halved = import_model(_model(nodes, {"x": (FLOAT, [1, 8, "h", "w"])}, ["g"], constants))
    x = np.zeros((1, 8, 3, 5), np.float32)
    assert _run(halved, {"x": x})[0].tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("start", "end", "step", "expected"),
    [
        (0, 1 << 62, 1, "float32[n]"),
        (-1, 1 << 62, 1, "float32[min(1, n)]"),
        (0, -1, 1, "float32[max(n - 1, 0)]"),
        (2, 5, 1, "float32[-min(2, n) + min(5, n)]"),
        (-1, -(1 << 62), -1, "float32[n]"),
    ],
)
def test_slices_of_symbolic_axes_hold_for_every_extent(
    start: int, end: int, step: int, expected: str
) -> None:
    constants = {"s": np.int64([start]), "e": np.int64([end]), "a": np.int64([0]), "t": np.int64([step])}
    nodes = [helper.make_node("Slice", ["x", "s", "e", "a", "t"], ["y"])]
    imported = import_model(_model(nodes, {"x": (FLOAT, ["n"])}, ["y"], constants))
    assert str(imported.outputs[0].type) == expected
    for n in range(8):
        x = np.arange(n, dtype=np.float32)
        np.testing.assert_array_equal(_run(imported, {"x": x})[0], x[start:end:step])


def test_constant_subgraphs_fold_and_broadcasts_do_not() -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        helper.make_node("Mul", ["wt", "two"], ["w2"]),
        helper.make_node("MatMul", ["x", "w2"], ["p"]),
        helper.make_node("ConstantOfShape", ["big"], ["zeros"]),
        helper.make_node("Add", ["p", "zeros"], ["y"]),
    ]
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    constants = {"w": weights, "two": np.float32([2]), "big": np.int64([1024, 3])}
    imported = import_model(_model(nodes, {"x": (FLOAT, [1024, 4])}, ["y"], constants))
    assert _ops(imported) == ["matmul", "expand", "map"]
    assert max(c.data.nbytes for c in imported.graph.constants.values()) <= weights.nbytes


def test_model_local_functions_are_opened_with_their_attributes() -> None:
    body = helper.make_function(
        "com.example", "Scaled", ["x"], ["y"],
        [
            helper.make_node("Constant", [], ["c"], value_float=2.0),
            helper.make_node("LeakyRelu", ["x"], ["t"]),
            helper.make_node("Mul", ["t", "c"], ["y"]),
        ],
        [helper.make_opsetid("", 18)], ["alpha"],
    )  # fmt: skip
    reference = body.node[1].attribute.add()
    reference.name, reference.ref_attr_name, reference.type = "alpha", "alpha", 1
    node = helper.make_node("Scaled", ["x"], ["y"], domain="com.example", alpha=0.5)
    opsets = [helper.make_opsetid("com.example", 1)]
    imported = import_model(_model([node], {"x": (FLOAT, [2])}, ["y"], functions=[body], opsets=opsets))
    assert _run(imported, {"x": np.float32([-4, 4])})[0].tolist() == [-4, 8]
    assert not imported.hosted


def test_a_function_that_calls_itself_is_refused() -> None:
    node = helper.make_node("F", ["x"], ["y"], domain="com.example")
    body = helper.make_function(
        "com.example", "F", ["x"], ["y"], [node], [helper.make_opsetid("com.example", 1)]
    )
    opsets = [helper.make_opsetid("com.example", 1)]
    with pytest.raises(BadInput, match="nested more than"):
        import_model(_model([node], {"x": (FLOAT, [2])}, ["y"], functions=[body], opsets=opsets))


def test_a_node_without_primitives_runs_on_the_host_and_is_reported() -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["p"], name="where"), helper.make_node("Neg", ["p"], ["y"])]
    model = _model(nodes, {"x": (FLOAT, [2, 3])}, ["y"])
    imported = import_model(model)
    assert [(node.op_type, node.title) for node in imported.hosted] == [("NonZero", "node 'where' (NonZero)")]
    assert str(imported.outputs[0].type) == "int64[2, u0]"
    x = np.float32([[0, 1, 0], [2, 0, 3]])
    np.testing.assert_array_equal(
        _run(imported, {"x": x})[0], ReferenceEvaluator(model).run(None, {"x": x})[0]
    )


def test_a_host_node_keeps_the_dims_that_its_operands_tell() -> None:
    """The size of the result is computed from other extents, which shape inference alone does not follow."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Shape", ["like"], ["t"], start=1),
        helper.make_node("Slice", ["s", "zero", "two", "zero"], ["head"]),
        helper.make_node("Concat", ["head", "t"], ["size"], axis=0),
        helper.make_node("Resize", ["x", "", "", "size"], ["y"], mode="cubic", antialias=1),
    ]
    constants = {"zero": np.int64([0]), "two": np.int64([2])}
    inputs = {"x": (FLOAT, ["n", 2, "h", "w"]), "like": (FLOAT, [1, "p", "q"])}
    imported = import_model(_model(nodes, inputs, ["y"], constants))
    assert [node.op_type for node in imported.hosted] == ["Resize"]
    assert str(imported.outputs[0].type) == "float32[n, 2, p, q]"


def test_a_host_node_over_constants_runs_when_importing() -> None:
    nodes = [helper.make_node("NonZero", ["c"], ["p"]), helper.make_node("Add", ["p", "x"], ["y"])]
    constants = {"c": np.float32([0, 1, 0, 2])}
    imported = import_model(_model(nodes, {"x": (INT64, [1, 2])}, ["y"], constants))
    assert not imported.hosted and _run(imported, {"x": np.int64([[0, 10]])})[0].tolist() == [[1, 13]]


def test_random_nodes_are_not_folded() -> None:
    node = helper.make_node("RandomNormal", [], ["y"], shape=[2, 2])
    imported = import_model(_model([node], {}, ["y"]))
    assert [node.op_type for node in imported.hosted] == ["RandomNormal"]


def test_every_unknown_operator_is_named_at_once() -> None:
    nodes = [helper.make_node(name, ["x"], [name], domain="com.example") for name in ("First", "Second")]
    opsets = [helper.make_opsetid("com.example", 1)]
    with pytest.raises(BadInput) as caught:
        import_model(_model(nodes, {"x": (FLOAT, [2])}, ["First", "Second"], opsets=opsets))
    assert len(caught.value.problems) == 2
    assert all(name in str(caught.value) for name in ("com.example.First", "com.example.Second"))


def test_the_operator_table_says_which_operators_nothing_can_run() -> None:
    """Every operator without an entry or a body is on the host exactly where importing it is not refused."""
    rows = [row for row in operator_rows() if row["how"] in ("host", "unsupported")]
    for row in rows:
        node = helper.make_node(row["operator"], [], ["y"], domain=row["domain"])
        try:
            check_known(node, {row["domain"]: row["since"]}, ())
            assert row["how"] == "host", row
        except NodeError:
            assert row["how"] == "unsupported", row
    unsupported = {row["operator"] for row in rows if row["how"] == "unsupported"}
    assert {"MaxRoiPool", "ZipMap"} <= unsupported and not unsupported & {"NonZero", "LabelEncoder"}


def test_what_depends_on_a_wrong_node_is_not_a_problem_of_its_own() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 0], name="wrong"),
        helper.make_node("Relu", ["t"], ["r"]),
        helper.make_node("Concat", ["x", "x"], ["c"], axis=7, name="also"),
    ]
    with pytest.raises(BadInput) as caught:
        import_model(_model(nodes, {"x": (FLOAT, [2, 3])}, ["r", "c"]))
    assert ["wrong" in str(p.where) or "also" in str(p.where) for p in caught.value.problems] == [True, True]


def test_values_fixed_when_compiling_leave_the_inputs_in_place() -> None:
    model = _model(
        [helper.make_node("Reshape", ["x", "s"], ["y"])], {"x": (FLOAT, [2, 3]), "s": (INT64, [1])}, ["y"]
    )
    assert [node.op_type for node in import_model(model).hosted] == ["Reshape"]
    imported = import_model(model, values={"s": np.int64([-1])})
    assert not imported.hosted and [port.name for port in imported.inputs] == ["x", "s"]
    assert str(imported.outputs[0].type) == "float32[6]"


def test_inputs_with_initializers_are_constants() -> None:
    model = _model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        {"x": (FLOAT, [2]), "w": (FLOAT, [2])},
        ["y"],
        {"w": np.float32([1, 2])},
    )
    imported = import_model(model)
    assert [port.name for port in imported.inputs] == ["x"]
    assert _run(imported, {"x": np.float32([1, 1])})[0].tolist() == [2, 3]


def test_the_same_model_gives_the_same_graph() -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["p"]),
        helper.make_node("Einsum", ["p", "p"], ["y"], equation="ij,kj->ik"),
    ]
    model = _model(nodes, {"x": (FLOAT, ["n", 4])}, ["y"])
    assert str(import_model(model).graph) == str(import_model(model.SerializeToString()).graph).replace(
        "graph the_model", "graph test"
    )


@pytest.mark.parametrize(
    "equation",
    [
        "ij,jk->ik",
        "bij,bjk->bik",
        "bhqd,bhkd->bhqk",
        "...ij,...jk",
        "ii->i",
        "i,j->ij",
        "ij->ji",
        "ij,ij->",
        "a,b,c->abc",
    ],
)
def test_einsum_is_numpys(equation: str) -> None:
    extents = dict(zip("abcijkbhqd", (2, 3, 4, 5, 6, 7, 2, 3, 4, 5), strict=True))
    rng = np.random.default_rng(0)
    terms = equation.split("->")[0].split(",")
    shapes = [[2] * ("..." in t) + [extents[c] for c in t if c.isalpha()] for t in terms]
    feeds = {f"x{i}": rng.standard_normal(shape).astype(np.float32) for i, shape in enumerate(shapes)}
    node = helper.make_node("Einsum", list(feeds), ["y"], equation=equation)
    model = _model([node], {name: (FLOAT, list(x.shape)) for name, x in feeds.items()}, ["y"])
    expected = np.einsum(equation, *feeds.values())
    np.testing.assert_allclose(_run(import_model(model), feeds)[0], expected, rtol=1e-5, atol=1e-5)


def test_a_given_extent_holds_wherever_its_name_stands() -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, "m"]) for name in ("a", "b")]
    sums = helper.make_node("Add", ["a", "b"], ["y"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, "m"])
    model = helper.make_model(helper.make_graph([sums], "g", ports, [out]), ir_version=8)
    imported = import_model(model, {"a": (3, 2, "m")})
    assert [str(port.type) for port in imported.inputs] == ["float32[3, 2, m]"] * 2


def test_a_dim_that_reads_as_arithmetic_over_what_no_run_tells_is_a_name() -> None:
    add = helper.make_node("Concat", ["x", "y"], ["z"], axis=0)
    alone = _model([helper.make_node("Relu", ["x"], ["z"])], {"x": (FLOAT, ["2*n", 4])}, ["z"])
    assert str(import_model(alone).inputs[0].type) == "float32[d2_n, 4]"
    told = _model([add], {"x": (FLOAT, ["n"]), "y": (FLOAT, ["2*n"])}, ["z"])
    assert str(import_model(told).outputs[0].type) == "float32[3*n]"
