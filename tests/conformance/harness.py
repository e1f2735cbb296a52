"""The ONNX node tests on any backend: in subprocesses with time-outs, tabulated by operator.

A backend is a function ``(model, inputs) -> Outcome``, named ``module:function`` so that a subprocess can
import it.

    python -m tests.conformance.harness [--backend tests.conformance.harness:evaluate_graph] [--match
    softmax] [--json OUT]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import threading
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

DEFAULT_BACKEND = "tests.conformance.harness:evaluate_graph"
TIMEOUT = 60.0
MEMORY = 8 << 30  # bytes of address space of one process
BATCH = 240  # tests of one process: the first one waits 2 s for imports
# What these compute is random: no output of theirs can be compared.
RANDOM = frozenset(
    {"Bernoulli", "RandomNormalLike", "RandomUniformLike", "RandomNormal", "RandomUniform", "Multinomial"}
)
# Operators without data: all of their operands are shapes, or numbers that a model rarely computes.
GENERATORS = frozenset(
    {"BlackmanWindow", "ConstantOfShape", "HammingWindow", "HannWindow", "MelWeightMatrix", "Range"}
)


@dataclass(frozen=True)
class Outcome:
    """What a backend made of a model: the outputs in order, ``operator: why`` of what ran on the host, and
    the names of the inputs that were fixed when compiling."""

    outputs: Sequence[Any]
    hosted: Sequence[str] = ()
    bound: Sequence[str] = ()


@dataclass(frozen=True)
class Result:
    """One node test. ``status`` is compiled, fixed (compiled, some inputs being fixed then), host, failed,
    random or timeout; ``why`` belongs to all but the first."""

    name: str
    op_type: str
    status: str
    why: str = ""
    bound: Sequence[str] = field(default_factory=tuple)


@cache
def cases() -> dict[str, Any]:
    """Every ONNX node test by name."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in collect_testcases(None)}


def operator_of(name: str) -> str:
    """The operator that a node test is about; of an expanded one, the operator that was expanded."""
    found = cases()
    base = name.partition("_expanded")[0]
    case = found.get(base, found[name])
    return str(case.model.graph.node[-1 if base not in found else 0].op_type)


def evaluate_graph(model: Any, inputs: Sequence[Any]) -> Outcome:
    """The imported graph, evaluated in numpy. Shapes given as data are fixed where that leaves less to the
    host."""
    from egc.ir.evaluate import evaluate

    initializers = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in initializers]
    given = dict(zip(names, inputs, strict=True))
    imported, bound = _least_hosted(model, given)
    feeds = {port.value: given[port.name] for port in imported.inputs}
    results = evaluate(imported.graph, feeds)
    hosted = [f"{node.op_type}: {node.why}" for node in imported.hosted]
    return Outcome([results[port.value] for port in imported.outputs], hosted, bound)


