"""The relocations of x86-64 and AArch64 that position-independent LLVM output holds, applied within one blob.

Every value is a distance inside the blob, so the result runs wherever its first byte lies on a 4096-byte
boundary (AArch64 addresses data by page and offset in page). Loads of an address from a global offset table
become the address computation itself, so no table and no patching at load time is needed.

Names and formulas: the x86-64 psABI 1.0 §4.4 and B.2 (relaxation), ELF for the Arm 64-bit Architecture §5.7.
S is the symbol, A the addend, P the place, all as offsets in the blob.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from egc.codegen.elf import LinkError

Patch = Callable[[bytearray, int, int, int], None]


def relocate(machine: str, type_: int, code: bytearray, place: int, symbol: int, addend: int) -> None:
    """Patch `code` in place; LinkError for a type that needs absolute addresses, or a distance too far."""
    patch = _PATCHES[machine].get(type_)
    if patch is None:
        raise LinkError(
            f"relocation type {type_} of {machine} is not position independent; compile with reloc='pic' "
            "and the small code model, and keep addresses out of constants"
        )
    patch(code, place, symbol, addend)


def _store_signed(width: int) -> Patch:
    """S + A − P, stored in `width` bytes."""
    fmt = {2: "<h", 4: "<i", 8: "<q"}[width]

    def patch(code: bytearray, place: int, symbol: int, addend: int) -> None:
        value = symbol + addend - place
        _check_reach(value, 8 * width)
        struct.pack_into(fmt, code, place, value)

    return patch


def _check_reach(value: int, bits: int, scale: int = 1) -> None:
    if value % scale or not -(1 << (bits - 1)) <= value // scale < 1 << (bits - 1):
        raise LinkError(f"a distance of {value} bytes does not fit {bits} bits; split the code")


def _x86_load_from_got(code: bytearray, place: int, symbol: int, addend: int) -> None:
    """G + GOT + A − P: the instruction reads an address from a table; rewrite it to compute the address."""
    opcode, modrm = code[place - 2], code[place - 1]
    value = symbol + addend - place
    _check_reach(value, 32)
    if opcode == 0x8B:  # mov reg, [rip+x]  →  lea reg, [rip+x]
        code[place - 2] = 0x8D
    elif opcode == 0xFF and modrm == 0x15:  # call [rip+x]  →  addr32 call x
        code[place - 2 : place] = b"\x67\xe8"
    elif opcode == 0xFF and modrm == 0x25:  # jmp [rip+x]  →  jmp x; nop: the operand begins one byte earlier
        code[place - 2] = 0xE9
        struct.pack_into("<i", code, place - 1, value + 1)
        code[place + 3] = 0x90
        return
    else:
        raise LinkError(f"no relaxation for the instruction with opcode {opcode:#x} {modrm:#x}")
    struct.pack_into("<i", code, place, value)


def _arm_field(low_bit: int, bits: int, scale: int) -> Patch:
    """S + A − P in an instruction field of `bits` bits from `low_bit`, in units of `scale` bytes."""

    def patch(code: bytearray, place: int, symbol: int, addend: int) -> None:
        value = symbol + addend - place
        _check_reach(value, bits, scale)
        _arm_insert(code, place, value // scale, low_bit, bits)

    return patch


def _arm_insert(code: bytearray, place: int, value: int, low_bit: int, bits: int) -> None:
    (word,) = struct.unpack_from("<I", code, place)
    mask = ((1 << bits) - 1) << low_bit
    struct.pack_into("<I", code, place, (word & ~mask & 0xFFFFFFFF) | ((value << low_bit) & mask))


def _arm_adr(code: bytearray, place: int, symbol: int, addend: int) -> None:
    """ADR: S + A − P in immhi:immlo."""
    _arm_insert_split(code, place, symbol + addend - place)


def _arm_adrp(code: bytearray, place: int, symbol: int, addend: int) -> None:
    """ADRP: Page(S + A) − Page(P), in pages of 4096 bytes."""
    _arm_insert_split(code, place, ((symbol + addend) >> 12) - (place >> 12))


def _arm_insert_split(code: bytearray, place: int, value: int) -> None:
    _check_reach(value, 21)
    _arm_insert(code, place, value & 3, 29, 2)
    _arm_insert(code, place, value >> 2, 5, 19)


def _arm_low12(scale: int) -> Patch:
    """(S + A) & 0xFFF in the unsigned 12-bit immediate of ADD, or of a load or store of `scale` bytes."""

    def patch(code: bytearray, place: int, symbol: int, addend: int) -> None:
        low = (symbol + addend) & 0xFFF
        if low % scale:
            raise LinkError(f"a {scale}-byte load of data at offset {symbol + addend}, which is not aligned")
        _arm_insert(code, place, low // scale, 10, 12)

    return patch


def _arm_load_from_got(code: bytearray, place: int, symbol: int, addend: int) -> None:
    """LDR Xt, [Xn, :got_lo12:S] becomes ADD Xt, Xn, :lo12:S; its ADRP then names the page of S itself."""
    (word,) = struct.unpack_from("<I", code, place)
    if word & 0xFFC00000 != 0xF9400000:
        raise LinkError(f"no relaxation for the instruction {word:#010x}")
    struct.pack_into("<I", code, place, 0x91000000 | (word & 0x3FF))
    _arm_insert(code, place, (symbol + addend) & 0xFFF, 10, 12)


_X86: dict[int, Patch] = {
    2: _store_signed(4),  # R_X86_64_PC32
    4: _store_signed(4),  # R_X86_64_PLT32
    9: _x86_load_from_got,  # R_X86_64_GOTPCREL
    24: _store_signed(8),  # R_X86_64_PC64
    41: _x86_load_from_got,  # R_X86_64_GOTPCRELX
    42: _x86_load_from_got,  # R_X86_64_REX_GOTPCRELX
}

_AARCH64: dict[int, Patch] = {
    260: _store_signed(8),  # R_AARCH64_PREL64
    261: _store_signed(4),  # R_AARCH64_PREL32
    262: _store_signed(2),  # R_AARCH64_PREL16
    273: _arm_field(5, 19, 4),  # R_AARCH64_LD_PREL_LO19
    274: _arm_adr,  # R_AARCH64_ADR_PREL_LO21
    275: _arm_adrp,  # R_AARCH64_ADR_PREL_PG_HI21
    276: _arm_adrp,  # R_AARCH64_ADR_PREL_PG_HI21_NC
    277: _arm_low12(1),  # R_AARCH64_ADD_ABS_LO12_NC
    278: _arm_low12(1),  # R_AARCH64_LDST8_ABS_LO12_NC
    279: _arm_field(5, 14, 4),  # R_AARCH64_TSTBR14
    280: _arm_field(5, 19, 4),  # R_AARCH64_CONDBR19
    282: _arm_field(0, 26, 4),  # R_AARCH64_JUMP26
    283: _arm_field(0, 26, 4),  # R_AARCH64_CALL26
    284: _arm_low12(2),  # R_AARCH64_LDST16_ABS_LO12_NC
    285: _arm_low12(4),  # R_AARCH64_LDST32_ABS_LO12_NC
    286: _arm_low12(8),  # R_AARCH64_LDST64_ABS_LO12_NC
    299: _arm_low12(16),  # R_AARCH64_LDST128_ABS_LO12_NC
    311: _arm_adrp,  # R_AARCH64_ADR_GOT_PAGE
    312: _arm_load_from_got,  # R_AARCH64_LD64_GOT_LO12_NC
    314: _store_signed(4),  # R_AARCH64_PLT32
}

_PATCHES: dict[str, dict[int, Patch]] = {"x86_64": _X86, "aarch64": _AARCH64}
