"""Building distinct kernels in worker processes: schedule, emit, compile.

An LLVM back end may abort its process and an egglog iteration cannot be interrupted, so both run where they can be ended
and reported. Workers start before the model is read and import what they need meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from time import perf_counter
from typing import Any, TypeVar

from egc.codegen.compile import compile_module
from egc.codegen.emit import emit
from egc.codegen.runtime_ir import runtime_ir, support_ir
from egc.codegen.target import Target
from egc.errors import CompileError
from egc.ir.dims import Dim
from egc.ir.kernel import Kernel
from egc.ir.nest import Nest
from egc.machine import Machine
from egc.schedule import Scheduled, schedule

# One kernel takes a fraction of a second; one that takes this long hangs.
_PATIENCE_S = 120.0

Built = TypeVar("Built")


@dataclass(frozen=True)
class BuiltKernel:
    """A kernel as scheduled and compiled: `object` is an ELF object file that defines the function `symbol`."""

    scheduled: Scheduled
    symbol: str
    object: bytes
    scratch_bytes: Dim
    seconds: float

    @property
    def nest(self) -> Nest:
        """The chosen loop nest."""
        return self.scheduled.nest


@dataclass(frozen=True)
class RuntimeObjects:
    """The native run-time: objects that every program holds, and a library linked where something needs it."""

    always: tuple[bytes, ...]
    library: tuple[bytes, ...]


def build_kernel(kernel: Kernel, machine: Machine, target: Target) -> BuiltKernel:
    """Schedule and compile one kernel in this process."""
    started = perf_counter()
    scheduled = schedule(kernel, machine)
    emitted = emit(scheduled.nest, target)
    code = compile_module(emitted.text, target)
    return BuiltKernel(scheduled, emitted.name, code, emitted.scratch_bytes, perf_counter() - started)


def build_runtime(target: Target) -> RuntimeObjects:
    """Compile the native run-time for a target."""
    triple = target.triple
    return RuntimeObjects(
        (compile_module(runtime_ir(triple), target),), (compile_module(support_ir(triple), target),)
    )


class Workshop:
    """Worker processes for the length of one compilation; a context manager."""

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or max(1, len(os.sched_getaffinity(0)))
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workshop:
        self._pool = self._start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def _start(self) -> ProcessPoolExecutor:
        return _start_pool(self.workers)

    def _stop(self) -> None:
        if self._pool is not None:
            processes = list((self._pool._processes or {}).values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.kill()
            self._pool = None

    def build(
        self, kernels: Sequence[Kernel], machine: Machine, target: Target
    ) -> tuple[Mapping[str, BuiltKernel], RuntimeObjects]:
        """Every kernel built, by name in the given order, and the run-time.

        CompileError names the kernel that failed, also where a worker died or hung over it.
        """
        assert self._pool is not None, "a Workshop is entered before it builds"
        runtime = self._pool.submit(build_runtime, target)
        built = self.each(build_kernel, kernels, machine, target)
        try:
            return built, runtime.result()
        except BrokenProcessPool:
            return built, build_runtime(target)

    def each(
        self, build: Callable[..., Built], kernels: Sequence[Kernel], *args: Any
    ) -> dict[str, Built]:
        """`build(kernel, *args)` for every kernel, by name in the given order; CompileError as in `build`."""
        assert self._pool is not None, "a Workshop is entered before it builds"
        futures = [self._pool.submit(build, kernel, *args) for kernel in kernels]
        return {
            kernel.name: self._result(future, build, kernel, *args)
            for kernel, future in zip(kernels, futures, strict=True)
        }

    def _result(self, future: Future[Built], build: Callable[..., Built], kernel: Kernel, *args: Any) -> Built:
        try:
            return future.result(timeout=_PATIENCE_S)
        except BrokenProcessPool:
            return self._alone(build, kernel, *args)
        except FutureTimeout:
            raise _failed(kernel, f"it took over {_PATIENCE_S:g} s") from None

    def _alone(self, build: Callable[..., Built], kernel: Kernel, *args: Any) -> Built:
        """One kernel in a process of its own, after some kernel took the pool down: finds the one that does."""
        with _start_pool(1) as pool:
            try:
                return pool.submit(build, kernel, *args).result(timeout=_PATIENCE_S)
            except BrokenProcessPool:
                raise _failed(kernel, "LLVM's code generator ended the process") from None


def _start_pool(workers: int) -> ProcessPoolExecutor:
    """Worker processes that are already starting.

    egglog's threads, which start when it is loaded, do not live on in a forked process, where calls would wait for them
    for ever. Once this process has loaded egglog, workers are therefore forked from a server that has not.
    """
    if "egglog.bindings" not in sys.modules:
        pool = ProcessPoolExecutor(workers, mp_context=get_context("fork"), initializer=_begin)
        for _ in range(workers):
            pool.submit(_warm)
        return pool
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, "llvmlite.binding"])
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)
    with _unnamed_main():
        for _ in range(workers):
            pool.submit(_warm)
    return pool


@contextmanager
def _unnamed_main() -> Iterator[None]:
    """Keep new processes from running the user's script again, as they do to find what is defined there."""
    main = sys.modules["__main__"].__dict__
    kept = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
    try:
        main["__spec__"] = None
        yield
    finally:
        main.update(kept)


def _failed(kernel: Kernel, why: str) -> CompileError:
    return CompileError(
        f"the kernel {kernel.name} could not be compiled",
        where=f"{len(kernel.stages)} stages, the first one: {kernel.stages[0].name}",
        why=why,
        hint="please report it, with the output of --emit kernels",
    )


def _begin() -> None:
    # An interrupt is the parent's to handle: it ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _warm() -> None:
    """Import what building needs, while the parent reads the model."""
    import egglog.bindings
    import llvmlite.binding  # noqa: F401
