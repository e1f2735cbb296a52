"""Worker processes that build distinct kernels.

An LLVM back end may abort its process and an egglog iteration cannot be interrupted, so both run where they
can be ended and reported. Workers start before the model is read and import what they need (egc.codegen.jobs)
meanwhile; this module imports little, so that they can start at once.
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
from multiprocessing import current_process, get_context
from time import sleep
from typing import TYPE_CHECKING, Any, TypeVar

from egc.errors import CompileError

if TYPE_CHECKING:
    from multiprocessing.synchronize import Semaphore

    from egc.codegen.jobs import BuiltKernel, RuntimeObjects
    from egc.codegen.target import Target
    from egc.ir.kernel import Kernel
    from egc.machine import Machine
    from egc.options import RuleChoice

_EGGLOG = "egglog.bindings"

# One kernel takes a fraction of a second; one that takes this long hangs.
_PATIENCE_S = 120.0

Built = TypeVar("Built")


class Workshop:
    """Worker processes for one compilation or for several; a context manager.

    It is entered before this process reads anything else: workers then import what they need meanwhile.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or max(1, len(os.sched_getaffinity(0)))
        self._pool: ProcessPoolExecutor | None = None
        self._calls = get_context("fork").Semaphore(0)  # each lets one worker that stands by go on
        self._damaged = False
        self._runtimes: dict[Target, Future[RuntimeObjects]] = {}

    def __enter__(self) -> Workshop:
        if self._pool is None:
            self._pool = self._start()
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
            self._calls.release()

    def _entered(self) -> ProcessPoolExecutor:
        """The pool; a new one where a worker of the last one died or hangs."""
        if self._damaged:
            self.close()
            self._pool, self._damaged = self._start(), False
        assert self._pool is not None, "a Workshop is entered before it builds"
        return self._pool

    def _start(self) -> ProcessPoolExecutor:
        """Worker processes that are already starting, one of them warm; the others stand by, and take no work
        from it, until they are called.

        egglog's threads, which start when it is loaded, do not live on in a forked process, where calls would
        wait for them for ever; nor do other threads, with the locks that they hold. Once this process has
        loaded egglog or has threads, workers are therefore forked from a server that has neither, and are all
        warm: there a worker starts with the task that is given to it.
        """
        if current_process().daemon:
            raise CompileError(
                "this process cannot compile",
                why="it is a daemonic one, which may start no processes, and kernels are compiled in such",
                hint="the processes of concurrent.futures.ProcessPoolExecutor may, those of a Pool may not",
            )
        if _EGGLOG not in sys.modules and threading.active_count() == 1:
            pool = ProcessPoolExecutor(
                self.workers, mp_context=get_context("fork"), initializer=_begin, initargs=(self._calls,)
            )
            for task in (_warm, *[_stand_by] * (self.workers - 1)):
                pool.submit(task)
            return pool
        context = get_context("forkserver")
        context.set_forkserver_preload(["egc.codegen.jobs", "llvmlite.binding"])
        pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_begin)
        with _unnamed_main():
            for _ in range(self.workers):
                pool.submit(_warm)
        return pool

    def native(self) -> Target:
        """The machine of this process as code is generated for it. Raises UsageError where it is too old."""
        return self._entered().submit(_native).result()

    def build(
        self, kernels: Sequence[Kernel], machine: Machine, target: Target, threads: int, rules: RuleChoice
    ) -> tuple[Mapping[str, BuiltKernel], RuntimeObjects]:
        """Every kernel built, by name in the given order, and the run-time.

        CompileError names the kernel that failed, also where a worker died or hung over it.
        """
        if target not in self._runtimes:
            self._runtimes[target] = self._entered().submit(_build_runtime, target)
        built = self.each(_build_kernel, kernels, machine, target, threads, rules)
        return built, self._runtimes[target].result()

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


_calls: Semaphore | None = None  # of a worker that stands by


def _begin(calls: Semaphore | None = None) -> None:
    global _calls
    _calls = calls
    # An interrupt is the parent's to handle: it ends the workers. A parent that was killed cannot: then they
    # end themselves, for a worker waits on a queue that it holds open itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        sleep(1.0)
    os._exit(1)


def _stand_by() -> None:
    assert _calls is not None
    _calls.acquire()
    _warm()


def _warm() -> None:
    from egc.codegen.jobs import warm

    warm()


def _build_kernel(
    kernel: Kernel, machine: Machine, target: Target, threads: int, rules: RuleChoice
) -> BuiltKernel:
    from egc.codegen.jobs import build_kernel

    return build_kernel(kernel, machine, target, threads, rules)


def _build_runtime(target: Target) -> RuntimeObjects:
    from egc.codegen.jobs import build_runtime

    return build_runtime(target)


def _native() -> Target:
    from egc.codegen.target import native

    return native()
