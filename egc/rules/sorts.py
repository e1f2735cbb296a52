"""Sort inference for one rule: every expression gets a sort, every variable is bound, or it is said why not.

Constructors, functions and relations fix the sorts of their arguments; a primitive may mean several things,
so its call waits until what is known around it leaves one meaning.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct, field

from egc.rules import syntax as s
from egc.rules.diagnostics import Diagnostic, nearest
from egc.rules.environment import Environment, Kind, Operator
from egc.rules.primitives import SIGNATURES, Signature, captures

_LITERALS = {int: "i64", float: "f64", str: "String", bool: "bool", type(None): "Unit"}


class _Cell(Struct, eq=False):
    """The sort of an expression, unknown at first; `why` is the place that fixed it. Cells found equal are
    linked.
    """

    sort: str | None = None
    why: s.Span | None = None
    link: _Cell | None = None

    def root(self) -> _Cell:
        cell = self
        while cell.link is not None:
            cell = cell.link
        return cell


class _Waiting(Struct, eq=False):
    """A primitive's call and the meanings it may still have."""

    call: s.Call
    args: list[_Cell]
    result: _Cell
    meanings: list[Signature]


class Inference(Struct, eq=False):
    """One rule's inference. Feed it the facts, then the actions, then `finish`; errors gather in `errors`."""

    environment: Environment
    errors: list[Diagnostic] = field(default_factory=list)
    free: bool = False  # whether a variable may come from nowhere, as in an example
    _variables: dict[str, _Cell] = field(default_factory=dict)
    _first_use: dict[str, s.Span] = field(default_factory=dict)
    _scope: set[str] | None = None
    _waiting: list[_Waiting] = field(default_factory=list)
    _tests: list[tuple[s.Call, _Cell]] = field(default_factory=list)

    # -- what the caller says

    def expression(self, expr: s.Expr) -> str | None:
        """An expression outside every rule, such as a global's value; its sort, None where it is not
        known.
        """
        self._scope = set()
        cell = self._visit(expr)
        self._settle()
        return cell.root().sort

    def merge(self, expr: s.Expr, output: str) -> None:
        """A function's `:merge`: an expression over `old` and `new` that gives a value of its sort."""
        self._scope = {"old", "new"}
        self._variables = {name: _Cell(output, expr.span) for name in ("old", "new")}
        self._first_use = dict.fromkeys(("old", "new"), expr.span)
        cell = self._visit(expr)
        self._same(_Cell(output, expr.span), cell, expr)
        self.finish()

    def facts(self, facts: Iterable[s.Fact]) -> None:
        """Premises: they bind variables and are tests."""
        facts = tuple(facts)
        self._scope = None
        for fact in facts:
            if isinstance(fact, s.Eq):
                self._same(self._visit(fact.left), self._visit(fact.right), fact.right)
            elif isinstance(fact, s.Call):
                self._tests.append((fact, self._visit(fact)))
            else:
                self._error("a premise is a pattern, a test or an equality", fact.span)
        if not self.free:
            self._grounding(facts)

    def actions(self, actions: Iterable[s.Action]) -> None:
        """Actions, in order: variables must be bound by now, and a `let` binds one more."""
        if self._scope is None:
            self._scope = set()
        for action in actions:
            self._action(action)

    def finish(self) -> dict[str, str]:
        """Settle the primitives; the sorts of all variables. Empty where something is wrong."""
        self._settle()
        for waiting in self._waiting:
            shown = " or ".join(str(m) for m in waiting.meanings[:3])
            self._error(f"`{waiting.call.head}` may mean several things here", waiting.call.head_span, shown)
        for call, cell in self._tests:
            self._check_test(call, cell)
        if not self.errors:
            for name, cell in self._variables.items():
                if cell.root().sort is None:
                    self._error(f"the sort of `{name}` is not known", self._first_use[name])
        if self.errors:
            return {}
        return {name: cell.root().sort or "" for name, cell in self._variables.items()}

    # -- expressions

    def _error(self, message: str, span: s.Span, hint: str | None = None) -> None:
        self.errors.append(Diagnostic(message, span, hint))

    def _visit(self, expr: s.Expr) -> _Cell:
        match expr:
            case s.Lit(value=value):
                return _Cell(_LITERALS[type(value)], expr.span)
            case s.Var():
                return self._variable(expr)
            case s.Call(head=head):
                operator = self.environment.operators.get(head)
                if operator:
                    return self._operator(expr, operator)
                return self._primitive(expr) if head in SIGNATURES else self._unknown(expr)

    def _variable(self, var: s.Var) -> _Cell:
        known = self.environment.globals.get(var.name)
        if known:
            return _Cell(known.sort, known.span)
        if var.name.startswith("$"):
            self._error(f"unknown global `{var.name}`", var.span, nearest(var.name, self.environment.globals))
            return _Cell()
        if var.name == "_":
            if self._scope is not None:
                self._error("`_` stands for anything in a pattern and for nothing in an action", var.span)
            return _Cell()
        if var.name not in self._variables:
            self._check_name(var.name, var.span)
            if self._scope is not None:
                self._unbound(var)
            self._variables[var.name] = _Cell()
            self._first_use[var.name] = var.span
        elif self._scope is not None and var.name not in self._scope:
            self._unbound(var)
        return self._variables[var.name]

    def _unbound(self, var: s.Var) -> None:
        assert self._scope is not None
        if self.free or var.name in self.environment.operators:
            return  # free, or reported already as the name of an operator
        written = sorted(name for name in self._scope if not name.startswith("egc-"))
        hint = nearest(var.name, written) or f"bound here: {', '.join(written) or 'nothing'}"
        self._error(f"`{var.name}` is not bound", var.span, hint)
        self._scope.add(var.name)  # once is enough

    def _check_name(self, name: str, span: s.Span) -> None:
        """A variable may not go by a global's or an operator's name."""
        operator = self.environment.operators.get(name)
        if operator and self.environment.is_later(operator.span, span):
            hint = "rules of files before it have a variable of that name; choose another"
            self._error(f"`{name}` is taken", operator.span, hint)
        elif operator:
            written = f"({' '.join((name, *('…' for _ in operator.inputs)))})"
            self._error(f"`{name}` is a {operator.kind.value}, not a variable", span, f"write `{written}`")
        elif f"${name}" in self.environment.globals:
            where = self.environment.globals[f"${name}"].span
            if where.source is span.source:  # egglog refuses that
                self._error(
                    f"`{name}` shadows the global `${name}`",
                    span,
                    f"the global is defined in line {where.line}; choose another name",
                )

    def _operator(self, call: s.Call, operator: Operator) -> _Cell:
        if len(call.args) != len(operator.inputs):
            count, wanted = len(call.args), len(operator.inputs)
            self._error(
                f"`{call.head}` takes {wanted} argument{'s' if wanted != 1 else ''}, not {count}",
                call.span,
                operator.declared,
            )
        if self._scope is not None and operator.kind is Kind.FUNCTION:
            self._error(
                f"an action cannot look up the function `{call.head}`",
                call.span,
                f"bind its value in a premise: (= value ({call.head} …))",
            )
        for index, arg in enumerate(call.args):
            cell = self._visit(arg)
            if index < len(operator.inputs):
                self._argument(cell, arg, operator, index)
        return _Cell(operator.output, call.span)

    def _argument(self, cell: _Cell, arg: s.Expr, operator: Operator, index: int) -> None:
        root, wanted = cell.root(), operator.inputs[index]
        if root.sort is None:
            root.sort, root.why = wanted, arg.span
        elif root.sort != wanted:
            self._error(
                f"{_described(arg)} is of sort {root.sort}, and argument {index + 1} of `{operator.name}` "
                f"is of sort {wanted}",
                arg.span,
                operator.declared if not isinstance(arg, s.Var) else _because(arg, root, operator),
            )

    def _unknown(self, call: s.Call) -> _Cell:
        known = {**self.environment.operators, **dict.fromkeys(SIGNATURES)}
        self._error(f"unknown constructor `{call.head}`", call.head_span, _nearest_operator(call.head, known))
        for arg in call.args:
            self._visit(arg)
        return _Cell()

    # -- primitives

    def _primitive(self, call: s.Call) -> _Cell:
        args = [self._visit(arg) for arg in call.args]
        result = _Cell(None, call.span)
        if call.head == "unstable-fn":
            meanings = list(self._captures(call))
        else:
            possible = (m.of_arity(len(args)) for m in self.environment.meanings(call.head))
            meanings = [m for m in possible if m]
        if not meanings and call.head != "unstable-fn":
            self._error(
                f"`{call.head}` does not take {len(args)} argument{'s' if len(args) != 1 else ''}",
                call.span,
                _meanings(call.head),
            )
        elif meanings:
            self._waiting.append(_Waiting(call, args, result, meanings))
        return result

    def _captures(self, call: s.Call) -> tuple[Signature, ...]:
        """What a function value may be: the table or primitive that its first argument names."""
        named = call.args[0] if call.args else None
        if not isinstance(named, s.Lit) or not isinstance(named.value, str):
            self._error("a function value names its function in a string", call.span, _meanings(call.head))
            return ()
        operator = self.environment.operators.get(named.value)
        if operator:
            meanings: tuple[Signature, ...] = (Signature(operator.inputs, operator.output),)
        else:
            if named.value not in SIGNATURES:
                known = {*self.environment.operators, *SIGNATURES}
                self._error(f"unknown function `{named.value}`", named.span, nearest(named.value, known))
                return ()
            meanings = self.environment.meanings(named.value)
        found = captures(meanings, len(call.args) - 1, self.environment.compound_sorts())
        if not found:
            self._error(
                f"no function sort fits `{named.value}` with {len(call.args) - 1} arguments bound",
                call.span,
                "declare one: (sort NAME (UnstableFn (SORT…) SORT))",
            )
        return found

    def _settle(self) -> None:
        """Drop the meanings that do not fit, and learn from what those that are left agree on, until nothing
        moves.
        """
        moved = True
        while moved:
            moved = False
            for waiting in self._waiting:
                cells = [*waiting.args, waiting.result]
                fitting = [m for m in waiting.meanings if _fits((*m.inputs, m.output), cells)]
                if not fitting:
                    self._no_meaning(waiting)
                    waiting.meanings = []
                    moved = True
                    break
                moved |= len(fitting) != len(waiting.meanings)
                waiting.meanings = fitting
                for index, cell in enumerate(cells):
                    sorts = {(*m.inputs, m.output)[index] for m in fitting}
                    root = cell.root()
                    if len(sorts) == 1 and root.sort is None:
                        root.sort, root.why = sorts.pop(), waiting.call.span
                        moved = True
            self._waiting = [
                w
                for w in self._waiting
                if len(w.meanings) > 1
                or (w.meanings and any(c.root().sort is None for c in (*w.args, w.result)))
            ]

    def _no_meaning(self, waiting: _Waiting) -> None:
        sorts = [cell.root().sort or "?" for cell in waiting.args]
        result = waiting.result.root().sort
        wanted = f" giving {result}" if result and not waiting.meanings else ""
        self._error(
            f"`{waiting.call.head}` does not take ({' '.join(sorts)}){wanted}",
            waiting.call.span,
            _meanings(waiting.call.head),
        )

    def _check_test(self, call: s.Call, cell: _Cell) -> None:
        """A premise computed by a primitive must be able to fail."""
        sort = cell.root().sort
        if call.head in SIGNATURES and sort not in (None, "Unit"):
            test = call.head.removeprefix("bool-")
            better = (
                f"write `({test} …)`" if sort == "bool" and test in SIGNATURES and test != call.head else None
            )
            self._error(
                f"this premise always holds: `{call.head}` computes a {sort}",
                call.span,
                better
                or ("write `(guard …)` around it" if sort == "bool" else "compare the value with another"),
            )

    def _same(self, left: _Cell, right: _Cell, at: s.Fact | s.Expr) -> None:
        a, b = left.root(), right.root()
        if a is b:
            return
        if a.sort and b.sort and a.sort != b.sort:
            self._error(f"the two sides are of different sorts: {a.sort} and {b.sort}", at.span)
            return
        if a.sort is None:
            a, b = b, a
        b.link = a

    # -- binding

    def _grounding(self, facts: tuple[s.Fact, ...]) -> None:
        """Which variables the premises bind: those in a pattern, and those equal to something computed from
        them.
        """
        bound: set[str] = set()
        exprs = [e for fact in facts for e in s.fact_exprs(fact)]
        for expr in exprs:
            for part in s.walk(expr):
                if isinstance(part, s.Call) and part.head not in SIGNATURES:
                    bound.update(a.name for a in part.args if isinstance(a, s.Var))
        equalities = [f for f in facts if isinstance(f, s.Eq)]
        grown = True
        while grown:
            before = len(bound)
            for eq in equalities:
                for side, other in ((eq.left, eq.right), (eq.right, eq.left)):
                    if isinstance(side, s.Var) and self._is_bound(other, bound):
                        bound.add(side.name)
            grown = len(bound) > before
        for name, span in self._first_use.items():
            if name not in bound and name not in self.environment.operators:
                taken_apart = any(
                    isinstance(part, s.Call) and part.head == "vec-of" and s.Var(name, span) in part.args
                    for expr in exprs
                    for part in s.walk(expr)
                )
                self._error(
                    f"`{name}` is not bound by any pattern",
                    span,
                    f"a pattern takes no vector apart: call it v, and ask for (= {name} (vec-get v …))"
                    if taken_apart
                    else "a test or a computation alone binds nothing",
                )
                bound.add(name)
        self._scope = bound | set(self._first_use)

    def _is_bound(self, expr: s.Expr, bound: set[str]) -> bool:
        match expr:
            case s.Lit():
                return True
            case s.Var(name=name):
                return name in bound or name in self.environment.globals
            case s.Call(head=head, args=args):
                return head not in SIGNATURES or all(self._is_bound(a, bound) for a in args)

    # -- actions

    def _action(self, action: s.Action) -> None:
        match action:
            case s.Let(name=name, value=value):
                cell = self._visit(value)
                assert self._scope is not None
                self._check_name(name, action.name_span)
                if name in self._scope or name in self.environment.globals:
                    self._error(f"`{name}` is bound already", action.name_span, "choose another name")
                self._variables[name] = cell
                self._first_use.setdefault(name, action.name_span)
                self._scope.add(name)
            case s.Set(target=target, value=value):
                self._set(target, value)
            case s.Union(left=left, right=right):
                self._union(action, left, right)
            case s.Delete(target=target) | s.Subsume(target=target):
                self._target(target, (Kind.CONSTRUCTOR, Kind.FUNCTION, Kind.RELATION))
            case s.Panic():
                pass
            case s.Call(head=head):
                self._visit(action)
                if head in SIGNATURES:
                    self._error("this action computes a value and does nothing with it", action.span)
            case _:
                self._error("an action inserts, sets or unites", action.span)

    def _target(self, call: s.Call, kinds: tuple[Kind, ...]) -> Operator | None:
        """The table that an action changes; its arguments are checked, and it is not looked up."""
        operator = self.environment.operators.get(call.head)
        if operator is None:
            self._visit(call)
            return None
        if operator.kind not in kinds:
            self._error(
                f"`{call.head}` is a {operator.kind.value}: only a function is `set`",
                call.head_span,
                "write it alone to insert it"
                if operator.kind is Kind.RELATION
                else "write `union` for an e-class",
            )
        as_row = Operator(operator.name, Kind.RELATION, operator.inputs, operator.output, operator.span)
        self._operator(call, as_row)
        return operator if operator.kind in kinds else None

    def _set(self, target: s.Call, value: s.Expr) -> None:
        operator = self._target(target, (Kind.FUNCTION,))
        cell = self._visit(value)
        if operator:
            root = cell.root()
            if root.sort is None:
                root.sort, root.why = operator.output, value.span
            elif root.sort != operator.output:
                self._error(
                    f"{_described(value)} is of sort {root.sort}, and `{operator.name}` gives "
                    f"{operator.output}",
                    value.span,
                    operator.declared,
                )

    def _union(self, action: s.Union, left: s.Expr, right: s.Expr) -> None:
        a, b = self._visit(left), self._visit(right)
        count = len(self.errors)
        self._same(a, b, right)
        self._settle()
        sort = a.root().sort
        if len(self.errors) == count and sort and not self.environment.is_eq_sort(sort):
            self._error(
                f"values of sort {sort} cannot be made equal", action.span, "only e-classes are united"
            )


