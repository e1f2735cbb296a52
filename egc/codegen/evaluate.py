"""Scalar expressions at one point of the tile, each distinct value written once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from egc.codegen.builder import Value
from egc.codegen.memory import Access, Memory, Position
from egc.codegen.scalars import Scalars
from egc.errors import CompileError
from egc.ir.dims import Dim, SymDim, symbols_of
from egc.ir.expr import Acc, Call, Cast, Const, Expr, Index, IndexExpr, Load, children
from egc.ir.simplify import is_inside


class Point(Struct, frozen=True, eq=False):
    """The position of every axis, and the finished reduction where there is one."""

    axes: Mapping[str, Position]
    acc: Value | None = None


class Evaluator:
    """Writes the value of expressions at points. Expressions and positions are told apart by identity."""

    def __init__(self, memory: Memory, scalars: Scalars) -> None:
        self.memory = memory
        self.scalars = scalars
        self.b = memory.b
        self._depends: dict[int, tuple[str, ...]] = {}
        self._accesses: dict[object, Access] = {}
        self._alive: list[object] = []  # identities stay unique as long as the objects live

    def value(self, expr: Expr, point: Point) -> Value:
        """The value of `expr` at `point`: a vector where it varies over the lanes of an axis."""
        key = self._key(expr, point)
        found = self.b.lookup(key)
        return found if found is not None else self.b.remember(key, self._compute(expr, point))

    def store(self, buffer: str, index: tuple[IndexExpr, ...], value: Value, point: Point, mode: str) -> None:
        """`buffer[index] = value` at `point`, or combined by `mode` with what is there."""
        access = self._access(buffer, index)
        flat = self._flat(access, point)
        mask = next((p.mask for p in point.axes.values() if p.mask is not None), None)

        def write() -> None:
            new = value
            if mode != "set":
                if any(p.lanes > 1 for p in point.axes.values()):
                    raise CompileError(f"the store into {buffer} combines by {mode}: it cannot be vectorised")
                old = self.memory.reload(access, flat)
                new = self.scalars.combine(mode, old, value, access.dtype)
            self.memory.store(access, flat, new, mask)

        self._when_valid(point, write)

    def _when_valid(self, point: Point, write: Callable[[], None]) -> None:
        conditions = [p.valid for p in point.axes.values() if p.valid is not None]
        if not conditions:
            write()
            return
        condition = conditions[0]
        for other in conditions[1:]:
            condition = self.b.binary("and", condition, other)

        def arm() -> list[Value]:
            write()
            return []

        self.b.branch(condition, arm)

    # Identity.

    def _key(self, expr: Expr, point: Point) -> tuple[object, ...]:
        # The positions themselves, not their ids: an id may go to another position once this one is gone.
        own = [point.axes[name] for name in self.depends(expr) if name in point.axes]
        return (id(expr), *own, point.acc)

    def depends(self, expr: Expr) -> tuple[str, ...]:
        """The names of the axes and dims that `expr` depends on."""
        found = self._depends.get(id(expr))
        if found is None:
            names: set[str] = set()
            match expr:
                case Index(dim=dim):
                    names |= symbols_of(dim)
                case Load(index=index, guards=guards):
                    for one in (*index, *(dim for guard in guards for dim in guard)):
                        if isinstance(one, int | SymDim):
                            names |= symbols_of(one)
            for child in children(expr):
                names |= set(self.depends(child))
            found = tuple(sorted(names))
            self._depends[id(expr)] = found
            self._alive.append(expr)
        return found

    # Computing.

    def _compute(self, expr: Expr, point: Point) -> Value:
        match expr:
            case Const(value=value, dtype=dtype):
                return self.scalars.const(value, dtype)
            case Index(dim=dim):
                self._select_lanes(point)
                return self.memory.value(self.memory.settle(dim, point.axes))
            case Acc():
                assert point.acc is not None
                return point.acc
            case Cast(arg=arg, dtype=dtype):
                return self.scalars.cast(self.value(arg, point), arg.dtype, dtype)
            case Call(fn=fn, args=args):
                values = [self.value(arg, point) for arg in args]
                return self.scalars.apply(fn, values, tuple(arg.dtype for arg in args))
            case Load():
                return self._load(expr, point)
        raise AssertionError(f"no such expression: {expr}")

    def _load(self, load: Load, point: Point) -> Value:
        access = self._access(load.buffer, load.index)
        flat = self._flat(access, point)
        uniform, varying = self._guards(load, point)
        names = set(self.depends(load))
        positions = {name: p for name, p in point.axes.items() if name in names}
        lanes = max((p.lanes for p in positions.values()), default=1)
        mask = varying
        for name, position in positions.items():
            if position.mask is not None and name not in access.padded_axes:
                mask = position.mask if mask is None else self.b.binary("and", mask, position.mask)
        if mask is not None:
            lanes = mask.lanes
        return self.memory.load(access, flat, lanes, mask, uniform, load.other)

    def _guards(self, load: Load, point: Point) -> tuple[Value | None, Value | None]:
        """What must hold for a load to read: for all lanes at once, and lane by lane. None: nothing."""
        b, memory = self.b, self.memory
        found: list[Value | None] = [None, None]
        for dim, extent in load.guards:
            at, limit = memory.settle(dim, point.axes), memory.settle(extent, point.axes)
            if is_inside(at, limit, memory.ranges):
                continue
            inside = b.compare("icmp ult", memory.value(at), memory.value(limit))
            which = 0 if inside.lanes == 1 else 1
            old = found[which]
            found[which] = inside if old is None else b.binary("and", old, inside)
        return found[0], found[1]

    def _select_lanes(self, point: Point) -> None:
        lanes = max((p.lanes for p in point.axes.values()), default=1)
        if lanes > 1:
            self.memory.bind_lanes(lanes)

    def _access(self, buffer: str, index: tuple[IndexExpr, ...]) -> Access:
        key = (buffer, id(index))
        if key not in self._accesses:
            self._accesses[key] = self.memory.access(buffer, index)
            self._alive.append(index)
        return self._accesses[key]

    def _flat(self, access: Access, point: Point) -> Dim:
        """The element number of `access` at `point`, over counters, LANE and symbols for what was loaded."""
        self._select_lanes(point)
        positions = dict(point.axes)
        for name, expr in access.indirect:
            value = self.value(expr, point)
            positions[name] = Position(self.memory.bind("at", value))
        return self.memory.settle(access.flat, positions)
