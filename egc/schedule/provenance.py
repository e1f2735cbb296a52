"""Which rule built which cell: the matches that the rules recorded, applied again.

Every rule's matches are rows of its own table (egc.rules.provenance): the values of its variables. The cells that a match
made are the terms of its right side under these values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from egc.rules import Rule
from egc.rules import syntax as s
from egc.rules.provenance import columns, is_recorded, table


def built_terms(
    tables: Mapping[str, Any], literals: Mapping[int, Any], rules: Sequence[Rule]
) -> dict[tuple[str, tuple[Any, ...]], tuple[str, ...]]:
    """For every term (constructor, arguments) that a rule's right side names: the names of the rules, in file order.

    `tables` are egglog's frozen tables, `literals` its values of the integers that occur in them.
    """
    terms = {
        (name, tuple(row.inputs)): row.output
        for name in ("For", "DoPacked", "Then", "Seq", "Par", "Unroll", "Vec", "Block", "Thread", "Whole")
        for row in tables[name].rows
    }
    numbers = {literal: number for number, literal in literals.items()}
    found: dict[tuple[str, tuple[Any, ...]], tuple[str, ...]] = {}

    def value(expr: s.Expr, values: Mapping[str, Any], rule: str) -> Any:
        match expr:
            case s.Var(name=name):
                return values.get(name)
            case s.Lit(value=int(number)):
                return literals.get(number)
            case s.Call(head="*", args=args):
                factors = [numbers.get(value(arg, values, rule)) for arg in args]
                return None if None in factors else literals.get(prod(factors))
            case s.Call(head=head, args=args):
                key = (head, tuple(value(arg, values, rule) for arg in args))
                if args and key in terms and rule not in found.get(key, ()):
                    found[key] = (*found.get(key, ()), rule)
                return terms.get(key)
        return None

    for rule in rules:
        if not is_recorded(rule):
            continue
        unions = [action for action in rule.actions if isinstance(action, s.Union)]
        names = [name for name, _ in columns(rule)]
        for row in tables[table(rule)].rows:
            values = dict(zip(names, row.inputs, strict=True))
            for union in unions:
                value(union.right, values, rule.name)
    return found