def _fits(sorts: tuple[str, ...], cells: list[_Cell]) -> bool:
    return all(cell.root().sort in (None, sort) for sort, cell in zip(sorts, cells, strict=True))


def _described(expr: s.Expr) -> str:
    match expr:
        case s.Var(name=name):
            return f"`{name}`"
        case s.Call(head=head):
            return f"`({head}{' …' if expr.args else ''})`"
        case s.Lit():
            return f"`{expr.span.text}`"


def _because(var: s.Var, cell: _Cell, operator: Operator) -> str:
    if cell.why is None:
        return operator.declared
    return f"`{var.name}` is of sort {cell.sort} at {cell.why}; `{operator.name}` is {operator.declared}"


_FUNCTION_VALUES = {
    "unstable-fn": '(unstable-fn "NAME" FIRST…) of a sort (UnstableFn (REST…) RESULT)',
    "unstable-app": "(unstable-app FUNCTION ARG…)",
}


def _meanings(head: str) -> str:
    if head in _FUNCTION_VALUES:
        return f"egglog's `{head}`: {_FUNCTION_VALUES[head]}"
    shown = (t.replace(" -> ", " → ").replace("-> ", "→ ") for t in SIGNATURES[head])
    return f"egglog's `{head}`: {' or '.join(shown)}"


def _nearest_operator(name: str, known: dict[str, Operator | None]) -> str | None:
    hint = nearest(name, known)
    if hint is None:
        return None
    best = known[hint.split("`")[1]]
    return f"{hint} {best.declared}" if best else hint
