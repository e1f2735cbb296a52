"""What an e-node costs on a machine, in seconds, by term.

A contraction costs its arithmetic at the machine's peak or its traffic, whichever is longer. A scalar
function costs its arithmetic: it shares a kernel with what it reads or with what reads it. Views are index
arithmetic in their readers, but a transpose moves every element against the grain: it is a layout conversion
and pays for its bytes twice. A slice that is joined to others or padded is copied, where its operand's
producer could have written a tensor of its own in place. Constant e-classes cost nothing at run time.

The formula is the roofline model (Williams, Waterman & Patterson, CACM 52(4),
2009) with a launch cost a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from egc.egraph.snapshot import ENode, Snapshot
from egc.ir.dims import evaluate, product
from egc.ir.scalar import FUNCTIONS
from egc.ir.types import TensorType, itemsize
from egc.machine import Rates

# What a symbolic extent counts for when costs are compared;
# extents of the model itself are used where they are known.
SYMBOLIC_EXTENT = 64


class NodeCost(Struct, frozen=True):
    """Seconds by term: arithmetic, memory traffic, layout conversion, kernel launch."""

    compute: float = 0.0
    traffic: float = 0.0
    conversion: float = 0.0
    launch: float = 0.0

    @property
    def total(self) -> float:
        """The cost of the e-node alone: arithmetic and traffic overlap."""
        return max(self.compute, self.traffic) + self.conversion + self.launch


# What these read, its producer writes in place, as far as that is a tensor of its own.
_IN_PLACE = frozenset({"concat", "pad"})
_FREE_VIEWS = frozenset({"reshape", "slice", "expand", "iota", "dim", "output"})
_LEAVES = frozenset({"input", "const", "splat"})
# These end in a scalar function, whose result, like that of any other, is not charged for.
_ENDS_IN_MAP = frozenset({"softmax", "layer_norm", "rms_norm"})


class CostModel:
    """Costs of the e-nodes of one snapshot."""

    def __init__(self, snapshot: Snapshot, rates: Rates) -> None:
        self.snapshot = snapshot
        self.rates = rates
        self._sizes: dict[int, int] = {}
        self._in_place = _read_in_place(snapshot)

    def size(self, eclass: int) -> int:
        """The number of elements of an e-class, symbols at SYMBOLIC_EXTENT; 1 where the type is unknown."""
        if eclass not in self._sizes:
            type_ = self.snapshot.types.get(eclass)
            self._sizes[eclass] = 1 if type_ is None else elements(type_)
        return self._sizes[eclass]

    def bytes(self, eclass: int) -> int:
        """The size of an e-class in bytes."""
        type_ = self.snapshot.types.get(eclass)
        return self.size(eclass) * (itemsize(type_.dtype) if type_ else 1)

    def cost(self, eclass: int, enode: ENode) -> NodeCost:
        """The cost of computing ``eclass`` by ``enode``, its operands being at hand."""
        if eclass in self.snapshot.constant or enode.op in _LEAVES:
            return NodeCost()
        rates = self.rates
        written = 0 if enode.op in _ENDS_IN_MAP else self.bytes(eclass)
        traffic = (written + sum(self.bytes(child) for child in enode.children)) / rates.bandwidth
        moved = NodeCost(conversion=2 * self.bytes(eclass) / rates.conversion_bandwidth, launch=rates.launch)
        if enode.op == "slice" and eclass in self._in_place:
            return moved
        if enode.op in _FREE_VIEWS:
            # Not quite free: a shorter program is better where nothing else differs.
            return NodeCost(launch=rates.launch * 0.01)
        if enode.op == "transpose":
            return moved
        if enode.op == "cast":
            return NodeCost(self.size(eclass) / rates.vector_ops, 0.0, 0.0, rates.launch * 0.05)
        if enode.op == "map":
            compute = FUNCTIONS[enode.attr("fn")].flops * self.size(eclass) / rates.vector_ops
            return NodeCost(compute, 0.0, 0.0, rates.launch * 0.05)
        if (flops := self.flops(eclass, enode)) is not None:
            compute = flops / (rates.flops * self.efficiency(enode))
            if enode.op == "attention":
                compute += rates.operators.softmax * flops / (4.0 * self.head(enode)) / rates.vector_ops
            return NodeCost(compute, traffic, 0.0, rates.launch)
        return NodeCost(self.work(eclass, enode) / rates.vector_ops, traffic, 0.0, rates.launch)

    def efficiency(self, enode: ENode) -> float:
        """The part of the peak that a contraction reaches."""
        operators = self.rates.operators
        part: float = getattr(operators, enode.op)
        return part * (operators.guarded if self.is_guarded(enode) else 1.0)

    def is_guarded(self, enode: ENode) -> bool:
        """Whether an e-node is a convolution that tests its taps against the border.

        A depthwise one is bound by traffic, and its guards cost less than a padded copy.
        """
        if enode.op not in ("conv", "conv_channels_last"):
            return False
        x = self.snapshot.types[enode.children[0]]
        channels = x.shape[1 if enode.op == "conv" else -1]
        return any((*enode.attr("low"), *enode.attr("high"))) and enode.attr("groups") != channels

    def flops(self, eclass: int, enode: ENode) -> float | None:
        """Floating-point operations of a contraction; None for other operators."""
        types = self.snapshot.types
        match enode.op:
            case "matmul":
                return 2.0 * self.size(eclass) * _extent(types[enode.children[0]].shape[-1])
            case "conv":
                w = types[enode.children[1]]
                return 2.0 * self.size(eclass) * elements(TensorType(w.dtype, w.shape[1:]))
            case "conv_channels_last":
                w = types[enode.children[1]]
                return 2.0 * self.size(eclass) * elements(TensorType(w.dtype, w.shape[:-1]))
            case "attention":
                q, k = types[enode.children[0]], types[enode.children[1]]
                return 4.0 * elements(q) * _extent(k.shape[-2])
        return None

    def head(self, enode: ENode) -> int:
        """The extent of the features that an attention's queries and keys share."""
        return max(1, _extent(self.snapshot.types[enode.children[0]].shape[-1]))

    def work(self, eclass: int, enode: ENode) -> float:
        """Vector-lane operations of an operator that is not a contraction."""
        operand = max((self.size(child) for child in enode.children), default=1)
        match enode.op:
            case "pool":
                taps = elements(TensorType("bool", enode.attr("window")))
                across = enode.attr("low")[-1] or enode.attr("high")[-1]
                return self.size(eclass) * taps * (self.rates.operators.guarded_lanes if across else 1.0)
            case "softmax":
                return self.rates.operators.softmax * operand
            case "layer_norm":
                return 6.0 * operand
            case "rms_norm":  # square, add, and two products
                return 4.0 * operand
        return float(max(operand, self.size(eclass)))


def _read_in_place(snapshot: Snapshot) -> frozenset[int]:
    """The e-classes that a concatenation or padding reads, be it through scalar functions."""
    enodes = (enode for enodes in snapshot.classes.values() for enode in enodes)
    waiting = [c for enode in enodes if enode.op in _IN_PLACE for c in enode.children]
    found: set[int] = set()
    while waiting:
        eclass = waiting.pop()
        if eclass not in found:
            found.add(eclass)
            maps = (enode for enode in snapshot.classes[eclass] if enode.op == "map")
            waiting += [child for enode in maps for child in enode.children]
    return frozenset(found)


def elements(type_: TensorType) -> int:
    """The number of elements of a type, symbols at SYMBOLIC_EXTENT."""
    return max(0, _extent(product(type_.shape)))


def _extent(dim: object) -> int:
    if isinstance(dim, int):
        return dim
    return max(1, evaluate(dim, _Everywhere()))  # type: ignore[arg-type]


class _Everywhere(Mapping[str, int]):
    """Every symbol at SYMBOLIC_EXTENT."""

    def __getitem__(self, key: str) -> int:
        return SYMBOLIC_EXTENT

    def __contains__(self, key: object) -> bool:
        return True

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(())

    def __len__(self) -> int:
        return 0
