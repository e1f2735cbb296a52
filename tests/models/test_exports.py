"""The tiny real exports: the files themselves, and what egc makes of them, against ONNX Runtime."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.message import Message

from egc.bench.compare import relative_error
from egc.bench.inputs import input_specs, random_inputs
from egc.codegen.workshop import Workshop
from egc.compiler import compile_model
from egc.egraph import saturate
from egc.extract import extract
from egc.frontend.importer import import_model
from egc.machine import load_machine
from egc.options import Options
from egc.rules import load_rules
from egc.runtime.session import Session

FILES = sorted(Path(__file__).parent.glob("*.onnx"))
# The sizes that symbolic dims take: one artifact has to run at all of them.
SIZES = (
    {"batch": 1, "sequence": 12, "past": 7, "total": 8},
    {"batch": 3, "sequence": 7, "past": 1, "total": 2},
    {"batch": 2, "sequence": 33, "past": 30, "total": 31},
)
BOUNDS = {"exact": 1e-5, "default": 1e-4}
# Functions that are spelled out give the rules of the default more to do than operators that stand for them.
ACCURACIES = {"dynamo": "exact", "torchscript": "default"}
# The functions that each architecture is made of, which both exporters spell in ways of their own.
FUNCTIONS = {
    "bert": {"attention": 2, "layer_norm": 5, "gelu_erf": 2},
    "deberta": {"attention": 1, "layer_norm": 3, "gelu_erf": 1},
    "diffusion": {"attention": 2, "layer_norm": 7, "gelu_erf": 1, "silu": 4},
    "gpt2": {"attention": 2, "layer_norm": 5, "gelu_tanh": 2},
    "llama": {"attention": 2, "rms_norm": 5, "silu": 2},
    "llama_step": {"attention": 1, "rms_norm": 3, "silu": 1},
    "mlp": {"layer_norm": 1, "softmax": 1, "gelu_erf": 1, "gelu_tanh": 1},
    "mobilenet_v3": {"hard_swish": 3, "silu": 1},
    "swin": {"attention": 1, "layer_norm": 2},
    "t5": {"attention": 3, "rms_norm": 7},
    "t5_encoder": {"attention": 2, "rms_norm": 5, "gelu_tanh": 2},
    "vit": {"attention": 2, "layer_norm": 5, "gelu_erf": 2},
    "wav2vec2": {"attention": 1, "gelu_erf": 4, "layer_norm": 4},
    "whisper_encoder": {"attention": 2, "layer_norm": 5, "gelu_erf": 4},
}
RECOGNISED = {function for functions in FUNCTIONS.values() for function in functions}

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.removesuffix(".onnx"))


def messages(message: Message) -> Iterator[Message]:
    """The message and all that it holds."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from messages(part)


def sized_inputs(path: Path, sizes: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """Random inputs with each symbolic dim at the size given."""
    shapes = {
        value.name: tuple(sizes.get(dim.dim_param, dim.dim_value) for dim in value.type.tensor_type.shape.dim)
        for value in onnx.load(path).graph.input
    }
    return random_inputs(input_specs(path, shapes), seed)


def test_both_exporters_have_exported_every_architecture() -> None:
    names = {path.name.split(".")[0] for path in FILES}
    assert len(names) >= 21
    assert {path.name for path in FILES} == {
        f"{n}.{e}.onnx" for n in names for e in ("dynamo", "torchscript")
    }


@each_file
def test_file_is_small_valid_and_anonymous(path: Path) -> None:
    assert path.stat().st_size <= 300_000
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    for message in messages(model):
        for field, value in message.ListFields():
            assert field.name not in ("doc_string", "metadata_props"), value
    assert b".py" not in path.read_bytes(), "a source file is named"


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_recognised(name: str, exporter: str) -> None:
    graph = import_model(FILES[0].parent / f"{name}.{exporter}.onnx").graph
    chosen = extract(graph, saturate(graph, load_rules()), load_machine("x86-64-v4").rates).graph
    operators = [str(node.attr("fn")) if node.op == "map" else node.op for node in chosen.nodes]
    found = Counter(operator for operator in operators if operator in RECOGNISED)
    assert found == Counter(FUNCTIONS[name])


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    """Workers for all the compilations, which otherwise spend a third of their time on starting some."""
    with Workshop(2) as made:
        yield made


@each_file
def test_outputs_agree_at_every_size(path: Path, workshop: Workshop) -> None:
    accuracy = ACCURACIES[path.name.split(".")[1]]
    reference = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    symbolic = any(isinstance(extent, str) for value in reference.get_inputs() for extent in value.shape)
    compiled = compile_model(path, Options(threads=2, accuracy=accuracy), workshop)
    with Session(compiled.artifact()) as session:
        for seed, sizes in enumerate(SIZES if symbolic else SIZES[:1]):
            feeds = sized_inputs(path, sizes, seed)
            wanted, ours = reference.run(None, feeds), session.run(None, feeds)
            errors = [relative_error(a, b) for a, b in zip(ours, wanted, strict=True)]
            assert max(errors) <= BOUNDS[accuracy], f"at {sizes}"
