"""Numeric soundness as findings on rule files: what `egc rules check` prints of it."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from egc.egraph.vocabulary import CONSTRUCTORS
from egc.rules import syntax as s
from egc.rules.book import Loaded
from egc.rules.diagnostics import Diagnostic
from egc.rules.lint import keyword_span
from egc.rules.notes import RuleClass
from egc.rules.rule import Rule
from egc.soundness.consumers import misled
from egc.soundness.inlined import unconditional
from egc.soundness.nest_report import check_nests
from egc.soundness.plan import LEAVES, Plan, built, evaluate
from egc.soundness.premises import (
    CONSTANT,
    FUSION,
    ROW_VECTOR,
    TYPE_FACTS,
    VARIES,
    Knowledge,
    find_definitions,
)
from egc.soundness.search import Failure, Result, Searcher
from egc.soundness.show import SHOWN, show

INSTANTIATED = ("T", "Multi", "Fn", "Dim", "Perm")  # sorts whose values have a meaning in numpy


def knowledge_of(loaded: Loaded) -> Knowledge:
    """What the rules that are loaded say of each other."""
    known = {*CONSTRUCTORS, "Splat", "Output", *LEAVES}
    facts = [c for c in loaded.declarations if isinstance(c, s.Call)]
    definitions = find_definitions(loaded.environment, loaded.rules, known)
    return Knowledge(loaded.environment, loaded.rules, facts, definitions)


def check_soundness(rules: Sequence[Rule], loaded: Loaded) -> list[Diagnostic]:
    """Look for a counterexample of every rule of ``rules`` that claims something of tensors or loop nests."""
    knowledge = knowledge_of(loaded)
    found = undefined({rule.span.source.name for rule in rules}, knowledge)
    wanted = {*map(id, rules)}
    # A file's facts are looked at with its rules, or alone where it has none.
    others = {rule.span.source.name for rule in loaded.rules if id(rule) not in wanted}
    files = {command.span.source.name for command in loaded.declarations} - others
    for rule in (*rules, *unconditional(loaded, files)):
        if claims_something(rule, knowledge):
            found.extend(findings(rule, Searcher(rule, knowledge).run()))
        elif any(built(action, knowledge) for action in rule.actions):
            result = Searcher(rule, knowledge).run()
            found.extend(findings(rule, result) if result.failure else [])
    for stating, consumer, failure in misled(
        rules, files, knowledge, lambda r: claims_something(r, knowledge)
    ):
        found.append(_misleading(stating, consumer, failure))
    return found + check_nests(rules, files, knowledge, loaded)


def undefined(files: AbstractSet[str], knowledge: Knowledge) -> list[Diagnostic]:
    """A warning for each tensor constructor that ``files`` declare and never define."""
    known = {*CONSTRUCTORS, "Splat", "Output", *LEAVES, *knowledge.definitions}
    return [
        Diagnostic(
            f"`{name}` has no definition",
            operator.span,
            f"say what it is: (rewrite ({name} x…) TERM …); until then nothing can compute it",
            warning=True,
        )
        for name, operator in knowledge.environment.operators.items()
        if name not in known and knowledge.is_tensor(name) and operator.span.source.name in files
    ]


def claims_something(rule: Rule, knowledge: Knowledge) -> bool:
    """Whether a rule unites tensors or states a fact whose truth can be computed."""
    sorts = dict(rule.variables)
    for action in rule.actions:
        match action:
            case s.Union(left=left, right=right):
                for side in (left, right):
                    if isinstance(side, s.Var) and sorts.get(side.name) in INSTANTIATED:
                        return True
                    operator = knowledge.environment.operators.get(getattr(side, "head", ""))
                    if operator is not None and operator.output in INSTANTIATED:
                        return True
            case s.Set(target=s.Call(head=head)) if head in TYPE_FACTS:
                return True
            case s.Call(head=head) if head in (CONSTANT, ROW_VECTOR, VARIES, FUSION):
                return True
    return False


def findings(rule: Rule, result: Result) -> list[Diagnostic]:
    """What a search says of its rule."""
    at = keyword_span(rule)
    if result.failure is not None:
        return [
            Diagnostic(
                f"`{rule.name}` is unsound: {result.failure.why}",
                result.failure.claim.action.span,
                hint(rule, result.failure),
                details=tuple(counterexample(rule, result.failure)),
            )
        ]
    if result.instances == 0:
        why = result.unsolvable or "no shapes, dtypes and attributes were found that satisfy its premises"
        return [
            Diagnostic(
                f"`{rule.name}` could not be checked numerically",
                at,
                why,
                warning=True,
            )
        ]
    return []


def _misleading(stating: Rule | s.Call, consumer: Rule, failure: Failure) -> Diagnostic:
    """The error for a stated fact that another file's rule draws a wrong conclusion from."""
    if isinstance(stating, Rule):
        name, at = f"`{stating.name}`", keyword_span(stating)
    else:
        name, at = f"this row of `{stating.head}`", stating.span
    return Diagnostic(
        f"{name} is unsound: `{consumer.name}` follows from it, and {failure.why}",
        at,
        f"`{consumer.name}` is at {consumer.location}",
        details=tuple(counterexample(consumer, failure)),
    )


