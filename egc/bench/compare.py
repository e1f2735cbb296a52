"""Runs a model on several runtimes in turn, each in its own process, only one of them active at a time."""

from __future__ import annotations

import contextlib
import json
import selectors
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from msgspec import Struct, field

from egc.bench.inputs import InputSpec
from egc.errors import EgcError
from egc.runtime.artifact import is_artifact

# After an answer, runtimes keep their threads spinning for a while; the next one is not to pay for that.
SETTLE_SECONDS = 0.05
ANSWER_TIMEOUT = 600.0


class RuntimeFailed(EgcError):
    """A runtime could not load or run the model, died, or did not answer."""


class Plan(Struct, frozen=True):
    """How thoroughly to measure: rounds, a runtime's seconds in each, and its fewest inferences in each."""

    rounds: int = 15
    seconds: float = 0.4
    least: int = 3


QUICK = Plan(rounds=4, seconds=0.15, least=2)


class Timing(Struct):
    """What was measured of one runtime on one model; times in seconds, memory in bytes.

    `error` is ‖out − reference‖ ÷ ‖reference‖, the worst over outputs and inputs; None for the reference
    itself.
    """

    runtime: str
    compile_seconds: float | None = None
    load_seconds: float = 0.0
    peak_bytes: int = 0
    times: list[float] = field(default_factory=list)
    error: float | None = None
    failure: str | None = None

    @property
    def median(self) -> float:
        """The median time of an inference."""
        return statistics.median(self.times)

    @property
    def p90(self) -> float:
        """The time that nine of ten inferences stay under."""
        return float(np.quantile(self.times, 0.9))

    @property
    def minimum(self) -> float:
        """The fastest inference."""
        return min(self.times)


class Process:
    """A worker process and the pipe to it. Raises `RuntimeFailed` on any answer that is none."""

    def __init__(self, runtime: str, path: Path, threads: int, specs: Sequence[InputSpec]) -> None:
        self.runtime = runtime
        self.log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - __exit__ closes it
        arguments = {
            "runtime": runtime,
            "path": str(path),
            "threads": threads,
            "inputs": [spec.to_json() for spec in specs],
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "egc.bench.worker", json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            if stream is not None:
                with contextlib.suppress(OSError):  # a dead worker's pipe may break on the last flush
                    stream.close()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = ""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)
            with selectors.DefaultSelector() as selector:
                selector.register(self.process.stdout, selectors.EVENT_READ)
                if not selector.select(ANSWER_TIMEOUT):
                    raise RuntimeFailed(f"{self.runtime} did not answer '{do}' within {ANSWER_TIMEOUT:.0f} s")
            line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            why = self.log.read()[-2000:].strip() or f"exit status {self.process.wait()}"
            raise RuntimeFailed(f"{self.runtime} died while asked to '{do}'", why=why)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeFailed(f"{self.runtime} could not {do} the model", why=answer["error"])
        return answer


def compile_artifact(model: Path, artifact: Path, threads: int, options: Sequence[str] = ()) -> float:
    """Compile with `egc optimize` in a fresh process; gives back the seconds that it took from start to exit.

    Raises `RuntimeFailed` with the compiler's own words.
    """
    command = [
        sys.executable,
        "-m",
        "egc",
        "optimize",
        str(model),
        "-o",
        str(artifact),
        "--threads",
        str(threads),
    ]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeFailed("egc could not compile the model", why=done.stderr.strip()[-2000:])
    return seconds


def relative_error(output: np.ndarray, reference: np.ndarray) -> float:
    """‖output − reference‖ ÷ ‖reference‖; infinite where shapes or dtypes differ or the output is not finite.

    Where the reference is all zeros, or empty, the error is ‖output‖.
    """
    if output.shape != reference.shape or output.dtype != reference.dtype:
        return float("inf")
    wide, wanted = output.astype(np.float64), reference.astype(np.float64)
    error = float(np.linalg.norm(wide - wanted) / (np.linalg.norm(wanted) or 1.0))
    return error if np.isfinite(error) else float("inf")


