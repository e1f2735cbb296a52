"""Reading the text forms of graphs, kernels and loop nests: ``parse_x(str(x)) == x``.

The grammars stand at the heads of egc.ir.graph, egc.ir.kernel and egc.ir.nest. Every error is a
:class:`~egc.ir.text_expr.TextError` with line and column. Blank lines and lines that begin with ``#`` are
skipped.

A graph's text names a constant by the digest of its bytes. ``parse_graph`` takes the constants by digest; one
that is not given becomes a :class:`Placeholder`, which has type and digest, and so prints and compares as the
constant does, but no data. A constant whose elements are all equal is written out in the text and needs no
mapping.

In a nest of one stage all loops are read as the stage's own: the text does not tell them from shared ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from egc.ir.dims import Dim, DimError, parse_dim
from egc.ir.graph import Constant, Graph, Node, Placeholder
from egc.ir.kernel import Axis, Buffer, Kernel, Stage
from egc.ir.nest import KINDS, Loop, Nest, Pack
from egc.ir.ops import OPS
from egc.ir.scalar import COMBINERS
from egc.ir.text_expr import ExprReader, TextError
from egc.ir.types import TensorType, numpy_dtype, parse_type, split_commas


class _Line(Struct, frozen=True):
    """One line: its number from 1, its text without blanks at the ends, and its indentation."""

    number: int
    text: str
    indent: int

    def fail(self, why: str, position: int = 0) -> TextError:
        return TextError(why, self.number, self.indent + position + 1)

    def match(self, pattern: str, expected: str) -> re.Match[str]:
        found = re.fullmatch(pattern, self.text)
        if found is None:
            raise self.fail(f"expected {expected}")
        return found

    def type(self, text: str, position: int) -> TensorType:
        try:
            return parse_type(text)
        except ValueError as error:
            raise self.fail(str(error), position) from None

    def dim(self, text: str, position: int) -> Dim:
        try:
            return parse_dim(text)
        except DimError as error:
            raise self.fail(str(error), position) from None


def _lines(text: str) -> list[_Line]:
    out = []
    for number, raw in enumerate(text.splitlines(), 1):
        stripped = raw.strip()
        if stripped and not stripped.startswith("#"):
            out.append(_Line(number, stripped, len(raw) - len(raw.lstrip())))
    if not out:
        raise TextError("the text is empty", 1)
    return out


# Graphs.

_VALUE = r"%[A-Za-z0-9_./-]+"


def parse_graph(text: str, constants: Mapping[str, np.ndarray] | None = None) -> Graph:
    """The graph that ``text`` prints; ``constants`` holds arrays by digest (see this module's head)."""
    lines = _lines(text)
    name = lines[0].match(r"graph (\S+) \{", "graph NAME {")[1]
    types: dict[str, TensorType] = {}
    inputs: list[str] = []
    found: dict[str, Constant] = {}
    nodes: list[Node] = []
    outputs: tuple[str, ...] | None = None
    for line in lines[1:-1]:
        if outputs is not None:
            raise line.fail("nothing follows the return line but }")
        if line.text.startswith("input "):
            match = line.match(rf"input ({_VALUE}) : (.+)", "input %value : type")
            inputs.append(_define(line, types, match[1], line.type(match[2], match.start(2))))
        elif line.text.startswith("constant "):
            value, constant = _constant(line, constants or {})
            found[_define(line, types, value, constant.type)] = constant
        elif line.text == "return" or line.text.startswith("return "):
            outputs = _operands(line, types, line.text.removeprefix("return").strip())
        else:
            nodes.append(_node(line, types))
    if outputs is None or lines[-1].text != "}":
        raise lines[-1].fail("expected return %value, … and }")
    return Graph(name, tuple(inputs), outputs, tuple(nodes), types, found)


def _define(line: _Line, types: dict[str, TensorType], value: str, type_: TensorType) -> str:
    name = value[1:]
    if name in types:
        raise line.fail(f"{value} is defined twice")
    types[name] = type_
    return name


def _operands(line: _Line, types: Mapping[str, TensorType], text: str) -> tuple[str, ...]:
    names = split_commas(text)
    for name in names:
        if name[1:] not in types or not name.startswith("%"):
            raise line.fail(f"{name} is not defined above", max(line.text.find(name), 0))
    return tuple(name[1:] for name in names)


def _constant(line: _Line, given: Mapping[str, np.ndarray]) -> tuple[str, Constant]:
    match = line.match(
        rf"constant ({_VALUE}) : (.+) = (splat|sha256) (\S+)", "constant %value : type = splat … or sha256 …"
    )
    type_ = line.type(match[2], match.start(2))
    shape = tuple(d for d in type_.shape if isinstance(d, int))
    if len(shape) != type_.rank:
        raise line.fail("a constant has a static shape", match.start(2))
    if match[3] == "splat":
        return match[1], Constant(np.full(shape, _number(line, match), numpy_dtype(type_.dtype)))
    digest = match[4]
    if digest not in given:
        return match[1], Placeholder(type_, digest)
    constant = Constant(given[digest])
    if constant.digest != digest or constant.type != type_:
        raise line.fail(f"the array given for {digest} is another: {constant.type} {constant.digest}")
    return match[1], constant


def _number(line: _Line, match: re.Match[str]) -> int | float | bool:
    text = match[4]
    if text in ("True", "False"):
        return text == "True"
    try:
        return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
    except ValueError:
        raise line.fail(f"{text!r} is not a number", match.start(4)) from None


def _node(line: _Line, types: dict[str, TensorType]) -> Node:
    body, sources = _split_sources(line)
    head = re.match(rf"((?:{_VALUE}(?:, )?)+) = (\w+)\(", body)
    if head is None:
        raise line.fail("expected %value = op(%value, …) {attr=value} : type")
    op = head[2]
    if op not in OPS:
        raise line.fail(f"there is no operator {op!r}", head.start(2))
    close = body.find(")", head.end())
    if close < 0:
        raise line.fail("expected )", len(body))
    operands = _operands(line, types, body[head.end() : close])
    rest, position = body[close + 1 :], close + 1
    attrs: tuple[tuple[str, Any], ...] = ()
    if rest.startswith(" {"):
        inner, used = _attributes(line, op, rest[2:], position + 2)
        attrs, rest, position = inner, rest[2 + used :], position + 2 + used
    elif OPS[op].attrs:
        raise line.fail(f"{op} has the attributes {', '.join(key for key, _ in OPS[op].attrs)}", position)
    if not rest.startswith(" : "):
        raise line.fail("expected : type", position)
    names = split_commas(head[1])
    declared = rest[3:].split("; ")
    if len(declared) != len(names):
        raise line.fail(f"{len(names)} results and {len(declared)} types", position + 3)
    results = tuple(
        _define(line, types, name, line.type(text, position + 3))
        for name, text in zip(names, declared, strict=True)
    )
    return Node(op, operands, results, attrs, sources)


def _split_sources(line: _Line) -> tuple[str, tuple[str, ...]]:
    body, mark, text = line.text.rpartition("  # from ")
    if not mark:
        return line.text, ()
    try:
        sources = json.loads(text)
    except ValueError:
        raise line.fail("the sources are not a list of texts", len(body) + len(mark)) from None
    return body, tuple(sources)


def _attributes(line: _Line, op: str, text: str, position: int) -> tuple[tuple[tuple[str, Any], ...], int]:
    """The attributes at the head of ``text``, which begins after the brace, and their length."""
    out: list[tuple[str, Any]] = []
    start = 0
    for number, (key, kind) in enumerate(OPS[op].attrs):
        opening = f"{key}=" if number == 0 else f", {key}="
        if not text.startswith(opening, start):
            raise line.fail(f"expected the attribute {key}", position + start)
        start += len(opening)
        value, end = _attribute(line, kind, text, start, position)
        out.append((key, value))
        start = end
    if not text.startswith("}", start):
        raise line.fail("expected }", position + start)
    return tuple(out), start + 1


def _attribute(line: _Line, kind: str, text: str, start: int, position: int) -> tuple[Any, int]:
    if kind in ("str", "fn"):
        try:
            value, end = json.JSONDecoder().raw_decode(text, start)
        except ValueError:
            raise line.fail("expected a text in double quotes", position + start) from None
        return value, end
    if kind in ("ints", "dims", "perm"):
        end = text.find("]", start)
        if not text.startswith("[", start) or end < 0:
            raise line.fail("expected [dim, …]", position + start)
        parts = split_commas(text[start + 1 : end])
        return tuple(line.dim(part, position + start + 1) for part in parts), end + 1
    found = re.compile(r"[^,}\s]+").match(text, start)
    word = found[0] if found else ""
    if kind == "bool" and word in ("true", "false"):
        return word == "true", start + len(word)
    try:
        return (float(word) if kind == "float" else int(word)), start + len(word)
    except ValueError:
        raise line.fail(f"{word!r} is not of the kind {kind}", position + start) from None


# Kernels.


def parse_kernel(text: str) -> Kernel:
    """The kernel that ``text`` prints."""
    lines = _lines(text)
    kernel, used = _kernel(lines)
    if used != len(lines):
        raise lines[used].fail("nothing follows a kernel")
    return kernel


def _kernel(lines: list[_Line]) -> tuple[Kernel, int]:
    """The kernel at the head of ``lines``, and how many lines it takes."""
    end = next((i for i, line in enumerate(lines) if line.text == "}"), None)
    if end is None:
        raise lines[-1].fail("the kernel does not end: expected }")
    head = lines[0].match(r"kernel (\S+?)\((.*)\)(?: shared (\d+))? \{", "kernel NAME(param, …) [shared N] {")
    buffers = [_buffer(lines[0], part, head.start(2)) for part in split_commas(head[2])]
    first = 1
    while first < end and not lines[first].text.startswith("stage "):
        buffers.append(_buffer(lines[first], lines[first].text, 0))
        first += 1
    reader = ExprReader({buffer.name: buffer.type.dtype for buffer in buffers})
    stages = []
    while first < end:
        stage, first = _stage(lines, first, end, reader)
        stages.append(stage)
    return Kernel(head[1], tuple(buffers), tuple(stages), int(head[3] or 0)), end + 1


def _buffer(line: _Line, text: str, position: int) -> Buffer:
    match = re.fullmatch(r"(const )?(in|out|local) (\w+): (.+)", text)
    if match is None:
        raise line.fail(f"expected [const] in|out|local NAME: type, not {text!r}", position)
    return Buffer(match[3], line.type(match[4], position), match[2], match[1] is not None)


def _stage(lines: list[_Line], first: int, end: int, reader: ExprReader) -> tuple[Stage, int]:
    line = lines[first]
    match = line.match(
        r"stage (\S+) over (.+?)(?: reduce (\w+) (.+?))?( ordered)?", "stage NAME over axis:extent, …"
    )
    axes = () if match[2] == "()" else _axes(line, match[2], match.start(2))
    combine = match[3]
    if combine is not None and combine not in COMBINERS:
        raise line.fail(f"{combine!r} is no way to combine", match.start(3))
    reduce = _axes(line, match[4], match.start(4)) if combine else ()
    first += 1
    value = None
    if combine and first < end:
        assigned = lines[first].match(r"value = (.+)", "value = expression")
        value = reader.expr(assigned[1], lines[first].number, lines[first].indent + assigned.start(1) + 1)
        first += 1
    if first >= end:
        raise line.fail("the stage stores nothing")
    store = lines[first]
    out, index, mode, text, at = _store(store)
    indices = reader.indices(index, store.number, store.indent + len(out) + 2)
    acc = value.dtype if value is not None else None
    result = reader.expr(text, store.number, store.indent + at + 1, acc)
    stage = Stage(match[1], axes, out, indices, value or result, result, reduce, combine, mode)
    return replace(stage, ordered=match[5] is not None), first + 1


def _store(line: _Line) -> tuple[str, str, str, str, int]:
    """A store's buffer, index, mode, expression, and the expression's position in the line."""
    head = re.match(r"(\w+)\[", line.text)
    if head is not None:
        depth = 1
        for i in range(head.end(), len(line.text)):
            depth += (line.text[i] == "[") - (line.text[i] == "]")
            if depth == 0:
                sign = re.compile(r" (\w*)= ").match(line.text, i + 1)
                if sign is not None:
                    at = sign.end()
                    return head[1], line.text[head.end() : i], sign[1] or "set", line.text[at:], at
                break
    raise line.fail("expected buffer[index, …] = expression")


def _axes(line: _Line, text: str, position: int) -> tuple[Axis, ...]:
    out = []
    for part in split_commas(text):
        name, colon, extent = part.partition(":")
        if not colon or not name.isidentifier():
            raise line.fail(f"expected axis:extent, not {part!r}", position)
        out.append(Axis(name, line.dim(extent, position)))
    return tuple(out)


# Nests.


def parse_nest(text: str) -> Nest:
    """The loop nest that ``text`` prints. It is not checked: see egc.ir.nest.check_nest."""
    lines = _lines(text)
    kernel, used = _kernel(lines)
    packs: list[Pack] = []
    while used < len(lines) and lines[used].text.startswith("pack "):
        form = "pack BUFFER dim D by BLOCK [ahead]"
        match = lines[used].match(r"pack (\w+) dim (\d+) by (\d+)( ahead)?", form)
        packs.append(Pack(match[1], int(match[2]), int(match[3]), match[4] is not None))
        used += 1
    fetched: list[str] = []
    while used < len(lines) and lines[used].text.startswith("fetch "):
        fetched.append(lines[used].match(r"fetch (\w+)", "fetch BUFFER")[1])
        used += 1
    groups = list(_loop_groups(lines[used:]))
    names = [name for name, _, _ in groups]
    wanted = [stage.name for stage in kernel.stages]
    if names != wanted:
        raise lines[-1].fail(f"loops for the stages {', '.join(names)}; the kernel has {', '.join(wanted)}")
    loops = [found for _, found, _ in groups]
    # Every stage after the first begins at the depth of the shared loops.
    shared: tuple[Loop, ...] = ()
    if len(groups) > 1:
        depth = groups[1][2]
        shared, loops[0] = loops[0][:depth], loops[0][depth:]
    return Nest(kernel, tuple(loops), shared, tuple(packs), tuple(fetched))


def _loop_groups(lines: list[_Line]) -> Iterator[tuple[str, tuple[Loop, ...], int]]:
    """For each ``do``: its stage, the loops before it, and the depth of the first of these lines."""
    loops: list[Loop] = []
    depth: int | None = None
    for line in lines:
        depth = line.indent // 2 if depth is None else depth
        if line.text.startswith("do "):
            yield line.text.removeprefix("do "), tuple(loops), depth
            loops, depth = [], None
            continue
        match = line.match(r"for (\w+) step (\d+) (\w+)", "for AXIS step STEP KIND, or do STAGE")
        if match[3] not in KINDS:
            raise line.fail(f"{match[3]!r} is none of {', '.join(KINDS)}", match.start(3))
        loops.append(Loop(match[1], int(match[2]), match[3]))
    if loops:
        raise lines[-1].fail("loops without a stage: expected do STAGE")
