"""Building distinct kernels in worker processes: schedule, emit, compile.

An LLVM back end may abort its process and an egglog iteration cannot be interrupted, so both run where they
can be ended and reported. Workers start before the model is read and import what they need meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, TypeVar

from egc.cache import folder, key_of, recall, remember
from egc.codegen.compile import compile_module, llvm_version
from egc.codegen.emit import emit
from egc.codegen.runtime_ir import runtime_ir, support_ir
from egc.codegen.target import Target
from egc.errors import CompileError
from egc.ir.dims import Dim
from egc.ir.kernel import Kernel
from egc.ir.nest import Nest
from egc.machine import Machine
from egc.rules import RuleBook, bindings, load_rules
from egc.schedule import Scheduled, prepare, schedule
from egc.schedule.cells import shipped_loop_rules

LOOPS = "loops"  # the ruleset of the loop e-graph

# One kernel takes a fraction of a second; one that takes this long hangs.
_PATIENCE_S = 120.0

Built = TypeVar("Built")


@dataclass(frozen=True)
class BuiltKernel:
    """A kernel as scheduled and compiled: `object` is an ELF object that defines the function `symbol`."""

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
    """The native run-time: objects of every program, and a library linked where something needs it."""

    always: tuple[bytes, ...]
    library: tuple[bytes, ...]


@dataclass(frozen=True)
class RuleChoice:
    """Which rules may fire, as the user said it: short enough to go along with every kernel."""

    accuracy: str = "default"
    disabled: tuple[str, ...] = ()
    extra: tuple[Path, ...] = ()


@lru_cache(maxsize=4)
def loop_rules(choice: RuleChoice) -> RuleBook:
    """The loop rules of a choice, read once a worker."""
    if choice == RuleChoice():
        return shipped_loop_rules()
    book = load_rules(disabled=choice.disabled, accuracy=choice.accuracy, extra=choice.extra)
    return book.only({LOOPS})


def build_kernel(
    kernel: Kernel, machine: Machine, target: Target, threads: int, rules: RuleChoice
) -> BuiltKernel:
    """Schedule and compile one kernel in this process."""
    started = perf_counter()
    scheduled = schedule(kernel, machine, threads=threads, book=loop_rules(rules))
    emitted = emit(scheduled.nest, target)
    code = compile_module(emitted.text, target)
    return BuiltKernel(scheduled, emitted.name, code, emitted.scratch_bytes, perf_counter() - started)


def build_runtime(target: Target) -> RuntimeObjects:
    """The native run-time for a target, compiled now or by an earlier run."""
    texts = (runtime_ir(target.triple), support_ir(target.triple))
    described = (target.triple, target.cpu, target.features, repr(llvm_version()))
    key = key_of(*(text.encode() for text in (*texts, *described)))
    path = folder("runtime") / f"{key.hex()[:16]}.objects"
    content = recall(path, key)
    if content is None:
        always, library = (compile_module(text, target) for text in texts)
        remember(path, key, len(always).to_bytes(8, "little") + always + library)
        return RuntimeObjects((always,), (library,))
    end = 8 + int.from_bytes(content[:8], "little")
    return RuntimeObjects((content[8:end],), (content[end:],))


class Workshop:
    """Worker processes for one compilation or for several; a context manager.

    It is entered before this process reads anything else: workers then import what they need meanwhile.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or max(1, len(os.sched_getaffinity(0)))
        self._pool: ProcessPoolExecutor | None = None
        self._damaged = False
        self._runtimes: dict[Target, RuntimeObjects] = {}

    def __enter__(self) -> Workshop:
        if self._pool is None:
            self._pool = _start_pool(self.workers)
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            processes = list((self._pool._processes or {}).values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.kill()
            self._pool = None

    def warm(self, kernels: int) -> None:
        """Get ready for about so many kernels: a worker without work imports nothing."""
        for _ in range(min(self.workers, kernels) - 1):
            self._entered().submit(_warm)

    def _entered(self) -> ProcessPoolExecutor:
        """The pool; a new one where a worker of the last one died or hangs."""
        if self._damaged:
            self.close()
            self._pool, self._damaged = _start_pool(self.workers), False
        assert self._pool is not None, "a Workshop is entered before it builds"
        return self._pool

    def build(
        self, kernels: Sequence[Kernel], machine: Machine, target: Target, threads: int, rules: RuleChoice
    ) -> tuple[Mapping[str, BuiltKernel], RuntimeObjects]:
        """Every kernel built, by name in the given order, and the run-time.

        CompileError names the kernel that failed, also where a worker died or hung over it.
        """
        if target not in self._runtimes:
            self._runtimes[target] = build_runtime(target)
        built = self.each(build_kernel, kernels, machine, target, threads, rules)
        return built, self._runtimes[target]

    def each(self, build: Callable[..., Built], kernels: Sequence[Kernel], *args: Any) -> dict[str, Built]:
        """`build(kernel, *args)` for every kernel, by name in the given order; CompileError as in `build`."""
        pool = self._entered()
        futures = [pool.submit(build, kernel, *args) for kernel in kernels]
        return {
            kernel.name: self._result(future, build, kernel, *args)
            for kernel, future in zip(kernels, futures, strict=True)
        }

    def _result(
        self, future: Future[Built], build: Callable[..., Built], kernel: Kernel, *args: Any
    ) -> Built:
        try:
            return future.result(timeout=_PATIENCE_S)
        except BrokenProcessPool:
            self._damaged = True
            return _alone(build, kernel, *args)
        except FutureTimeout:
            self._damaged = True
            raise _failed(kernel, f"it took over {_PATIENCE_S:g} s") from None


def _alone(build: Callable[..., Built], kernel: Kernel, *args: Any) -> Built:
    """One kernel in a process of its own, after some kernel took the pool down: finds the one that does."""
    with Workshop(1) as workshop:
        try:
            return workshop._entered().submit(build, kernel, *args).result(timeout=_PATIENCE_S)
        except BrokenProcessPool:
            raise _failed(kernel, "LLVM's code generator ended the process") from None
        except FutureTimeout:
            raise _failed(kernel, f"it took over {_PATIENCE_S:g} s") from None


def _start_pool(workers: int) -> ProcessPoolExecutor:
    """Worker processes that are already starting, one of them warm.

    egglog's threads, which start when it is loaded, do not live on in a forked process, where calls would
    wait for them for ever. Once this process has loaded egglog, workers are therefore forked from a server
    that has not.
    """
    if bindings.NAME not in sys.modules:
        pool = ProcessPoolExecutor(workers, mp_context=get_context("fork"), initializer=_begin)
        pool.submit(_warm)
        return pool
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, "llvmlite.binding"])
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)
    with _unnamed_main():
        for _ in range(workers):  # here a worker starts with the task that is given to it
            pool.submit(_warm)
    return pool


@contextmanager
def _unnamed_main() -> Iterator[None]:
    """Keep new processes from running the user's script again, as they do to find what is defined there."""
    main = sys.modules["__main__"].__dict__
    kept: dict[str, Any] = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
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
    # An interrupt is the parent's to handle: it ends the workers. A parent that was killed cannot: then they
    # end themselves, for a worker waits on a queue that it holds open itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        sleep(1.0)
    os._exit(1)


def _warm() -> None:
    """Import what building needs, while the parent reads the model."""
    bindings.egglog_bindings()
    prepare()
    llvm_version()
