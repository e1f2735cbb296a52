"""The search for an instance at which a rule is wrong, and the way from there to a small one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from msgspec import Struct, field

from egc.ir.infer import InferError
from egc.ir.types import TensorType, numpy_dtype
from egc.rules import syntax as s
from egc.rules.notes import RuleClass
from egc.rules.rule import Rule
from egc.soundness.claims import refuted
from egc.soundness.compare import Comparison, reachable
from egc.soundness.context import Context
from egc.soundness.data import PLAIN, leaf_arrays
from egc.soundness.plan import Claim, Plan, State, Unbound, attribute_values
from egc.soundness.premises import Knowledge, Resolver, Unsolvable
from egc.soundness.sample import is_held, node_type, sample
from egc.soundness.symbolic import run_time_states
from egc.soundness.values import Rejected, Undefined

# fmt: off
DTYPES = (
    "float32", "float64", "int32", "float16", "bool", "int64", "uint8", "bfloat16", "int8", "uint32", "int16",
    "uint64", "uint16",
)
# fmt: on
# Sizes of axes, smaller ones first, so that the first counterexample is a small one;
# some with nothing at all.
PALETTES = ((1, 2), (1, 2, 3), (0, 1, 2), (1, 3), (2, 3, 4), (1, 5, 2), (0, 2, 3), (4, 6), (1, 7, 3))
RANK = 8  # of a tensor, at most
PLANS = 24  # ways to derive the premises that are tried
ATTEMPTS = 4000  # at shapes and attributes that satisfy the premises
INSTANCES = 400  # that are evaluated at most
WORK = 1500  # tensors that are evaluated for a rule; then it is enough
SHRINKING = 1500  # attempts at a smaller counterexample


class Failure(Struct, frozen=True):
    """A counterexample: what is claimed, where it fails, and how."""

    claim: Claim
    plan: Plan
    state: State
    leaves: dict[int, Any]
    why: str
    left: Any = None
    right: Any = None
    wrong: Any = None

    @property
    def size(self) -> tuple[float, ...]:
        """What makes one counterexample simpler than another: tensors with elements, then few of them, then
        extents, then dtypes in the order of ``DTYPES``, then numbers.
        """
        types = [
            t for i, t in enumerate(self.state.types[: self.plan.left]) if self.plan.nodes[i].op == "leaf"
        ]
        extents = sum(sum(t.shape) + t.rank for t in types)
        dtypes = sum([*DTYPES, t.dtype].index(t.dtype) for t in types)
        numbers = sum(_complexity(a) for a in self.leaves.values())
        sizes = [int(t.size) for t in types]
        return 0 in sizes, sum(sizes), extents, dtypes, numbers


class Result(Struct):
    """What the search found about one rule."""

    failure: Failure | None = None
    instances: int = 0
    dtypes: set[str] = field(default_factory=set)
    unsolvable: str | None = None  # why no plan exists


class Searcher:
    """Searches for a counterexample of one rule. The same rule gives the same result, byte for byte.

    Where ``through`` is given, only among instances whose premises hold because of one of its rules or facts.
    """

    def __init__(self, rule: Rule, knowledge: Knowledge, through: Sequence[Rule | s.Call] = ()) -> None:
        self.rule = rule
        self.through = through
        self.rng = random.Random(rule.name)
        self.numbers = np.random.default_rng(list(rule.name.encode()))
        self.result = Result()
        self.work = 0
        self.plans = self.make_plans(knowledge)

    def make_plans(self, knowledge: Knowledge) -> list[Plan]:
        """The distinct ways to derive the premises that were found."""
        plans: dict[tuple[int, ...], Plan] = {}
        seen: set[tuple[int, ...]] = set()
        named = {action.name for action in self.rule.actions if isinstance(action, s.Let)}
        tensors = [v for v, sort in self.rule.variables if sort in ("T", "Multi") and v not in named]
        for _ in range(PLANS):
            resolver = Resolver(knowledge, self.rng, self.through)
            try:
                resolved = resolver.resolve(self.rule)
                if tuple(resolved.choices) in seen:
                    continue
                seen.add(tuple(resolved.choices))
                if self.through and not {*map(id, self.through)} & {*map(id, resolved.used)}:
                    continue
                plan = Plan(knowledge, resolved, tensors)
                plan.claim(self.rule.actions, dict(self.rule.variables))
                plans[tuple(resolved.choices)] = plan
            except Unsolvable as error:
                self.result.unsolvable = str(error)
        return list(plans.values())

    def run(self) -> Result:
        """Look for a counterexample and shrink it."""
        result = self.result
        if not self.plans:
            return result
        for number in range(ATTEMPTS):
            if result.instances >= INSTANCES or self.work >= WORK:
                break
            plan = self.plans[number % len(self.plans)]
            dtype = DTYPES[(number // len(self.plans)) % len(DTYPES)]
            if plan.dtypes and self.rng.random() < 0.5:
                dtype = self.rng.choice(plan.dtypes)
            found = self.attempt(plan, Context(self.rng, dtype, self.rank(plan), self.palette(plan)))
            if found is not None:
                result.failure = self.shrink(found)
                break
        return result

    def palette(self, plan: Plan) -> Sequence[int]:
        """The extents of an attempt: small ones first, and now and then those that the rule speaks of."""
        if plan.extents and self.rng.random() < 0.3:
            return (1, 2, *plan.extents)
        if self.rng.random() < 0.6:
            return PALETTES[min(self.result.instances // 8, len(PALETTES) - 1)]
        return self.rng.choice(PALETTES)

    def rank(self, plan: Plan) -> int:
        """The rank that most tensors of an attempt get: one that the rule speaks of, or any."""
        hints = _lengths(plan)
        if hints and self.rng.random() < 0.6:
            return self.rng.choice(hints)
        return self.rng.choice((0, 1, 2, 2, 3, 3, 4, 5))

    def attempt(self, plan: Plan, context: Context, count: bool = True) -> Failure | None:
        """Instantiate once and look at every claim; None where all hold or nothing was instantiated."""
        try:
            state = sample(plan, context)
        except Rejected:
            return None
        holds = False
        for instance in (state, *run_time_states(plan, state)):
            for claim in plan.claims:
                try:
                    failure = self.check(claim, plan, instance, count)
                except Rejected:
                    continue
                if failure is not None:
                    return failure
                holds |= instance is state
        if count and holds:
            self.result.instances += 1
            self.work += len(plan.nodes)
            self.result.dtypes.add(context.dtype)
        return None

    def check(self, claim: Claim, plan: Plan, state: State, count: bool) -> Failure | None:
        """A failure of one claim at an instance; None where it holds. Raises Rejected."""

        def failed(why: str, *values: Any) -> Failure:
            return Failure(claim, plan, state, {}, why, *values)

        roots = [part for part in claim.about if isinstance(part, int)]
        try:
            for i in sorted(reachable(plan, roots)):
                if i >= plan.left and plan.nodes[i].op == "leaf":
                    return failed(f"no premise says what {plan.nodes[i].label} is")
                if i >= plan.left:
                    state.types[i] = node_type(plan.nodes[i], state)
                    if plan.nodes[i].op == "splat":
                        attrs = attribute_values(plan.nodes[i], state)
                        if not is_held(attrs):
                            return failed(f"no {attrs['dtype']} is {attrs['value']}")
            if claim.kind == "union":
                return self.union(claim, plan, state, count)
            return self.fact(claim, plan, state)
        except InferError as error:
            return failed(f"the term that it builds has no type: {error}")
        except Undefined as error:
            return failed(f"a value that it computes does not exist: {error}")
        except Unbound:
            raise Rejected("a value of the right side is not known") from None

    def fact(self, claim: Claim, plan: Plan, state: State) -> Failure | None:
        """Check a fact about a tensor, or an equation of attributes."""
        why = refuted(claim, plan, state)
        return Failure(claim, plan, state, {}, why) if why else None

    def union(self, claim: Claim, plan: Plan, state: State, count: bool) -> Failure | None:
        """Compare the two sides' types, then their values."""
        a, b = (state.types[i] for i in claim.about)
        if a != b:
            return Failure(
                claim, plan, state, {}, f"the left side is {_types(a)}, the right side {_types(b)}"
            )
        comparison = Comparison(plan, state, claim.about, self.rule.rule_class, self.rule.notes.error)
        evaluated = False
        for mode in self.modes(comparison):
            leaves = leaf_arrays(plan, state, mode, self.numbers)
            try:
                failure = self.compare(claim, plan, state, comparison, leaves)
            except Rejected:
                continue
            evaluated = True
            if failure is None:
                continue
            return failure
        if not evaluated:
            raise Rejected("the left side has no value")
        return None

    def compare(
        self, claim: Claim, plan: Plan, state: State, how: Comparison, leaves: dict[int, Any]
    ) -> Failure | None:
        """Compare the values of both sides at given data. Raises Rejected."""
        try:
            found = how.differ(leaves)
        except Rejected:
            raise
        except Exception as error:
            return Failure(claim, plan, state, leaves, f"the right side has no value: {error}")
        if found is None:
            return None
        return Failure(claim, plan, state, leaves, "the two sides differ", *found)

    def modes(self, comparison: Comparison) -> Iterator[str]:
        """The kinds of data to try: plain ones in turn, and corners where the class speaks of them."""
        yield PLAIN[self.result.instances % len(PLAIN)]
        yield "normal"
        if self.rule.rule_class is not RuleClass.EXACT and comparison.floats:
            return  # equal as mathematics has it: of numbers
        # The order of a sum decides whether it overflows: huge numbers are for what rounds once.
        if self.result.instances % 2 or comparison.summing or not comparison.bitwise:
            yield "special"
        else:
            yield "extreme"

    def shrink(self, failure: Failure) -> Failure:
        """The smallest counterexample found: smaller shapes first, then simpler numbers."""
        best = failure
        palettes: tuple[tuple[int, ...], ...] = ((1,), (1, 2), (0, 1), (0, 1, 2), (1, 2, 3))
        if failure.plan.extents:
            palettes = (*palettes, (1, *failure.plan.extents))
        for number in range(SHRINKING):
            palette = palettes[number % len(palettes)]
            rank = self.rng.randrange(max(1, failure_rank(best)) + 1)
            dtype = DTYPES[0] if number % 3 == 0 else _dtype_of(failure)
            found = self.attempt(failure.plan, Context(self.rng, dtype, rank, palette), count=False)
            if found is not None and found.claim is failure.claim and found.size < best.size:
                best = found
        return self.simplify(best)

    def simplify(self, failure: Failure) -> Failure:
        """The failure with its numbers replaced by 0, 1, 2 or a rounded value where it still fails."""
        if failure.left is None:
            return failure
        sides = failure.claim.about
        how = Comparison(failure.plan, failure.state, sides, self.rule.rule_class, self.rule.notes.error)
        indexed = leaf_arrays(failure.plan, failure.state, "zero", self.numbers)
        for leaf, array in failure.leaves.items():
            if array.size > 64 or not _is_plain(indexed[leaf]):
                continue
            for place in np.ndindex(array.shape):
                for simple in (0, 1, -1, 2, 3):
                    if _number(failure.leaves[leaf][place]) == simple or (
                        simple < 0 and array.dtype.kind in "ub"
                    ):
                        break
                    changed = failure.leaves[leaf].copy()
                    changed[place] = simple
                    try:
                        found = self.compare(
                            failure.claim, failure.plan, failure.state, how, {**failure.leaves, leaf: changed}
                        )
                    except Rejected:
                        continue
                    if found is not None and found.left is not None:
                        failure = found
                        break
        return failure


