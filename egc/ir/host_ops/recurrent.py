"""RNN, GRU and LSTM over sequences of any length.

``onnx.reference`` ignores sequence_lens, clip, activations with their parameters, and input_forget. These
take every attribute of opsets 7 to 22, a batch at once: as in `egc.frontend.rnn`, the products with the input
weights of all steps are one matrix product, and a step beyond a sample's own length keeps the state and
outputs zero. float16 and bfloat16 are computed in float32.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from msgspec import Struct
from onnx.reference.op_run import OpRun

from egc.ir.recurrent import Activation, read_activations, read_direction

Function = Callable[[np.ndarray], np.ndarray]
State = tuple[np.ndarray, ...]


class _Cell(Struct, frozen=True):
    """One direction: recurrent weights [H, G*H], their biases [G*H], peepholes [3*H] and activations."""

    r: np.ndarray
    r_bias: np.ndarray
    peepholes: np.ndarray
    functions: tuple[Function, ...]


class _Recurrent(OpRun):
    """What the three have in common: reading operands, walking the steps, and putting results in order."""

    op_domain = ""
    gates: ClassVar[int]
    defaults: ClassVar[tuple[str, ...]]

    @abstractmethod
    def _step(self, cell: _Cell, x: np.ndarray, state: State, attributes: Mapping[str, Any]) -> State:
        """The state after a step: ``x`` [B, G*H] is its product with the input weights, biases added."""

    def _run(
        self,
        X: Any,
        W: Any,
        R: Any,
        B: Any = None,
        sequence_lens: Any = None,
        initial_h: Any = None,
        **attributes: Any,
    ) -> Any:
        return self._recur([X, W, R, B, sequence_lens, None], [initial_h], attributes)

    def _recur(self, operands: list[Any], initial: list[Any], attributes: Mapping[str, Any]) -> Any:
        """Y and the last states. ``operands`` are X, W, R, B, sequence_lens and P, ``initial`` the states."""
        x, w, r, bias, lengths, peepholes = operands
        batch_first = bool(attributes.get("layout"))
        dtype = x.dtype
        wide = np.float64 if dtype == np.float64 else np.float32
        x = _wide(x, wide)
        if batch_first:
            x = x.swapaxes(0, 1)
        directions, _, hidden = r.shape
        shape = (directions, x.shape[1], hidden)
        states = [_state(value, shape, wide, batch_first) for value in initial]
        bias = np.zeros((directions, 2 * self.gates * hidden), wide) if bias is None else _wide(bias, wide)
        peepholes = np.zeros((directions, 3 * hidden), wide) if peepholes is None else _wide(peepholes, wide)
        backward = read_direction(attributes.get("direction") or "forward", directions)
        if not any(a.name == "activations" for a in self.onnx_node.attribute):
            # The schema's own default of RNN is for two directions, however many there are.
            attributes = {**attributes, "activations": None}
        functions = _functions(attributes, self.defaults, directions)
        y = np.zeros((x.shape[0], *shape), wide)
        for d in range(directions):
            w_bias, r_bias = np.split(bias[d], 2)
            cell = _Cell(_wide(r[d], wide).T, r_bias, peepholes[d], functions[d])
            projected = x @ _wide(w[d], wide).T + w_bias
            order = range(x.shape[0])
            state = tuple(value[d] for value in states)
            for t in reversed(order) if backward[d] else order:
                after = self._step(cell, projected[t], state, attributes)
                state, y[t, d] = _living(t, lengths, state, after)
            for value, last in zip(states, state, strict=True):
                value[d] = last
        if batch_first:
            y, states = y.transpose(2, 0, 1, 3), [value.swapaxes(0, 1) for value in states]
        return tuple(np.ascontiguousarray(v, dtype) for v in (y, *states))[: len(self.onnx_node.output)]


class RNN(_Recurrent):
    """h' = f(x W + h R + b)."""

    gates, defaults = 1, ("Tanh",)

    def _step(self, cell: _Cell, x: np.ndarray, state: State, attributes: Mapping[str, Any]) -> State:
        (h,), (f,) = state, cell.functions
        return (f(x + h @ cell.r + cell.r_bias),)


