"""Objects become one blob: every kind of reference, checked by running the code."""

import ctypes
import mmap
import struct

import numpy as np
import pytest

from egc.codegen.link import LinkedCode, link
from egc.codegen.runtime_ir import support_ir
from egc.errors import CompileError
from tests.support.elf_exec import emulator, run_under_qemu
from tests.support.native import ARM, HOST, X86, compile_ir

# One kernel that needs constants, a table of jumps, an address from a global offset table, a call into
# another object and the memory functions. It reads n float32 from buffer 0 and writes to buffer 1.
KERNEL = """
@table = constant [4 x float] [float 1.0, float 2.0, float 3.0, float 4.0]
@private = internal constant [4 x float] [float 10.0, float 20.0, float 30.0, float 40.0]
@first = internal constant [65 x i8] zeroinitializer
declare float @helper(float, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)

define i64 @pick(i64 %i) noinline {
  switch i64 %i, label %other [ i64 0, label %a
                                i64 1, label %b
                                i64 2, label %c
                                i64 3, label %d ]
a:
  %va = call float @helper(float 1.0, i64 0)
  %ia = fptosi float %va to i64
  ret i64 %ia
b:
  ret i64 5
c:
  %vc = call float @helper(float 2.0, i64 1)
  %ic = fptosi float %vc to i64
  ret i64 %ic
d:
  ret i64 7
other:
  ret i64 -1
}

define void @kernel(ptr %buffers, ptr %dims, i64 %thread, i64 %threads) {
entry:
  %in = load ptr, ptr %buffers
  %out.at = getelementptr ptr, ptr %buffers, i64 1
  %out = load ptr, ptr %out.at
  %n = load i64, ptr %dims
  %bytes = mul i64 %n, 4
  call void @llvm.memset.p0.i64(ptr %out, i8 0, i64 %bytes, i1 false)
  %shift = getelementptr i8, ptr %in, i64 4
  %less = sub i64 %bytes, 4
  call void @llvm.memmove.p0.p0.i64(ptr %shift, ptr %in, i64 %less, i1 false)
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %k = and i64 %i, 3
  %x.at = getelementptr float, ptr %in, i64 %i
  %x = load float, ptr %x.at
  %t.at = getelementptr float, ptr @table, i64 %k
  %t = load float, ptr %t.at
  %p.at = getelementptr float, ptr @private, i64 %k
  %p = load float, ptr %p.at
  %h = call float @helper(float %x, i64 %k)
  %picked = call i64 @pick(i64 %k)
  %pf = sitofp i64 %picked to float
  %s1 = fadd float %t, %p
  %s2 = fadd float %s1, %h
  %s3 = fadd float %s2, %pf
  %y.at = getelementptr float, ptr %out, i64 %i
  store float %s3, ptr %y.at
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""
HELPER = """
@more = constant [4 x float] [float 100.0, float 200.0, float 300.0, float 400.0]
define float @helper(float %x, i64 %k) noinline {
  %m.at = getelementptr float, ptr @more, i64 %k
  %m = load float, ptr %m.at
  %y = fmul float %x, 3.5
  %z = fadd float %y, %m
  ret float %z
}
"""


def expected(x: np.ndarray) -> np.ndarray:
    moved = np.concatenate([x[:1], x[:-1]])
    k = np.arange(x.size) % 4
    picked = np.array([103, 5, 207, 7], np.float32)
    return ((k + 1) + 10 * (k + 1) + moved * 3.5 + 100 * (k + 1) + picked[k]).astype(np.float32)


def linked(triple: str, relocation: str = "pic") -> LinkedCode:
    sources = (KERNEL, HELPER)
    return link(
        [compile_ir(s, triple, relocation=relocation) for s in sources],
        [compile_ir(support_ir(triple), triple)],
    )


def call_here(code: LinkedCode, symbol: str, *arguments: object) -> None:
    memory = mmap.mmap(-1, len(code.code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code.code)
    anchor = (ctypes.c_char * len(code.code)).from_buffer(memory)
    address = ctypes.addressof(anchor) + code.symbols[symbol]
    ctypes.CFUNCTYPE(None, *[type(a) for a in arguments])(address)(*arguments)


def test_every_reference_resolves() -> None:
    code = linked(HOST)
    x = np.arange(37, dtype=np.float32)
    want, y = expected(x), np.full(37, np.nan, np.float32)
    buffers = (ctypes.c_void_p * 2)(x.ctypes.data, y.ctypes.data)
    dims = (ctypes.c_int64 * 1)(37)
    zero = ctypes.c_int64(0)
    call_here(code, "kernel", ctypes.c_void_p(ctypes.addressof(buffers)),
              ctypes.c_void_p(ctypes.addressof(dims)), zero, ctypes.c_int64(1))  # fmt: skip
    np.testing.assert_array_equal(y, want)


@pytest.mark.parametrize("triple", [X86, ARM])
def test_every_reference_resolves_under_qemu(triple: str) -> None:
    if emulator(triple.split("-")[0]) is None:
        pytest.skip("qemu-user is not installed")
    x = np.arange(37, dtype=np.float32)
    _, y = run_under_qemu(linked(triple), "kernel", [x, np.zeros_like(x)], [37])
    np.testing.assert_array_equal(y, expected(x))


@pytest.mark.parametrize("triple", [X86, ARM])
def test_equal_objects_give_equal_bytes(triple: str) -> None:
    assert linked(triple) == linked(triple)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 200, 4096])
@pytest.mark.parametrize("shift", [-70, -1, 0, 1, 3, 64, 100])
def test_memmove_of_overlapping_bytes(size: int, shift: int) -> None:
    code = link([compile_ir(support_ir(HOST))])
    data = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8)
    want = data.copy()
    want[100 + shift : 100 + shift + size] = data[100 : 100 + size]
    base = data.ctypes.data
    target, source = ctypes.c_void_p(base + 100 + shift), ctypes.c_void_p(base + 100)
    call_here(code, "memmove", target, source, ctypes.c_int64(size))
    np.testing.assert_array_equal(data, want)


def test_memory_functions_do_not_call_themselves() -> None:
    code = link([compile_ir(support_ir(X86), X86)])
    # A call inside memcpy or memset could only go to one of the three.
    ends = sorted([*code.symbols.values(), len(code.code)])
    for name in ("memcpy", "memset"):
        start = code.symbols[name]
        body = code.code[start : ends[ends.index(start) + 1]]
        for at in range(len(body) - 5):
            if body[at] == 0xE8 or body[at] == 0xE9:
                target = start + at + 5 + struct.unpack_from("<i", body, at + 1)[0]
                assert target not in code.symbols.values()


def test_library_objects_come_only_where_wanted() -> None:
    plain = compile_ir("define i64 @one() { ret i64 1 }")
    assert list(link([plain], [compile_ir(support_ir(HOST))]).symbols) == ["one"]


def test_undefined_symbols_are_named_together() -> None:
    source = """
    declare float @fmodf(float, float)
    declare void @nowhere()
    define float @f(float %a) { call void @nowhere()
      %r = frem float %a, 3.0
      ret float %r }
    """
    with pytest.raises(CompileError, match="undefined: fmodf, nowhere"):
        link([compile_ir(source)])


def test_two_definitions_are_refused() -> None:
    source = "define i64 @one() { ret i64 1 }"
    with pytest.raises(CompileError, match="one is defined twice"):
        link([compile_ir(source), compile_ir(source + "\n")])


@pytest.mark.parametrize(
    "source",
    [
        "@counter = global i64 3\ndefine ptr @f() { ret ptr @counter }",
        "@space = global [100 x i64] zeroinitializer\ndefine ptr @f() { ret ptr @space }",
        "@table = constant [1 x ptr] [ptr @f]\ndefine ptr @f() { ret ptr @table }",
    ],
)
def test_writable_data_and_addresses_are_refused(source: str) -> None:
    with pytest.raises(CompileError, match="it can hold no writable data"):
        link([compile_ir(source)])


def test_position_dependent_code_is_refused() -> None:
    with pytest.raises(CompileError, match="not position independent"):
        linked(X86, relocation="static")


def test_mixed_machines_are_refused() -> None:
    source = "define i64 @one() { ret i64 1 }"
    with pytest.raises(CompileError, match=r"objects for \['aarch64', 'x86_64'\]"):
        link([compile_ir(source, X86), compile_ir("define i64 @two() { ret i64 1 }", ARM)])


@pytest.mark.parametrize("cut", [0, 10, 64, 200, -1])
def test_malformed_objects_are_refused(cut: int) -> None:
    with pytest.raises(CompileError, match="cannot link"):
        link([compile_ir(KERNEL)[:cut]])
