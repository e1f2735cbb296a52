"""Parting a serialized model from its weights, so that protobuf never copies them.

The bytes of every large ``raw_data`` among the initializers are cut out of the message; what is left parses
to the same model without them, and the cut-out bytes are used where they lie, in a memory-mapped file. Wire
format: Protocol Buffers, "Encoding" (field numbers from onnx.proto: ModelProto.graph 7,
GraphProto.initializer 5, TensorProto.raw_data 9).
"""

from __future__ import annotations

from collections.abc import Iterator

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
# Smaller tensors are left in place: cutting them out would take longer than copying them.
_MIN_BYTES = 4096

Span = tuple[int, int]


class _Malformed(Exception):
    """Not a message; what is wrong with it is told by whoever parses it whole."""


def part(data: memoryview) -> tuple[bytes, dict[int, Span]] | None:
    """The message without the raw data of its large initializers, and where that lies: (start, stop) by the
    initializer's index. None where there is none, or the message is malformed, or has two graphs."""
    try:
        return _part_model(data)
    except _Malformed:
        return None


def _part_model(data: memoryview) -> tuple[bytes, dict[int, Span]] | None:
    pieces: list[bytes] = []
    spans: dict[int, Span] = {}
    graphs = 0
    for number, start, body, stop in _fields(data, 0, len(data)):
        if number != _GRAPH:
            pieces.append(bytes(data[start:stop]))
            continue
        graphs += 1
        graph = _part_graph(data, body, stop, spans)
        pieces += [_key(_GRAPH), _varint(sum(map(len, graph))), *graph]
    return (b"".join(pieces), spans) if spans and graphs == 1 else None


def _part_graph(data: memoryview, start: int, stop: int, spans: dict[int, Span]) -> list[bytes]:
    pieces: list[bytes] = []
    index = 0
    kept = start
    for number, at, body, end in _fields(data, start, stop):
        if number != _INITIALIZER:
            continue
        if end - body >= _MIN_BYTES and (cut := _part_tensor(data, body, end)) is not None:
            tensor, spans[index] = cut
            pieces += [bytes(data[kept:at]), _key(_INITIALIZER), _varint(len(tensor)), tensor]
            kept = end
        index += 1
    pieces.append(bytes(data[kept:stop]))
    return pieces


def _part_tensor(data: memoryview, start: int, stop: int) -> tuple[bytes, Span] | None:
    raw = [(at, body, end) for number, at, body, end in _fields(data, start, stop) if number == _RAW_DATA]
    if len(raw) != 1 or raw[0][2] - raw[0][1] < _MIN_BYTES:
        return None
    ((at, body, end),) = raw
    return bytes(data[start:at]) + bytes(data[end:stop]), (body, end)


def _fields(data: memoryview, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, start, body, stop) of every field between two places; the body of a number is the number."""
    at = start
    while at < stop:
        key, body = _read_varint(data, at, stop)
        match key & 7:
            case 0:
                _, end = _read_varint(data, body, stop)
            case 1:
                end = body + 8
            case 2:
                length, body = _read_varint(data, body, stop)
                end = body + length
            case 5:
                end = body + 4
            case _:
                raise _Malformed
        if end > stop:
            raise _Malformed
        yield (key >> 3 if key & 7 == 2 else -1), at, body, end
        at = end


def _read_varint(data: memoryview, at: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while at < stop and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise _Malformed


def _key(number: int) -> bytes:
    return _varint(number << 3 | 2)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
