"""Why a rule for loops is behind no nest: each kernel's loop e-graph is grown again and asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import asdict

from egc.explain.again import Again
from egc.explain.premises import Failure, Prober, furthest
from egc.explain.record import cost_terms, nest_text
from egc.explain.source import Record
from egc.ir.text import parse_kernel
from egc.machine import Machine
from egc.rules import Rule, RuleBook
from egc.schedule.cells import RULESET
from egc.schedule.through import Part, Through, parts, through


def why_no_nest(known: Again, name: str, calls: Sequence[int] | None) -> Record:
    """Of all kernels, or of those of some calls: ``verdict`` with what shows it (docs/explain.md).

    ``lost``: the rule's best nests cost more, or came second; ``unreachable``: it matched, but is behind no
    nest that can be compiled; ``no match``. A GPU's nests are not searched: ``unused``.
    """
    machine = known.machine
    if not isinstance(machine, Machine):
        return {"verdict": "unused"}
    book = known.book().only({RULESET})
    rule = book.rule(name)
    users = _users(known.record, calls)
    matches, failures, nests = 0, [], []
    for kernel_name, numbers in users.items():
        kernel = parse_kernel(known.record["kernels"][kernel_name]["text"])
        found = []
        for part in parts(kernel, machine, rule, threads=known.options.threads or 1, book=book):
            found.append(part)
            matches += part.matches
            if not part.matches:
                failures.append(_failure(part, rule, book))
        if nest := through(kernel, found):
            nests.append(_entry(kernel_name, numbers, nest))
    if nests:
        nests.sort(key=lambda entry: entry["seconds"])
        return {"verdict": "lost", "matches": matches, "seconds": nests[0]["seconds"], "nests": nests}
    if matches or not failures:
        return {"verdict": "unreachable", "matches": matches}
    return {"verdict": "no match", "matches": 0, "failure": asdict(furthest(failures))}


def _users(record: Record, calls: Sequence[int] | None) -> dict[str, list[int]]:
    """The kernels of all calls, or of some, each with the calls that run it."""
    users: dict[str, list[int]] = {}
    for i in range(len(record["calls"])) if calls is None else calls:
        if (kernel := record["calls"][i]["kernel"]) is not None:
            users.setdefault(kernel, []).append(i)
    return users


def _entry(kernel: str, calls: list[int], found: Through) -> Record:
    """A nest that the rule is behind beside the one that was chosen."""
    cost, chosen = cost_terms(found.cost), cost_terms(found.chosen_cost)
    return {
        "kernel": kernel,
        "calls": calls,
        "seconds": cost["total"] - chosen["total"],
        "terms": {term: seconds - chosen[term] for term, seconds in cost.items() if term != "total"},
        "nest": nest_text(found.nest),
        "chosen": nest_text(found.chosen),
    }


def _failure(part: Part, rule: Rule, book: RuleBook) -> Failure:
    """The premise that fails in one loop e-graph."""
    reader = part.reader

    def shown(sort: str, value: Any) -> str | None:
        match sort:
            case "String":
                return reader.string(value)
            case "i64":
                return str(reader.integer(value))
            case "LoopKind":
                return reader.kinds.get(value)
        return None

    return Prober(part.egraph, book.environment.operators, rule, shown, ("Nest",)).probe(None)