def failure_rank(failure: Failure) -> int:
    """The greatest rank of a leaf."""
    return max(
        (t.rank for t in failure.state.types[: failure.plan.left] if isinstance(t, TensorType)), default=0
    )


def _is_plain(zeros: Any) -> bool:
    """Whether a leaf's data may be any number: indices are not all zero where they are chosen,
    or cannot be told apart.
    """
    return not np.any(zeros != 0)


def _number(value: Any) -> float:
    return float(value)


def _complexity(array: Any) -> float:
    """How hard the numbers of an array are to read."""
    with np.errstate(all="ignore"):
        values = np.abs(array.astype(np.float64)).ravel()
    return float(
        np.where(np.isfinite(values), np.minimum(values, 1e6) + 100 * (values != np.round(values)), 2e6).sum()
    )


def _dtype_of(failure: Failure) -> str:
    types = [t for t in failure.state.types[: failure.plan.left] if isinstance(t, TensorType)]
    return max(
        (t.dtype for t in types if t.dtype != "int64"),
        default="float32",
        key=lambda d: numpy_dtype(d).itemsize,
    )


def _types(type_: Any) -> str:
    return ", ".join(map(str, type_)) if isinstance(type_, tuple) else str(type_)


def _lengths(plan: Plan) -> Sequence[int]:
    """Ranks that the premises may ask for: small integers and lengths of literal vectors,
    and what a spatial rank means.
    """
    found: set[int] = set()

    def visit(code: Any) -> None:
        if not isinstance(code, tuple) or not code:
            return
        if code[0] == "value" and type(code[1]) is int and 1 <= code[1] <= RANK:
            found.add(code[1])
        if code[:2] == ("prim", "vec-of"):
            found.add(len(code) - 2)
        for part in code[1:]:
            visit(part)

    for pair in plan.equations:
        for code in pair:
            visit(code)
    for node in plan.nodes:
        for _, code in node.attrs:
            visit(code)
        if node.op in ("conv", "conv_channels_last"):
            found |= {3, 4, 5}
        if node.op == "attention":
            found.add(4)
    if any(node.op.startswith("conv") for node in plan.nodes):
        found |= {n + 2 for n in found}
    return sorted(n for n in found if n <= RANK)