def _outputs(process: Process, folder: Path, seed: int) -> list[np.ndarray]:
    file = folder / f"{process.runtime}.npz"
    process.ask("outputs", seed=seed, file=str(file))
    with np.load(file) as arrays:
        return [arrays[name] for name in sorted(arrays.files)]


class _Contest:
    """The runtimes that still take part, and what was measured of each."""

    def __init__(self, runtimes: Sequence[str]) -> None:
        self.timings = {name: Timing(name) for name in runtimes}
        self.processes: dict[str, Process] = {}

    @contextlib.contextmanager
    def turn_of(self, name: str) -> Iterator[Timing]:
        """What a runtime does; where it fails it leaves the contest, with the reason and without times."""
        try:
            yield self.timings[name]
        except RuntimeFailed as failure:
            self.processes.pop(name, None)
            failed = Timing(name, self.timings[name].compile_seconds, failure=str(failure))
            self.timings[name] = failed

    def check(self, folder: Path, seed: int) -> None:
        """Note how far every runtime's outputs for one input are from the reference's: ONNX Runtime's, or
        else the first peer's.
        """
        outputs: dict[str, list[np.ndarray]] = {}
        for name, process in tuple(self.processes.items()):
            with self.turn_of(name):
                outputs[name] = _outputs(process, folder, seed)
        peers = [name for name in outputs if name != "egc"]
        reference = "onnxruntime" if "onnxruntime" in peers else next(iter(peers), None)
        if reference is None:
            return
        wanted = outputs.pop(reference)
        for name, ours in outputs.items():
            errors = [relative_error(a, b) for a, b in zip(ours, wanted, strict=False)]
            worst = max(errors, default=0.0) if len(ours) == len(wanted) else float("inf")
            self.timings[name].error = max(worst, self.timings[name].error or 0.0)


def compare(
    model: Path,
    specs: Sequence[InputSpec],
    runtimes: Sequence[str],
    threads: int,
    plan: Plan,
    compile_options: Sequence[str] = (),
    progress: Callable[[str], None] = lambda text: None,
) -> list[Timing]:
    """Measure the runtimes on an ONNX model (egc alone: an artifact too), in the order given.

    A round gives each runtime one turn, with a fresh input that is the same for all. The outputs of the first
    and the last input are compared with ONNX Runtime's, or else the first peer's. A runtime that fails, be it
    in the last round, has a `failure` and no times; the others go on.
    """
    contest = _Contest(runtimes)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="egc-bench-")))
        for name in runtimes:
            progress(f"{model.name}: loading {name}")
            with contest.turn_of(name) as timing:
                path = model
                if name == "egc" and not is_artifact(model):
                    path = folder / "model.egc"
                    timing.compile_seconds = compile_artifact(model, path, threads, compile_options)
                process = stack.enter_context(Process(name, path, threads, specs))
                timing.load_seconds = process.ask("load")["seconds"]
                process.ask("run", seed=0, seconds=0.0, least=2)  # the first inferences allocate
                contest.processes[name] = process
        for turn in range(plan.rounds):
            progress(f"{model.name}: round {turn + 1} of {plan.rounds}")
            for name, process in tuple(contest.processes.items()):
                time.sleep(SETTLE_SECONDS)
                with contest.turn_of(name) as timing:
                    answer = process.ask("run", seed=1 + turn, seconds=plan.seconds, least=plan.least)
                    timing.times += answer["times"]
            if turn in (0, plan.rounds - 1):
                contest.check(folder, 1 + turn)
        for name, process in tuple(contest.processes.items()):
            with contest.turn_of(name) as timing:
                timing.peak_bytes = process.ask("peak")["bytes"]
    return list(contest.timings.values())


def ratio_to_best_peer(timings: Sequence[Timing], subject: str) -> float | None:
    """How many times as fast as the fastest other runtime the subject is, by medians; None without either."""
    own = [timing.median for timing in timings if timing.runtime == subject and timing.times]
    others = [timing.median for timing in timings if timing.runtime != subject and timing.times]
    return min(others) / own[0] if own and others else None
