"""What a record says of the model itself, so that :mod:`egc.explain.again` can ask the e-graph once more.

It is the imported graph's text, in which a constant is its type and the hash of its bytes, the options, and
the texts of the files that the user added. That is all that saturation, extraction and scheduling read, but
for small constants: a number that is cut from a vector is written into a kernel, and whether indices are in
range decides how they are read. So their values are there, too.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from egc import __version__
from egc.frontend.importer import Imported
from egc.ir.graph import Constant
from egc.resources import cost_model, shipped_rules

if TYPE_CHECKING:
    from egc.options import Options

Record = dict[str, Any]

_VALUE_BYTES = 256  # of a constant, up to which its values are kept
_INDEX_BYTES = 1 << 20  # the same for the dtypes of indices
_INDICES = ("int32", "int64")


def source_of(imported: Imported, options: Options, threads: int, machine: str) -> Record:
    """What a record says of the model and the options: all that :func:`again` needs."""
    graph = imported.graph
    custom = options.cost_model is not None and cost_model(options.cost_model) is None
    return {
        "graph": str(graph),
        "values": {
            constant.digest: base64.b64encode(np.ascontiguousarray(constant.data).tobytes()).decode()
            for constant in graph.constants.values()
            if _is_kept(constant)
        },
        "outputs": [port.name for port in imported.outputs],
        "fates": [origin.fate for origin in imported.origins],
        "options": {
            "target": options.target,
            "threads": threads,
            "disable_rules": list(options.disable_rules),
            "accuracy": options.accuracy,
            "time_budget": options.time_budget,
            "ilp_seconds": options.ilp_seconds,
        },
        "rules": [[path.name, path.read_text(encoding="utf-8")] for path in options.rules],
        "cost_model": Path(str(options.cost_model)).read_text(encoding="utf-8") if custom else None,
        "made_by": made_by(machine),
    }


def _is_kept(constant: Constant) -> bool:
    """Whether a constant's values go into the record; where all are equal, the graph's text has them."""
    if constant.splat is not None or constant.type.dtype in ("string", "object"):
        return False
    return constant.nbytes <= (_INDEX_BYTES if constant.type.dtype in _INDICES else _VALUE_BYTES)


def made_by(machine: str) -> str:
    """A hash of what decided beside the user's files: this egc's rules and its cost model of that name."""
    hasher = hashlib.sha256(__version__.encode())
    model = cost_model(machine)
    for path in (*shipped_rules(), *([model] if model else [])):
        hasher.update(path.read_bytes())
    return hasher.hexdigest()[:32]
