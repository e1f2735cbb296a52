"""The commands that a rule file may hold, and how each is written."""

from __future__ import annotations

from collections.abc import Iterable

from egc.rules import syntax as s
from egc.rules.diagnostics import Diagnostic, nearest

USAGE = {
    "sort": "(sort NAME) or (sort NAME (Vec SORT))",
    "datatype": "(datatype NAME (CONSTRUCTOR SORT…)…)",
    "datatype*": "(datatype* (NAME (CONSTRUCTOR SORT…)…) (sort NAME (Vec SORT))…)",
    "constructor": "(constructor NAME (SORT…) SORT [:cost N] [:unextractable])",
    "function": "(function NAME (SORT…) SORT :no-merge) or (function NAME (SORT…) SORT :merge EXPR)",
    "relation": "(relation NAME (SORT…))",
    "ruleset": "(ruleset NAME)",
    "unstable-combined-ruleset": "(unstable-combined-ruleset NAME RULESET…)",
    "rewrite": '(rewrite LEFT RIGHT [:when (FACT…)] [:subsume] :ruleset NAME :name "NAME")',
    "birewrite": '(birewrite LEFT RIGHT [:when (FACT…)] :ruleset NAME :name "NAME")',
    "rule": '(rule (FACT…) (ACTION…) :ruleset NAME :name "NAME")',
    "let": "(let $NAME EXPR)",
    "set": "(set (FUNCTION EXPR…) EXPR)",
    "union": "(union EXPR EXPR)",
    "delete": "(delete (FUNCTION EXPR…))",
    "subsume": "(subsume (CONSTRUCTOR EXPR…))",
    "panic": '(panic "MESSAGE")',
}

# Commands of egglog that drive an e-graph. A rule file says what is equal; when the rules run is egc's
# business.
DRIVING = frozenset(
    {"run", "run-schedule", "check", "extract", "prove", "push", "pop", "fail", "include", "input", "output"}
    | {"print-function", "print-size", "print-stats", "query-extract", "simplify", "calc"}
)


def unknown_command(name: str, at: s.Span, known: Iterable[str] = ()) -> Diagnostic:
    """The error for a form that starts with no command's name; `known` holds what else may stand there."""
    if name in DRIVING:
        hint = "a file says what is equal; egc decides when the rules run"
        return Diagnostic(f"`{name}` is no part of a rule file", at, hint)
    hint = nearest(name, {*USAGE, *known}) or f"one of: {', '.join(USAGE)}"
    return Diagnostic(f"unknown command `{name}`", at, hint)
