"""Writing LLVM IR as text: values, straight-line instructions, loops and branches.

The builder is structured: code lies in nested regions (the function, loop bodies, branches). A pure
instruction goes to the outermost region in which all its operands exist, so what does not change in a loop
is computed before it, and equal instructions are written once. No optimisation pass is needed for either.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct, field

Lines: TypeAlias = "list[str | Lines]"


class Value(Struct, frozen=True):
    """An operand: its text, element type, number of lanes (1: a scalar) and the depth of the region it
    lies in.
    """

    ref: str
    elem: str
    lanes: int = 1
    level: int = 0

    @property
    def type(self) -> str:
        """The LLVM type."""
        return self.elem if self.lanes == 1 else f"<{self.lanes} x {self.elem}>"

    @property
    def is_literal(self) -> bool:
        """Whether this is a constant."""
        return self.ref[0] != "%"

    def __str__(self) -> str:
        return f"{self.type} {self.ref}"


class Region(Struct):
    """A piece of code. `before` is a place in the enclosing region that runs whenever this region runs (a
    loop at least once); `branch` marks one arm of a branch, out of which loads must not move.
    """

    lines: Lines
    before: Lines
    branch: bool
    known: dict[object, Value] = field(default_factory=dict)


def float_literal(value: float, elem: str) -> str:
    """A float or double constant, exactly, as LLVM writes it: the bits of a double."""
    if elem == "float" and math.isfinite(value):
        try:
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        except OverflowError:
            value = math.copysign(math.inf, value)
    if value != value:
        return "0x7FF8000000000000"
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


class Builder:
    """Collects the text of one function's body."""

    def __init__(self) -> None:
        self.root: Lines = []
        self.allocas: Lines = []
        self.entry: Lines = []  # runs once, before everything else
        self.regions = [Region(self.root, self.root, True)]
        self.block = "body"
        self.declarations: dict[str, str] = {}
        self._count = 0

    # Names, regions, text.

    @property
    def level(self) -> int:
        """The depth of the current region."""
        return len(self.regions) - 1

    def name(self, stem: str = "v") -> str:
        """A new local name, without the percent sign."""
        self._count += 1
        return f"{stem}{self._count}"

    def line(self, text: str) -> None:
        """Append one instruction to the current region."""
        self.regions[-1].lines.append(text)

    def declare(self, name: str, result: str, *args: str) -> None:
        """Note that the function `name` is called."""
        self.declarations[name] = f"declare {result} @{name}({', '.join(args)})"

    def text(self) -> str:
        """The whole body."""
        out: list[str] = []
        stack: list[str | Lines] = [self.root, "body:", "br label %body", self.entry, self.allocas]
        while stack:
            item = stack.pop()
            if isinstance(item, str):
                out.append(item)
            else:
                stack.extend(reversed(item))
        return "\n".join(out)

    def lookup(self, key: object) -> Value | None:
        """What `remember` kept under `key` in this region or one round it."""
        for region in reversed(self.regions):
            found = region.known.get(key)
            if found is not None:
                return found
        return None

    def remember(self, key: object, value: Value) -> Value:
        """Keep `value` under `key` as long as the region that it lies in is open."""
        self.regions[value.level].known[key] = value
        return value

    def pure(self, rhs: str, elem: str, lanes: int, *operands: Value, least: int = 0) -> Value:
        """The value of an instruction without side effects, placed as far out as its operands (and
        `least`) allow.
        """
        found = self.lookup(rhs)
        if found is not None:
            return found
        level = least
        for operand in operands:
            level = max(level, operand.level)
        value = Value(f"%{self.name()}", elem, lanes, level)
        place = self.regions[level].lines if level == self.level else self.regions[level + 1].before
        place.append(f"{value.ref} = {rhs}")
        return self.remember(rhs, value)

    def inst(self, rhs: str, elem: str, lanes: int = 1) -> Value:
        """The value of an instruction that stays where it is."""
        value = Value(f"%{self.name()}", elem, lanes, self.level)
        self.line(f"{value.ref} = {rhs}")
        return value

    @property
    def load_level(self) -> int:
        """The outermost level to which a load may move: not out of a branch."""
        return max(i for i, region in enumerate(self.regions) if region.branch)

    # Constants and shapes.

    def const(self, value: float | int | bool, elem: str, lanes: int = 1) -> Value:
        """A constant of the LLVM type `elem`."""
        if elem in ("float", "double"):
            text = float_literal(float(value), elem)
        elif elem == "i1":
            text = "true" if value else "false"
        else:
            bits = int(elem[1:])
            wrapped = int(value) & ((1 << bits) - 1)
            text = str(wrapped - (1 << bits) if wrapped >> (bits - 1) else wrapped)
        return self.splat(Value(text, elem), lanes)

    def i64(self, value: int) -> Value:
        """A 64-bit integer constant."""
        return Value(str(value), "i64")

    def lane_numbers(self, lanes: int, elem: str = "i64", scale: int = 1) -> Value:
        """The vector 0, scale, 2·scale, …"""
        text = ", ".join(f"{elem} {i * scale}" for i in range(lanes))
        return Value(f"<{text}>", elem, lanes)

    def splat(self, value: Value, lanes: int) -> Value:
        """`value` in every one of `lanes` lanes; itself where it has them already."""
        if lanes == value.lanes:
            return value
        assert value.lanes == 1, f"{value} cannot become {lanes} lanes"
        if value.is_literal:
            return Value(f"splat ({value.elem} {value.ref})", value.elem, lanes)
        vector = f"<{lanes} x {value.elem}>"
        one = self.pure(f"insertelement {vector} poison, {value}, i64 0", value.elem, lanes, value)
        return self.pure(
            f"shufflevector {one}, {vector} poison, <{lanes} x i32> zeroinitializer", value.elem, lanes, one
        )

    def align_lanes(self, *values: Value) -> tuple[Value, ...]:
        """The values with as many lanes as the widest of them."""
        lanes = max(value.lanes for value in values)
        return tuple(self.splat(value, lanes) for value in values)

    # Instructions.

    def binary(self, op: str, a: Value, b: Value) -> Value:
        """`op a, b`, with its flags in `op` (`fadd contract`)."""
        a, b = self.align_lanes(a, b)
        return self.pure(f"{op} {a.type} {a.ref}, {b.ref}", a.elem, a.lanes, a, b)

    def compare(self, op: str, a: Value, b: Value) -> Value:
        """`icmp` or `fcmp` with its predicate in `op`."""
        a, b = self.align_lanes(a, b)
        return self.pure(f"{op} {a.type} {a.ref}, {b.ref}", "i1", a.lanes, a, b)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """`a` where `condition` holds, else `b`."""
        if condition.ref == "true":
            return a
        if a.lanes == b.lanes == 1 == condition.lanes:
            return self.pure(f"select i1 {condition.ref}, {a}, {b}", a.elem, 1, condition, a, b)
        condition, a, b = self.align_lanes(condition, a, b)
        return self.pure(f"select {condition}, {a}, {b}", a.elem, a.lanes, condition, a, b)

    def convert(self, op: str, value: Value, elem: str) -> Value:
        """A conversion such as `sext` to elements of type `elem`."""
        if value.elem == elem:
            return value
        to = elem if value.lanes == 1 else f"<{value.lanes} x {elem}>"
        return self.pure(f"{op} {value} to {to}", elem, value.lanes, value)

    def call(
        self, name: str, *args: Value, extra: str = "", flags: str = "", elem: str | None = None
    ) -> Value:
        """An overloaded pure intrinsic `llvm.name`, over the type of its first argument."""
        args = self.align_lanes(*args)
        first = args[0]
        suffix = mangle(first.elem, first.lanes)
        result = elem or first.elem
        to = result if first.lanes == 1 else f"<{first.lanes} x {result}>"
        types = [arg.type for arg in args] + (["i1"] if extra else [])
        self.declare(f"llvm.{name}.{suffix}", to, *types)
        text = ", ".join(map(str, args)) + (f", {extra}" if extra else "")
        return self.pure(f"call {flags}{to} @llvm.{name}.{suffix}({text})", result, first.lanes, *args)

    def add(self, a: Value, b: Value) -> Value:
        """Integer sum."""
        if a.is_literal and b.is_literal and a.lanes == b.lanes == 1:
            return Value(str(int(a.ref) + int(b.ref)), a.elem)
        if b.ref == "0":
            return a
        if a.ref == "0":
            return b
        return self.binary("add", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """Integer product."""
        if a.is_literal and b.is_literal and a.lanes == b.lanes == 1:
            return Value(str(int(a.ref) * int(b.ref)), a.elem)
        if b.ref == "1":
            return a
        if a.ref == "1":
            return b
        return self.binary("mul", a, b)

    # Control flow.

    def loop(
        self,
        start: Value,
        end: Value,
        carried: Sequence[Value],
        body: Callable[[Value, list[Value]], list[Value]],
        at_least_once: bool = False,
    ) -> list[Value]:
        """`for i in start … end - 1`: `body(i, carried)` returns the carried values of the next iteration."""
        if not at_least_once:
            some = self.compare("icmp slt", start, end)
            return self.branch(
                some, lambda: self.loop(start, end, carried, body, at_least_once=True), lambda: list(carried)
            )
        head, out = self.name("loop"), self.name("done")
        before: Lines = []
        phis: Lines = []
        lines: Lines = [f"{head}:", phis]
        self.regions[-1].lines += [before, f"br label %{head}", lines]
        preheader = self.block
        self.regions.append(Region(lines, before, False))
        self.block = head
        counter = Value(f"%{self.name('i')}", "i64", 1, self.level)
        inner = [Value(f"%{self.name('p')}", v.elem, v.lanes, self.level) for v in carried]
        results = body(counter, inner)
        following = self.inst(f"add nuw nsw i64 {counter.ref}, 1", "i64")
        more = self.inst(f"icmp slt i64 {following.ref}, {end.ref}", "i1")
        self.line(f"br i1 {more.ref}, label %{head}, label %{out}")
        for value, first, last in zip(
            [counter, *inner], [start, *carried], [following, *results], strict=True
        ):
            phis.append(
                f"{value.ref} = phi {value.type} [ {first.ref}, %{preheader} ], [ {last.ref}, %{self.block} ]"
            )
        self.regions.pop()
        self.line(f"{out}:")
        latch, self.block = self.block, out
        return [self.inst(f"phi {v.type} [ {v.ref}, %{latch} ]", v.elem, v.lanes) for v in results]

    def scope(self, body: Callable[[], None]) -> None:
        """Run `body` in a region of its own: no load moves out of it, nothing that it remembers outlives
        it.
        """
        before: Lines = []
        lines: Lines = []
        self.regions[-1].lines += [before, lines]
        self.regions.append(Region(lines, before, True))
        body()
        self.regions.pop()

    def branch(
        self,
        condition: Value,
        then: Callable[[], list[Value]],
        otherwise: Callable[[], list[Value]] | None = None,
    ) -> list[Value]:
        """Run `then` where the scalar `condition` holds, else `otherwise`; both return as many values,
        merged here.
        """
        before: Lines = []
        parent = self.regions[-1].lines
        parent.append(before)
        outside = self.block
        labels = [self.name("then"), self.name("else") if otherwise else "", self.name("join")]
        other = labels[1] or labels[2]
        self.line(f"br i1 {condition.ref}, label %{labels[0]}, label %{other}")
        arms: list[tuple[str, list[Value]]] = []
        for label, arm in zip(labels, (then, otherwise), strict=False):
            if arm is None:
                arms.append((outside, []))
                continue
            lines: Lines = [f"{label}:"]
            parent.append(lines)
            self.regions.append(Region(lines, before, True))
            self.block = label
            values = arm()
            self.line(f"br label %{labels[2]}")
            arms.append((self.block, values))
            self.regions.pop()
        self.line(f"{labels[2]}:")
        self.block = labels[2]
        merged: list[Value] = []
        for a, b in zip(arms[0][1], arms[1][1], strict=True):
            sources = f"[ {a.ref}, %{arms[0][0]} ], [ {b.ref}, %{arms[1][0]} ]"
            merged.append(self.inst(f"phi {a.type} {sources}", a.elem, a.lanes))
        return merged


def mangle(elem: str, lanes: int) -> str:
    """How LLVM spells a type in the name of an overloaded intrinsic."""
    short = {"float": "f32", "double": "f64", "half": "f16"}.get(elem, elem)
    return short if lanes == 1 else f"v{lanes}{short}"
