"""What a loop nest does, step by step: which points it computes, in which order, and what comes out.

(For a step span kind r) runs r at the positions 0, step, … < span of axis a, counted from where the loops
round it stand; what lies beyond the axis' extent is cut off. Iterations of `par`, `block`, `thread` and `vec`
are done at once, so none of them may need another: only over a reduction may `vec` and `thread` do so, where
each lane keeps a partial result of its own, and these are combined at the end. A loop's span is the step of
the loop over its axis that stands round it, which its step divides, and the extent where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct, field

from egc.ir import nest
from egc.ir.dims import evaluate
from egc.ir.evaluate_kernel import REDUCE, Points
from egc.ir.kernel import Stage
from egc.ir.scalar import combiner_identity
from egc.ir.types import numpy_dtype
from egc.schedule.cells import Do
from egc.soundness.nest_cases import Case
from egc.soundness.nest_terms import Both, Loop, Term, stages

KINDS = ("whole", *nest.KINDS)
_AT_ONCE = ("par", "block", "thread", "vec")
_COUNTED = ("unroll", "vec")  # copies, which must be counted when compiling
POINTS = 50_000  # that a nest may compute, each as often as it does


class Broken(Exception):
    """A term that cannot be run; the text says why."""


class Ran(Struct):
    """What a nest did: how often it computed each point, by stage, and the content of the outputs."""

    visits: list[np.ndarray]
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)


def run(term: Term, case: Case) -> Ran:
    """Run a nest. Raises Broken."""
    _check_parts(term, case, ())
    with np.errstate(all="ignore"):
        return _Runner(term, case).run()


def race(term: Term, case: Case, around: tuple[str, ...] = ()) -> str | None:
    """Why iterations that are done at once must not be; None where they may."""
    match term:
        case Loop(axis=axis, kind=kind, body=body):
            if kind in _AT_ONCE:
                for number in sorted({do.stage for do in stages(body)}):
                    stage = case.kernel.stages[number]
                    name = case.names[number].get(axis)
                    loop = f"iterations of `{loop_text(term, case, axis not in around)}` are done at once"
                    if stage.ordered or stage.mode != "set":
                        return f"{loop}, but those of stage {stage.name} build on one another"
                    if name in {a.name for a in stage.reduce} and kind in ("par", "block"):
                        return f"{loop}, but stage {stage.name} adds them up in one place"
            return race(body, case, (*around, axis))
        case Both(first=first, second=second):
            return race(first, case, around) or race(second, case, around)
    return None


def misfit(term: Term, case: Case, around: Mapping[str, int] | None = None) -> str | None:
    """Why loops over one axis do not fit into each other; None where they do."""
    around = around or {}
    match term:
        case Loop(axis=axis, step=step, span=span, kind=kind, body=body):
            outside = around.get(axis)
            text = loop_text(term, case, outside is None)
            if span != (case.nominal[axis] if outside is None else outside):
                there = f"steps of {outside} are" if outside else f"an axis {case.nominal[axis]} long is"
                return f"`{text}` stands where {there} to be covered"
            if outside is not None and (step >= outside or outside % step):
                return f"`{text}` stands inside steps of {outside}, of which its step is no proper divisor"
            if kind in _COUNTED and outside is None and _is_symbolic(axis, case):
                return f"`{text}` makes as many copies as only the run time knows"
            return misfit(body, case, {**around, axis: step})
        case Both(first=first, second=second):
            return misfit(first, case, around) or misfit(second, case, around)
    return None


def loop_text(loop: Loop, case: Case, outermost: bool) -> str:
    """A loop in one line, with a symbolic extent by its name."""
    below = str(loop.span)
    if outermost and _is_symbolic(loop.axis, case) and loop.span == case.nominal[loop.axis]:
        below = next(iter(case.dims))
    return f"for {loop.axis} step {loop.step} below {below} {loop.kind}"


def _is_symbolic(axis: str, case: Case) -> bool:
    """Whether the extent of an axis is known only when the nest runs."""
    return any(
        not isinstance(a.extent, int)
        for number, stage in enumerate(case.kernel.stages)
        for a in stage.all_axes
        if case.names[number].get(axis) == a.name
    )


def _check_parts(term: Term, case: Case, around: tuple[str, ...]) -> None:
    match term:
        case Loop(axis=axis, step=step, kind=kind, body=body):
            if kind not in KINDS:
                raise Broken(f"{kind} is no kind of loop")
            if step < 1:
                raise Broken(f"a loop over {axis} has steps of {step}")
            _check_parts(body, case, (*around, axis))
        case Both(first=first, second=second):
            _check_parts(first, case, around)
            _check_parts(second, case, around)
        case Do(stage=number, pack=pack):
            if number >= len(case.kernel.stages):
                raise Broken(f"there is no stage number {number}")
            stage = case.kernel.stages[number]
            for axis in around:
                if axis not in case.names[number]:
                    raise Broken(
                        f"stage {stage.name} stands inside a loop over {axis}, which is none of its axes"
                    )
            if pack is not None:
                _check_pack(pack, stage, case)


def _check_pack(pack: tuple[str, int, int], stage: Stage, case: Case) -> None:
    name, dim, width = pack
    buffer = case.kernel.buffer.get(name)
    if buffer is None or all(load.buffer != name for load in stage.loads()):
        raise Broken(f"stage {stage.name} reads no {name} that panels could hold")
    if not buffer.constant:
        raise Broken(f"{name} is in panels, but its content is not known when compiling")
    if not 0 <= dim < buffer.type.rank or width < 1:
        raise Broken(f"{name} : {buffer.type} has no panels of {width} along dim {dim}")


class _Runner:
    """Runs one nest over one case's data."""

    def __init__(self, term: Term, case: Case) -> None:
        self.term, self.case = term, case
        self.arrays = {
            buffer.name: np.array(case.inputs[buffer.name])
            if buffer.name in case.inputs
            else _fresh(buffer.role, buffer.type.dtype, _shape(buffer.type.shape, case))
            for buffer in case.kernel.buffers
        }
        self.extents = [
            {a.name: case.extents[e] for e, a in _axes(case, i)} for i in range(len(case.kernel.stages))
        ]
        self.visits = [np.zeros(tuple(of_stage.values()), np.int64) for of_stage in self.extents]
        self.partial: list[np.ndarray | None] = [None for _ in case.kernel.stages]
        self.done = 0

    def run(self) -> Ran:
        self.walk(self.term, (), {})
        outs = {b.name: self.arrays[b.name] for b in self.case.kernel.params if b.role == "out"}
        return Ran(self.visits, outs)

    def walk(self, term: Term, loops: tuple[Loop, ...], base: Mapping[str, int]) -> None:
        """Run a term at the positions `base`, inside `loops` that are still to be opened."""
        match term:
            case Do(stage=number):
                self.batch(number, loops, base)
            case Loop(body=body) if not _parts(body):
                self.walk(body, (*loops, term), base)
            case Loop(axis=axis, step=step, body=body):
                start = base.get(axis, 0)
                most = min(self.limit(term, axis not in base), self.case.extents[axis] - start)
                for offset in range(0, most, step):
                    self.walk(body, loops, {**base, axis: start + offset})
            case Both(first=first, second=second):
                self.walk(first, loops, base)
                self.walk(second, loops, base)

    def limit(self, loop: Loop, outermost: bool) -> int:
        """The span of a loop; that of a whole symbolic axis is its extent."""
        if outermost and loop.span == self.case.nominal[loop.axis]:
            return self.case.extents[loop.axis]
        return loop.span

    def batch(self, number: int, loops: Sequence[Loop], base: Mapping[str, int]) -> None:
        """Compute a stage at all points that loops round it reach, in their order."""
        names, extents = self.case.names[number], self.extents[number]
        stage = self.case.kernel.stages[number]
        reduced = {axis.name for axis in stage.reduce}
        at = {name: np.zeros(1, np.int64) for name in extents}
        for axis, position in base.items():
            at[names[axis]] = np.full(1, position)
        lane, lanes = np.zeros(1, np.int64), 1
        opened = set(base)
        for loop in loops:
            name = names[loop.axis]
            most = min(self.limit(loop, loop.axis not in opened), extents[name])
            opened.add(loop.axis)
            steps = np.arange(0, max(most, 0), loop.step)
            if len(steps) * len(lane) > POINTS:
                raise Broken(f"more than {POINTS} points are computed")
            at = {key: np.repeat(value, len(steps)) for key, value in at.items()}
            tiled = np.tile(steps, len(lane))
            at[name] = at[name] + tiled
            lane = np.repeat(lane, len(steps))
            if loop.kind in ("vec", "thread") and name in reduced:
                lane = lane * len(steps) + tiled // loop.step
                lanes *= max(1, len(steps))
            inside = at[name] < extents[name]
            at, lane = {key: value[inside] for key, value in at.items()}, lane[inside]
        self.done += len(lane)
        if self.done > POINTS:
            raise Broken(f"more than {POINTS} points are computed")
        if len(lane) and 0 not in extents.values():
            np.add.at(self.visits[number], tuple(at.values()), 1)
            self.compute(number, at, lane, lanes)

    def compute(self, number: int, at: Mapping[str, np.ndarray], lane: np.ndarray, lanes: int) -> None:
        """Compute a stage at points and store the results; a reduction's are those so far."""
        stage = self.case.kernel.stages[number]
        points = Points(self.arrays, {**self.case.dims, **at})
        if stage.combine is None:
            self.store(stage, points, points.value(stage.result, None), len(lane))
            return
        own = tuple(at[axis.name] for axis in stage.axes)
        partial = self.partials(number, lanes)
        value = np.broadcast_to(points.value(stage.value, None), lane.shape).astype(partial.dtype)
        REDUCE[stage.combine].at(partial, (*own, lane), value)
        flat = np.unique(np.ravel_multi_index(own, partial.shape[:-1])) if own else np.zeros(1, np.int64)
        acc = REDUCE[stage.combine].reduce(partial.reshape(-1, partial.shape[-1])[flat], axis=1)
        columns = np.unravel_index(flat, partial.shape[:-1]) if own else ()
        env = {axis.name: column for axis, column in zip(stage.axes, columns, strict=True)}
        finished = Points(self.arrays, {**self.case.dims, **env})
        self.store(stage, finished, finished.value(stage.result, acc), len(flat))

    def partials(self, number: int, lanes: int) -> np.ndarray:
        """The partial results of a stage: for each of its positions, one for each lane."""
        stage = self.case.kernel.stages[number]
        found = self.partial[number]
        if found is None or found.shape[-1] < lanes:
            assert stage.combine is not None
            dtype = numpy_dtype(stage.value.dtype)
            shape = tuple(self.extents[number][axis.name] for axis in stage.axes)
            grown = np.full((*shape, lanes), combiner_identity(stage.combine, stage.value.dtype), dtype)
            if found is not None:
                grown[..., : found.shape[-1]] = found
            found = self.partial[number] = grown
        return found

    def store(self, stage: Stage, points: Points, values: Any, count: int) -> None:
        """Store results, one after another where the stage builds on what it stored."""
        out = self.arrays[stage.out]
        if stage.ordered:
            for i in range(count):
                one = Points(self.arrays, {k: v[i] if np.ndim(v) else v for k, v in points.env.items()})
                place = tuple(int(one.index(index)) for index in stage.index)
                out[place] = one.value(stage.result, None)
            return
        values = np.broadcast_to(values, count).astype(out.dtype)
        index = tuple(np.broadcast_to(points.index(i), count) for i in stage.index)
        if stage.mode == "set":
            out[index] = values
        else:
            REDUCE[stage.mode].at(out, index, values)


def _parts(term: Term) -> bool:
    """Whether a term has several stages."""
    return len(list(stages(term))) > 1


def _axes(case: Case, number: int) -> list[tuple[str, Any]]:
    by_name = {own: name for name, own in case.names[number].items()}
    return [(by_name[axis.name], axis) for axis in case.kernel.stages[number].all_axes]


def _shape(shape: Sequence[Any], case: Case) -> list[int]:
    return [evaluate(dim, case.dims) for dim in shape]


def _fresh(role: str, dtype: str, shape: Sequence[int]) -> np.ndarray:
    """What a buffer holds that nothing was stored in: what a scatter adds to, or what nobody should read."""
    kind = numpy_dtype(dtype)
    if role == "out" or kind.kind in "iub":
        return np.zeros(shape, kind)
    return np.full(shape, np.nan, kind)
