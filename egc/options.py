"""What a user may choose of a compilation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import index
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import force_setattr

from egc.errors import UsageError

MOST_EXTENT = (1 << 63) - 1  # as ONNX has it


class RuleChoice(Struct, frozen=True):
    """Which rules may fire, as the user said it: short enough to go along with every kernel."""

    accuracy: str = "default"
    disabled: tuple[str, ...] = ()
    extra: tuple[Path, ...] = ()


class Options(Struct, frozen=True):
    """What a user may choose; the command line has an option for each. ``time_budget`` is in seconds."""

    target: str = "cpu"
    arch: str = "native"
    threads: int | None = None
    rules: tuple[Path, ...] = ()
    disable_rules: tuple[str, ...] = ()
    cost_model: str | None = None
    accuracy: str = "default"
    shapes: Mapping[str, Sequence[int | str]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    time_budget: float = 60.0
    ilp_seconds: float = 0.0

    def __post_init__(self) -> None:
        """UsageError where a value is none that an option can have."""
        for name in ("time_budget", "ilp_seconds"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not value >= 0:  # as NaN is not
                raise UsageError(f"{name} is {value!r}", why="it must be a number of seconds from 0")
        for name in ("target", "arch", "accuracy"):
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"{name} is {getattr(self, name)!r}", why="it must be a string")
        for name in ("shapes", "values"):
            if not isinstance(getattr(self, name), Mapping):
                hint = f'{name}={{"NAME": …}}, by the inputs\' names'
                raise UsageError(f"{name} is {getattr(self, name)!r}", why="it must be a dict", hint=hint)
        if self.cost_model is not None and not (isinstance(self.cost_model, str) and self.cost_model):
            why = "it must be the path of a TOML file, or the name of a shipped cost model"
            hint = "leave it out to have the one of the architecture"
            raise UsageError(f"the cost model is {self.cost_model!r}", why=why, hint=hint)
        shapes = {name: _checked_shape(name, shape) for name, shape in self.shapes.items()}
        force_setattr(self, "shapes", shapes)

    @property
    def rule_choice(self) -> RuleChoice:
        """The part that says which rules may fire."""
        return RuleChoice(self.accuracy, self.disable_rules, self.rules)


def _checked_shape(name: str, shape: Sequence[int | str]) -> tuple[int | str, ...]:
    """The shape with plain integers, whatever kind of integers it was given with."""
    extents: list[int | str] = []
    try:
        if isinstance(shape, str):
            raise TypeError
        for extent in shape:
            extents.append(extent if isinstance(extent, str) else index(extent))
    except TypeError:
        extents = [-1]
    if any(extent == "" if isinstance(extent, str) else extent < 0 for extent in extents):
        raise UsageError(
            f"the shape of {name!r} is {shape!r}", why="it must be extents from 0, or names of symbolic dims"
        )
    if any(isinstance(extent, int) and extent > MOST_EXTENT for extent in extents):
        raise UsageError(f"an extent in the shape of {name!r} is too large", why=f"the most is {MOST_EXTENT}")
    return tuple(extents)
