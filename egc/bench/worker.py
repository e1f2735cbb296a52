"""The process that one runtime runs in: reads commands on stdin, answers on stdout, one JSON object a line.

    {"do": "load"}                                    → {"seconds": s}
    {"do": "run", "seed": n, "seconds": s, "least": n} → {"times": [s, …]}
    {"do": "outputs", "seed": n, "file": path}        → {}      the outputs, saved as NumPy's .npz
    {"do": "peak"}                                    → {"bytes": n}

The arguments are one JSON object: runtime, path, threads, inputs. An exception becomes {"error": text}.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from egc.bench.inputs import InputSpec, random_inputs
from egc.bench.runtimes import RUNTIMES, Infer


def peak_bytes() -> int:
    """The most memory this process has held so far (Linux's VmHWM, which counts mapped pages too)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmHWM in /proc/self/status")


class Worker:
    """One runtime with one model."""

    def __init__(self, runtime: str, path: str, threads: int, inputs: list[dict[str, Any]]) -> None:
        self.specs = tuple(InputSpec.from_json(value) for value in inputs)
        self.prepare: Callable[[], Infer] = RUNTIMES[runtime](Path(path), threads)
        self.infer: Infer | None = None

    def load(self) -> dict[str, Any]:
        """Load the model; the time does not count the import of the runtime."""
        start = time.perf_counter()
        self.infer = self.prepare()
        return {"seconds": time.perf_counter() - start}

    def run(self, seed: int, seconds: float, least: int) -> dict[str, Any]:
        """Time inferences on one fresh input for so many seconds, at least `least` of them.

        One inference before is not counted: other processes have just had the caches.
        """
        assert self.infer is not None
        feeds = random_inputs(self.specs, seed)
        self.infer(feeds)
        times: list[float] = []
        gc.disable()
        try:
            end = time.perf_counter() + seconds
            while len(times) < least or time.perf_counter() < end:
                start = time.perf_counter()
                self.infer(feeds)
                times.append(time.perf_counter() - start)
        finally:
            gc.enable()
        return {"times": times}

    def outputs(self, seed: int, file: str) -> dict[str, Any]:
        """Save what the model gives for this seed's inputs, in order."""
        assert self.infer is not None
        outputs = self.infer(random_inputs(self.specs, seed))
        arrays: dict[str, Any] = {f"{index:04d}": np.asarray(array) for index, array in enumerate(outputs)}
        np.savez(file, **arrays)
        return {}

    def peak(self) -> dict[str, Any]:
        """Peak memory so far."""
        return {"bytes": peak_bytes()}


def main() -> None:
    """Serve until stdin ends."""
    # Answers have the real stdout to themselves; whatever a library prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker: Worker | None = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            worker = worker or Worker(**json.loads(sys.argv[1]))
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:  # whatever a runtime raises is the comparison's to report
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