def hint(rule: Rule, failure: Failure) -> str:
    """What to do about a counterexample."""
    if failure.state.unknown:
        return "a symbolic extent differs from every known one, and may yet be the same: ask for (I n)"
    if failure.left is None:
        return "give it a premise on the shapes or dtypes that it needs"
    if rule.rule_class is RuleClass.EXACT and failure.left.shape == failure.right.shape:
        left, right = (np.asarray(side).astype(np.float64) for side in (failure.left, failure.right))
        if np.all(np.isfinite(left) & np.isfinite(right)) and np.allclose(left, right, rtol=1e-2):
            return "if it is only rounded differently, its class is `reassociating`"
    return "give it a premise that keeps this case out"


def counterexample(rule: Rule, failure: Failure) -> list[str]:
    """The lines that tell a counterexample: leaves, attributes, and both results."""
    plan, state = failure.plan, failure.state
    lines = ["counterexample:"]
    for i, node in enumerate(plan.nodes[: plan.left]):
        if node.op == "leaf" and state.types[i] is not None:
            value = f" = {show(failure.leaves[i])}" if i in failure.leaves else ""
            lines.append(f"  {node.label} : {(state.compiling or state).types[i]}{value}")
    lines += [
        f"  {name} = {extent}, which is known only when it runs" for name, extent in state.unknown.items()
    ]
    for name, sort in rule.variables:
        if sort in ("T", "Multi") or name.startswith("egc-"):
            continue
        attribute = _attribute(plan, failure, name)
        if attribute is not None:
            lines.append(f"  {name} = {attribute}")
    if failure.claim.kind == "equal":
        a, b = (evaluate(code, state) for code in failure.claim.about)
        lines += [f"  left  : {a}", f"  right : {b}"]
    if failure.left is not None:
        a, b = failure.claim.about
        lines.append(f"  left  : {state.types[a]} = {show(failure.left)}")
        lines.append(f"  right : {state.types[b]} = {show(failure.right)}")
        if failure.left.size > SHOWN and failure.left.shape == failure.right.shape:
            place = tuple(int(i) for i in np.argwhere(failure.wrong)[0])
            lines.append(f"  at {list(place)}: left {failure.left[place]}, right {failure.right[place]}")
    return lines


def _attribute(plan: Plan, failure: Failure, name: str) -> str | None:
    from egc.soundness.plan import Unbound, evaluate
    from egc.soundness.premises import Unsolvable
    from egc.soundness.values import Perm, Undefined

    try:
        state = failure.state.compiling or failure.state
        value = evaluate(plan.code(s.Var(name, failure.claim.action.span)), state)
    except (Unbound, Undefined, Unsolvable):
        return None
    if isinstance(value, Perm):
        value = value.axes
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
