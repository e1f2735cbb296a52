"""The part of the CUDA driver API that running a program needs, over ctypes: no toolkit and no binding to
install.

Names and values are those of cuda.h; the API is described in the "CUDA Driver API" reference manual. All
addresses are integers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any, Final

import numpy as np

from egc.errors import ArtifactError, EgcError

LIBRARY: Final = "libcuda.so.1"
_NON_BLOCKING_STREAM: Final = 1  # CU_STREAM_NON_BLOCKING
_CAPTURE_THREAD_LOCAL: Final = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_JIT_ERROR_LOG, _JIT_ERROR_LOG_SIZE = 5, 6  # CU_JIT_ERROR_LOG_BUFFER and its _SIZE_BYTES
_LOG_BYTES: Final = 8192

# Argument types of the functions in use. Every function returns a CUresult, 0 for success.
_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    "cuInit": (c_uint,),
    "cuGetErrorString": (c_int, c_void_p),
    "cuDeviceGetCount": (c_void_p,),
    "cuDeviceGet": (c_void_p, c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (c_void_p, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (c_void_p, c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuModuleLoadDataEx": (c_void_p, c_void_p, c_uint, c_void_p, c_void_p),
    "cuModuleUnload": (c_void_p,),
    "cuModuleGetFunction": (c_void_p, c_void_p, c_char_p),
    "cuMemAlloc_v2": (c_void_p, c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (c_void_p, c_uint),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, c_void_p),
    "cuGraphInstantiateWithFlags": (c_void_p, c_void_p, c_uint64),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphDestroy": (c_void_p,),
    "cuGraphExecDestroy": (c_void_p,),
    "cuLaunchKernel": (c_void_p, *(c_uint,) * 7, c_void_p, c_void_p, c_void_p),
    "cuEventCreate": (c_void_p, c_uint),
    "cuEventDestroy_v2": (c_void_p,),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventElapsedTime": (c_void_p, c_void_p, c_void_p),
}


class DeviceError(EgcError):
    """There is no GPU that can run the program, or it failed."""


class Driver:
    """One device with its primary context, made current in every calling thread by `use`."""

    def __init__(self, device: int = 0, library: Any = None) -> None:
        """DeviceError where there is no driver or no such device. Tests give a `library` of their own."""
        self._library = library if library is not None else _load()
        for name, types in _SIGNATURES.items():
            function = getattr(self._library, name, None)
            if function is None:
                raise DeviceError(
                    "the NVIDIA driver is too old",
                    why=f"it has no {name}",
                    hint="install one for CUDA 12 or newer",
                )
            function.argtypes, function.restype = types, c_int
        self.check("cuInit", 0)
        count = self._out(c_int, "cuDeviceGetCount")
        if count <= device:
            raise DeviceError(
                f"there is no CUDA device {device}", why=f"the driver sees {count}", hint=_NO_DEVICE
            )
        self._device = self._out(c_int, "cuDeviceGet", device)
        text = ctypes.create_string_buffer(256)
        self.check("cuDeviceGetName", text, len(text), self._device)
        self.name = text.value.decode(errors="replace")
        self.capability = (self._attribute(_CAPABILITY_MAJOR), self._attribute(_CAPABILITY_MINOR))
        self._context = self._out(c_void_p, "cuDevicePrimaryCtxRetain", self._device)

    def close(self) -> None:
        """Give the context back."""
        self.check("cuDevicePrimaryCtxRelease_v2", self._device)

    def use(self) -> None:
        """Make the context current in the calling thread."""
        self.check("cuCtxSetCurrent", self._context)

    def check(self, name: str, *args: Any) -> None:
        """Call a function; DeviceError with the driver's words where it fails."""
        status = getattr(self._library, name)(*args)
        if status:
            text = c_char_p()
            self._library.cuGetErrorString(status, byref(text))
            why = text.value.decode(errors="replace") if text.value else f"error {status}"
            raise DeviceError("the GPU failed", where=name, why=why)

    def _out(self, kind: Any, name: str, *args: Any) -> Any:
        """The value that a function writes through its first argument."""
        value = kind()
        self.check(name, byref(value), *args)
        return value.value

    def _attribute(self, number: int) -> int:
        value = c_int()
        self.check("cuDeviceGetAttribute", byref(value), number, self._device)
        return value.value

    # Code.

    def load(self, ptx: str) -> int:
        """A module of PTX, compiled for this device by the driver; ArtifactError with the compiler's log
        where it cannot."""
        log = ctypes.create_string_buffer(_LOG_BYTES)
        options = (c_int * 2)(_JIT_ERROR_LOG, _JIT_ERROR_LOG_SIZE)
        values = (c_void_p * 2)(ctypes.addressof(log), _LOG_BYTES)
        try:
            return self._out(c_void_p, "cuModuleLoadDataEx", ptx.encode() + b"\0", 2, options, values)
        except DeviceError as error:
            why = log.value.decode(errors="replace").strip() or error.why
            raise ArtifactError(f"{self.name} does not take the artifact's code", why=why) from None

    def unload(self, module: int) -> None:
        """Free a module."""
        self.check("cuModuleUnload", module)

    def function(self, module: int, name: str) -> int:
        """An entry of a module."""
        return self._out(c_void_p, "cuModuleGetFunction", module, name.encode())

    # Memory.

    def allocate(self, nbytes: int) -> int:
        """The address of device memory; it lies on a boundary of 256 bytes."""
        return self._out(c_uint64, "cuMemAlloc_v2", max(nbytes, 1))

    def free(self, address: int) -> None:
        """Give memory back."""
        self.check("cuMemFree_v2", address)

    def upload(self, address: int, array: np.ndarray, stream: int) -> None:
        """Copy an array to the device. The array may change once this returns: pageable memory is staged
        first."""
        self.check("cuMemcpyHtoDAsync_v2", address, array.ctypes.data, array.nbytes, stream)

    def download(self, array: np.ndarray, address: int, stream: int) -> None:
        """Copy device memory into an array, which is filled once the stream has been waited for."""
        self.check("cuMemcpyDtoHAsync_v2", array.ctypes.data, address, array.nbytes, stream)

    # Streams, launches, graphs.

    def stream(self) -> int:
        """A new stream."""
        return self._out(c_void_p, "cuStreamCreate", _NON_BLOCKING_STREAM)

    def destroy_stream(self, stream: int) -> None:
        """End a stream."""
        self.check("cuStreamDestroy_v2", stream)

    def wait(self, stream: int) -> None:
        """Return when all work in the stream is done; DeviceError where some of it failed."""
        self.check("cuStreamSynchronize", stream)

    def launch(self, function: int, blocks: int, threads: int, arguments: Sequence[int], stream: int) -> None:
        """Run a function; every argument is one 64-bit word."""
        words, pointers = pack_arguments(arguments)
        self.check("cuLaunchKernel", function, blocks, 1, 1, threads, 1, 1, 0, stream, pointers, None)
        del words

    def begin_capture(self, stream: int) -> None:
        """From now on the stream's work is recorded and not run."""
        self.check("cuStreamBeginCapture_v2", stream, _CAPTURE_THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """What was recorded, as a graph that can be run."""
        recorded = c_void_p()
        self.check("cuStreamEndCapture", stream, byref(recorded))
        graph = recorded.value
        try:
            return self._out(c_void_p, "cuGraphInstantiateWithFlags", graph, 0)
        finally:
            self.check("cuGraphDestroy", graph)

    def run_graph(self, graph: int, stream: int) -> None:
        """Run a recorded graph."""
        self.check("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Free a recorded graph."""
        self.check("cuGraphExecDestroy", graph)

    # Time.

    def event(self, stream: int) -> int:
        """A mark in a stream."""
        event = self._out(c_void_p, "cuEventCreate", 0)
        self.check("cuEventRecord", event, stream)
        return event

    def seconds_between(self, first: int, last: int) -> float:
        """Seconds between two marks that the stream has passed."""
        value = c_float()
        self.check("cuEventElapsedTime", byref(value), first, last)
        return value.value / 1e3

    def destroy_event(self, event: int) -> None:
        """Free a mark."""
        self.check("cuEventDestroy_v2", event)


_NO_DEVICE = "run it with --device emulator, or compile it with --target cpu"


def pack_arguments(arguments: Sequence[int]) -> tuple[Any, Any]:
    """The words of a launch, and the array of pointers to them that cuLaunchKernel takes; keep both until it
    returns."""
    words = (c_uint64 * max(len(arguments), 1))(*(argument & 0xFFFFFFFFFFFFFFFF for argument in arguments))
    base = ctypes.addressof(words)
    pointers = (c_void_p * max(len(arguments), 1))(*(base + 8 * i for i in range(len(arguments))))
    return words, pointers


def _load() -> Any:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise DeviceError(
            "there is no NVIDIA driver on this machine", why=str(error), hint=_NO_DEVICE
        ) from None
