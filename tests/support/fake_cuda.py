"""A stand-in for libcuda: host memory for device memory, and device functions as tests.support.device_ir runs
them.

It keeps the rules of the driver API that a program can break unseen: no call without a current context, no
work on freed memory or a destroyed object, nothing that waits while a stream records.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support.device_ir import DeviceOnHost

ERROR_INVALID_VALUE, ERROR_INVALID_CONTEXT, ERROR_NOT_FOUND = 1, 201, 500


class FakeCuda:
    """The functions are attributes, as those of a library are; `calls` lists their names in order."""

    def __init__(
        self, functions: dict[str, DeviceOnHost], capability: tuple[int, int] = (9, 0), devices: int = 1
    ) -> None:
        self.functions, self.capability, self.devices = functions, capability, devices
        self.calls: list[str] = []
        self.made = 0
        self.memory: dict[int, np.ndarray] = {}
        self.objects: dict[int, Any] = {}
        self.recording: list[Callable[[], None]] | None = None
        self.current = False
        for name in dir(type(self)):
            if name.startswith("_cu"):
                setattr(self, name[1:], self._wrapped(name[1:], getattr(self, name)))

    def _wrapped(self, name: str, body: Callable[..., int | None]) -> Callable[..., int]:
        def function(*args: Any) -> int:
            self.calls.append(name)
            needs_context = not name.startswith(("cuInit", "cuDevice", "cuCtx", "cuGetError"))
            if needs_context and not self.current:
                return ERROR_INVALID_CONTEXT
            return body(*args) or 0

        return function

    def _new(self, thing: Any) -> int:
        self.made += 1
        key = 0x1000 + 16 * self.made
        self.objects[key] = thing
        return key

    def _work(self, run: Callable[[], None]) -> None:
        if self.recording is None:
            run()
        else:
            self.recording.append(run)

    # Devices and contexts.

    def _cuInit(self, flags: int) -> None:
        assert flags == 0

    def _cuGetErrorString(self, status: int, text: Any) -> None:
        text._obj.value = f"fake error {status}".encode()

    def _cuDeviceGetCount(self, out: Any) -> None:
        out._obj.value = self.devices

    def _cuDeviceGet(self, out: Any, ordinal: int) -> None:
        out._obj.value = ordinal

    def _cuDeviceGetName(self, buffer: Any, size: int, device: int) -> None:
        buffer.value = b"Fake GPU"

    def _cuDeviceGetAttribute(self, out: Any, number: int, device: int) -> None:
        out._obj.value = self.capability[number - 75]

    def _cuDevicePrimaryCtxRetain(self, out: Any, device: int) -> None:
        out._obj.value = 1

    def _cuDevicePrimaryCtxRelease_v2(self, device: int) -> None:
        self.current = False

    def _cuCtxSetCurrent(self, context: int) -> None:
        self.current = context == 1

    # Modules.

    def _cuModuleLoadDataEx(
        self, out: Any, image: bytes, count: int, options: Any, values: Any
    ) -> int | None:
        assert image.endswith(b"\0") and b".target sm_" in image
        missing = [name for name in self.functions if f".entry {name}(".encode() not in image]
        if missing:
            log = ctypes.string_at(values[0], 0) or b"ptxas fatal: no such entry\0"
            ctypes.memmove(values[0], log, len(log))
            return ERROR_INVALID_VALUE
        out._obj.value = self._new("module")
        return None

    def _cuModuleUnload(self, module: int) -> None:
        self.objects.pop(module)

    def _cuModuleGetFunction(self, out: Any, module: int, name: bytes) -> int | None:
        assert self.objects[module] == "module"
        if name.decode() not in self.functions:
            return ERROR_NOT_FOUND
        out._obj.value = self._new(self.functions[name.decode()])
        return None

    # Memory.

    def _cuMemAlloc_v2(self, out: Any, size: int) -> None:
        assert size > 0 and self.recording is None
        raw = np.full(size + 256, 0xA5, np.uint8)
        address = -(-raw.ctypes.data // 256) * 256
        self.memory[address] = raw
        out._obj.value = address

    def _cuMemFree_v2(self, address: int) -> int | None:
        return None if self.memory.pop(address, None) is not None else ERROR_INVALID_VALUE

    def _inside(self, address: int, size: int) -> bool:
        return any(
            base <= address and address + size <= raw.ctypes.data + raw.size
            for base, raw in self.memory.items()
        )

    def _cuMemcpyHtoDAsync_v2(self, to: int, source: int, size: int, stream: int) -> int | None:
        if not self._inside(to, size):
            return ERROR_INVALID_VALUE
        ctypes.memmove(to, source, size)
        return None

    def _cuMemcpyDtoHAsync_v2(self, to: int, source: int, size: int, stream: int) -> int | None:
        if not self._inside(source, size):
            return ERROR_INVALID_VALUE
        ctypes.memmove(to, source, size)
        return None

    # Streams, launches, graphs.

    def _cuStreamCreate(self, out: Any, flags: int) -> None:
        out._obj.value = self._new("stream")

    def _cuStreamDestroy_v2(self, stream: int) -> None:
        assert self.objects.pop(stream) == "stream"

    def _cuStreamSynchronize(self, stream: int) -> None:
        assert self.objects[stream] == "stream" and self.recording is None

    def _cuStreamBeginCapture_v2(self, stream: int, mode: int) -> None:
        self.recording = []

    def _cuStreamEndCapture(self, stream: int, out: Any) -> None:
        out._obj.value = self._new(self.recording)
        self.recording = None

    def _cuGraphInstantiateWithFlags(self, out: Any, graph: int, flags: int) -> None:
        out._obj.value = self._new(list(self.objects[graph]))

    def _cuGraphLaunch(self, graph: int, stream: int) -> None:
        for run in self.objects[graph]:
            run()

    def _cuGraphDestroy(self, graph: int) -> None:
        self.objects.pop(graph)

    def _cuGraphExecDestroy(self, graph: int) -> None:
        self.objects.pop(graph)

    def _cuLaunchKernel(
        self,
        function: int,
        x: int,
        y: int,
        z: int,
        tx: int,
        ty: int,
        tz: int,
        shared: int,
        stream: int,
        arguments: Any,
        extra: Any,
    ) -> int | None:
        host: DeviceOnHost = self.objects[function]
        if x < 1 or (y, z, ty, tz) != (1, 1, 1, 1) or tx != host.kernel.threads:
            return ERROR_INVALID_VALUE
        # The driver copies the arguments before it returns.
        words = [ctypes.c_int64.from_address(arguments[i]).value for i in range(host.parameters)]
        self._work(lambda: host.launch(words, x))
        return None

    # Events.

    def _cuEventCreate(self, out: Any, flags: int) -> None:
        out._obj.value = self._new("event")

    def _cuEventRecord(self, event: int, stream: int) -> None:
        assert self.objects[event] == "event"

    def _cuEventElapsedTime(self, out: Any, first: int, last: int) -> None:
        out._obj.value = 0.5

    def _cuEventDestroy_v2(self, event: int) -> None:
        assert self.objects.pop(event) == "event"
