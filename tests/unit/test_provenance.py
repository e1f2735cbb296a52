"""Derivations are replayed: in order, each from what came before, both sides of every step with one value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace

from bench.make_models import make
from egc.egraph import ENode, Snapshot, saturate
from egc.egraph.provenance import Fact, Provenance, Term
from egc.extract import Rates, extract
from egc.extract.solution import Solution
from egc.extract.sources import sources_of
from egc.frontend.importer import Imported, import_model
from egc.ir.dims import evaluate as evaluate_dim
from egc.ir.evaluate import evaluate, evaluate_node
from egc.ir.graph import Graph, GraphBuilder
from egc.ir.types import TensorType, is_float, numpy_dtype
from egc.machine import load_machine
from egc.rules import load_rules

MODELS = Path(__file__).parents[1] / "models"
RATES = Rates(200e9, 30e9, 50e9, 20e9, launch=1e-6, operators=load_machine("x86-64-v4").operators)
SIZES = {"batch": 2, "sequence": 9}


def imported(path: Path) -> Imported:
    """A model with its symbolic dims fixed."""
    loose = import_model(path)
    shapes = {port.name: [evaluate_dim(d, SIZES) for d in port.type.shape] for port in loose.inputs}
    return import_model(path, shapes)


def shuffled_dense_net() -> Graph:
    """Two blocks of grouped convolution, scale and shift, channel shuffle and dense concatenation."""
    rng = np.random.default_rng(3)
    b = GraphBuilder("shuffle")
    window = {"strides": (1, 1), "dilations": (1, 1), "low": (1, 1), "high": (1, 1), "groups": 2}
    x = b.input("x", TensorType("float32", (1, 8, 48, 48)))
    channels = 8
    for _ in range(2):
        w = b.constant(rng.standard_normal((8, channels // 2, 3, 3)).astype(np.float32))
        h = b.add("conv", (x, w), **window)
        h = b.add("map", (h, b.constant(rng.standard_normal((1, 8, 1, 1)).astype(np.float32))), fn="mul")
        h = b.add("map", (h, b.constant(rng.standard_normal((1, 8, 1, 1)).astype(np.float32))), fn="add")
        h = b.add("map", (h,), fn="relu")
        h = b.add("reshape", (h,), shape=(1, 2, 4, 48, 48))
        h = b.add("transpose", (h,), perm=(0, 2, 1, 3, 4))
        h = b.add("reshape", (h,), shape=(1, 8, 48, 48))
        x = b.add("concat", (x, h), axis=1)
        channels += 8
    return b.finish((x,))


def squeezenet(folder: Path) -> Graph:
    """SqueezeNet 1.1 on small images, which numpy convolves in a moment."""
    model = onnx.load(make("squeezenet", folder))
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 48
    return import_model(model).graph


def graph_of(name: str, folder: Path) -> Graph:
    match name:
        case "squeezenet":
            return squeezenet(folder)
        case "shuffled dense net":
            return shuffled_dense_net()
    return imported(MODELS / name).graph


class Replay:
    """The values of e-classes, from the model's own and from what replayed steps build."""

    def __init__(self, graph: Graph, snapshot: Snapshot) -> None:
        self.derived: set[ENode] = set()
        self.values: dict[int, np.ndarray] = {}
        everything = tuple(graph.types)
        results = evaluate(replace(graph, outputs=everything), feeds(graph))
        for name, eclass in snapshot.roots.items():
            if name in results:
                self.values[eclass] = results[name]
        provenance = snapshot.provenance
        assert provenance is not None
        self.digests = {constant.digest: constant.data for constant in graph.constants.values()}
        for enode in provenance.original:
            self.derived.add(enode)
            eclass = eclass_of(provenance, enode)
            if eclass not in self.values and enode.op not in ("topk", "host"):
                self.values[eclass] = self.result(enode, [self.values[child] for child in enode.children])

    def result(self, enode: ENode, operands: list[np.ndarray]) -> np.ndarray:
        match enode.op:
            case "splat":
                return np.asarray(enode.attr("value")).astype(numpy_dtype(enode.attr("dtype")))
            case "const":
                return self.digests[enode.attr("digest")]
        return evaluate_node(enode.op, tuple(operands), dict(enode.attrs))[0]

    def evaluate(self, term: Term, build: bool) -> np.ndarray:
        """The value of a term. While matching, every e-node must be there already; while building, it becomes
        so."""
        operands = [
            self.values[child] if part is None else self.evaluate(part, build)
            for child, part in zip(term.enode.children, term.args, strict=True)
        ]
        value = self.result(term.enode, operands) if term.enode.op != "output" else self.values[term.eclass]
        if build:
            self.derived.add(term.enode)
        else:
            assert term.enode in self.derived, f"{term.enode} is matched before it is built"
        same(self.values.setdefault(term.eclass, value), value, str(term.enode))
        return value


def eclass_of(provenance: Provenance, enode: ENode) -> int:
    name, inputs = provenance.item_of[enode]
    return provenance.reader.number(provenance.tables.of(name)[inputs])


def terms_of(side: tuple[Term | Fact, ...]) -> list[Term]:
    """The terms of one side of a step, those that stand in facts included."""
    found = [term for term in side if isinstance(term, Term)]
    facts = [fact for fact in side if isinstance(fact, Fact)]
    return found + [value for fact in facts for _, value in fact.args if isinstance(value, Term)]


def feeds(graph: Graph) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for name in graph.inputs:
        type_ = graph.types[name]
        drawn = rng.standard_normal(type_.shape) if is_float(type_.dtype) else rng.integers(0, 2, type_.shape)
        found[name] = drawn.astype(numpy_dtype(type_.dtype))
    return found


