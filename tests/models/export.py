"""Export the tiny models of this folder: `python tests/models/export.py [NAME …]`; needs torch, transformers.

Every architecture is exported twice, by the older exporter, which traces (`dynamo=False`), and by the newer
one, which captures a graph (`dynamo=True`): they spell attention, normalisation and shapes differently, and
people have models of both kinds. Weights are random and seeded. Metadata that names source files is stripped.
Each file is run by ONNX Runtime against the module's own outputs before it is kept.
"""

import argparse
import copy
import importlib.metadata
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from architectures import ARCHITECTURES, Example
from torch import nn

FOLDER = Path(__file__).parent
MAX_BYTES = 300_000
OPSETS = {"dynamo": 20, "torchscript": 17}
# The two attentions of transformers' modelling code, one for each exporter, are two more spellings.
ATTENTION = {"dynamo": "sdpa", "torchscript": "eager"}


def initialise(module: nn.Module, seed: int) -> None:
    """Random weights: activations stay of order one, and no zero bias or unit scale hides a wrong fold."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor, mean: float, deviation: float) -> None:
        tensor.copy_(mean + deviation * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() >= 2:
                normal(parameter, 0.0, (parameter[0].numel()) ** -0.5)
            else:
                normal(parameter, float(name.endswith("weight")), 0.1)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                normal(buffer, 0.0, 0.2)
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))


def export_dynamo(example: Example, path: Path) -> None:
    """By graph capture; dynamic dims are `torch.export.Dim`s, shared by name."""
    dims = {
        symbol: torch.export.Dim(symbol, min=1, max=64)
        for axes in example.dynamic.values()
        for symbol in axes.values()
    }
    shapes = tuple(
        {axis: dims[symbol] for axis, symbol in example.dynamic.get(name, {}).items()}
        for name in example.inputs
    )
    # A module that takes *values sees one argument, which is a tuple.
    variadic = type(example.module).__name__ == "Outputs"
    program = torch.onnx.export(
        example.module, tuple(example.inputs.values()), dynamo=True, opset_version=OPSETS["dynamo"],
        input_names=list(example.inputs), output_names=list(example.outputs), external_data=False,
        dynamic_shapes=((shapes,) if variadic else shapes) if example.dynamic else None, verbose=False,
    )  # fmt: skip
    program.save(str(path), external_data=False)


def export_torchscript(example: Example, path: Path) -> None:
    """By tracing."""
    torch.onnx.export(
        example.module, tuple(example.inputs.values()), str(path), dynamo=False,
        opset_version=OPSETS["torchscript"], input_names=list(example.inputs),
        output_names=list(example.outputs), dynamic_axes=example.dynamic,
    )  # fmt: skip


EXPORTERS = {"dynamo": export_dynamo, "torchscript": export_torchscript}


def strip(model: onnx.ModelProto) -> None:
    """Remove in place what exporters record of the machine: doc strings and metadata, wherever they stand."""

    def clear(message) -> None:
        for field, value in message.ListFields():
            if field.name in ("doc_string", "metadata_props"):
                message.ClearField(field.name)
            elif field.message_type is not None:
                for part in value if isinstance(value, (list, tuple)) or hasattr(value, "add") else (value,):
                    clear(part)

    clear(model)


def widened(example: Example) -> dict[str, torch.Tensor]:
    """The example's inputs with every dynamic axis twice as long."""
    inputs = dict(example.inputs)
    for name, axes in example.dynamic.items():
        for axis in axes:
            inputs[name] = torch.cat([inputs[name], inputs[name]], axis)
    return inputs


def check(path: Path, example: Example) -> float:
    """‖ONNX Runtime − torch‖ ÷ ‖torch‖, the worst over outputs, at the exported sizes and at others.

    Raises `AssertionError` where an output differs by more than 1e-4 or a symbolic dim was lost.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for value in session.get_inputs():
        for axis, symbol in example.dynamic.get(value.name, {}).items():
            assert isinstance(value.shape[axis], str), (
                f"{path.name}: {value.name}[{axis}] lost its symbol {symbol}"
            )
    taken = {value.name for value in session.get_inputs()}
    worst = 0.0
    for inputs in (example.inputs, widened(example)):
        ours = session.run(None, {name: value.numpy() for name, value in inputs.items() if name in taken})
        with torch.no_grad():
            result = example.module(*inputs.values())
        theirs = [value.numpy() for value in (result if isinstance(result, tuple) else (result,))]
        for our, their in zip(ours, theirs, strict=True):
            worst = max(worst, float(np.linalg.norm(our - their) / np.linalg.norm(their)))
    assert worst < 1e-4, f"{path.name}: differs from torch by {worst:.1e}"
    return worst


def export(name: str, exporter: str) -> str:
    """Write one file; gives back the line of the README's table that describes it."""
    seed = zlib.crc32(name.encode())
    torch.manual_seed(seed)
    example = ARCHITECTURES[name](ATTENTION[exporter])
    initialise(example.module, seed)
    example.module.eval()
    path = FOLDER / f"{name}.{exporter}.onnx"
    EXPORTERS[exporter](copy.deepcopy(example), path)
    model = onnx.load(path)
    strip(model)
    onnx.save(model, path)
    onnx.checker.check_model(model, full_check=True)
    size = path.stat().st_size
    assert size <= MAX_BYTES, f"{path.name} has {size} bytes, more than {MAX_BYTES}"
    error = check(path, example)
    symbols = sorted({symbol for axes in example.dynamic.values() for symbol in axes.values()})
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    cells = (
        path.name,
        len(model.graph.node),
        opset,
        ", ".join(symbols) or "—",
        f"{size // 1000} kB",
        f"{error:.0e}",
    )
    return f"| {' | '.join(map(str, cells))} |"


README = """# Tiny real models

Exports of real architectures with small configurations and random, seeded weights, for tests that want what
people really have: each architecture by both PyTorch exporters, the tracing one (`torchscript`, with eager
attention) and the graph-capturing one (`dynamo`, with `scaled_dot_product_attention`). Made by

    python tests/models/export.py

with torch {torch}, transformers {transformers}, onnxscript {onnxscript} and onnx {onnx}; `architectures.py`
and `networks.py` hold the architectures. The last column is ‖ONNX Runtime {onnxruntime} − torch‖ ÷ ‖torch‖,
the worst over outputs, at the sizes exported and with each symbolic dim twice as long.

| file | nodes | opset | symbolic dims | size | error |
|---|---:|---:|---|---:|---:|
{rows}
"""


def write_readme(rows: list[str]) -> None:
    """The folder's README: how the files were made, with which versions, and what they hold."""
    packages = ("torch", "transformers", "onnxscript", "onnx", "onnxruntime")
    versions = {name: importlib.metadata.version(name).split("+")[0] for name in packages}
    (FOLDER / "README.md").write_text(README.format(rows="\n".join(rows), **versions))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Export the tiny models; all of them rewrites the README too."
    )
    parser.add_argument("names", nargs="*", choices=[[], *sorted(ARCHITECTURES)], metavar="NAME")
    parser.add_argument("--exporter", choices=sorted(EXPORTERS), action="append")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.names or sorted(ARCHITECTURES):
        for exporter in arguments.exporter or sorted(EXPORTERS):
            rows.append(export(name, exporter))
            print(rows[-1], flush=True)
    if not arguments.names and not arguments.exporter:
        write_readme(rows)


if __name__ == "__main__":
    main()
