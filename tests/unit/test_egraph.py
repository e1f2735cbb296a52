"""The graph e-graph: the vocabulary agrees with the operators,
and saturation keeps the meaning of a graph.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from egc.egraph import Budget, legal_fusions, saturate
from egc.egraph.vocabulary import CONSTRUCTORS
from egc.errors import CompileError
from egc.extract import Rates, extract
from egc.ir.dims import symbol
from egc.ir.evaluate import evaluate
from egc.ir.graph import Graph, GraphBuilder
from egc.ir.scalar import FUNCTIONS
from egc.ir.types import TensorType
from egc.machine import load_machine
from egc.rules import load_rules

RATES = Rates(200e9, 30e9, 50e9, 20e9, launch=1e-6, operators=load_machine("x86-64-v4").operators)


def constant(builder: GraphBuilder, rng: np.random.Generator, *shape: int) -> str:
    return builder.constant(rng.standard_normal(shape).astype(np.float32))


def residual_cnn(blocks: int = 2) -> Graph:
    """Convolution, scale, shift, residual, relu; then a concatenation, a mean, a product and a softmax."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("cnn")
    x = b.input("x", TensorType("float32", (1, 3, 24, 24)))
    window = {"strides": (1, 1), "dilations": (1, 1), "low": (1, 1), "high": (1, 1), "groups": 1}
    h, channels = x, 3
    for _ in range(blocks):
        c = b.add("conv", (h, constant(b, rng, 32, channels, 3, 3)), **window)
        c = b.add("map", (c, constant(b, rng, 1, 32, 1, 1)), fn="mul")
        c = b.add("map", (c, constant(b, rng, 32, 1, 1)), fn="add")
        if channels == 32:
            c = b.add("map", (c, h), fn="add")
        h, channels = b.add("map", (c, b.constant(np.float32(0))), fn="max"), 32
    h = b.add("concat", (h, c, h), axis=1)
    h = b.add("reduce", (h,), fn="add", axes=(2, 3))
    h = b.add("matmul", (b.add("reshape", (h,), shape=(1, 96)), constant(b, rng, 96, 5)))
    shifted = b.add("map", (h, b.add("reduce", (h,), fn="max", axes=(1,))), fn="sub")
    e = b.add("map", (shifted,), fn="exp")
    return b.finish([b.add("map", (e, b.add("reduce", (e,), fn="add", axes=(1,))), fn="div")])


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def outputs(graph: Graph, feeds: dict[str, np.ndarray], dtype: str | None = None) -> np.ndarray:
    return np.asarray(evaluate(graph, feeds, dtype)[graph.outputs[0]])


def test_every_operator_has_a_constructor_in_the_prelude_with_its_sorts() -> None:
    book = load_rules()
    for constructor in CONSTRUCTORS.values():
        declared = book.environment.operators[constructor.name]
        sorts = ["T" if name == "operand" else sort for name, sort in constructor.args]
        assert [str(sort) for sort in declared.inputs] == sorts, constructor.name


def test_every_scalar_function_is_a_constructor_of_fn() -> None:
    book = load_rules()
    declared = {name for name, f in book.environment.operators.items() if str(f.output) == "Fn"}
    assert declared == {fn.constructor for fn in FUNCTIONS.values()}


@pytest.mark.parametrize("accuracy", ["exact", "default", "fast"])
@pytest.mark.parametrize("seconds", [0.0, 1.0], ids=["bottom-up", "improved"])
def test_what_extraction_chooses_means_the_same(accuracy: str, seconds: float) -> None:
    graph = residual_cnn()
    snapshot = saturate(graph, load_rules(accuracy=accuracy))
    chosen = extract(graph, snapshot, RATES, seconds=seconds).graph
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 3, 24, 24)).astype(np.float32)}
    assert relative_error(outputs(chosen, feeds), outputs(graph, feeds, "float64")) < 1e-6


def test_one_round_and_full_saturation_mean_the_same() -> None:
    graph = residual_cnn()
    feeds = {"x": np.random.default_rng(2).standard_normal((1, 3, 24, 24)).astype(np.float32)}
    expected = outputs(graph, feeds, "float64")
    for rounds in (1, 2, 40):
        snapshot = saturate(graph, load_rules(), Budget(rounds=rounds))
        assert relative_error(outputs(extract(graph, snapshot, RATES).graph, feeds), expected) < 1e-6


def test_images_are_computed_channels_last_with_one_conversion_in_and_one_out() -> None:
    graph = residual_cnn()
    ops = [node.op for node in extract(graph, saturate(graph, load_rules()), RATES).graph.nodes]
    assert "conv" not in ops
    assert ops.count("conv_channels_last") == 2
    assert ops.count("transpose") == 2
    assert "softmax" in ops


def test_the_scale_of_a_batch_norm_becomes_part_of_the_weights_only_where_rounding_may_change() -> None:
    graph = residual_cnn()
    for accuracy, products in (("default", 0), ("exact", 2)):
        chosen = extract(graph, saturate(graph, load_rules(accuracy=accuracy)), RATES).graph
        assert sum(node.op == "map" and node.attr("fn") == "mul" for node in chosen.nodes) == products


