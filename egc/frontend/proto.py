"""Reading protos: tensors, attributes and types as Python values, never trusting what they declare."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from egc.files import mapped, real
from egc.frontend.messages import AttributeProto, SparseTensorProto, TensorProto, TypeProto
from egc.ir.types import DTYPES as KNOWN
from egc.ir.types import numpy_dtype

_CODES = {
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "FLOAT8E4M3FN": "float8_e4m3fn",
    "FLOAT8E4M3FNUZ": "float8_e4m3fnuz",
    "FLOAT8E5M2": "float8_e5m2",
    "FLOAT8E5M2FNUZ": "float8_e5m2fnuz",
    "FLOAT8E8M0": "float8_e8m0fnu",
    "FLOAT4E2M1": "float4_e2m1fn",
}
# ONNX's number of every element type, and back. Older onnx packages lack the newest types.
DTYPES: Mapping[int, str] = {
    code: _CODES.get(name, name.lower()) for name, code in TensorProto.DataType.items() if name != "UNDEFINED"
}
CODES: Mapping[str, int] = {dtype: code for code, dtype in DTYPES.items()}
_BITS = {"int4": 4, "uint4": 4, "float4_e2m1fn": 4, "int2": 2, "uint2": 2}
_MAX_RANK = 64  # of a numpy array
# Of an array, its extents of 0 left aside, as numpy counts them: bytes fit into int64.
_MAX_ELEMENTS = (1 << 63) // 16 - 1
# A sparse tensor is made dense up to this many bytes.
_MAX_DENSE = 256 << 20


class BadProto(ValueError):
    """A proto whose content contradicts itself; the text says how."""


def element_type(code: int) -> str:
    """The dtype of an ONNX element type number; BadProto where there is none."""
    if code not in DTYPES:
        raise BadProto(f"{code} is not an element type")
    if DTYPES[code] not in KNOWN:
        raise BadProto(f"the element type {DTYPES[code]} is not supported")
    return DTYPES[code]


class ExternalData:
    """The files beside a model that hold its large tensors, memory-mapped once each and never left open to
    write."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._maps: dict[Path, np.ndarray] = {}

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that were read, sorted."""
        return tuple(sorted(self._maps))

    def read(self, tensor: TensorProto, wanted: int) -> np.ndarray:
        """The ``wanted`` bytes of an external tensor as a read-only view; BadProto where they are not to be
        had."""
        keys = {entry.key: entry.value for entry in tensor.external_data}
        data = self._open(keys.get("location", ""))
        try:
            offset = int(keys.get("offset") or 0)
            length = int(keys.get("length") or wanted)
        except ValueError:
            raise BadProto("offset or length of the external data is not a number") from None
        if length != wanted:
            raise BadProto(f"the external data has {length} bytes, dtype and shape need {wanted}")
        if offset < 0 or offset + length > data.size:
            raise BadProto(
                f"bytes {offset} to {offset + length} leave the external file of {data.size} bytes"
            )
        return data[offset : offset + length]

    def _open(self, location: str) -> np.ndarray:
        if self.folder is None:
            raise BadProto(f"its data is in the file {location!r}, and the model was not given as a path")
        parts = PurePosixPath(location.replace("\\", "/"))
        if not location or "\0" in location or parts.is_absolute() or ".." in parts.parts or ":" in location:
            raise BadProto(f"the external file {location!r} is not a path inside the model's folder")
        try:
            folder = real(self.folder)
            path = real(folder / parts)
            if not path.is_relative_to(folder):
                raise BadProto(f"the external file {location!r} leads out of the model's folder")
            if path not in self._maps:
                self._maps[path] = mapped(path)
        except FileNotFoundError:
            raise BadProto(f"the external file {location!r} does not exist in the model's folder") from None
        except OSError as error:
            raise BadProto(f"the external file {location!r} cannot be read: {error.strerror}") from None
        return self._maps[path]


def _check_rank(rank: int) -> None:
    if rank > _MAX_RANK:
        raise BadProto(f"it has rank {rank}, and the most is {_MAX_RANK}")


def _checked_shape(dims: Iterable[int]) -> tuple[int, ...]:
    """A tensor's shape; BadProto where no array can have it, but for what its bytes or numbers tell: where it
    has elements, there are never so many of these.
    """
    shape = tuple(dims)
    _check_rank(len(shape))
    if any(d < 0 for d in shape):
        raise BadProto(f"negative extent in the shape {list(shape)}")
    if 0 in shape and math.prod(d for d in shape if d) > _MAX_ELEMENTS:
        raise BadProto(f"the extents of the shape {list(shape)} are too large")
    return shape


def tensor_array(tensor: TensorProto, external: ExternalData, raw: np.ndarray | None = None) -> np.ndarray:
    """The elements of a tensor proto, without a copy where it holds raw bytes; BadProto where they do not
    fit.

    ``raw`` are its raw bytes where they were cut out of the proto.
    """
    dtype = element_type(tensor.data_type)
    shape = _checked_shape(tensor.dims)
    count = math.prod(shape)
    bits = _BITS.get(dtype, 0 if dtype == "string" else 8 * numpy_dtype(dtype).itemsize)
    wanted = (count * bits + 7) // 8
    if tensor.HasField("segment"):
        raise BadProto("tensors in segments are not supported")
    if tensor.data_location == TensorProto.EXTERNAL:
        if dtype == "string":
            raise BadProto("strings cannot be external data")
        return _from_bytes(external.read(tensor, wanted), dtype, shape)
    if dtype == "string":
        return _strings(tensor, shape, count)
    if raw is not None or tensor.HasField("raw_data"):
        raw = np.frombuffer(tensor.raw_data, np.uint8) if raw is None else raw
        if raw.size != wanted:
            raise BadProto(f"it holds {raw.size} bytes, {dtype} of shape {list(shape)} needs {wanted}")
        return _from_bytes(raw, dtype, shape)
    held = sum(len(getattr(tensor, name)) for name in _FIELDS)
    # Complex numbers take two entries; types of four and two bits share one between several elements.
    needed = 2 * count if dtype.startswith("complex") else wanted if dtype in _BITS else count
    if held < needed or (held != needed and dtype not in _BITS):
        raise BadProto(f"it holds {held} numbers, {dtype} of shape {list(shape)} needs {needed}")
    if (own := _OWN_FIELDS.get(dtype)) is not None:
        return np.array(getattr(tensor, own), numpy_dtype(dtype)).reshape(shape)
    from onnx import numpy_helper

    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadProto(str(error)) from None


_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
# The dtypes whose elements stand in a field as they are.
_OWN_FIELDS = {
    "float32": "float_data",
    "int32": "int32_data",
    "int64": "int64_data",
    "float64": "double_data",
    "uint64": "uint64_data",
}


def _from_bytes(raw: np.ndarray, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if dtype in _BITS:
        return _unpack(raw, dtype, shape)
    if np.little_endian:
        return raw.view(numpy_dtype(dtype)).reshape(shape)
    return raw.view(numpy_dtype(dtype).newbyteorder("<")).astype(numpy_dtype(dtype)).reshape(shape)


def _unpack(raw: np.ndarray, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Elements of two or four bits, the first in the low bits of a byte."""
    bits = _BITS[dtype]
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = ((raw[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)[: math.prod(shape)].astype(np.uint8)
    if dtype in ("int4", "int2"):
        codes = codes.astype(np.int8)
        codes = np.where(codes >= 1 << (bits - 1), codes - (1 << bits), codes)
    elif dtype == "float4_e2m1fn":
        return codes.view(numpy_dtype(dtype)).reshape(shape)
    return codes.astype(numpy_dtype(dtype)).reshape(shape)


def _strings(tensor: TensorProto, shape: tuple[int, ...], count: int) -> np.ndarray:
    if len(tensor.string_data) != count:
        raise BadProto(f"it holds {len(tensor.string_data)} strings, the shape {list(shape)} needs {count}")
    out = np.empty(count, dtype=object)
    out[:] = [text.decode("utf-8", "replace") for text in tensor.string_data]
    return out.reshape(shape)


def dense_array(sparse: SparseTensorProto, external: ExternalData) -> np.ndarray:
    """A sparse tensor as an ordinary array; BadProto where its indices do not fit or it would be too
    large."""
    shape = _checked_shape(sparse.dims)
    values, indices = tensor_array(sparse.values, external), tensor_array(sparse.indices, external)
    if math.prod(shape) * values.itemsize > _MAX_DENSE:
        raise BadProto(f"the shape {list(shape)} is too large to make dense")
    if indices.dtype.kind not in "iu":
        raise BadProto(f"its indices are {indices.dtype}, and should be int64")
    if indices.ndim == 2:
        if indices.shape[1] != len(shape) or ((indices < 0) | (indices >= np.array(shape))).any():
            raise BadProto("its indices leave its shape")
        indices = np.ravel_multi_index(tuple(indices.T), shape) if indices.size else indices[:, 0]
    if indices.shape != values.shape or ((indices < 0) | (indices >= math.prod(shape))).any():
        raise BadProto("its indices do not fit its values and shape")
    out = np.zeros(math.prod(shape), dtype=values.dtype)
    out[indices] = values
    return out.reshape(shape)


def attribute_value(attribute: AttributeProto, external: ExternalData) -> Any:
    """An attribute as a Python value: numbers, strings, lists of them, arrays, GraphProtos; BadProto where
    it is none."""
    kind = attribute.type
    match kind:
        case AttributeProto.FLOAT:
            return attribute.f
        case AttributeProto.INT:
            return attribute.i
        case AttributeProto.STRING:
            return attribute.s.decode("utf-8", "replace")
        case AttributeProto.FLOATS:
            return list(attribute.floats)
        case AttributeProto.INTS:
            return list(attribute.ints)
        case AttributeProto.STRINGS:
            return [text.decode("utf-8", "replace") for text in attribute.strings]
        case AttributeProto.TENSOR:
            return tensor_array(attribute.t, external)
        case AttributeProto.TENSORS:
            return [tensor_array(tensor, external) for tensor in attribute.tensors]
        case AttributeProto.SPARSE_TENSOR:
            return dense_array(attribute.sparse_tensor, external)
        case AttributeProto.GRAPH:
            return attribute.g
        case AttributeProto.GRAPHS:
            return list(attribute.graphs)
        case AttributeProto.TYPE_PROTO:
            return attribute.tp
    raise BadProto(f"the attribute {attribute.name!r} has no known type")


def declared_type(proto: TypeProto) -> tuple[str, list[int | str | None] | None]:
    """What a value's type says: a dtype, and an integer, a name or None for each axis; None where the rank
    is unknown.

    Sequences, optionals and maps are ``("object", [])``; a type that does not say has the dtype ``""``.
    """
    kind = proto.WhichOneof("value")
    if kind is None:
        return "", None
    if kind == "sparse_tensor_type":
        raise BadProto("sparse tensors cannot be inputs or outputs")
    if kind != "tensor_type":
        return "object", []
    tensor = proto.tensor_type
    dtype = element_type(tensor.elem_type) if tensor.elem_type else ""
    if not tensor.HasField("shape"):
        return dtype, None
    shape: list[int | str | None] = []
    _check_rank(len(tensor.shape.dim))
    for dim in tensor.shape.dim:
        if dim.WhichOneof("value") == "dim_value":
            if dim.dim_value < 0:
                raise BadProto(f"an extent of {dim.dim_value}")
            shape.append(dim.dim_value)
        else:
            shape.append(dim.dim_param or None)
    return dtype, shape
