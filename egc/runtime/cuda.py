"""A session on an NVIDIA GPU: constants stay on the device, and the kernels of an inference run as one
recorded graph.

For every set of dims there is one plan: device memory for each buffer, and the graph of all launches over it.
A run copies the inputs there, runs the graph, and copies the outputs back.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from egc.errors import ArtifactError, UsageError
from egc.ir.types import numpy_dtype
from egc.runtime.artifact import Artifact, open_artifact
from egc.runtime.checksum import checksum
from egc.runtime.cuda_driver import DeviceError, Driver
from egc.runtime.gpu_code import ARCHITECTURE, GpuCode
from egc.runtime.inputs import bind_shapes, check_requirements
from egc.runtime.manifest import KernelStep, Manifest
from egc.runtime.memory import align, live_ranges, plan_arena
from egc.runtime.plan import value_of
from egc.runtime.session import Session

_MAX_PLANS = 8  # sets of dims that keep their device memory
_MAX_BLOCKS = (1 << 31) - 1  # CUDA C++ Programming Guide, table of technical specifications


class CudaSession(Session):
    """What Session(artifact, device="cuda") is."""

    def __init__(
        self,
        artifact: Artifact | str | os.PathLike[str],
        threads: int | None = None,
        device: str | None = "cuda",
        driver: Driver | None = None,
    ) -> None:
        """Load the code and the constants. UsageError for an artifact that is not for a GPU, DeviceError
        without one."""
        if not isinstance(artifact, Artifact):
            artifact = open_artifact(Path(artifact))
        manifest = self.manifest = artifact.manifest
        if manifest.target.architecture != ARCHITECTURE:
            raise UsageError(
                f"the artifact is for {manifest.target.architecture}, not for a GPU",
                where=artifact.name,
                hint="leave out --device, or compile the model with --target gpu",
            )
        _check_constants(artifact)
        self.artifact = artifact
        self.threads = 1
        self._input_dtypes = [numpy_dtype(port.dtype) for port in manifest.inputs]
        self._output_index = {port.name: i for i, port in enumerate(manifest.outputs)}
        self._lock = threading.RLock()
        self._running = False
        self._closed = False
        self._device = _Device(artifact, driver)
        self._device_plans: dict[tuple[tuple[int, ...], ...], DevicePlan] = {}
        self._plans = {}
        self._finalizer = weakref.finalize(self, self._device.close)

    def _run(self, arrays: list[Any], seconds: list[tuple[str, float]] | None) -> list[Any]:
        shapes = tuple(array.shape for array in arrays)
        self._device.driver.use()
        plan = self._device_plans.get(shapes)
        if plan is None:
            if len(self._device_plans) >= _MAX_PLANS:
                self._device.drop(self._device_plans.pop(next(iter(self._device_plans))))
            env = bind_shapes(self.manifest.inputs, shapes)
            check_requirements(self.manifest.requirements, env)
            plan = self._device_plans[shapes] = self._device.plan(env)
        return plan.run(arrays, seconds)


class _Device:
    """The module, the constants and the stream of one session, and its plans."""

    def __init__(self, artifact: Artifact, driver: Driver | None) -> None:
        self.manifest = artifact.manifest
        code = GpuCode.from_bytes(bytes(artifact.code))
        self.launches = code.launches
        self.plans: list[DevicePlan] = []
        self.driver = driver or Driver()
        with ExitStack() as held:
            held.callback(self.driver.close)
            _check_capability(self.driver, code.arch)
            self.driver.use()
            module = self.driver.load(code.ptx)
            held.callback(self.driver.unload, module)
            self.functions = {name: self.driver.function(module, name) for name in code.launches}
            self.stream = self.driver.stream()
            held.callback(self.driver.destroy_stream, self.stream)
            self.constants = self.driver.allocate(artifact.constants.nbytes)
            held.callback(self.driver.free, self.constants)
            self.driver.upload(self.constants, artifact.constants, self.stream)
            self.driver.wait(self.stream)
            self.held = held.pop_all()

    def plan(self, env: Mapping[str, int]) -> DevicePlan:
        """A new plan for these dims."""
        plan = DevicePlan(self, env)
        self.plans.append(plan)
        return plan

    def drop(self, plan: DevicePlan) -> None:
        """Free a plan's memory."""
        self.plans.remove(plan)
        plan.free()

    def close(self) -> None:
        """Free everything."""
        self.driver.use()
        for plan in self.plans:
            plan.free()
        self.plans.clear()
        self.held.close()


