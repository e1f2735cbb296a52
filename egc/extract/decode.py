"""A solution as a Graph again, with constant e-classes computed now.

An e-class that depends on constants alone becomes a constant; the values that only lead to it are dropped, so
a folded weight is stored once, in the form in which it is read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from msgspec import Struct

from egc.egraph.snapshot import ENode, Snapshot
from egc.extract.solution import Solution
from egc.extract.sources import sources_of
from egc.ir.evaluate import evaluate_node
from egc.ir.graph import Constant, Graph, GraphBuilder, Placeholder
from egc.ir.types import numpy_dtype


class Decoded(Struct, frozen=True):
    """The optimized graph and, for each of its values, the e-class that it came from."""

    graph: Graph
    eclass: Mapping[str, int]


def decode(source: Graph, snapshot: Snapshot, solution: Solution) -> Decoded:
    """The graph that ``solution`` chose.
    Value names and ONNX nodes carry over from ``source`` where values survive.
    """
    return _Decoder(source, snapshot, solution).run()


class _Decoder:
    def __init__(self, source: Graph, snapshot: Snapshot, solution: Solution) -> None:
        self.source = source
        self.snapshot = snapshot
        self.solution = solution
        self.builder = GraphBuilder(source.name)
        self.names: dict[int, str] = {}
        self.multi: dict[int, tuple[str, ...]] = {}
        self.sources = sources_of(source, snapshot, solution)
        self.known: dict[int, bool] = {}
        self.by_digest = {constant.digest: constant for constant in source.constants.values()}
        self.original: dict[int, list[str]] = {}
        for name, eclass in snapshot.roots.items():
            self.original.setdefault(eclass, []).append(name)

        self.readers = Counter(snapshot.roots[name] for name in source.outputs)
        for eclass in solution.order:
            self.readers.update(set(solution.choice[eclass].children))
        self.absorbed = frozenset(self.parts())

    def run(self) -> Decoded:
        for name in self.source.inputs:
            self.builder.input(name, self.source.types[name])
            self.names.setdefault(self.snapshot.roots[name], name)
        for eclass in self.solution.order:
            if eclass not in self.names and eclass not in self.absorbed and not self.is_known(eclass):
                self.emit(eclass, self.solution.choice[eclass])
        outputs: list[str] = []
        for name in self.source.outputs:
            value = self.value(self.snapshot.roots[name])
            outputs.append(self.copied(value) if value in outputs or self.is_given(value) else value)
        return Decoded(self.builder.finish(outputs), {name: eclass for eclass, name in self.names.items()})

    def is_known(self, eclass: int) -> bool:
        """Whether an e-class is a constant of known size;
        one expanded to a symbolic extent is computed at run time.
        """
        if eclass not in self.known:
            children = self.solution.choice[eclass].children
            type_ = self.snapshot.types.get(eclass)
            self.known[eclass] = (
                eclass in self.snapshot.constant
                and (type_ is None or type_.is_static)
                and all(map(self.is_known, children))
            )
        return self.known[eclass]

    def is_given(self, value: str) -> bool:
        """Whether a value is an input or a constant: no kernel writes it."""
        return value in self.source.inputs or value in self.builder.constants

    def copied(self, value: str) -> str:
        """A copy of ``value``, for an output that would share another's memory."""
        type_ = self.builder.types[value]
        if type_.dtype in ("string", "object"):
            return value
        return self.builder.add("reshape", (value,), shape=type_.shape)

    def value(self, eclass: int) -> str:
        """The name of an e-class's value; constants come into being when something reads them."""
        if eclass not in self.names:
            self.names[eclass] = self.builder.constant(self.constant(eclass), self.known_name(eclass))
        return self.names[eclass]

    def known_name(self, eclass: int) -> str | None:
        """The name that the value has in the source graph."""
        return next(iter(self.original.get(eclass, ())), None)

    def emit(self, eclass: int, enode: ENode) -> None:
        if enode.op == "output":
            self.names[eclass] = self.multi[enode.children[0]][enode.attr("index")]
            return
        operands = [self.value(child) for child in self.operands(enode)]
        if enode.op in ("host", "topk"):
            self.multi[eclass] = self.builder.add_multi(
                enode.op, operands, self.sources[eclass], **dict(enode.attrs)
            )
            return
        self.names[eclass] = self.builder.add(
            enode.op, operands, self.sources[eclass], self.known_name(eclass), **dict(enode.attrs)
        )

    def parts(self) -> Iterator[int]:
        """The concatenations that are no values of their own: one longer one alone reads them, first."""
        choice = self.solution.choice
        for eclass in self.solution.order:
            enode = choice[eclass]
            if enode.op == "concat":
                inner, *rest = enode.children
                same = choice[inner].op == "concat" and choice[inner].attrs == enode.attrs
                if same and self.readers[inner] == 1 and inner not in rest:
                    yield inner

    def operands(self, enode: ENode) -> tuple[int, ...]:
        """The operands of an e-node; a chain of binary concatenations that
        nothing else reads is one long one.
        """
        behind: list[int] = []
        while enode.op == "concat" and enode.children[0] in self.absorbed:
            behind += reversed(enode.children[1:])
            enode = self.solution.choice[enode.children[0]]
        return (*enode.children, *reversed(behind))

    def constant(self, eclass: int) -> Constant:
        """The content of a constant e-class; nothing on the way to it is kept."""
        enode = self.solution.choice[eclass]
        if enode.op == "const":
            return self.by_digest[enode.attr("digest")]
        if enode.op == "splat":
            return Constant(np.asarray(enode.attr("value")).astype(numpy_dtype(enode.attr("dtype"))))
        operands = [self.constant(child) for child in enode.children]
        if any(isinstance(operand, Placeholder) for operand in operands):
            return self.placeholder(eclass, enode, operands)
        return Constant(evaluate_node(enode.op, tuple(c.data for c in operands), dict(enode.attrs))[0])

    def placeholder(self, eclass: int, enode: ENode, operands: Sequence[Constant]) -> Placeholder:
        """A constant whose content is not at hand: equal computations on equal operands are equal."""
        spelled = repr((enode.op, enode.attrs, [operand.digest for operand in operands]))
        digest = hashlib.sha256(spelled.encode()).hexdigest()[:32]
        return Placeholder(self.snapshot.types[eclass], digest)
