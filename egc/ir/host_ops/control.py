"""Loop and Scan as ONNX defines them.

Of ``onnx.reference``'s own, Loop takes a condition that is left out for false, joins scan outputs along an
axis instead of stacking them, and has no result where there is no iteration; Scan knows neither directions,
nor axes, nor the batched form of opset 8, nor a sequence of no elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_loop

# Runs the body over its operands in order and gives its results.
Body = Callable[[Sequence[Any]], list[Any]]


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
        stacks = [_stack(scan, kind) for scan, kind in zip(scans, kinds, strict=True)]
        return self._check_and_fix_outputs((*carried, *stacks))


class Scan(OpRun):
    """Runs the body over the elements of the scanned operands along their axes, from either end. Results:
    the carried values, then one stack of each scan output. Before opset 9 each sample of a batch is scanned
    for itself, as far as its own length; what is stacked beyond that is zero."""

    op_domain = ""
    body: Any  # set by the base class, as `_run_body` is
    _run_body: Any

    def need_context(self) -> bool:
        """The body may read what surrounds the node."""
        return True

    def _run(
        self,
        *args: Any,
        context: dict[str, Any] | None = None,
        attributes: Any = None,
        bindings: Any = None,
        **own: Any,
    ) -> Any:
        def body(values: Sequence[Any]) -> list[Any]:
            feeds = {**(context or {}), **dict(zip(self.body.input_names, values, strict=True))}
            return list(self._run_body(feeds, attributes=attributes, bindings=bindings))

        if self.run_params["opsets"][self.onnx_node.domain] >= 9:
            return tuple(self._scan(body, args, own))
        lengths, *batched = args
        samples = []
        for i in range(len(batched[0])):
            values = [value[i] for value in batched]
            samples.append(self._scan(body, values, own, None if lengths is None else int(lengths[i])))
        return tuple(np.stack(column) for column in zip(*samples, strict=True))

    def _scan(
        self, body: Body, args: Sequence[Any], own: dict[str, Any], length: int | None = None
    ) -> list[Any]:
        count = int(own["num_scan_inputs"])
        carried, scanned = list(args[:-count]), args[-count:]
        # Opset 8 knows no axes and calls the operands' directions `directions`.
        directions = own.get("scan_input_directions") or own.get("directions")
        elements = [
            _elements(value, axis, back, length)
            for value, axis, back in zip(
                scanned, _each(own.get("scan_input_axes"), count), _each(directions, count), strict=True
            )
        ]
        kinds = self.body.proto_.output[len(carried) :]
        stacks: list[list[Any]] = [[] for _ in kinds]
        for step in zip(*elements, strict=True):
            results = body([*carried, *step])
            for stack, value in zip(stacks, results[len(carried) :], strict=True):
                stack.append(value)
            carried = results[: len(carried)]
        extent = scanned[0].shape[_each(own.get("scan_input_axes"), count)[0]]
        axes = _each(own.get("scan_output_axes"), len(stacks))
        backward = _each(own.get("scan_output_directions"), len(stacks))
        joined = []
        for stack, kind, axis, back in zip(stacks, kinds, axes, backward, strict=True):
            value = _stack(stack[::-1] if back else stack, kind)
            value = np.pad(value, [(0, extent - len(value)), *[(0, 0)] * (value.ndim - 1)])
            joined.append(np.moveaxis(value, 0, axis))
        return [*carried, *joined]


def _each(values: Sequence[int] | None, count: int) -> list[int]:
    """An attribute with an entry for each of ``count`` values, zeros by default."""
    return [int(v) for v in values or [0] * count]


def _elements(value: np.ndarray, axis: int, back: int, length: int | None) -> np.ndarray:
    """What Scan takes an operand apart into: its first ``length`` elements along ``axis``, or all."""
    first = np.moveaxis(value, axis, 0)[:length]
    return first[::-1] if back else first


def _stack(values: list[Any], output: Any) -> np.ndarray:
    """The values of a scan output, one an iteration, along a new first axis. Without any there are no
    elements, of the type that the body declares."""
    if values:
        return np.stack(values)
    kind = output.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type) if kind.elem_type else np.dtype(np.float32)
    return np.zeros((0, *(dim.dim_value for dim in kind.shape.dim)), dtype)
