"""Graph and allowed fusions in, calls of fused kernels (tensor comprehensions, not yet ordered) out."""

from egc.kernels.build import build_kernels
from egc.kernels.canonical import Lowered, kernel_key
from egc.kernels.elements import LoweringError
from egc.kernels.group import Group, HostCall, KernelCall
from egc.kernels.legality import structurally_legal
from egc.kernels.lower import can_lower, lower
from egc.kernels.partition import partition

__all__ = [
    "Group",
    "HostCall",
    "KernelCall",
    "Lowered",
    "LoweringError",
    "build_kernels",
    "can_lower",
    "kernel_key",
    "lower",
    "partition",
    "structurally_legal",
]
