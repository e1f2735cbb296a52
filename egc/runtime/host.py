"""Host steps: ONNX operators that are not compiled, run by `onnx.reference` on numpy arrays."""

from __future__ import annotations

from typing import Any

from egc.errors import EgcError
from egc.ir.host import run_host
from egc.runtime.manifest import HostStep


class HostError(EgcError):
    """An operator that runs on the host could not run."""


def run_host_step(step: HostStep, inputs: list[Any]) -> list[Any]:
    """The outputs in order: arrays, or lists and None for sequences and optionals.

    HostError where the operator fails, or where onnx, which is imported only here, is not installed.
    """
    try:
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
            where="onnx.reference",
            why=f"{type(error).__name__}: {error}",
            hint="check the values that reach this operator, or try another version of onnx",
        ) from error
