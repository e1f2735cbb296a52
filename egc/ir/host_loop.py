"""Loop as ONNX defines it, for ``onnx.reference``, whose own takes a condition that is left out for false,
joins scan outputs along an axis instead of stacking them, and has no result where there is no iteration.

Imported only where a host node runs: it imports onnx.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper
from onnx.reference.ops import op_loop


class Loop(op_loop.Loop):
    """Runs the body while its condition holds and trips are left; a bound or a condition that is not given
    does not end it. Results: the carried values, then one stack of each scan output."""

    op_domain = ""
    body: Any  # set by the base class, as `_run_body` is
    _run_body: Any

    def _run(
        self,
        M: Any,
        cond: Any,
        *args: Any,
        context: dict[str, Any] | None = None,
        body: Any = None,
        attributes: Any = None,
        bindings: Any = None,
    ) -> Any:
        names = self.body.input_names
        carried = [*args, *[None] * (self.N - len(args))]
        scans: list[list[Any]] = [[] for _ in range(self.K)]
        going, trip = cond is None or bool(cond), 0
        while going and (M is None or trip < M):
            values = [np.array(trip, np.int64), np.array(going), *carried]
            feeds = {**(context or {}), **dict(zip(names, values, strict=True))}
            going, *results = self._run_body(feeds, attributes=attributes, bindings=bindings)
            going = bool(going)
            carried = results[: self.N]
            for scan, value in zip(scans, results[self.N :], strict=True):
                scan.append(value)
            trip += 1
        kinds = self.body.proto_.output[1 + self.N :]
        stacks = [np.stack(scan) if scan else _nothing(kind) for scan, kind in zip(scans, kinds, strict=True)]
        return self._check_and_fix_outputs((*carried, *stacks))


def _nothing(output: Any) -> np.ndarray:
    """What a scan output is without any iteration: no elements, of the type that the body declares."""
    kind = output.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type) if kind.elem_type else np.dtype(np.float32)
    return np.zeros((0, *(dim.dim_value for dim in kind.shape.dim)), dtype)
