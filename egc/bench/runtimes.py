"""The runtimes that are compared: for each, how it loads a model and how it is called."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

Feeds = dict[str, np.ndarray]
Infer = Callable[[Feeds], list[np.ndarray]]
Load = Callable[[Path, int], Callable[[], Infer]]
"""(model, threads) → the loading itself, as a function to time. Imports are done before, for all alike."""


def _egc(path: Path, threads: int) -> Callable[[], Infer]:
    import egc

    def load() -> Infer:
        session = egc.load(path, threads=threads)
        return lambda feeds: session.run(None, feeds)

    return load


def _onnxruntime(path: Path, threads: int) -> Callable[[], Infer]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL

    def load() -> Infer:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda feeds: session.run(None, feeds)

    return load


def _openvino(path: Path, threads: int) -> Callable[[], Infer]:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        # Without this, OpenVINO computes in bfloat16 where the CPU can, which is another problem.
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }

    def load() -> Infer:
        request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()

        def infer(feeds: Feeds) -> list[np.ndarray]:
            # Sharing the arrays spares OpenVINO the copies in and out: its fastest way of being called.
            result = request.infer(feeds, share_inputs=True, share_outputs=True)
            return [result[index] for index in range(len(result))]

        return infer

    return load


RUNTIMES: dict[str, Load] = {"egc": _egc, "onnxruntime": _onnxruntime, "openvino": _openvino}


def installed(name: str) -> bool:
    """Can this runtime be imported here?"""
    return importlib.util.find_spec(name) is not None


def version(name: str) -> str:
    """The installed version; of egc in a source tree that is not installed, just that."""
    try:
        return importlib.metadata.version(name).split("-")[0]
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
