"""A session: an artifact ready to run on numpy arrays, with the calling convention of onnxruntime."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from egc.errors import EgcError, InputError, MemoryBudgetError, UsageError
from egc.ir.dims import DimError
from egc.ir.types import numpy_dtype
from egc.runtime import abi
from egc.runtime.artifact import Artifact, open_artifact
from egc.runtime.cpu import check_machine
from egc.runtime.gpu_code import ARCHITECTURE as GPU
from egc.runtime.host import run_host_step
from egc.runtime.inputs import bind_shapes, check_feeds, no_memory, take
from egc.runtime.manifest import HostStep, Port
from egc.runtime.native import NativeCode, Workers, address_of
from egc.runtime.plan import Arena, Plan, Program

DEVICES = ("cpu", "cuda", "emulator")
_MAX_PLANS = 64  # sets of dims whose tables are kept
_ONNX_TYPES = {"float32": "float", "float64": "double"}  # the rest are called as in numpy


def checked_threads(threads: Any) -> int:
    """The number of threads as a plain integer; UsageError where a session cannot run on so many."""
    with suppress(TypeError):
        if not isinstance(threads, bool) and 1 <= index(threads) <= abi.MAX_THREADS:
            return index(threads)
    raise UsageError(f"cannot run on {threads!r} threads", hint=f"use 1 to {abi.MAX_THREADS}")


class NodeArg(Struct, frozen=True):
    """An input or output as onnxruntime describes it: `type` like `tensor(float)`, symbolic dims by name."""

    name: str
    type: str
    shape: list[int | str]


class Session:
    """Runs one artifact. Safe to call from several threads, which then run one after another."""

    def __new__(
        cls,
        artifact: Artifact | str | os.PathLike[str],
        threads: int | None = None,
        device: str | None = None,
        **options: Any,
    ) -> Session:
        """A session on a GPU is one of a class of its own."""
        if device not in (None, *DEVICES):
            raise UsageError(f"there is no device {device!r}", hint=f"one of {', '.join(DEVICES)}")
        if cls is Session and device == "cuda":
            from egc.runtime.cuda import CudaSession

            return super().__new__(CudaSession)
        return super().__new__(cls)

    def __init__(
        self,
        artifact: Artifact | str | os.PathLike[str],
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        """Check the machine and the constants, start the threads (the artifact's own number by default).

        ``device`` says where a GPU artifact runs: ``cuda`` or ``emulator``. ArtifactError where the artifact
        cannot be used here; UsageError for an impossible number of threads,
        or an artifact not for the device.
        """
        if not isinstance(artifact, Artifact | str | os.PathLike):
            raise UsageError(f"the artifact is {artifact!r}", hint="give the path of an .egc file")
        if not isinstance(artifact, Artifact):
            artifact = open_artifact(Path(artifact))
        if device == "emulator":
            from egc.runtime.emulator import emulated

            artifact = emulated(artifact)
        elif artifact.manifest.target.architecture == GPU:
            raise UsageError(
                "the artifact is for a GPU", where=artifact.name, hint="--device cuda, or --device emulator"
            )
        manifest = self.manifest = artifact.manifest
        threads = checked_threads(manifest.threads if threads is None else threads)
        check_machine(manifest.target)
        self.artifact = artifact
        self.threads = threads
        native = NativeCode(artifact)
        native.check_constants(artifact, min(threads, os.cpu_count() or 1))
        self._program = Program(manifest, native, artifact.constants, threads)
        self._arena = Arena()
        self._plans: dict[tuple[tuple[int, ...], ...], Plan] = {}
        self._lock = threading.RLock()
        self._running = False
        self._input_dtypes = [numpy_dtype(port.dtype) for port in manifest.inputs]
        self._output_index = {port.name: i for i, port in enumerate(manifest.outputs)}
        self._closed = False
        self._workers = Workers(native, threads)
        self._finalizer = weakref.finalize(self, self._workers.stop)

    @property
    def coverage(self) -> dict[str, Any]:
        """How much of the model is compiled: `{"compiled": number of ONNX nodes, "host": [their names]}`."""
        return {"compiled": self.manifest.coverage.compiled, "host": list(self.manifest.coverage.host)}

    def get_inputs(self) -> list[NodeArg]:
        """Name, type and shape of each input."""
        return [_node_arg(port) for port in self.manifest.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """Name, type and shape of each output."""
        return [_node_arg(port) for port in self.manifest.outputs]

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs named (all of them for None, or for no names), in order, as new arrays.

        InputError reports all that is wrong with `feeds` at once, or a name that is no output's.
        """
        for name in output_names or ():
            if name not in self._output_index:
                hint = f"its outputs are {', '.join(self._output_index)}"
                raise InputError(f"the model has no output {name!r}", hint=hint)
        results = self._run_alone(feeds, None)
        return [results[self._output_index[name]] for name in output_names] if output_names else results

    def profile(self, feeds: Mapping[str, Any]) -> list[tuple[str, float]]:
        """Run once; the label of each step and the seconds it took, host steps included."""
        seconds: list[tuple[str, float]] = []
        self._run_alone(feeds, seconds)
        return seconds

    def close(self) -> None:
        """End the threads; the session cannot run again. May be called twice; UsageError in a run's midst."""
        with self._lock:
            self._check_idle()
            self._closed = True
            self._plans.clear()
            self._finalizer()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run_alone(self, feeds: Mapping[str, Any], seconds: list[tuple[str, float]] | None) -> list[Any]:
        """Run when no other thread does. What is no array is made one before that: its own code does so, and
        may itself run the session, or wait for who does.
        """
        self._check_open()
        arrays: list[Any] | None = take(self.manifest.inputs, self._input_dtypes, feeds)
        if arrays is None:
            arrays = check_feeds(self.manifest.inputs, self._input_dtypes, feeds)
        with self._lock:
            self._check_open()
            self._check_idle()
            self._running = True
            try:
                return self._run(arrays, seconds)
            except MemoryBudgetError:
                raise
            except MemoryError as error:  # in a host step, say
                what, hint = "there is not enough memory for this run", "use smaller inputs"
                raise MemoryBudgetError(what, why=str(error) or None, hint=hint) from None
            finally:
                self._running = False

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the session is closed", hint="make a new one")

    def _check_idle(self) -> None:
        """UsageError where the thread that holds the lock is in a run: a host step called foreign code."""
        if self._running:
            raise UsageError(
                "the session is running already",
                why="something that it was given to run on, or a signal's handler, calls it",
                hint="give it arrays, or call another session there",
            )

    def _run(self, arrays: list[Any], seconds: list[tuple[str, float]] | None) -> list[Any]:
        shapes = tuple([array.shape if isinstance(array, np.ndarray) else () for array in arrays])
        plan = self._plans.get(shapes)
        if plan is None:
            plan = self._new_plan(shapes)
        plan.reset()
        values = plan.values
        try:
            for port, array in zip(self.manifest.inputs, arrays, strict=True):
                values[port.buffer] = array
                if isinstance(array, np.ndarray):
                    plan.set_address(port.buffer, address_of(array))
            self._new_outputs(plan)
            for segment in self._program.segments:
                if segment.host:
                    self._run_host(plan, segment.first, seconds)
                else:
                    self._run_kernels(plan, segment.first, segment.last, seconds)
            return self._results(plan)
        finally:
            values.clear()

    def _new_plan(self, shapes: tuple[tuple[int, ...], ...]) -> Plan:
        env = bind_shapes(self.manifest.inputs, shapes)
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        before = self._arena.memory
        try:
            plan = Plan(self._program, env, self._arena)
        except DimError as error:
            extents = ", ".join(f"{name} = {value}" for name, value in sorted(env.items()))
            raise InputError(
                "the model makes no sense at these extents", where=extents, why=str(error)
            ) from None
        if self._arena.memory is not before:
            self._plans.clear()  # the others point into the arena that was
        self._plans[shapes] = plan
        return plan

    def _new_outputs(self, plan: Plan) -> None:
        """Give every output whose shape is known by now an array of its own."""
        for port in self.manifest.outputs:
            root = self._program.roots[port.buffer]
            if self.manifest.buffers[root].where == "output" and root not in plan.values:
                shape = plan.shapes[root]
                if shape is not None:
                    dtype = self._program.dtypes[root]
                    try:
                        array = plan.values[root] = np.empty(shape, dtype)
                    except MemoryError:
                        raise no_memory(f"the output {port.name!r}", shape, dtype) from None
                    except ValueError as error:  # its rank is too high, or its size for an int64
                        raise EgcError(
                            f"the output {port.name!r} can be no array",
                            why=str(error),
                            hint="use smaller inputs, or a model whose outputs have lower ranks",
                        ) from None
                    plan.set_address(root, address_of(array))

    def _run_kernels(
        self, plan: Plan, first: int, last: int, seconds: list[tuple[str, float]] | None
    ) -> None:
        steps = plan.steps_address + first * abi.STEP_SIZE
        if seconds is None:
            self._workers.run(steps, last - first)
            return
        times = self._workers.profile(steps, last - first)
        labels = [step.label for step in self.manifest.steps[first:last]]
        seconds += zip(labels, times.tolist(), strict=True)

    def _run_host(self, plan: Plan, index: int, seconds: list[tuple[str, float]] | None) -> None:
        step = self.manifest.steps[index]
        assert isinstance(step, HostStep)
        start = time.perf_counter()
        results = run_host_step(step, [plan.value(buffer) for buffer in step.inputs], plan.env)
        for buffer, result in zip(step.outputs, results, strict=True):
            plan.store(buffer, result, step.label)
        if self._program.late:
            self._new_outputs(plan)
        if seconds is not None:
            seconds.append((step.label, time.perf_counter() - start))

    def _results(self, plan: Plan) -> list[Any]:
        """The outputs, each an array that nobody else holds."""
        results: list[Any] = []
        given: set[int] = set()
        for port in self.manifest.outputs:
            root = self._program.roots[port.buffer]
            value = plan.value(port.buffer)
            if self.manifest.buffers[root].where != "output" or root in given:
                value = np.array(value) if isinstance(value, np.ndarray) else value
            given.add(root)
            results.append(value)
        return results


def _node_arg(port: Port) -> NodeArg:
    return NodeArg(port.name, f"tensor({_ONNX_TYPES.get(port.dtype, port.dtype)})", list(port.shape))
