"""What a rule file's relations do to the rules of other files.

A relation such as `mean-of` claims nothing by itself; the rules that ask for it do. A file that states rows
of it is therefore checked by those rules, at instances whose premises hold because of what the file states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet

from egc.rules import syntax as s
from egc.rules.rule import Rule
from egc.soundness.premises import CONSTANT, FUSION, ROW_VECTOR, TYPE_FACTS, VARIES, Knowledge, stated_rows
from egc.soundness.search import Failure, Searcher

# Facts that are compared with the truth where they are stated.
_COMPARED = {*TYPE_FACTS, CONSTANT, VARIES, ROW_VECTOR, FUSION}

Stating = Rule | s.Call


def misled(
    rules: Sequence[Rule], files: AbstractSet[str], knowledge: Knowledge, claims: Callable[[Rule], bool]
) -> Iterator[tuple[Stating, Rule, Failure]]:
    """Of what ``rules``, and the facts in ``files``, state: what makes another rule that ``claims``
    something wrong, that rule, and a counterexample.
    """
    own = {*map(id, rules)}
    facts = [fact for fact in knowledge.facts if fact.span.source.name in files]
    through: list[Stating] = [fact for fact in facts if fact.head not in _COMPARED]
    through += [rule for rule in rules if tables(rule, knowledge) - _COMPARED]
    heads = {fact.head for fact in facts}.union(*(tables(rule, knowledge) for rule in rules)) - _COMPARED
    found: set[int] = set()
    for consumer in _consumers(heads, knowledge):
        if id(consumer) in own or not claims(consumer):
            continue
        if len(found) == len(through):
            return
        failure = Searcher(consumer, knowledge, through).run().failure
        if failure is None:
            continue
        used = {*map(id, failure.plan.resolved.used)}
        culprit = next(stating for stating in through if id(stating) in used)
        if id(culprit) not in found:
            found.add(id(culprit))
            yield culprit, consumer, failure


def tables(rule: Rule, knowledge: Knowledge) -> set[str]:
    """The relations and functions that a rule states rows of."""
    return {head for head in rule.makes if not knowledge.is_constructor(head) and stated_rows(rule, head)}


def _consumers(heads: set[str], knowledge: Knowledge) -> list[Rule]:
    """The rules that ask for one of these tables, or for one that follows from them."""
    found: list[Rule] = []
    heads = set(heads)
    growing = bool(heads)
    while growing:
        growing = False
        for rule in knowledge.rules:
            if rule in found or not rule.needs & heads:
                continue
            found.append(rule)
            heads |= tables(rule, knowledge) - _COMPARED
            growing = True
    return found
