"""What goes into one kernel: a group of graph nodes, and the calls that a compiled program is made of."""

from __future__ import annotations

from msgspec import Struct

from egc.ir.dims import Dim
from egc.ir.graph import Node
from egc.ir.kernel import Kernel


class Group(Struct, frozen=True):
    """Nodes that become one kernel, in topological order.

    ``inputs`` are the values read from memory, ``outputs`` those written to memory; the first output is the
    one whose elements the kernel's last stage walks. ``fused_by`` names the rules that allowed each edge
    inside the group. ``into`` is set where the first output lies inside another value (an operand of a
    concatenation that is written in place): that value and the position in it of the first element. Several
    groups then write parts of one value. ``placed`` are the operands of this group's concatenation that
    others write there.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fused_by: tuple[str, ...] = ()
    into: tuple[str, tuple[Dim, ...]] | None = None
    placed: tuple[str, ...] = ()

    @property
    def root(self) -> str:
        """The value that the kernel is built around: the first output."""
        return self.outputs[0]

    @property
    def writes(self) -> tuple[str, ...]:
        """The values whose memory the kernel writes, wholly or in part."""
        return (self.into[0] if self.into else self.root, *self.outputs[1:])


class KernelCall(Struct, frozen=True):
    """A step of the program: ``kernel`` over the values ``args``, in the order of ``kernel.params``.

    The buffer of a parameter may have another shape than the value's type: the same row-major bytes, with
    adjacent dims merged. ``nodes`` are the graph nodes that the call computes.
    """

    kernel: Kernel
    args: tuple[str, ...]
    nodes: tuple[Node, ...]
    fused_by: tuple[str, ...] = ()


class HostCall(Struct, frozen=True):
    """A step that numpy runs: a ``host`` node, or an operator or dtype that is not compiled."""

    node: Node
