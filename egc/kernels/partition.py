"""Which nodes of a graph share a kernel.

Every value is either written to memory or inlined: computed inside the kernels of its readers. A group is a
written value with the inlined values below it, so groups never depend on each other in a circle. Nodes are
decided in topological order. A reduction (matrix product, convolution, softmax …) is inlined only into its
single reader, elementwise or a view, which makes that reader its epilogue. Elementwise values and views are
inlined into all readers or none:

    saved   the tensor's write, and each reader's read of it
    paid    each reader's reads of the inlined value's own operands, and arithmetic for elements computed more
            than once: for a second reader, a broadcast, an overlapping window, tiles of a product

A reader that broadcasts a value computes each of its elements many times, in lanes as few as the widest
dtype on the way allows: arithmetic that costs more than a kernel's launch is done once, in a kernel of its
own.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, field

from egc.ir.dims import product
from egc.ir.graph import Graph, Node
from egc.ir.ops import VIEWS
from egc.ir.types import itemsize
from egc.kernels.attributes import ints_of
from egc.kernels.elements import LoweringError
from egc.kernels.group import Group
from egc.kernels.legality import (
    ANCHORS,
    CONTRACTIONS,
    GATHERS,
    MAPS,
    NORMALISATIONS,
    POINTWISE,
    Legal,
    estimate,
    flops,
    spelled,
    work,
)
from egc.kernels.lower import SCATTERS, can_lower, lower
from egc.kernels.merging import merged
from egc.kernels.reductions import REDUCTIONS
from egc.kernels.rows import ROWWISE

_CHEAP = 4  # instructions an element that cost no more than reading the element back from a cache would
_LAUNCH = 16_384  # lane instructions that cost as much as a kernel's launch
_NARROW = 4  # channels of an image, at most, that a convolution reads as well from planes of their own
_REGION = 6  # elementwise nodes, at most, between a reduction and the node where their paths meet
_LARGEST = 200  # terms of an expression: an inlined value that is read twice is written out twice


class _Cone(Struct):
    """What computing one element of an inlined value takes."""

    anchor: Node | None = None
    size: int = 0  # terms of the expression
    flops: int = 0
    work: int = 0  # like flops, weighed by the lanes that the dtypes leave
    reads: dict[str, int] = field(default_factory=dict)  # values from memory: bytes
    rules: dict[str, None] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)  # by first output, in topological order


def partition(graph: Graph, legal: Legal) -> tuple[Group, ...]:
    """The groups of all nodes that become native code, in an order in which they can run.

    ``legal`` maps (producer value, consumer's first output) to the name of the rule that lets them share a
    kernel.
    """
    return merged(graph, legal, tuple(_Partition(graph, legal).groups()))


class _Partition:
    def __init__(self, graph: Graph, legal: Legal) -> None:
        self.graph, self.legal = graph, legal
        self.cones: dict[str, _Cone] = {}
        self.claimed: dict[str, str] = {}  # a node's first output -> the reduction that it is the epilogue of
        self.kept = set(graph.outputs)
        self.order = {node.output: i for i, node in enumerate(graph.nodes)}

    def groups(self) -> Iterator[Group]:
        """One group for each written value, in topological order."""
        for node in self.graph.nodes:
            if not can_lower(node, self.graph):
                continue
            cone = self.cone(node)
            if self.inlined(node, cone):
                self.cones[node.output] = cone
                continue
            yield Group(tuple(cone.nodes.values()), tuple(cone.reads), node.outputs, tuple(cone.rules))

    def cone(self, node: Node) -> _Cone:
        """What ``node`` computes together with its inlined operands."""
        anchor = node if node.op in ANCHORS else None
        calls, occurrences = spelled(node)
        out = _Cone(anchor, size=calls, flops=flops(node), work=work(node, self.graph))
        for value, times in zip(node.inputs, occurrences, strict=True):
            below = self.cones.get(value)
            if below is None:
                out.reads[value] = self.bytes(value)
                out.size += times
                continue
            out.anchor = out.anchor or below.anchor
            out.size += times * below.size
            out.flops += below.flops
            out.work += below.work
            out.reads |= below.reads
            out.rules |= below.rules | {self.legal[value, node.output]: None}
            out.nodes |= below.nodes
        out.nodes = dict(sorted(out.nodes.items(), key=lambda item: self.order[item[0]])) | {
            node.output: node
        }
        return out

    def bytes(self, value: str) -> int:
        """The size of a value in memory, symbols taken as a typical extent."""
        type_ = self.graph.types[value]
        return estimate(type_.size) * itemsize(type_.dtype)

    def inlined(self, node: Node, cone: _Cone) -> bool:
        """Whether the value of ``node`` is computed in its readers."""
        users = self.graph.users.get(node.output, ())
        if node.output in self.kept or not users or len(node.outputs) > 1 or cone.size > _LARGEST:
            return False
        if any((node.output, user.output) not in self.legal for user in users):
            return False
        if cone.anchor is not None:
            return self.is_epilogue(node, cone)
        if node.op == "concat":
            return len(users) == 1 and users[0].op == "concat"
        if node.op not in POINTWISE and node.op not in VIEWS:
            return False
        return self.pays(node, cone, users) and all(self.accepts(node, cone, user) for user in users)

    def is_epilogue(self, node: Node, cone: _Cone) -> bool:
        """Whether the readers of ``node`` can be computed on results of a reduction that are in registers."""
        assert cone.anchor is not None
        region = self.until_paths_meet(node)
        if (
            not region
            or not all(can_lower(n, self.graph) for n in region)
            or any(self.claimed.get(n.output, cone.anchor.output) != cone.anchor.output for n in region)
        ):
            return False
        user = region[-1]
        here, there = self.graph.types[node.output], self.graph.types[user.output]
        fits = (user.op in MAPS or user.op in ("transpose", "reshape")) and here.size == there.size
        if cone.anchor.op in REDUCTIONS:
            fits |= user.op == "slice" or (user.op == "pad" and not any(ints_of(user, "interior")))
        if not fits or (user.op in VIEWS and cone.anchor.op in ROWWISE and not self.lowers(cone, user)):
            return False
        self.claimed |= {n.output: cone.anchor.output for n in region}
        return True

    def until_paths_meet(self, node: Node) -> tuple[Node, ...]:
        """The readers of ``node`` and theirs, up to the one where all paths meet; none where they never do.

        All but the last are elementwise and as large as ``node``: they are read within the region alone. A
        single reader is such a region.
        """
        size = self.graph.types[node.output].size
        region: list[Node] = []
        ahead = {user.output: user for user in self.graph.users[node.output]}
        while len(ahead) > 1:
            first = min(ahead, key=self.order.__getitem__)
            inner = ahead.pop(first)
            users = self.graph.users.get(first, ())
            fits = inner.op in MAPS and self.graph.types[first].size == size and first not in self.kept
            if (
                not fits
                or len(region) == _REGION
                or any((first, user.output) not in self.legal for user in users)
            ):
                return ()
            region.append(inner)
            ahead |= {user.output: user for user in users}
        return (*region, *ahead.values())

    def lowers(self, cone: _Cone, user: Node) -> bool:
        """Whether a view after a reduction keeps rows and positions in them apart."""
        nodes = (*cone.nodes.values(), user)
        try:
            lower(self.graph, Group(nodes, tuple(cone.reads), user.outputs), "trial")
        except LoweringError:
            return False
        return True

    def pays(self, node: Node, cone: _Cone, users: tuple[Node, ...]) -> bool:
        """Whether inlining into several readers moves no more bytes and repeats only cheap arithmetic."""
        if len(users) == 1 or not cone.reads:
            return True
        # A normalisation writes the rows that it computes for others too, and need not read them.
        readers = len(users) - any(u.op in NORMALISATIONS and u.inputs[0] == node.output for u in users)
        size, taken = (
            self.bytes(node.output),
            sum(min(b, self.bytes(node.output)) for b in cone.reads.values()),
        )
        cheaper = len(users) * taken < taken + (1 + readers) * size
        return cheaper and cone.flops <= _CHEAP

    def accepts(self, node: Node, cone: _Cone, user: Node) -> bool:
        """Whether a reader may compute the elements of an elementwise value itself."""
        if not can_lower(user, self.graph):
            return False
        value, cheap = node.output, cone.flops <= _CHEAP
        view_only = all(n.op in VIEWS for n in cone.nodes.values())
        here, there = self.graph.types[value], self.graph.types[user.output]
        if user.op in CONTRACTIONS:
            return view_only and (self.keeps_lanes(value, cone) or self.is_narrow_image(value, user))
        if user.op in MAPS or user.op in VIEWS:
            return self.repeats_little(cone, estimate(there.size) - estimate(here.size))
        if user.op in NORMALISATIONS:
            return value == user.inputs[0] or cheap
        if user.op == "attention":
            if value == user.inputs[3]:
                queries, keys = (self.graph.types[name].shape for name in user.inputs[:2])
                scores = estimate(product((*queries[:-1], keys[-2])))
                return self.repeats_little(cone, scores - estimate(here.size))
            if value == user.inputs[1] and any(len(self.graph.users[name]) > 1 for name in cone.reads):
                # Keys want a layout of their own (egc.kernels.layouts), which what others read cannot have.
                return False
            return view_only and self.keeps_lanes(value, cone)
        if (user.op in GATHERS and value == user.inputs[0]) or user.op == "pool":
            return cheap
        return user.op in ANCHORS or user.op in GATHERS or user.op in SCATTERS or user.op in ("concat", "pad")

    def repeats_little(self, cone: _Cone, repeated: int) -> bool:
        """Whether computing ``repeated`` elements again costs less than a kernel that computes each once."""
        return repeated <= 0 or (cone.flops <= _CHEAP and repeated * cone.work <= _LAUNCH)

    def is_narrow_image(self, value: str, user: Node) -> bool:
        """Whether a convolution reads an image of so few channels that they share a cache line with others.

        Its inner loops take single pixels, wherever they lie; a copy with the channels together would be
        read little faster.
        """
        if user.op != "conv_channels_last" or value != user.inputs[0]:
            return False
        channels = self.graph.types[value].shape[-1]
        return isinstance(channels, int) and channels <= _NARROW

    def keeps_lanes(self, value: str, cone: _Cone) -> bool:
        """Whether the elements that lie side by side in memory stay on one of the two axes that a
        contraction walks.

        A convolution reads pixels along its channels; a matrix product along k or n. Anything else is
        strided access in the innermost loops, and a copy beforehand is cheaper.
        """
        rank = self.graph.types[value].rank
        place: int | None = rank - 1
        for node in reversed(cone.nodes.values()):
            # Walk from the value down to memory: which axis of the operand is the value's last axis?
            if place is None:
                return False
            if node.op == "transpose":
                place = ints_of(node, "perm")[place]
            elif node.op in ("reshape", "expand"):
                at_end = place == self.graph.types[node.output].rank - 1
                place = self.graph.types[node.inputs[0]].rank - 1 if at_end else None
            base = self.graph.types[node.inputs[0]].rank
        return place == base - 1
