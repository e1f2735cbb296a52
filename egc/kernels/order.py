"""Putting steps that read and write values into an order in which they can run."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def runnable(items: Sequence[T], reads: Sequence[Iterable[str]], writes: Sequence[Iterable[str]]) -> list[T]:
    """``items`` so that each stands after every other that writes what it reads, else as they stood (Kahn
    1962).

    A value may have several writers: its readers stand after all of them. ValueError where items wait for
    each other.
    """
    writers: dict[str, list[int]] = {}
    for i, values in enumerate(writes):
        for value in values:
            writers.setdefault(value, []).append(i)
    waits = [
        {w for value in values for w in writers.get(value, ()) if w != i} for i, values in enumerate(reads)
    ]
    followers: list[list[int]] = [[] for _ in items]
    for i, before in enumerate(waits):
        for w in before:
            followers[w].append(i)
    missing = [len(before) for before in waits]
    ready = [i for i, count in enumerate(missing) if count == 0]
    out: list[T] = []
    while ready:
        i = heapq.heappop(ready)
        out.append(items[i])
        for follower in followers[i]:
            missing[follower] -= 1
            if missing[follower] == 0:
                heapq.heappush(ready, follower)
    if len(out) < len(items):
        raise ValueError("steps wait for each other")
    return out
