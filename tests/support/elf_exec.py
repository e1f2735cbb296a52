"""Runs linked code of another architecture: wraps it into a static executable and starts it under qemu-user.

The executable reads an image of its data segment from standard input, calls a kernel once for each thread,
one after another, and writes the data segment to standard output. The image holds the pointers already: the
executable is loaded at fixed addresses.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence

import numpy as np

from egc.codegen.link import LinkedCode, link
from egc.codegen.runtime_ir import SYSTEM_CALLS
from tests.support.native import ARM, X86, compile_ir

CODE, DATA = 0x0100_0000, 0x1000_0000
HEADER_WORDS = 6  # size, kernel, buffers, dims, threads, unused
_MACHINES = {"x86_64": (62, X86), "aarch64": (183, ARM)}

_START = """
declare i64 @system(i64, i64, i64, i64, i64)

define void @transfer(i64 %call, i64 %file, i64 %address, i64 %size) {
entry:
  br label %loop
loop:
  %done = phi i64 [ 0, %entry ], [ %next, %loop ]
  %at = add i64 %address, %done
  %left = sub i64 %size, %done
  %count = call i64 @system(i64 %call, i64 %file, i64 %at, i64 %left, i64 0)
  %next = add i64 %done, %count
  %failed = icmp sle i64 %count, 0
  %complete = icmp uge i64 %next, %size
  %stop = or i1 %failed, %complete
  br i1 %stop, label %out, label %loop
out:
  ret void
}

define void @_start() #0 {
entry:
  call void @transfer(i64 READ, i64 0, i64 DATA, i64 HEADER)
  %base = inttoptr i64 DATA to ptr
  %size = load volatile i64, ptr %base
  %rest = sub i64 %size, HEADER
  %after = add i64 DATA, HEADER
  call void @transfer(i64 READ, i64 0, i64 %after, i64 %rest)
  %kernel.at = getelementptr i64, ptr %base, i64 1
  %kernel = load volatile ptr, ptr %kernel.at
  %buffers.at = getelementptr i64, ptr %base, i64 2
  %buffers = load volatile ptr, ptr %buffers.at
  %dims.at = getelementptr i64, ptr %base, i64 3
  %dims = load volatile ptr, ptr %dims.at
  %threads.at = getelementptr i64, ptr %base, i64 4
  %threads = load volatile i64, ptr %threads.at
  br label %loop
loop:
  %thread = phi i64 [ 0, %entry ], [ %next, %loop ]
  call void %kernel(ptr %buffers, ptr %dims, i64 %thread, i64 %threads)
  %next = add i64 %thread, 1
  %more = icmp ult i64 %next, %threads
  br i1 %more, label %loop, label %write
write:
  call void @transfer(i64 WRITE, i64 1, i64 DATA, i64 %size)
  %gone = call i64 @system(i64 EXIT, i64 0, i64 0, i64 0, i64 0)
  ret void
}

attributes #0 = { nounwind "stackrealign" }
"""
# read, write, exit
_CALLS = {"x86_64": (0, 1, 60), "aarch64": (63, 64, 93)}


def emulator(machine: str) -> str | None:
    """The qemu-user program for a machine, or None where it is not installed."""
    return shutil.which(f"qemu-{machine}") or shutil.which(f"qemu-{machine}-static")


def run_under_qemu(
    linked: LinkedCode,
    symbol: str,
    buffers: Sequence[np.ndarray],
    dims: Sequence[int] = (),
    threads: int = 1,
    scratch_bytes: int = 0,
) -> list[np.ndarray]:
    """Call kernel `symbol` on `buffers` (all may be written) and return them as they are afterwards.

    The kernel is called for each thread in turn, so `threads` checks how work is divided and not races.
    The scratch buffer has `scratch_bytes` for each thread. Raises CalledProcessError where the program dies.
    """
    qemu = emulator(linked.machine)
    if qemu is None:
        raise RuntimeError(f"qemu-{linked.machine} is not installed")
    start = _start_code(linked.machine)
    start_at = -(-len(linked.code) // 4096) * 4096
    code = linked.code.ljust(start_at, b"\0") + start.code
    image, places = _image(linked, symbol, buffers, dims, threads, scratch_bytes)
    entry = CODE + start_at + start.symbols["_start"]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "kernel")
        with open(path, "wb") as file:
            file.write(executable(linked.machine, code, entry, len(image)))
        os.chmod(path, 0o755)
        done = subprocess.run([qemu, path], input=image, capture_output=True, check=True)
    if len(done.stdout) != len(image):
        raise RuntimeError(f"{len(done.stdout)} of {len(image)} bytes written: {done.stderr!r}")
    return [
        np.frombuffer(done.stdout, b.dtype, b.size, offset=at).reshape(b.shape).copy()
        for b, at in zip(buffers, places, strict=True)
    ]


def executable(machine: str, code: bytes, entry: int, data_size: int) -> bytes:
    """A static ELF executable: `code` at CODE, `data_size` bytes of zeros at DATA."""
    header_size, program_header_size, page = 64, 56, 0x10000
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        2,
        _MACHINES[machine][0],
        1,
        entry,
        header_size,
        0,
        0,
        header_size,
        program_header_size,
        2,
        0,
        0,
        0,
    )
    text = struct.pack("<IIQQQQQQ", 1, 5, page, CODE, CODE, len(code), len(code), page)
    data = struct.pack("<IIQQQQQQ", 1, 6, 0, DATA, DATA, 0, data_size, page)
    return (header + text + data).ljust(page, b"\0") + code


def _start_code(machine: str) -> LinkedCode:
    read, write, leave = _CALLS[machine]
    source = _START
    for name, value in (
        ("READ", read), ("WRITE", write), ("EXIT", leave), ("DATA", DATA), ("HEADER", 8 * HEADER_WORDS)
    ):  # fmt: skip
        source = source.replace(f"i64 {name}", f"i64 {value}").replace(f", {name}", f", {value}")
    code = bytes.fromhex(SYSTEM_CALLS[machine])
    text = "".join(f"\\{byte:02x}" for byte in code)
    source = source.replace(
        "declare i64 @system(i64, i64, i64, i64, i64)",
        f'@system = internal unnamed_addr constant [{len(code)} x i8] c"{text}", align 16',
    )
    return link([compile_ir(source, _MACHINES[machine][1])])


def _image(
    linked: LinkedCode,
    symbol: str,
    buffers: Sequence[np.ndarray],
    dims: Sequence[int],
    threads: int,
    scratch_bytes: int,
) -> tuple[bytes, list[int]]:
    """The data segment (header, pointers, dims, buffers, scratch), and where each buffer lies in it."""
    pointers_at = 8 * HEADER_WORDS
    dims_at = pointers_at + 8 * (len(buffers) + 1)
    end = dims_at + 8 * len(dims)
    places = []
    for size in [*(b.nbytes for b in buffers), scratch_bytes * threads]:
        end = -(-end // 64) * 64
        places.append(end)
        end += size
    image = bytearray(end + 64)
    header = (len(image), CODE + linked.symbols[symbol], DATA + pointers_at, DATA + dims_at, threads, 0)
    struct.pack_into(f"<{HEADER_WORDS}Q", image, 0, *header)
    struct.pack_into(f"<{len(places)}Q", image, pointers_at, *(DATA + at for at in places))
    struct.pack_into(f"<{len(dims)}q", image, dims_at, *dims)
    for buffer, at in zip(buffers, places, strict=False):
        image[at : at + buffer.nbytes] = np.ascontiguousarray(buffer).tobytes()
    return bytes(image), places[:-1]
