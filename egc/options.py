"""What a user may choose of a compilation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RuleChoice:
    """Which rules may fire, as the user said it: short enough to go along with every kernel."""

    accuracy: str = "default"
    disabled: tuple[str, ...] = ()
    extra: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Options:
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

    @property
    def rule_choice(self) -> RuleChoice:
        """The part that says which rules may fire."""
        return RuleChoice(self.accuracy, self.disable_rules, self.rules)
