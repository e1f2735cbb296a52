"""Relocatable objects in, one flat position-independent blob of code out, ready to be mapped and called.

There is no loader at run time: every reference is resolved here, and what cannot be resolved is an error that
names it. Code comes first, then read-only data, in the order of the objects: equal objects give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from egc.codegen.elf import ElfObject, LinkError, Section, Symbol, read_object
from egc.codegen.relocate import relocate

# A function never shares a cache line with the end of another; data gets what the widest vector load wants.
_MIN_ALIGNMENT = 64


class LinkedCode(Struct, frozen=True):
    """A blob to be placed on a page boundary; `symbols`: the offset of each global symbol, sorted by name."""

    machine: str
    code: bytes
    symbols: dict[str, int]


class _Placed(Struct, frozen=True):
    """A section and where it lies: `owner` is the number of its object, `index` its section number there."""

    owner: int
    index: int
    section: Section
    offset: int


def link(objects: Sequence[bytes], provide: Sequence[bytes] = ()) -> LinkedCode:
    """Link ELF64 objects of one machine into a blob.

    `provide` is a library: each of its objects is linked in only where it defines a symbol still missing.
    LinkError names every symbol that stays undefined or is defined twice, and refuses writable data.
    """
    chosen = _select([read_object(data) for data in objects], [read_object(data) for data in provide])
    machines = {obj.machine for obj in chosen}
    if len(machines) != 1:
        raise LinkError(f"objects for {sorted(machines) or 'nothing'}")
    placed = _layout(chosen)
    code = bytearray(placed[-1].offset + len(placed[-1].section.data) if placed else 0)
    for part in placed:
        code[part.offset : part.offset + len(part.section.data)] = part.section.data
    bases = {(part.owner, part.index): part.offset for part in placed}
    globals_ = _global_offsets(chosen, bases)
    machine = machines.pop()
    for part in placed:
        _apply(machine, code, part, chosen[part.owner], bases, globals_)
    return LinkedCode(machine, bytes(code), dict(sorted(globals_.items())))


def _select(objects: list[ElfObject], library: list[ElfObject]) -> list[ElfObject]:
    """The objects, and those of the library that they need, and those that these need in turn."""
    chosen, rest = list(objects), list(library)
    while True:
        missing = _undefined(chosen)
        found = next((obj for obj in rest if missing & set(_defined(obj))), None)
        if found is None:
            break
        rest.remove(found)
        chosen.append(found)
    if missing:
        raise LinkError(
            f"undefined: {', '.join(sorted(missing))}",
            hint="LLVM called a library function that egc does not provide; lower the operation to IR",
        )
    return chosen


def _defined(obj: ElfObject) -> Iterable[str]:
    return (s.name for s in obj.symbols if s.section is not None and not s.is_local)


def _undefined(objects: list[ElfObject]) -> set[str]:
    wanted = {s.name for obj in objects for s in obj.symbols if s.section is None and not s.is_local}
    return wanted - {name for obj in objects for name in _defined(obj)}


def _layout(objects: list[ElfObject]) -> list[_Placed]:
    parts = [(i, j, section) for i, obj in enumerate(objects) for j, section in sorted(obj.sections.items())]
    placed: list[_Placed] = []
    end = 0
    for owner, index, section in sorted(parts, key=lambda part: not part[2].executable):
        alignment = max(section.alignment, _MIN_ALIGNMENT)
        if alignment > 4096:
            raise LinkError(f"{section.name} is aligned to {alignment}")
        end = -(-end // alignment) * alignment
        placed.append(_Placed(owner, index, section, end))
        end += len(section.data)
    return placed


def _global_offsets(objects: list[ElfObject], bases: dict[tuple[int, int], int]) -> dict[str, int]:
    offsets: dict[str, int] = {}
    strong: set[str] = set()
    for owner, obj in enumerate(objects):
        for symbol in obj.symbols:
            if symbol.is_local or symbol.section is None:
                continue
            if symbol.name in strong and not symbol.is_weak:
                raise LinkError(f"{symbol.name} is defined twice")
            base = bases.get((owner, symbol.section))
            if base is None:
                raise LinkError(f"{symbol.name} lies in no loaded section")
            if not symbol.is_weak:
                strong.add(symbol.name)
                offsets[symbol.name] = base + symbol.value
            else:
                offsets.setdefault(symbol.name, base + symbol.value)
    return offsets


def _apply(
    machine: str,
    code: bytearray,
    part: _Placed,
    obj: ElfObject,
    bases: dict[tuple[int, int], int],
    globals_: dict[str, int],
) -> None:
    for relocation in part.section.relocations:
        symbol = obj.symbols[relocation.symbol]
        target = _offset_of(symbol, part.owner, bases, globals_)
        place = part.offset + relocation.offset
        try:
            relocate(machine, relocation.type, code, place, target, relocation.addend)
        except LinkError as error:
            where = f"{part.section.name}+{relocation.offset:#x}, symbol {symbol.name or 'of a section'}"
            raise LinkError(str(error.why), where=where) from None


def _offset_of(
    symbol: Symbol, owner: int, bases: dict[tuple[int, int], int], globals_: dict[str, int]
) -> int:
    if not symbol.is_local:
        return globals_[symbol.name]
    if symbol.section is None or (owner, symbol.section) not in bases:
        raise LinkError(f"{symbol.name!r} lies in no loaded section")
    return bases[owner, symbol.section] + symbol.value
