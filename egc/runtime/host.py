"""Host steps: what is not compiled runs on numpy arrays, ONNX operators by `onnx.reference`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from egc.errors import EgcError
from egc.ir.dims import evaluate, parse_dim
from egc.ir.host import run_host
from egc.runtime.manifest import HostStep


class HostError(EgcError):
    """An operator that runs on the host could not run."""


def run_host_step(step: HostStep, inputs: list[Any], env: Mapping[str, int]) -> list[Any]:
    """The outputs in order: arrays, or lists and None for sequences and optionals.

    `env` has the values of dim names. HostError where the operator fails, or where onnx, which is imported
    only here, is not installed.
    """
    try:
        if step.op:
            return _run_operator(step, inputs, env)
        return run_host(step.model, inputs)
    except ModuleNotFoundError as error:
        raise HostError(
            f"{step.label} is not compiled and needs the package onnx to run",
            why=str(error),
            hint="pip install onnx; `egc ops` lists the operators that are compiled",
        ) from None
    except Exception as error:
        raise HostError(
            f"{step.label} failed on the host",
            where="numpy" if step.op else "onnx.reference",
            why=f"{type(error).__name__}: {error}",
            hint="check the values that reach this operator, or try another version of onnx",
        ) from error


def encode_attrs(attrs: Mapping[str, Any]) -> str:
    """The JSON of an operator's attributes, symbolic dims as `{"dim": text}`."""
    return json.dumps(dict(attrs), default=lambda dim: {"dim": str(dim)}, sort_keys=True)


def _run_operator(step: HostStep, inputs: list[Any], env: Mapping[str, int]) -> list[Any]:
    from egc.ir.evaluate import evaluate_node

    def read(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(read(item) for item in value)
        return evaluate(parse_dim(value["dim"]), env) if isinstance(value, dict) else value

    attrs = {name: read(value) for name, value in json.loads(step.attrs).items()}
    return list(evaluate_node(step.op, inputs, attrs))
