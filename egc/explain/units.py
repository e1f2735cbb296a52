"""Times, differences and counts as people read them."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """Seconds as text with three digits; a dash where unknown."""
    if seconds is None:
        return "–"
    size = abs(seconds)
    if size == 0:
        return "0"
    if size >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if size >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def counted(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def difference(seconds: float) -> str:
    """A difference in cost, with its sign."""
    return "the same" if seconds == 0 else ("+" if seconds > 0 else "−") + duration(abs(seconds))