def _least_hosted(model: Any, given: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """The import that leaves the least to the host, and the inputs that were fixed for it: none where that
    is enough, else small integers after the first operand (shapes, axes), then small floats as well
    (scales)."""
    from egc.errors import BadInput
    from egc.frontend.importer import import_model

    small = {
        name: v for name, v in given.items() if isinstance(v, np.ndarray) and v.ndim <= 1 and v.size <= 64
    }
    integers = {name: v for name, v in small.items() if v.dtype.kind in "iub"}
    if operator_of(model.graph.name) not in GENERATORS:
        # The first operand is the data: were it fixed too, there would be nothing left to compile.
        for values in (small, integers):
            values.pop(next(iter(given), ""), None)
    tries = [{}, integers, small]
    best: tuple[Any, tuple[str, ...]] | None = None
    refused: BadInput | None = None
    for values in tries:
        if best is not None and (not best[0].hosted or not values):
            continue
        try:
            imported = import_model(model, values=values)
        except BadInput as error:
            refused = refused or error
            continue
        if best is None or len(imported.hosted) < len(best[0].hosted):
            best = imported, tuple(values)
    if best is None:
        assert refused is not None
        raise refused
    return best


def run_case(name: str, backend: Callable[[Any, Sequence[Any]], Outcome]) -> Result:
    """One node test on a backend, in this process."""
    case = cases()[name]
    op_type = operator_of(name)
    hosted: set[str] = set()
    bound: Sequence[str] = ()
    try:
        for inputs, expected in case.data_sets:
            inputs, expected = [_array(v) for v in inputs], [_array(v) for v in expected]
            outcome = backend(case.model, inputs)
            hosted.update(outcome.hosted)
            bound = outcome.bound
            if {node.op_type for node in case.model.graph.node} & RANDOM or name == "test_training_dropout":
                return Result(name, op_type, "random", "its outputs are random")
            compare(outcome.outputs, expected, case.rtol, case.atol)
    except Exception as error:  # whatever goes wrong is what the table is about
        return Result(name, op_type, "failed", f"{type(error).__name__}: {error}"[:400])
    status = "host" if hosted else "fixed" if bound else "compiled"
    return Result(name, op_type, status, "; ".join(sorted(hosted)) or ", ".join(bound), bound)


def _array(value: Any) -> Any:
    """Some cases hold tensors of small types as protos."""
    from onnx import TensorProto, numpy_helper

    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


_SMALL = ("bfloat", "float8", "float4", "int4", "uint4", "int2", "uint2")


def compare(results: Sequence[Any], expected: Sequence[Any], rtol: float, atol: float) -> None:
    """AssertionError where results differ from what is expected in number, type, shape or value."""
    assert len(results) == len(expected), f"{len(results)} outputs, {len(expected)} expected"
    for result, reference in zip(results, expected, strict=True):
        if isinstance(reference, list | tuple):
            assert isinstance(result, list | tuple), f"{type(result).__name__} where a sequence is expected"
            compare(result, reference, rtol, atol)
        elif reference is None:
            assert result is None, "a value where none is expected"
        else:
            _compare_arrays(np.asarray(result), np.asarray(reference), rtol, atol)


def _compare_arrays(result: np.ndarray, reference: np.ndarray, rtol: float, atol: float) -> None:
    textual = reference.dtype.kind in "OUST"
    assert textual or result.dtype == reference.dtype, f"dtype {result.dtype}, {reference.dtype} expected"
    assert result.shape == reference.shape, f"shape {result.shape}, {reference.shape} expected"
    if textual:
        np.testing.assert_array_equal(result.astype(object), reference.astype(object))
        return
    if reference.dtype.name == "bfloat16":
        rtol = max(rtol, 2**-6)  # two units in the last place, as in onnx.backend.test.runner
    if reference.dtype.kind == "V" or reference.dtype.name.startswith(_SMALL):
        result, reference = result.astype(np.float32), reference.astype(np.float32)
    np.testing.assert_allclose(result, reference, rtol=rtol, atol=atol)


def run(
    names: Sequence[str], backend: str = DEFAULT_BACKEND, timeout: float = TIMEOUT, jobs: int | None = None
) -> list[Result]:
    """The results of node tests in order, from ``jobs`` processes at a time (as many as there are cores)."""
    jobs = jobs or len(os.sched_getaffinity(0))
    batches = [names[start : start + BATCH] for start in range(0, len(names), BATCH)]
    with ThreadPoolExecutor(jobs) as pool:
        parts = pool.map(lambda batch: _whole_batch(batch, backend, timeout), batches)
        return [result for part in parts for result in part]


def _whole_batch(names: Sequence[str], backend: str, timeout: float) -> list[Result]:
    """The results of a batch; a process that crashed or hung over a test is followed by one for the rest."""
    results: list[Result] = []
    while len(results) < len(names):
        for result in _batch(names[len(results) :], backend, timeout):
            results.append(result)
            if result.status in ("failed", "timeout"):
                print(f"{result.status} {result.name}: {result.why[:200]}", file=sys.stderr, flush=True)
    return results


def _batch(names: Sequence[str], backend: str, timeout: float) -> Iterator[Result]:
    """Results in order; the last one is the test that ended the process, where one did."""
    command = [sys.executable, "-m", "tests.conformance.harness", "--worker", backend]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n".join(names))
    process.stdin.close()
    count = 0
    expired = False

    def stop() -> None:
        nonlocal expired
        expired = True
        process.kill()

    while count < len(names):
        # The first line waits for the imports and for the cases to be built as well.
        timer = threading.Timer(timeout if count else timeout + 60, stop)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if not line:
            name, code = names[count], process.wait()
            why = f"no result within {timeout:g} s" if expired else f"the process ended with code {code}"
            yield Result(name, operator_of(name), "timeout" if expired else "failed", why)
            return
        count += 1
        yield Result(**json.loads(line))
    process.wait()


def _worker(backend: str) -> None:
    # A test that asks for all the memory there is shall fail alone.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    module, _, function = backend.partition(":")
    call = getattr(importlib.import_module(module), function)
    out = sys.stdout
    sys.stdout = sys.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in sys.stdin.read().split():
            print(json.dumps(asdict(run_case(name, call))), file=out, flush=True)


def table(results: Iterable[Result]) -> str:
    """How many tests of each operator compiled, ran partly on the host, or failed; and the totals."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        rows[result.op_type][result.status] += 1
    columns = ("compiled", "fixed", "host", "failed", "random", "timeout")
    lines = [f"{'operator':28}" + "".join(f"{c:>10}" for c in columns)]
    total: Counter[str] = Counter()
    for op_type in sorted(rows):
        total += rows[op_type]
        lines.append(f"{op_type:28}" + "".join(f"{rows[op_type][c] or '':>10}" for c in columns))
    lines.append(f"{'all':28}" + "".join(f"{total[c]:>10}" for c in columns))
    return "\n".join(lines)


def reasons(results: Iterable[Result], status: str) -> list[tuple[str, int, str]]:
    """The reasons of all results of one status, the commonest first, each with how many tests and one's
    name."""
    found: dict[str, list[str]] = defaultdict(list)
    for result in results:
        if result.status == status:
            found[" ".join(f"{result.op_type}: {result.why}".split())[:220]].append(result.name)
    return sorted(((why, len(names), names[0]) for why, names in found.items()), key=lambda row: -row[1])


def main() -> int:
    """Run the node tests and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default=DEFAULT_BACKEND)
    parser.add_argument("--match", default="", help="only tests whose name contains this")
    parser.add_argument("--json", type=Path, help="write all results there")
    parser.add_argument("--worker", metavar="BACKEND", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _worker(options.worker)
        return 0
    results = run([name for name in cases() if options.match in name], options.backend)
    print(table(results))
    for status in ("failed", "timeout", "host"):
        for why, count, example in reasons(results, status):
            print(f"{status:8}{count:4} {example}: {why}")
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    return 1 if any(result.status in ("failed", "timeout") for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
