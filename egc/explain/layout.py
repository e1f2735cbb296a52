"""Where the nodes of a graph are drawn: layers from top to bottom, few crossings, straight edges.

The steps are those of Sugiyama, Tagawa & Toda (IEEE Trans. SMC 11(2), 1981): layers by longest path, long
edges cut by bends, order in a layer by the mean position of neighbours, and positions that come as near to
the neighbours' as the order and the least distance allow (isotonic regression by pooling adjacent violators).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

_ORDER_SWEEPS = 6
_PLACE_SWEEPS = 8
_LONGEST = (
    30  # layers: a longer edge is drawn without bends, or a value that all layers read would fill the picture
)

Point = tuple[float, float]


def layered(
    count: int, edges: Sequence[tuple[int, int]], *, distance: float, height: float
) -> tuple[list[Point], list[list[Point]]]:
    """The centres of ``count`` nodes, and for every edge (from, to) of an acyclic graph the points that it
    passes.

    ``distance`` is the least one between the centres of neighbours in a layer, ``height`` that between
    layers.
    """
    drawing = _Drawing(count, edges)
    drawing.order()
    x = drawing.positions(distance)
    points = [(x[node], drawing.layer[node] * height) for node in range(len(drawing.layer))]
    paths = [[points[node] for node in path] for path in drawing.paths]
    return points[:count], paths


class _Drawing:
    def __init__(self, count: int, edges: Sequence[tuple[int, int]]) -> None:
        self.layer = _layers(count, edges)
        self.real = count
        self.above: list[list[int]] = [[] for _ in range(count)]
        self.below: list[list[int]] = [[] for _ in range(count)]
        self.paths = [self.path(start, end) for start, end in edges]
        rows: list[list[int]] = [[] for _ in range(max(self.layer, default=-1) + 1)]
        for node, layer in enumerate(self.layer):
            rows[layer].append(node)
        self.rows = rows

    def path(self, start: int, end: int) -> list[int]:
        """An edge as a chain through the layers; bends are nodes behind the real ones."""
        chain = [start]
        if self.layer[end] - self.layer[start] <= _LONGEST:
            for layer in range(self.layer[start] + 1, self.layer[end]):
                self.layer.append(layer)
                self.above.append([])
                self.below.append([])
                chain.append(len(self.layer) - 1)
        chain.append(end)
        for a, b in pairwise(chain):
            self.below[a].append(b)
            self.above[b].append(a)
        return chain

    def order(self) -> None:
        """Sort every layer by the mean place of its neighbours, downwards and upwards in turn."""
        place = [0.0] * len(self.layer)
        for row in self.rows:
            place_of(row, place)
        for sweep in range(_ORDER_SWEEPS):
            near = self.above if sweep % 2 == 0 else self.below
            for row in self.rows if sweep % 2 == 0 else reversed(self.rows):
                row.sort(key=lambda node: (_mean([place[n] for n in near[node]], place[node]), node))
                place_of(row, place)

    def positions(self, distance: float) -> list[float]:
        """The horizontal position of every node."""
        x = [0.0] * len(self.layer)
        for row in self.rows:
            for i, node in enumerate(row):
                x[node] = (i - (len(row) - 1) / 2) * distance
        for sweep in range(_PLACE_SWEEPS):
            for row in self.rows if sweep % 2 == 0 else reversed(self.rows):
                near = [self.holders(node) if sweep % 2 == 0 else self.below[node] for node in row]
                wanted = [
                    _mean([x[n] for n in nodes], x[node]) for node, nodes in zip(row, near, strict=True)
                ]
                gaps = [self.gap(a, b, distance) for a, b in pairwise(row)]
                weights = [
                    1.0 if self.above[node] and nodes else 0.01 for node, nodes in zip(row, near, strict=True)
                ]
                for node, value in zip(row, _spread(wanted, weights, gaps), strict=True):
                    x[node] = value
        return x

    def holders(self, node: int) -> list[int]:
        """The neighbours above that a node stands under: not mere sources, which would pull a long chain
        sideways."""
        return [n for n in self.above[node] if self.above[n]] or self.above[node]

    def gap(self, a: int, b: int, distance: float) -> float:
        """The least distance of neighbours: bends need little room."""
        return distance * (0.5 * (a < self.real) + 0.5 * (b < self.real) or 0.1)


def place_of(row: Sequence[int], place: list[float]) -> None:
    """Note the relative places of a layer's nodes, from 0 to 1."""
    for i, node in enumerate(row):
        place[node] = (i + 0.5) / len(row)


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The longest path from a source to each node; sources stand directly above their first reader."""
    after: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for start, end in edges:
        after[start].append(end)
        waiting[end] += 1
    sources = [node for node in range(count) if waiting[node] == 0]
    layer = [0] * count
    ready = list(sources)
    for node in ready:
        for end in after[node]:
            layer[end] = max(layer[end], layer[node] + 1)
            waiting[end] -= 1
            if waiting[end] == 0:
                ready.append(end)
    for node in sources:
        if after[node]:
            layer[node] = min(layer[end] for end in after[node]) - 1
    return layer


def _spread(wanted: Sequence[float], weights: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """The values nearest to ``wanted``, in weighted least squares, whose neighbours are at least ``gaps``
    apart."""
    offsets = [0.0]
    for gap in gaps:
        offsets.append(offsets[-1] + gap)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight, offset in zip(wanted, weights, offsets, strict=False):
        mean, length = value - offset, 1
        while blocks and blocks[-1][0] >= mean:
            before, heavy, count = blocks.pop()
            mean = (before * heavy + mean * weight) / (heavy + weight)
            weight, length = heavy + weight, count + length
        blocks.append((mean, weight, length))
    flat = [mean for mean, _, length in blocks for _ in range(length)]
    return [value + offset for value, offset in zip(flat, offsets, strict=False)]
