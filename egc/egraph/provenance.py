"""What the rules did, read from the tables that they wrote while they fired (egc/rules/provenance.py)."""

from __future__ import annotations

from egc.egraph.reading import Reader
from egc.rules import RuleBook
from egc.rules import syntax as s
from egc.rules.provenance import columns, is_recorded, table


def fusions(reader: Reader, book: RuleBook) -> dict[tuple[int, int], str]:
    """The facts ``(may-fuse producer consumer)``, each with the first rule in file order that stated it."""
    found = {
        (reader.number(row.inputs[0]), reader.number(row.inputs[1])): "a fact of a rule file"
        for row in reader.rows("may-fuse")
    }
    for rule in reversed(book.rules):
        stated = [a for a in rule.actions if isinstance(a, s.Call) and a.head == "may-fuse"]
        if not stated or not is_recorded(rule):
            continue
        place = {name: i for i, (name, _) in enumerate(columns(rule))}
        for fact in stated:
            producer, consumer = (place[arg.name] for arg in fact.args if isinstance(arg, s.Var))
            for row in reader.rows(table(rule)):
                found[reader.number(row.inputs[producer]), reader.number(row.inputs[consumer])] = rule.name
    return found
