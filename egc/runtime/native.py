"""Mapped code, callable: the functions of the runtime, a clock in ticks, and the threads of a session."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading
import time
from collections.abc import Callable

import numpy as np

from egc.errors import ArtifactError
from egc.runtime import abi
from egc.runtime.artifact import Artifact

# How long a thread spins, and when it goes to sleep, in microseconds since it began to wait. Between two
# kernels the others are a moment behind; between two runs the caller may be gone for good.
BARRIER_SPIN_US, BARRIER_YIELD_US = 20, 2000
IDLE_SPIN_US, IDLE_YIELD_US = 50, 300


class NativeCode:
    """The code of one artifact, callable; ctypes releases the GIL in every call."""

    def __init__(self, artifact: Artifact) -> None:
        self._mapped = artifact.code  # kept alive: the addresses point into it
        self._functions = artifact.manifest.functions
        # A read-only mapping has no writable buffer for ctypes; numpy knows its address all the same.
        self._base = address_of(np.frombuffer(artifact.code, np.uint8))
        self.call = self._function(abi.CALL, ctypes.c_void_p)
        self.stop = self._function(abi.STOP, ctypes.c_void_p)
        self.worker = self._function(abi.WORKER, ctypes.c_void_p, ctypes.c_int64)
        self.checksum = self._function(abi.CHECKSUM, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
        self.ticks: Callable[[], int] = ctypes.CFUNCTYPE(ctypes.c_int64)(self.address_of(abi.TICKS))
        self._began = (self.ticks(), time.perf_counter())

    def address_of(self, function: str) -> int:
        """The address of a function named in the manifest; ArtifactError where there is none."""
        offset = self._functions.get(function)
        if offset is None:
            raise ArtifactError("the artifact is damaged", where=f"function {function}", why="it has no code")
        return self._base + offset

    def _function(self, name: str, *arguments: type) -> Callable[..., None]:
        return ctypes.CFUNCTYPE(None, *arguments)(self.address_of(name))

    def ticks_per_second(self) -> float:
        """The speed of the clock, measured since the code was mapped, over 0.2 ms or more."""
        ticks, seconds = self._began
        while (elapsed := time.perf_counter() - seconds) < 2e-4:
            pass
        return (self.ticks() - ticks) / elapsed

    def check_constants(self, artifact: Artifact, threads: int) -> None:
        """ArtifactError where the constants are not what was written; reads all, in `threads` parts."""
        found = np.empty_like(artifact.checksums)
        each = -(-found.size // threads) or 1
        parts = range(0, found.size, each)
        others = [threading.Thread(target=self._checksum, args=(artifact, found, i, each)) for i in parts[1:]]
        for thread in others:
            thread.start()
        if found.size:
            self._checksum(artifact, found, 0, each)
        for thread in others:
            thread.join()
        wrong = np.flatnonzero(found != artifact.checksums)
        if wrong.size:
            start = int(wrong[0]) * abi.CHUNK_BYTES
            raise ArtifactError(
                "the artifact is damaged",
                where=f"{artifact.name}: the constants, {abi.CHUNK_BYTES >> 20} MiB from byte {start} on",
                why=f"the checksum does not match in {wrong.size} of {found.size} parts",
                hint="compile the model again, or copy the file again",
            )

    def _checksum(self, artifact: Artifact, found: np.ndarray, first: int, count: int) -> None:
        part = artifact.constants[first * abi.CHUNK_BYTES : (first + count) * abi.CHUNK_BYTES]
        self.checksum(address_of(part), part.size, address_of(found[first:]))


def address_of(array: np.ndarray) -> int:
    """Where the first element of an array lies."""
    return array.ctypes.data


def allocate(size: int) -> np.ndarray:
    """`size` bytes of zeros on a page boundary, in huge pages where there are some; OSError if no memory."""
    mapped = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # A kernel built without huge pages refuses: only speed is lost.
        with contextlib.suppress(OSError):
            mapped.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(mapped, np.uint8)


class Workers:
    """The threads of a session and the context they share. Thread 0 is whoever calls `run`."""

    def __init__(self, native: NativeCode, threads: int) -> None:
        self._native = native
        self._threads = threads
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._context = allocate(abi.CONTEXT_SIZE)
        self._address = address_of(self._context)
        self._words = (ctypes.c_uint64 * (abi.CONTEXT_SIZE // 8)).from_address(self._address)
        ticks_per_us = self._native.ticks_per_second() / 1e6
        self._set(abi.CONTEXT_THREADS, self._threads)
        self._set(abi.CONTEXT_BARRIER_SPIN, int(BARRIER_SPIN_US * ticks_per_us))
        self._set(abi.CONTEXT_BARRIER_YIELD, int(BARRIER_YIELD_US * ticks_per_us))
        self._set(abi.CONTEXT_IDLE_SPIN, int(IDLE_SPIN_US * ticks_per_us))
        self._set(abi.CONTEXT_IDLE_YIELD, int(IDLE_YIELD_US * ticks_per_us))
        # The threads hold the context and the code alive themselves, and nothing else of the session.
        self._workers = [
            threading.Thread(
                target=_live, args=(self._native, self._context, i), name=f"egc-{i}", daemon=True
            )
            for i in range(1, self._threads)
        ]
        for worker in self._workers:
            worker.start()

    def _set(self, offset: int, value: int) -> None:
        self._words[offset // 8] = value

    def run(self, steps: int, count: int) -> None:
        """Run `count` steps of the table at `steps` on all threads; returns when all have finished."""
        if os.getpid() != self._process:
            # We are in a forked child, where the threads do not exist.
            self._start()
        words = self._words
        words[abi.CONTEXT_STEPS // 8] = steps
        words[abi.CONTEXT_STEP_COUNT // 8] = count
        self._native.call(self._address)

    def profile(self, steps: int, count: int) -> np.ndarray:
        """`run`, and the seconds that each step took by the clock of thread 0: float64 of shape [count]."""
        times = np.zeros(count + 1, np.int64)
        self._set(abi.CONTEXT_PROFILE, address_of(times))
        try:
            self.run(steps, count)
        finally:
            self._set(abi.CONTEXT_PROFILE, 0)
        return np.diff(times) / self._native.ticks_per_second()

    def stop(self) -> None:
        """End the threads; the workers cannot run again. To be called between runs."""
        if self._workers and os.getpid() == self._process:
            self._native.stop(self._address)
            for worker in self._workers:
                if worker is not threading.current_thread():
                    worker.join()
        self._workers = []


def _live(native: NativeCode, context: np.ndarray, thread: int) -> None:
    native.worker(address_of(context), thread)
