"""Element types and tensor types.

A dtype is one of the names in ``DTYPES`` (numpy's and ml_dtypes' spelling, ``string`` for text); a tensor
type is a dtype and a shape of dims. The text form of a type is ``float32[batch, 3, 224, 224]``; a scalar is
``float32[]``. A value that is no tensor (ONNX's sequences, optionals and maps: a Python list, None or dict)
has the type ``object[]``; only host nodes read and make such values.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from egc.ir.dims import Dim, Shape, extents, parse_dim, product, symbols_of

FLOATS = ("float32", "float64", "float16", "bfloat16")
SMALL_FLOATS = (
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float4_e2m1fn",
)
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
SMALL_INTS = ("int4", "uint4", "int2", "uint2")
COMPLEX = ("complex64", "complex128")
DTYPES = (*FLOATS, *SMALL_FLOATS, *SIGNED, *UNSIGNED, *SMALL_INTS, *COMPLEX, "bool", "string", "object")


def is_float(dtype: str) -> bool:
    """Whether ``dtype`` is a floating-point type of any width."""
    return dtype in FLOATS or dtype in SMALL_FLOATS


def is_integer(dtype: str) -> bool:
    """Whether ``dtype`` is a signed or unsigned integer type (``bool`` is not)."""
    return dtype in SIGNED or dtype in UNSIGNED or dtype in SMALL_INTS


def numpy_dtype(dtype: str) -> np.dtype:
    """The numpy dtype of ``dtype``; ml_dtypes provides bfloat16, the float8s and the sub-byte types."""
    if dtype in ("string", "object"):
        return np.dtype(object)
    try:
        return np.dtype(dtype)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, dtype))


def dtype_of(array: np.ndarray) -> str:
    """The dtype name of a numpy array; ValueError for one that egc has no name for."""
    if array.dtype.kind in "OUST":
        return "string"
    name = array.dtype.name
    if name not in DTYPES:
        raise ValueError(f"arrays of dtype {name} are not supported")
    return name


def itemsize(dtype: str) -> int:
    """Bytes of one element in memory (sub-byte types take one byte; strings and objects are pointers)."""
    return 8 if dtype in ("string", "object") else numpy_dtype(dtype).itemsize


class TensorType(Struct, frozen=True):
    """The type of a tensor: element type and extents."""

    dtype: str
    shape: Shape

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"unknown dtype {self.dtype!r}")

    @property
    def rank(self) -> int:
        """The number of dims."""
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """The number of elements."""
        return product(self.shape)

    @property
    def extents(self) -> tuple[int, ...]:
        """The shape of a static type; DimError where an extent is symbolic."""
        return extents(self.shape)

    @property
    def is_static(self) -> bool:
        """Whether every dim is an integer."""
        return all(isinstance(dim, int) for dim in self.shape)

    @property
    def symbols(self) -> frozenset[str]:
        """The dim names that occur in the shape."""
        return frozenset().union(*map(symbols_of, self.shape))

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


def parse_type(text: str) -> TensorType:
    """The type that ``text`` prints, such as ``float32[batch, 4]``; ValueError where it is none."""
    dtype, bracket, rest = text.strip().partition("[")
    if not bracket or not rest.endswith("]"):
        raise ValueError(f"{text!r} is not a tensor type: expected dtype[dim, ...]")
    return TensorType(dtype, tuple(parse_dim(part) for part in split_commas(rest[:-1])))


def split_commas(text: str) -> list[str]:
    """The parts of ``text`` between the commas that stand outside every bracket; [] for blank text."""
    parts: list[str] = []
    depth, start = 0, 0
    for i, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    last = text[start:].strip()
    return [*parts, last] if last or parts else []
