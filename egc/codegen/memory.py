"""Addresses, loads and stores: index polynomials over axes become pointers and vector accesses.

The address of an access is a polynomial over loop counters once the axes' positions are put in. What its
coefficient of the lane number is decides the access: 0 one element for all lanes, 1 a contiguous vector,
anything else a gather.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from egc.codegen.builder import Builder, Lines, Value, mangle
from egc.codegen.indices import affine, from_terms, sym, terms
from egc.codegen.scalars import Scalars, memory_type
from egc.codegen.storage import Storage
from egc.errors import CompileError
from egc.ir.dims import Call, Dim, SymDim, floordiv, mod, substitute, symbols_of
from egc.ir.expr import Const, Expr, IndexExpr
from egc.ir.kernel import Kernel
from egc.ir.nest import Pack
from egc.ir.simplify import bounds, is_nonnegative, simplify
from egc.ir.types import itemsize

LANE = "_lane"
_LANE_SET = frozenset([LANE])
_FILL_BYTES = 32 << 10  # the most stack that stands in for elements outside a guard


class Position(Struct, frozen=True, eq=False):
    """Where an axis stands: a polynomial over counters (over LANE too, where it has lanes). `mask` says
    which lanes are inside the extent, `valid` whether a scalar position is (None: all are).
    """

    dim: Dim
    lanes: int = 1
    mask: Value | None = None
    valid: Value | None = None


class Access(Struct, frozen=True, eq=False):
    """A place in a buffer: its row-major element number over axes, with a symbol for each indirect index."""

    buffer: str
    dtype: str
    flat: Dim
    indirect: tuple[tuple[str, Expr], ...]
    padded_axes: frozenset[str] = frozenset()  # axes along which reading past the extent is harmless


class Memory(Struct):
    """The buffers of a kernel while its code is written. `values` binds symbols; `ranges` has the extents of
    counters, as egc.ir.simplify wants them."""

    b: Builder
    scalars: Scalars
    kernel: Kernel
    storages: Mapping[str, Storage]
    packs: Mapping[str, Pack]
    fetched: frozenset[str] = frozenset()
    pointers: dict[str, Value] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    ranges: dict[str, Dim] = field(default_factory=dict)
    # Symbols that stand for other dims: where tiles start.
    aliases: dict[str, Dim] = field(default_factory=dict)
    fills: dict[tuple[str, str], tuple[str, list[int], Lines]] = field(default_factory=dict)
    load_level: int = 0  # loads stay inside this region: the stage that they belong to

    # Symbols.

    def bind(self, stem: str, value: Value, extent: Dim | None = None) -> SymDim:
        """A new symbol that stands for `value`, which is not negative, and less than `extent` where that
        is given.
        """
        name = f"_{stem}_{self.b.name()}"
        self.values[name] = value
        if extent is not None:
            self.ranges[name] = extent
        return sym(name)

    def bind_lanes(self, lanes: int) -> None:
        """Let LANE stand for 0 … lanes - 1."""
        self.values[LANE] = self.b.lane_numbers(lanes)
        self.ranges[LANE] = lanes

    def settle(self, dim: Dim, point: Mapping[str, Position]) -> Dim:
        """`dim` over counters: the axes' positions put in, floordiv and mod opened where possible."""
        if isinstance(dim, int):
            return dim
        env = {name: point[name].dim for name in symbols_of(dim) if name in point}
        env.update({name: start for name, start in self.aliases.items() if name not in env})
        return simplify(substitute(dim, env), self.ranges)

    # Values of polynomials.

    def value(self, dim: Dim) -> Value:
        """The i64 value of a settled dim; a vector where it varies over lanes. What is known further out is
        summed first, so that it is computed there.
        """
        b = self.b
        if isinstance(dim, int):
            return b.i64(dim)
        products = [self._product(monomial, coefficient) for monomial, coefficient in dim.terms]
        total: Value | None = None
        for product in sorted(products, key=lambda v: (v.lanes, v.level)):
            total = product if total is None else b.add(total, product)
        assert total is not None
        return total

    def _product(self, monomial: tuple[str | Call, ...], coefficient: int) -> Value:
        b = self.b
        factors = [self.values[a] if isinstance(a, str) else self._call(a) for a in monomial]
        total = b.i64(coefficient)
        for factor in sorted(factors, key=lambda v: (v.lanes, v.level)):
            total = b.mul(total, factor)
        return total

    def _call(self, atom: Call) -> Value:
        b = self.b
        x, y = self.value(atom.args[0]), self.value(atom.args[1])
        if atom.fn in ("min", "max"):
            return b.call(f"s{atom.fn}", x, y)
        divisor = atom.args[1]
        if isinstance(divisor, int) and divisor > 0 and divisor & (divisor - 1) == 0:
            if atom.fn == "floordiv":
                return b.binary("ashr", x, b.i64(divisor.bit_length() - 1))
            return b.binary("and", x, b.i64(divisor - 1))
        if not isinstance(divisor, int):
            # Extents may be 0 in a loop that never runs, out of which this may have been moved.
            y = b.call("umax", y, b.i64(1))
        if is_nonnegative(atom.args[0], self.ranges):
            return b.binary("udiv" if atom.fn == "floordiv" else "urem", x, y)
        quotient, remainder = b.binary("sdiv", x, y), b.binary("srem", x, y)
        negative = b.compare("icmp slt", remainder, b.i64(0))
        if atom.fn == "mod":
            return b.select(negative, b.add(remainder, y), remainder)
        return b.add(quotient, b.convert("sext", negative, "i64"))

    # Accesses.

    def access(self, buffer: str, index: tuple[IndexExpr, ...]) -> Access:
        """The element number of `buffer[index]` in memory."""
        kind = self.kernel.buffer[buffer].type
        shape: tuple[Dim, ...] = kind.shape
        if buffer in self.storages:
            storage = self.storages[buffer]
            shape, index = storage.shape, storage.index(index)
        indirect: list[tuple[str, Expr]] = []
        plain: list[Dim] = []
        for one in index:
            if isinstance(one, int | SymDim):
                plain.append(one)
            else:
                indirect.append((f"_indirect{len(indirect)}", one))
                plain.append(sym(indirect[-1][0]))
        padded: frozenset[str] = frozenset()
        if pack := self.packs.get(buffer):
            cut = plain.pop(pack.dim)
            plain = [floordiv(cut, pack.block), *plain, mod(cut, pack.block)]
            shape = pack.physical_shape(shape)
            names = symbols_of(cut)
            padded = names if cut in [sym(name) for name in names] else padded
        flat: Dim = 0
        for position, extent in zip(plain, shape, strict=True):
            flat = flat * extent + position
        return Access(buffer, kind.dtype, flat, tuple(indirect), padded)

    def load(
        self,
        access: Access,
        flat: Dim,
        lanes: int,
        mask: Value | None,
        guard: Value | None,
        other: Const | None,
    ) -> Value:
        """The elements of `access` at the settled element number `flat`, in registers.

        `mask` says which lanes may be read; where the scalar `guard` or the mask fails the value is `other`
        (or anything).
        """
        b = self.b
        memory = memory_type(access.dtype)
        fallback = self._fallback(access.dtype, other)
        varying = any(self.values[name].lanes > 1 for name in symbols_of(flat))
        parts = affine(flat, _LANE_SET) if varying else {"": flat}
        contiguous = parts is not None and parts.get(LANE, 0) == 1 and not self._vectors(parts[""])
        least = max(b.load_level, self.load_level)
        if not varying and mask is None:
            pointer = self._pointer(access, flat, guard, fallback, 1)
            raw = b.pure(f"load {memory}, {pointer}, align {_align(access)}", memory, 1, pointer, least=least)
        elif contiguous and mask is None:
            assert parts is not None
            pointer = self._pointer(access, parts[""], guard, fallback, lanes)
            text = f"load <{lanes} x {memory}>, {pointer}, align {_align(access)}"
            raw = b.pure(text, memory, lanes, pointer, least=least)
        else:
            if mask is None:
                mask = b.const(True, "i1", lanes)
            if guard is not None:
                mask = b.binary("and", guard, mask)
            raw = self._masked(access, flat, parts if contiguous else None, lanes, mask, fallback, least)
        return self.scalars.from_memory(raw, access.dtype)

    def _masked(
        self,
        access: Access,
        flat: Dim,
        parts: Mapping[str, Dim] | None,
        lanes: int,
        mask: Value,
        fallback: Value,
        least: int,
    ) -> Value:
        b = self.b
        memory = memory_type(access.dtype)
        vector = f"<{lanes} x {memory}>"
        fallback, mask = b.splat(fallback, lanes), b.splat(mask, lanes)
        if parts is not None:
            pointer = self._pointer(access, parts[""], None, fallback, lanes)
            name, kind = f"llvm.masked.load.{mangle(memory, lanes)}.p0", "ptr"
        else:
            pointer = self._gather_pointer(access, flat, lanes)
            name, kind = f"llvm.masked.gather.{mangle(memory, lanes)}.v{lanes}p0", f"<{lanes} x ptr>"
        b.declare(name, vector, kind, f"<{lanes} x i1>", vector)
        text = f"call {vector} @{name}({kind} align {_align(access)} {pointer.ref}, {mask}, {fallback})"
        return b.pure(text, memory, lanes, pointer, mask, fallback, least=least)

    def reload(self, access: Access, flat: Dim) -> Value:
        """One element of memory that this stage itself writes: read here and now."""
        memory = memory_type(access.dtype)
        pointer = self._pointer(access, flat, None, self._fallback(access.dtype, None), 1)
        raw = self.b.inst(f"load {memory}, {pointer}, align {_align(access)}", memory)
        return self.scalars.from_memory(raw, access.dtype)

    def address(self, access: Access, flat: Dim) -> Value:
        """Where the element `flat` of an access stands."""
        return self._advance(access, self.pointers[access.buffer], flat)

    def store(self, access: Access, flat: Dim, value: Value, mask: Value | None) -> None:
        """Store registers at the settled element number `flat`, in the lanes of `mask`."""
        b = self.b
        varying = any(self.values[name].lanes > 1 for name in symbols_of(flat))
        lanes = max(value.lanes, self.values[LANE].lanes if varying and LANE in symbols_of(flat) else 1)
        raw = b.splat(self.scalars.to_memory(value, access.dtype), lanes)
        parts = affine(flat, _LANE_SET) if varying else {"": flat}
        if lanes == 1:
            pointer = self._pointer(access, flat, None, raw, 1)
            b.line(f"store {raw}, {pointer}, align {_align(access)}")
        elif not varying:
            raise CompileError(f"all lanes of a vector are stored at one element of {access.buffer}")
        elif parts is None or self._vectors(parts[""]):
            self._store_lanes(access, self._gather_pointer(access, flat, lanes), raw, mask)
        elif parts[LANE] == 1:
            self._store_contiguous(access, self._pointer(access, parts[""], None, raw, lanes), raw, mask)
        else:
            self._store_strided(access, parts, raw, mask)

    def _store_contiguous(self, access: Access, pointer: Value, raw: Value, mask: Value | None) -> None:
        b = self.b
        if mask is None:
            b.line(f"store {raw}, {pointer}, align {_align(access)}")
            return
        name = f"llvm.masked.store.{mangle(raw.elem, raw.lanes)}.p0"
        b.declare(name, "void", raw.type, "ptr", f"<{raw.lanes} x i1>")
        b.line(f"call void @{name}({raw}, ptr align {_align(access)} {pointer.ref}, {mask})")

    def _store_strided(
        self, access: Access, parts: Mapping[str, Dim], raw: Value, mask: Value | None
    ) -> None:
        """Lane by lane, each address a displacement from one pointer where the stride is known."""
        b = self.b
        if mask is not None and not mask.is_literal:
            self._store_lanes(
                access,
                self._gather_pointer(access, parts[""] + parts[LANE] * sym(LANE), raw.lanes),
                raw,
                mask,
            )
            return
        valid = raw.lanes if mask is None else mask.ref.count("true")
        for lane in range(valid):
            one = b.pure(f"extractelement {raw}, i64 {lane}", raw.elem, 1, raw)
            pointer = self._pointer(access, parts[""] + parts[LANE] * lane, None, raw, 1)
            b.line(f"store {one}, {pointer}, align {_align(access)}")

    def _store_lanes(self, access: Access, pointers: Value, raw: Value, mask: Value | None) -> None:
        b = self.b
        if mask is not None:
            name = f"llvm.masked.scatter.{mangle(raw.elem, raw.lanes)}.v{raw.lanes}p0"
            b.declare(name, "void", raw.type, pointers.type, f"<{raw.lanes} x i1>")
            align = f"{pointers.type} align {_align(access)}"
            b.line(f"call void @{name}({raw}, {align} {pointers.ref}, {mask})")
            return
        for lane in range(raw.lanes):
            one = b.pure(f"extractelement {raw}, i64 {lane}", raw.elem, 1, raw)
            pointer = b.pure(f"extractelement {pointers}, i64 {lane}", "ptr", 1, pointers)
            b.line(f"store {one}, {pointer}, align {_align(access)}")

    # Pointers.

    def _vectors(self, dim: Dim) -> bool:
        return any(self.values[name].lanes > 1 for name in symbols_of(dim))

    def _fallback(self, dtype: str, other: Const | None) -> Value:
        return self.scalars.memory_const(other.value if other is not None else 0, dtype)

    def _pointer(self, access: Access, flat: Dim, guard: Value | None, fallback: Value, lanes: int) -> Value:
        """The address of element `flat`; where `guard` fails, of memory that holds `fallback` instead."""
        outer, inner = self._split(flat, guard.level) if guard is not None else (flat, 0)
        low, high = bounds(inner, self.ranges)
        if low != 0 or not isinstance(high, int) or high * itemsize(access.dtype) > _FILL_BYTES:
            outer, inner, high = flat, 0, 0
        pointer = self._advance(access, self.pointers[access.buffer], outer)
        if guard is None:
            return pointer
        fill = self._fill(memory_type(access.dtype), fallback, high + lanes)
        return self._advance(access, self.b.select(guard, pointer, fill), inner)

    def _split(self, flat: Dim, level: int) -> tuple[Dim, Dim]:
        """The terms known at `level`, and the others."""
        inner = [(m, c) for m, c in terms(flat) if m and self._product(m, c).level > level]
        return flat - from_terms(inner), from_terms(inner)

    def _advance(self, access: Access, pointer: Value, flat: Dim) -> Value:
        """`pointer` moved by `flat` elements: outer terms first, so that they are added outside the inner
        loops, the constant last, where it becomes a displacement.
        """
        b = self.b
        memory = memory_type(access.dtype)
        constant = 0
        products: list[Value] = []
        for monomial, coefficient in terms(flat):
            if monomial:
                products.append(self._product(monomial, coefficient))
            else:
                constant = coefficient
        for product in sorted(products, key=lambda v: v.level):
            pointer = b.pure(f"getelementptr {memory}, {pointer}, {product}", "ptr", 1, pointer, product)
        if constant:
            pointer = b.pure(f"getelementptr {memory}, {pointer}, i64 {constant}", "ptr", 1, pointer)
        return pointer

    def _gather_pointer(self, access: Access, flat: Dim, lanes: int) -> Value:
        """One pointer per lane."""
        b = self.b
        scalar = [(m, c) for m, c in terms(flat) if not self._vectors(from_terms([(m, c)]))]
        base = self._advance(access, self.pointers[access.buffer], from_terms(scalar))
        rest = flat - from_terms(scalar)
        parts = affine(rest, _LANE_SET)
        stride = parts.get(LANE, 0) if parts is not None and parts[""] == 0 else None
        if isinstance(stride, int) and abs(stride) * lanes < 1 << 31:
            offsets = b.lane_numbers(lanes, "i32", stride)
        else:
            offsets = b.splat(self.value(rest), lanes)
        memory = memory_type(access.dtype)
        return b.pure(f"getelementptr {memory}, {base}, {offsets}", "ptr", lanes, base, offsets)

    def _fill(self, memory: str, fallback: Value, count: int) -> Value:
        """Stack memory of at least `count` elements, all `fallback`."""
        key = (memory, fallback.ref)
        if key not in self.fills:
            self.fills[key] = (self.b.name("fill"), [count], [])
            self.b.entry.append(self.fills[key][2])
        name, size, _ = self.fills[key]
        size[0] = max(size[0], count)
        return Value(f"%{name}", "ptr")

    def write_fills(self) -> None:
        """Write the allocation and filling of the guards' memory; call once, at the end."""
        for (memory, ref), (name, size, place) in self.fills.items():
            lanes = 16
            vectors = -(-size[0] // lanes)
            vector = f"<{lanes} x {memory}>"
            i, n, p, c = (self.b.name(f"f{stem}") for stem in "inpc")
            self.b.allocas.append(f"%{name} = alloca [{vectors} x {vector}], align 64")
            # The label below ends the block that came before: the entry falls through these loops in turn.
            place += [
                f"br label %{name}.head",
                f"{name}.head:",
                f"br label %{name}.loop",
                f"{name}.loop:",
                f"%{i} = phi i64 [ 0, %{name}.head ], [ %{n}, %{name}.loop ]",
                f"%{p} = getelementptr {vector}, ptr %{name}, i64 %{i}",
                f"store {vector} splat ({memory} {ref}), ptr %{p}, align 64",
                f"%{n} = add i64 %{i}, 1",
                f"%{c} = icmp ult i64 %{n}, {vectors}",
                f"br i1 %{c}, label %{name}.loop, label %{name}.done",
                f"{name}.done:",
            ]


def _align(access: Access) -> int:
    return itemsize(access.dtype)
