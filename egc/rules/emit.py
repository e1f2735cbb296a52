"""Rules → egglog commands.

The syntax tree is printed and egglog reads the text, one command at a time: a span of egglog's carries a copy
of the whole text it was read from, so one long program would be copied once for every node of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from egc.rules import syntax as s
from egc.rules.bindings import egglog_bindings
from egc.rules.printer import show, show_command
from egc.rules.provenance import recording
from egc.rules.rule import Rule

if TYPE_CHECKING:
    from egglog import bindings as eg


class Emitter:
    """Translates syntax nodes. Making one imports egglog."""

    def __init__(self) -> None:
        self._reader: Any = egglog_bindings().EGraph()

    def command(self, text: str, place: str = "egc") -> Any:
        """One command from its text; egglog's errors speak of the ``place``."""
        [command] = self._reader.parse_program(text, place)
        return command

    def program(
        self, declarations: Iterable[s.Command], rules: Iterable[Rule], provenance: bool = True
    ) -> list[eg._Command]:
        """Everything an e-graph must be told before its terms: declarations, then rules with their tables."""
        commands = [self.declaration(declaration) for declaration in declarations]
        for rule in rules:
            commands.extend(self.rule(rule, provenance))
        return commands

    def rule(self, rule: Rule, provenance: bool = True) -> list[eg._Command]:
        """A rule; with `provenance`, the declaration of its table before it."""
        declaration, actions = recording(rule) if provenance else (None, rule.actions)
        premises, done = (" ".join(map(show, part)) for part in (rule.premises, actions))
        name = show(s.Lit(rule.name, rule.span))
        text = f"(rule ({premises}) ({done}) :ruleset {rule.ruleset} :name {name})"
        table = [] if declaration is None else [self.declaration(declaration)]
        return [*table, self.command(text, rule.location)]

    def declaration(self, command: s.Command) -> eg._Command:
        """A declaration, or an action at the top level."""
        return self.command(show_command(command))

    def expr(self, expr: s.Expr) -> eg._Expr:
        """An expression."""
        return self.command(f"(let value {show(expr)})").action.rhs

    def check(self, fact: s.Fact) -> eg._Command:
        """The command that fails unless the fact holds."""
        return self.command(f"(check {show(fact)})")
