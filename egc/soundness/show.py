"""Arrays as counterexamples print them."""

from __future__ import annotations

from typing import Any

import numpy as np

SHOWN = 24  # elements of a tensor that a counterexample prints


def show(array: Any) -> str:
    """An array in one line."""
    array = np.asarray(array)
    if array.size > SHOWN:
        array = array.ravel()[:SHOWN]
        return f"{_text(array)[:-1]}, …] (flat)"
    return _text(array)


def _text(array: Any) -> str:
    if array.dtype.name not in np.sctypeDict:
        array = array.astype(np.float32)
    text = np.array2string(array, separator=", ", max_line_width=10**9, threshold=10**9)
    return " ".join(text.split())