class DevicePlan:
    """Device memory for one set of dims, and the graph of the launches over it."""

    def __init__(self, device: _Device, env: Mapping[str, int]) -> None:
        self.device, self.driver = device, device.driver
        manifest = self.manifest = device.manifest
        self.shapes = [tuple(value_of(d, env) for d in buffer.shape) for buffer in manifest.buffers]
        self.dtypes = [numpy_dtype(buffer.dtype) for buffer in manifest.buffers]
        kernels = [step for step in manifest.steps if isinstance(step, KernelStep)]
        scratch = max((self._scratch_bytes(step, env) for step in kernels), default=0)
        offsets, total = _layout(manifest, [self.nbytes(i) for i in range(len(manifest.buffers))])
        with ExitStack() as held:
            self.memory = self.driver.allocate(total + scratch)
            held.callback(self.driver.free, self.memory)
            self.scratch = self.memory + total  # steps run one after another and share it
            self.addresses = [
                device.constants + (buffer.offset or 0)
                if buffer.where == "constant"
                else self.memory + offsets.get(i, 0)
                for i, buffer in enumerate(manifest.buffers)
            ]
            self.steps = [self._step(step, env) for step in kernels]
            self.graph = self._captured()
            held.callback(self.driver.destroy_graph, self.graph)
            self.held = held.pop_all()

    def _captured(self) -> Any:
        """The graph of all launches. A stream left in capture could do nothing else."""
        stream = self.device.stream
        self.driver.begin_capture(stream)
        try:
            for launch in self.steps:
                launch()
        except DeviceError:
            with suppress(DeviceError):  # that the capture is void
                self.driver.destroy_graph(self.driver.end_capture(stream))
            raise
        return self.driver.end_capture(stream)

    def nbytes(self, buffer: int) -> int:
        """The size of a buffer."""
        return math.prod(self.shapes[buffer]) * self.dtypes[buffer].itemsize

    def _scratch_bytes(self, step: KernelStep, env: Mapping[str, int]) -> int:
        launch = self.device.launches[step.symbol]
        return value_of(launch.blocks, env) * value_of(launch.scratch_bytes, env)

    def _step(self, step: KernelStep, env: Mapping[str, int]) -> Callable[[], None]:
        """The launch of one step."""
        launch = self.device.launches[step.symbol]
        function = self.device.functions[step.symbol]
        blocks = value_of(launch.blocks, env)
        if blocks > _MAX_BLOCKS:
            raise DeviceError(f"{step.label} has {blocks} blocks", why=f"a launch has at most {_MAX_BLOCKS}")
        arguments = [self.addresses[self.manifest.root(buffer)] for buffer in step.arguments]
        arguments += [*(value_of(dim, env) for dim in step.dims), self.scratch]

        def run() -> None:
            if blocks:  # over an empty tensor there is nothing to do
                self.driver.launch(function, blocks, launch.threads, arguments, self.device.stream)

        return run

    def run(self, arrays: list[np.ndarray], seconds: list[tuple[str, float]] | None) -> list[Any]:
        """The outputs for these inputs; `seconds` gets the label and the time of each step."""
        driver, stream, manifest = self.driver, self.device.stream, self.manifest
        for port, array in zip(manifest.inputs, arrays, strict=True):
            if array.nbytes:
                driver.upload(self.addresses[manifest.root(port.buffer)], np.ascontiguousarray(array), stream)
        if seconds is None:
            driver.run_graph(self.graph, stream)
        else:
            self._timed(seconds)
        outputs = []
        for port in manifest.outputs:
            output = np.empty(self.shapes[port.buffer], self.dtypes[port.buffer])
            if output.nbytes:
                driver.download(output, self.addresses[manifest.root(port.buffer)], stream)
            outputs.append(output)
        driver.wait(stream)
        return outputs

    def _timed(self, seconds: list[tuple[str, float]]) -> None:
        """Run step by step, with a mark between each two."""
        marks = [self.driver.event(self.device.stream)]
        for launch in self.steps:
            launch()
            marks.append(self.driver.event(self.device.stream))
        self.driver.wait(self.device.stream)
        labels = [step.label for step in self.manifest.steps]
        for label, first, last in zip(labels, marks[:-1], marks[1:], strict=True):
            seconds.append((label, self.driver.seconds_between(first, last)))
        for mark in marks:
            self.driver.destroy_event(mark)

    def free(self) -> None:
        """Give the memory back."""
        self.held.close()


def _layout(manifest: Manifest, sizes: list[int]) -> tuple[dict[int, int], int]:
    """The offset of every buffer that is no constant, and the size of all: the arena, then inputs and
    outputs."""
    ranges = live_ranges(manifest)
    arena = [i for i in ranges if manifest.buffers[i].where == "arena"]
    places, total = plan_arena([sizes[i] for i in arena], [ranges[i] for i in arena])
    offsets = dict(zip(arena, places, strict=True))
    total = align(total)
    for i, buffer in enumerate(manifest.buffers):
        if buffer.where in ("input", "output"):
            offsets[i] = total
            total = align(total + sizes[i])
    return offsets, total


def _check_constants(artifact: Artifact) -> None:
    if not np.array_equal(checksum(artifact.constants), artifact.checksums):
        raise ArtifactError(
            "the artifact is damaged",
            where=f"{artifact.name}: the constants",
            why="the checksum does not match",
            hint="compile the model again, or copy the file again",
        )


def _check_capability(driver: Driver, arch: str) -> None:
    number = int(arch.removeprefix("sm_"))
    if driver.capability < (number // 10, number % 10):
        have = "".join(map(str, driver.capability))
        raise ArtifactError(
            f"the artifact is for {arch}; {driver.name} is sm_{have}",
            hint=f"compile the model with --arch sm_{have}, if it is one that egc knows",
        )
