"""What RNN, GRU and LSTM have in common wherever they run: how their attributes name activation functions."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

# The parameters of each activation that has any, with their defaults (alpha, beta); None where there is none.
_PARAMETERS: dict[str, tuple[float | None, float | None]] = {
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01, None),
    "thresholdedrelu": (1.0, None),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0, None),
}
_PLAIN = frozenset({"relu", "tanh", "sigmoid", "softplus", "softsign"})


class Activation(Struct, frozen=True):
    """An activation function by its name in lower case; a parameter that it does not have is 0."""

    kind: str
    alpha: float = 0.0
    beta: float = 0.0


def read_activations(
    names: Sequence[str] | None,
    alphas: Sequence[float] | None,
    betas: Sequence[float] | None,
    defaults: Sequence[str],
    directions: int,
) -> list[tuple[Activation, ...]]:
    """The activation functions of each direction, from the attributes of the node.

    ``defaults`` are one direction's where ``names`` is absent. Each function takes its parameters from the
    front of ``alphas`` and ``betas``. ValueError where there are too few names, or one is unknown.
    """
    each = len(defaults)
    names = list(names or list(defaults) * directions)
    if len(names) != each * directions:
        raise ValueError(f"{len(names)} activations are given; {directions} directions need {each} each")
    alphas, betas = list(alphas or ()), list(betas or ())
    found = []
    for name in names:
        kind = name.lower()
        if kind not in _PARAMETERS and kind not in _PLAIN:
            raise ValueError(f"activation {name!r} is unknown")
        alpha, beta = _PARAMETERS.get(kind, (None, None))
        if alpha is not None and alphas:
            alpha = float(alphas.pop(0))
        if beta is not None and betas:
            beta = float(betas.pop(0))
        found.append(Activation(kind, alpha or 0.0, beta or 0.0))
    return [tuple(found[i * each : (i + 1) * each]) for i in range(directions)]


def read_direction(direction: str, count: int) -> tuple[bool, ...]:
    """Whether each direction runs backward. ValueError where weights for ``count`` directions do not fit."""
    backward = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}.get(direction)
    if backward is None or len(backward) != count:
        raise ValueError(f"direction {direction!r} does not fit weights for {count} directions")
    return backward
