"""Mutated models: bit flips, truncations, splices, and changes of single fields, all from one seed."""

from __future__ import annotations

import random
from collections.abc import Callable

import onnx
from onnx import AttributeProto, ModelProto, TensorProto

Mutation = Callable[[random.Random, bytes], bytes]
_HUGE = (-1, 0, 1, 7, 1 << 20, 1 << 31, (1 << 62) + 1, -(1 << 63))


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    """One to eight bits turned over anywhere."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def truncate(rng: random.Random, data: bytes) -> bytes:
    """The end cut off."""
    return data[: rng.randrange(len(data))]


def splice(rng: random.Random, data: bytes) -> bytes:
    """A stretch taken out, doubled, or moved."""
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.randint(1, 64))
    part = data[start:stop]
    place = rng.randrange(len(data))
    return rng.choice(
        (data[:start] + data[stop:], data[:place] + part + data[place:], data[:stop] + part + data[stop:])
    )


def _fields(change: Callable[[random.Random, ModelProto], None]) -> Mutation:
    def apply(rng: random.Random, data: bytes) -> bytes:
        model = ModelProto.FromString(data)
        change(rng, model)
        return model.SerializeToString()

    return apply


def _rename(rng: random.Random, model: ModelProto) -> None:
    node = rng.choice(model.graph.node)
    names = [name for n in model.graph.node for name in (*n.input, *n.output)] + ["", "nowhere", "a b\n{%"]
    fields = rng.choice((node.input, node.output))
    if fields:
        fields[rng.randrange(len(fields))] = rng.choice(names)


def _operator(rng: random.Random, model: ModelProto) -> None:
    node = rng.choice(model.graph.node)
    schemas = onnx.defs.get_all_schemas()
    node.op_type = rng.choice((rng.choice(schemas).name, "NoSuchOperator", ""))
    node.domain = rng.choice((node.domain, node.domain, "com.example", "ai.onnx.ml"))


def _attribute(rng: random.Random, model: ModelProto) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        _operator(rng, model)
        return
    attribute = rng.choice(rng.choice(nodes).attribute)
    match rng.randrange(5):
        case 0:
            attribute.i = rng.choice(_HUGE)
        case 1:
            attribute.ints[:] = [rng.choice(_HUGE) for _ in range(rng.randint(0, 6))]
        case 2:
            attribute.type = rng.choice(list(AttributeProto.AttributeType.values()))
        case 3:
            attribute.f = rng.choice((float("nan"), float("inf"), -1e30, 0.0))
        case 4:
            attribute.name = rng.choice(("axis", "perm", "strides", "nothing", ""))


def _tensor(rng: random.Random, model: ModelProto) -> None:
    if not model.graph.initializer:
        _shape(rng, model)
        return
    tensor = rng.choice(model.graph.initializer)
    match rng.randrange(6):
        case 0:
            tensor.dims[:] = [rng.choice(_HUGE) for _ in range(rng.randint(0, 6))]
        case 1:
            tensor.data_type = rng.choice((*TensorProto.DataType.values(), 99))
        case 2:
            tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]
        case 3:
            tensor.data_location = TensorProto.EXTERNAL
            places = ("../../etc/passwd", "/etc/passwd", "weights.bin", "", "a\0b", "C:\\x")
            for key, value in (
                ("location", rng.choice(places)),
                ("offset", str(rng.choice(_HUGE))),
                ("length", "x"),
            ):
                tensor.external_data.add(key=key, value=value)
        case 4:
            model.graph.initializer.add().CopyFrom(tensor)
        case 5:
            tensor.name = rng.choice(("", "nowhere", tensor.name + "x"))


def _shape(rng: random.Random, model: ModelProto) -> None:
    if not model.graph.input:
        _operator(rng, model)
        return
    value = rng.choice(model.graph.input)
    tensor = value.type.tensor_type
    match rng.randrange(5):
        case 0:
            value.ClearField("type")
        case 1:
            tensor.elem_type = rng.choice((*TensorProto.DataType.values(), 99))
        case 2:
            tensor.ClearField("shape")
        case 3:
            tensor.shape.dim.add().dim_value = rng.choice(_HUGE)
        case 4:
            for dim in tensor.shape.dim:
                dim.dim_param = rng.choice(("N", "floordiv(N, 0)", "a*b+1", "💥", "1x", " "))


def _order(rng: random.Random, model: ModelProto) -> None:
    nodes = list(model.graph.node)
    rng.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _header(rng: random.Random, model: ModelProto) -> None:
    match rng.randrange(4):
        case 0:
            model.ir_version = rng.choice(_HUGE)
        case 1:
            model.opset_import[0].version = rng.choice((*_HUGE, 7, 9, 12, 13, 18))
        case 2:
            del model.opset_import[:]
        case 3:
            model.ClearField("graph")


def _drop(rng: random.Random, model: ModelProto) -> None:
    fields = rng.choice((model.graph.node, model.graph.input, model.graph.output, model.graph.initializer))
    if fields:
        del fields[rng.randrange(len(fields))]


MUTATIONS: dict[str, Mutation] = {
    "flip_bits": flip_bits,
    "truncate": truncate,
    "splice": splice,
    "rename": _fields(_rename),
    "operator": _fields(_operator),
    "attribute": _fields(_attribute),
    "tensor": _fields(_tensor),
    "shape": _fields(_shape),
    "order": _fields(_order),
    "header": _fields(_header),
    "drop": _fields(_drop),
}


def mutated(seed: int, originals: list[bytes]) -> tuple[str, bytes]:
    """A mutation's name and its model, the same for the same seed; some are mutated twice."""
    rng = random.Random(seed)
    names = sorted(MUTATIONS)
    name = names[seed % len(names)]
    data = MUTATIONS[name](rng, rng.choice(originals))
    if rng.random() < 0.3 and data:
        data = flip_bits(rng, data)
    return name, data