def test_a_disabled_rule_has_no_effect() -> None:
    graph = residual_cnn()
    book = load_rules(disabled=["softmax"])
    assert "softmax" not in [n.op for n in extract(graph, saturate(graph, book), RATES).graph.nodes]


def test_the_e_graph_grows_linearly_with_repeated_blocks() -> None:
    budget = Budget(seconds=600)
    sizes = [saturate(residual_cnn(blocks), load_rules(), budget).size for blocks in (4, 8, 16)]
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0])


def test_a_budget_stops_saturation_and_says_so() -> None:
    snapshot = saturate(residual_cnn(4), load_rules(), Budget(rows=10))
    assert any("rows" in growth.stopped for growth in snapshot.growth)


def test_a_budget_of_seconds_leaves_out_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: 3600 * clock())  # an hour passes in each second
    snapshot = saturate(residual_cnn(1), load_rules(), Budget(seconds=60))
    assert {growth.stopped for growth in snapshot.growth} == {"saturated"}


def test_a_rule_that_equates_tensors_of_different_shape_fails_loudly(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.egg"
    wrong.write_text(
        ';; class: exact\n(rewrite (Reduce x f axes) x :ruleset canonical :name "drop-reduce")\n'
    )
    with pytest.raises(CompileError, match="equality saturation failed"):
        saturate(residual_cnn(), load_rules(extra=[wrong]))


def test_fusions_name_the_rule_that_allows_them() -> None:
    graph = residual_cnn()
    book = load_rules()
    chosen = extract(graph, saturate(graph, book), RATES).graph
    legal = legal_fusions(chosen, book)
    conv = next(node for node in chosen.nodes if node.op == "conv_channels_last")
    reader = chosen.users[conv.output][0]
    assert legal[conv.output, reader.output] == "fuse-epilogue-into-contraction"
    without = legal_fusions(chosen, load_rules(disabled=["fuse-epilogue-into-contraction"]))
    assert (conv.output, reader.output) not in without


def test_nodes_that_do_not_read_one_another_need_no_e_graph_to_stay_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told() -> None:
        raise AssertionError("egglog was told the rules")

    b = GraphBuilder("apart")
    x = b.input("x", TensorType("float32", (8, 4)))
    graph = b.finish([b.add("map", (x,), fn=fn) for fn in ("exp", "tanh")])
    monkeypatch.setattr("egc.egraph.engine.egglog_bindings", told)
    assert legal_fusions(graph, load_rules()) == {}


def test_symbolic_dims_survive() -> None:
    b = GraphBuilder("symbolic")
    rng = np.random.default_rng(3)
    n = symbol("n")
    x = b.input("x", TensorType("float32", (n, 4)))
    y = b.add("map", (b.add("matmul", (x, constant(b, rng, 4, 4))), constant(b, rng, 4)), fn="add")
    graph = b.finish([b.add("map", (y, b.constant(np.float32(0))), fn="max")])
    chosen = extract(graph, saturate(graph, load_rules()), RATES).graph
    assert chosen.types[chosen.outputs[0]] == TensorType("float32", (n, 4))
    for extent in (0, 1, 5):
        feeds = {"x": rng.standard_normal((extent, 4)).astype(np.float32)}
        np.testing.assert_allclose(outputs(chosen, feeds), outputs(graph, feeds), rtol=1e-6)


def test_saturation_is_deterministic() -> None:
    graph = residual_cnn()
    texts = {str(extract(graph, saturate(graph, load_rules()), RATES).graph) for _ in range(3)}
    assert len(texts) == 1


def zero_scaled() -> Graph:
    """y = x · 0, and y · 1.5: each is the other."""
    b = GraphBuilder("zero")
    y = b.add("map", (b.input("x", TensorType("float32", (3,))), b.constant(np.float32(0))), fn="mul")
    return b.finish([b.add("map", (y, b.constant(np.float32(1.5))), fn="mul")])


def test_products_that_are_their_own_operand_end() -> None:
    snapshot = saturate(zero_scaled(), load_rules())
    assert [growth.stopped for growth in snapshot.growth] == ["saturated"] * len(snapshot.growth)
    assert len(snapshot.classes) < 20


def test_growth_that_doubles_in_every_round_is_stopped_before_it_passes_the_budget(tmp_path: Path) -> None:
    """The rule is mul-constants without its guard: one round more takes 6 s and 1.6 million rows, two rounds
    more than there is memory for.
    """
    rule = """;; class: reassociating
    (rule ((= e (Map2 (Mul) (Map2 (Mul) x (Splat t c)) (Splat t d))) (= t "float32"))
          ((union e (Map2 (Mul) x (Splat t (* c d))))) :ruleset canonical :name "unguarded")"""
    path = tmp_path / "unguarded.egg"
    path.write_text(rule)
    first = saturate(zero_scaled(), load_rules(extra=[path])).growth[0]
    assert first.stopped == "400000 rows" and first.enodes < 5000