def same(a: np.ndarray, b: np.ndarray, what: str) -> None:
    """Both sides of a rule: equal but for rounding in another order."""
    assert a.shape == b.shape and a.dtype == b.dtype, what
    x, y = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(x)
    assert np.array_equal(finite, np.isfinite(y)), what
    difference = np.linalg.norm((x - y)[finite])
    assert difference <= 1e-5 * np.linalg.norm(x[finite]) + 1e-7, what


def extracted(graph: Graph, disabled: tuple[str, ...] = ()) -> tuple[Snapshot, Solution]:
    snapshot = saturate(graph, load_rules(disabled=disabled))
    return snapshot, extract(graph, snapshot, RATES).solution


@pytest.mark.parametrize(
    "name", ["squeezenet", "bert.torchscript.onnx", "mobilenet_v3.dynamo.onnx", "shuffled dense net"]
)
def test_derivations_replay_step_by_step_to_what_was_chosen(name: str, tmp_path_factory: Any) -> None:
    graph = graph_of(name, tmp_path_factory.mktemp("models"))
    snapshot, solution = extracted(graph)
    provenance = snapshot.provenance
    assert provenance is not None
    chosen = [solution.choice[eclass] for eclass in solution.order]
    steps = [provenance.step(number) for number in provenance.derivation(chosen)]
    assert len(steps) > 5
    replay = Replay(graph, snapshot)
    for step in steps:
        for term in terms_of(step.matched):
            replay.evaluate(term, build=False)
        for term in terms_of(step.built):
            replay.evaluate(term, build=True)
    assert set(chosen) <= replay.derived


@pytest.mark.parametrize("name", ["bert.dynamo.onnx", "resnet.torchscript.onnx", "llama.torchscript.onnx"])
def test_every_enode_is_derived_and_no_match_is_lost(name: str) -> None:
    snapshot = saturate(import_model(MODELS / name).graph, load_rules())
    provenance = snapshot.provenance
    assert provenance is not None
    assert all(row is not None for match in provenance.matches for row in match.rows)
    assert [
        e for _, _, _, e in provenance.reader.entries if provenance.item_of[e] not in provenance.builder
    ] == []


def test_a_derivation_needs_only_what_stands_before_it() -> None:
    graph = shuffled_dense_net()
    snapshot, solution = extracted(graph)
    provenance = snapshot.provenance
    assert provenance is not None
    order = provenance.derivation(solution.choice[eclass] for eclass in solution.order)
    place: Mapping[int, int] = {number: i for i, number in enumerate(order)}
    assert all(place[need] < place[number] for number in order for need in provenance.needs(number))
    assert len(set(order)) == len(order)


def test_a_model_that_no_rule_touches_has_no_derivation() -> None:
    b = GraphBuilder("plain")
    x = b.input("x", TensorType("float32", (4,)))
    snapshot, solution = extracted(b.finish((b.add("map", (x,), fn="tanh"),)))
    provenance = snapshot.provenance
    assert provenance is not None
    assert provenance.derivation(solution.choice[e] for e in solution.order) == []


@pytest.mark.parametrize(
    "name", ["bert.torchscript.onnx", "mobilenet_v2.dynamo.onnx", "convnext.torchscript.onnx"]
)
def test_every_computed_value_names_onnx_nodes(name: str) -> None:
    graph = import_model(MODELS / name).graph
    snapshot, solution = extracted(graph)
    sources = sources_of(graph, snapshot, solution)
    computed = [e for e in solution.order if e not in snapshot.constant and solution.choice[e].op != "input"]
    assert computed and all(sources[eclass] for eclass in computed)


def test_two_transposes_that_cancel_belong_to_nothing() -> None:
    b = GraphBuilder("cancel")
    x = b.input("x", TensorType("float32", (2, 3)))
    h = b.add("map", (x,), ("node 'f'",), fn="tanh")
    h = b.add("transpose", (h,), ("node 't1'",), perm=(1, 0))
    h = b.add("transpose", (h,), ("node 't2'",), perm=(1, 0))
    graph = b.finish((b.add("map", (h,), ("node 'g'",), fn="abs"),))
    snapshot, solution = extracted(graph)
    named = {source for found in sources_of(graph, snapshot, solution).values() for source in found}
    assert named == {"node 'f'", "node 'g'"}


DOUBLING = """\
;; twice x
(constructor Twice (T) T)
;; math: x + x = twice(x)
;; class: exact
(rewrite (Map2 (Add) x x) (Twice x) :ruleset canonical :name "twice")
;; math: twice(x) = x · 2
;; class: exact
(rewrite (Twice x) (Map2 (Mul) x (Splat "float32" 2.0)) :ruleset canonical :name "twice-by-product")
"""


def test_an_operator_that_a_rule_file_declares_has_its_place_in_derivations(tmp_path: Path) -> None:
    file = tmp_path / "twice.egg"
    file.write_text(DOUBLING)
    b = GraphBuilder("double")
    x = b.input("x", TensorType("float32", (4,)))
    graph = b.finish((b.add("map", (x, x), fn="add"),))
    snapshot = saturate(graph, load_rules(extra=[file]))
    provenance = snapshot.provenance
    assert provenance is not None
    eclass = snapshot.roots[graph.outputs[0]]
    product = next(e for e in snapshot.classes[eclass] if e.op == "map" and e.attr("fn") == "mul")
    steps = [provenance.step(number) for number in provenance.derivation([product])]
    assert [step.rule for step in steps] == ["twice", "twice-by-product"]
    built = steps[0].built[0]
    assert isinstance(built, Term) and built.enode.op == "Twice" and built.eclass == eclass