class GRU(_Recurrent):
    """z, r = f(…); n = g(x W + (r h) R); h' = (1 - z) n + z h; r after the product if linear_before_reset."""

    gates, defaults = 3, ("Sigmoid", "Tanh")

    def _step(self, cell: _Cell, x: np.ndarray, state: State, attributes: Mapping[str, Any]) -> State:
        (h,), (f, g) = state, cell.functions
        two = 2 * h.shape[1]
        z, r = np.split(f(x[:, :two] + h @ cell.r[:, :two] + cell.r_bias[:two]), 2, axis=1)
        if attributes.get("linear_before_reset"):
            fresh = r * (h @ cell.r[:, two:] + cell.r_bias[two:])
        else:
            fresh = (r * h) @ cell.r[:, two:] + cell.r_bias[two:]
        return ((1 - z) * g(x[:, two:] + fresh) + z * h,)


class LSTM(_Recurrent):
    """i, o, f = gates; c' = f c + i g(…); h' = o h(c'); peepholes let the gates see c."""

    gates, defaults = 4, ("Sigmoid", "Tanh", "Tanh")

    def _run(
        self,
        X: Any,
        W: Any,
        R: Any,
        B: Any = None,
        sequence_lens: Any = None,
        initial_h: Any = None,
        initial_c: Any = None,
        P: Any = None,
        **attributes: Any,
    ) -> Any:
        return self._recur([X, W, R, B, sequence_lens, P], [initial_h, initial_c], attributes)

    def _step(self, cell: _Cell, x: np.ndarray, state: State, attributes: Mapping[str, Any]) -> State:
        (h, c), (f, g, h_of) = state, cell.functions
        i, o, forget, fresh = np.split(x + h @ cell.r + cell.r_bias, 4, axis=1)
        seen_i, seen_o, seen_forget = np.split(cell.peepholes, 3)
        i = f(i + seen_i * c)
        forget = 1 - i if attributes.get("input_forget") else f(forget + seen_forget * c)
        c = forget * c + i * g(fresh)
        return f(o + seen_o * c) * h_of(c), c


def _wide(value: np.ndarray, dtype: Any) -> np.ndarray:
    return value.astype(dtype, copy=False)


def _state(given: Any, shape: tuple[int, ...], dtype: Any, batch_first: bool) -> np.ndarray:
    """A copy of an initial state as [D, B, H]; zeros where none is given."""
    if given is None:
        return np.zeros(shape, dtype)
    return np.array(given.swapaxes(0, 1) if batch_first else given, dtype)


def _living(t: int, lengths: Any, before: State, after: State) -> tuple[State, np.ndarray]:
    """The state and output after step ``t``; a sample that has ended keeps its state and outputs zero."""
    if lengths is None:
        return after, after[0]
    alive = (t < lengths)[:, None]
    kept = tuple(np.where(alive, new, old) for new, old in zip(after, before, strict=True))
    return kept, np.where(alive, after[0], 0)


def _functions(
    attributes: Mapping[str, Any], defaults: tuple[str, ...], directions: int
) -> list[tuple[Function, ...]]:
    """The activation functions of each direction, their operands clipped where the node says so."""
    found = read_activations(
        attributes.get("activations"),
        attributes.get("activation_alpha"),
        attributes.get("activation_beta"),
        defaults,
        directions,
    )
    clip = attributes.get("clip")
    return [tuple(_clipped(_function(one), clip) for one in each) for each in found]


def _clipped(function: Function, clip: float | None) -> Function:
    return function if clip is None else lambda x: function(np.clip(x, -clip, clip))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _function(activation: Activation) -> Function:
    alpha, beta = activation.alpha, activation.beta
    forms: dict[str, Function] = {
        "relu": lambda x: np.maximum(x, 0),
        "tanh": np.tanh,
        "sigmoid": _sigmoid,
        "softplus": lambda x: np.logaddexp(x, 0),
        "softsign": lambda x: x / (1 + np.abs(x)),
        "affine": lambda x: alpha * x + beta,
        "leakyrelu": lambda x: np.where(x >= 0, x, alpha * x),
        "thresholdedrelu": lambda x: np.where(x > alpha, x, 0),
        "scaledtanh": lambda x: alpha * np.tanh(beta * x),
        "hardsigmoid": lambda x: np.clip(alpha * x + beta, 0, 1),
        "elu": lambda x: np.where(x >= 0, x, alpha * np.expm1(x)),
    }
    return forms[activation.kind]
