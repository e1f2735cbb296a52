"""``python -m egc.frontend MODEL [NAME=1x3x224x224]…`` prints the graph of a model, and what runs on the
host."""

from __future__ import annotations

import sys

from egc.errors import EgcError, UsageError
from egc.frontend.importer import import_model


def main(arguments: list[str]) -> int:
    """Print the graph; the exit code is 0, or the error's."""
    try:
        if not arguments:
            raise UsageError("no model is given", hint="python -m egc.frontend MODEL.onnx")
        shapes = dict(_shape(text) for text in arguments[1:])
        imported = import_model(arguments[0], shapes)
    except EgcError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(imported.graph)
    for node in imported.hosted:
        print(f"# on the host: {node.title}: {node.why}")
    return 0


def _shape(text: str) -> tuple[str, tuple[int | str, ...]]:
    name, equals, dims = text.rpartition("=")
    if not equals:
        raise UsageError(f"{text!r} is not NAME=SHAPE")
    return name, tuple(int(d) if d.isdigit() else d for d in dims.split("x") if d)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
