"""Python's cyclic garbage collector, out of the way while a model is compiled.

Compiling makes many small values that live to its end, and hardly a cycle; the collector walks over all of
them again and again, a fifth of the time that a model of one node would take.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_NEW_OBJECTS = 200_000  # between two collections of a command


@contextmanager
def paused() -> Iterator[None]:
    """No collection meanwhile, unless it was off already, when it stays off."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def seldom() -> None:
    """Let few collections happen in this process from now on, which is a command's own. What it imports lives
    to its end, and to look at that after every 700 objects, as is the default, takes 0.02 s in all.
    """
    gc.set_threshold(_NEW_OBJECTS)
