"""Reads what the linker needs of an ELF64 little-endian object: sections, symbols, relocations.

Source: the System V ABI (gabi 4.1, chapters 4 and 5) and the psABI supplements of x86-64 and AArch64. Only
what LLVM writes into an object is read; anything else is an error, never skipped silently.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from egc.errors import CompileError

MACHINES = {62: "x86_64", 183: "aarch64"}

_SHT_SYMTAB, _SHT_RELA, _SHT_NOBITS, _SHT_REL = 2, 4, 8, 9
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR = 1, 2, 4
_SHN_UNDEF, _SHN_ABS, _SHN_COMMON = 0, 0xFFF1, 0xFFF2
_STB_LOCAL, _STB_WEAK = 0, 2
_STT_FILE = 4

_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")


class LinkError(CompileError):
    """The generated code cannot be made into one position-independent blob."""

    def __init__(self, why: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__("cannot link the generated code", where=where, why=why, hint=hint)


class Relocation(Struct, frozen=True):
    """Patch the bytes at `offset` of its section with a value made of symbol number `symbol` and `addend`."""

    offset: int
    type: int
    symbol: int
    addend: int


class Section(Struct, frozen=True):
    """A section that is part of the program: its bytes, its alignment in bytes, its relocations."""

    name: str
    data: bytes
    alignment: int
    executable: bool
    relocations: tuple[Relocation, ...]


class Symbol(Struct, frozen=True):
    """A symbol; `section` is a key of `ElfObject.sections`, or None where the symbol is defined elsewhere."""

    name: str
    section: int | None
    value: int
    is_local: bool
    is_weak: bool


class ElfObject(Struct, frozen=True):
    """One object; `machine` is `x86_64` or `aarch64`; sections are keyed by their index in the file."""

    machine: str
    sections: dict[int, Section]
    symbols: tuple[Symbol, ...]


class _Header(Struct, frozen=True):
    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int


def read_object(data: bytes) -> ElfObject:
    """Read one object; LinkError where it is none, or holds writable data, which code cannot have."""
    try:
        return _read_object(data)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise LinkError(f"the object file is malformed ({error})") from None


def _read_object(data: bytes) -> ElfObject:
    if data[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", data, 16)[0] != 1:
        raise LinkError("not an ELF64 little-endian relocatable object")
    (machine,) = struct.unpack_from("<H", data, 18)
    if machine not in MACHINES:
        raise LinkError(f"unknown ELF machine {machine}")
    headers = _headers(data)
    kept = {i: h for i, h in enumerate(headers) if _is_loaded(h)}
    relocations: dict[int, list[Relocation]] = {i: [] for i in kept}
    for header in headers:
        if header.type == _SHT_REL:
            raise LinkError("relocations without addends (SHT_REL)")
        if header.type == _SHT_RELA and header.info in kept:
            for offset, info, addend in _RELA.iter_unpack(data[header.offset : header.offset + header.size]):
                relocations[header.info].append(Relocation(offset, info & 0xFFFFFFFF, info >> 32, addend))
    sections = {
        i: Section(
            h.name,
            data[h.offset : h.offset + h.size],
            max(1, h.alignment),
            bool(h.flags & _SHF_EXECINSTR),
            tuple(relocations[i]),
        )
        for i, h in kept.items()
    }
    return ElfObject(MACHINES[machine], sections, _symbols(data, headers))


def _headers(data: bytes) -> list[_Header]:
    (table,) = struct.unpack_from("<Q", data, 40)
    count, names_index = struct.unpack_from("<HH", data, 60)
    raw = [_SECTION_HEADER.unpack_from(data, table + i * _SECTION_HEADER.size) for i in range(count)]
    names = raw[names_index][4]
    return [
        _Header(_text(data, names + name), type_, flags, offset, size, link, info, alignment)
        for name, type_, flags, _address, offset, size, link, info, alignment, _entry in raw
    ]


def _is_loaded(header: _Header) -> bool:
    """Whether the section belongs into the blob: code and read-only data do, unwind tables do not."""
    if not header.flags & _SHF_ALLOC or header.name.startswith((".eh_frame", ".note")) or header.size == 0:
        return False
    if header.flags & _SHF_WRITE or header.type == _SHT_NOBITS:
        raise LinkError(
            where=f"section {header.name} ({header.size} bytes)",
            why="the code is mapped read-only and shared between threads, so it can hold no writable data "
            "and no table of absolute addresses",
        )
    return True


def _symbols(data: bytes, headers: list[_Header]) -> tuple[Symbol, ...]:
    symbols: list[Symbol] = []
    for header in headers:
        if header.type != _SHT_SYMTAB:
            continue
        names = headers[header.link].offset
        rows = _SYMBOL.iter_unpack(data[header.offset : header.offset + header.size])
        for name, info, _other, index, value, _size in rows:
            text = _text(data, names + name)
            if index == _SHN_COMMON or (index == _SHN_ABS and info & 15 != _STT_FILE):
                raise LinkError("common or absolute symbol", where=f"symbol {text}")
            section = None if index in (_SHN_UNDEF, _SHN_ABS) else index
            binding = info >> 4
            symbols.append(Symbol(text, section, value, binding == _STB_LOCAL, binding == _STB_WEAK))
    return tuple(symbols)


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode()
