"""examples/rules/: the rule files pass every check, and do for real models what their heads say."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from egc.egraph import saturate
from egc.extract import Extraction, extract
from egc.frontend.importer import import_model
from egc.ir.evaluate import evaluate
from egc.machine import load_machine
from egc.resources import data_folder
from egc.rules import load_rules
from egc.rules.check import check
from egc.soundness.check import check_soundness
from examples.rules.adapters import with_adapters

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "rules"
MODELS = ROOT / "tests" / "models"


def extracted(model: Path, *extra: Path, disabled: tuple[str, ...] = ()) -> Extraction:
    imported = import_model(model)
    snapshot = saturate(imported.graph, load_rules(extra=extra, disabled=disabled))
    return extract(imported.graph, snapshot, load_machine("x86-64-v4").rates)


def operators(found: Extraction) -> Counter[str]:
    return Counter(node.op for node in found.graph.nodes)


def weight_bytes(found: Extraction) -> int:
    return sum(constant.data.nbytes for constant in found.graph.constants.values())


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.egg")), ids=lambda p: p.stem)
def test_examples_pass_every_check(path: Path) -> None:
    report = check([path], further=(check_soundness,))
    assert [str(d) for d in report.findings] == []
    assert report.examples > 0


def test_every_example_is_described() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.egg"):
        assert f"[{path.name}]({path.name})" in text
    assert data_folder("rules").is_dir()


def test_merged_adapters_cost_nothing(tmp_path: Path) -> None:
    plain = MODELS / "bert.torchscript.onnx"
    adapted = tmp_path / "adapted.onnx"
    onnx.save(with_adapters(onnx.load(plain), rank=8), adapted)
    rules = EXAMPLES / "merge-adapters.egg"
    without, merged, base = extracted(adapted), extracted(adapted, rules), extracted(plain)
    assert operators(without)["matmul"] > operators(merged)["matmul"] == operators(base)["matmul"]
    assert weight_bytes(without) > weight_bytes(merged) == weight_bytes(base)
    assert without.costs["improved"] > merged.costs["improved"]
    disabled = extracted(adapted, rules, disabled=("merge-adapter",))
    assert operators(disabled) == operators(without)
    agree(without, merged)


def test_a_new_operator_is_computed_by_what_it_is_equal_to() -> None:
    model = MODELS / "llama.torchscript.onnx"
    rules = EXAMPLES / "swiglu.egg"
    shipped = ("merge-products", "merge-affine-maps")  # do for any products what the example does for its own
    without, one_product = extracted(model, disabled=shipped), extracted(model, rules, disabled=shipped)
    layers = 2
    assert operators(one_product)["matmul"] == operators(without)["matmul"] - layers
    undefined = extracted(model, rules, disabled=("swiglu", *shipped))
    assert operators(undefined)["matmul"] == operators(without)["matmul"]
    agree(without, one_product)


def agree(a: Extraction, b: Extraction) -> None:
    """Both graphs compute the same of the same random inputs."""
    rng = np.random.default_rng(0)
    feeds = {}
    for name in a.graph.inputs:
        type_ = a.graph.types[name]
        shape = tuple(d if isinstance(d, int) else 4 for d in type_.shape)
        if type_.dtype == "float32":
            feeds[name] = rng.standard_normal(shape).astype(np.float32)
        else:
            feeds[name] = rng.integers(0, 2, shape).astype(type_.dtype)
    left, right = evaluate(a.graph, feeds), evaluate(b.graph, feeds)
    for name, value in left.items():
        np.testing.assert_allclose(right[name], value, rtol=1e-4, atol=1e-5)
