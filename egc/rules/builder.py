"""Builds syntax nodes while the LALR parser reduces: each method is named after the grammar's rule or
alias.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lark import Token, Transformer

from egc.rules import syntax as s
from egc.rules.diagnostics import Diagnostic

I64 = range(-(2**63), 2**63)

_ESCAPES_SHOWN = " ".join("\\" + c for c in s.ESCAPES)

# What a command becomes once the place of its brackets is known.
Pending = Callable[[s.Span], Any]


class SyntaxProblem(Exception):
    """A form that the grammar admits and the language does not."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


class TreeBuilder(Transformer[Token, Any]):
    """Set `source` to the text being parsed before each parse."""

    source: s.Source

    def _token_span(self, token: Token) -> s.Span:
        assert token.start_pos is not None and token.end_pos is not None
        return s.Span(self.source, token.start_pos, token.end_pos)

    def _between(self, children: list[Any]) -> s.Span:
        return s.Span(self.source, children[0].start_pos, children[-1].end_pos)

    def _fail(self, message: str, span: s.Span, hint: str | None = None) -> SyntaxProblem:
        return SyntaxProblem(Diagnostic(message, span, hint))

    # -- expressions

    def integer(self, children: list[Token]) -> s.Lit:
        value = int(children[0])
        span = self._token_span(children[0])
        if value not in I64:
            raise self._fail("this integer does not fit in 64 bits", span)
        return s.Lit(value, span)

    def real(self, children: list[Token]) -> s.Lit:
        return s.Lit(float(children[0]), self._token_span(children[0]))

    def text(self, children: list[Token]) -> s.Lit:
        span = self._token_span(children[0])
        return s.Lit(self._unquote(children[0]), span)

    def _unquote(self, token: Token) -> str:
        """The text of a string literal."""

        def character(match: re.Match[str]) -> str:
            if match[1] not in s.ESCAPES:
                start = (token.start_pos or 0) + match.start() + 1
                raise self._fail(
                    f"`{match[0]}` is no escape",
                    s.Span(self.source, start, start + 2),
                    f"one of: {_ESCAPES_SHOWN}",
                )
            return s.ESCAPES[match[1]]

        quoted = str(token)[1:-1]
        return re.sub(r"\\(.)", character, quoted, flags=re.DOTALL) if "\\" in quoted else quoted

    def truth(self, children: list[Token]) -> s.Lit:
        return s.Lit(children[0] == "true", self._token_span(children[0]))

    def unit(self, children: list[Token]) -> s.Lit:
        return s.Lit(None, self._between(children))

    def var(self, children: list[Token]) -> s.Var:
        return s.Var(str(children[0]), self._token_span(children[0]))

    def call(self, children: list[Any]) -> s.Call:
        head = children[1]
        return s.Call(str(head), tuple(children[2:-1]), self._between(children), self._token_span(head))

    def name(self, children: list[Token]) -> s.Name:
        return s.Name(str(children[0]), self._token_span(children[0]))

    def names(self, children: list[s.Name]) -> tuple[s.Name, ...]:
        return tuple(children)

    def given(self, children: list[s.Action]) -> tuple[s.Action, ...]:
        return tuple(children)

    def expected(self, children: list[s.Fact]) -> tuple[s.Fact, ...]:
        return tuple(children)

    def equal(self, children: list[Any]) -> s.Eq:
        return s.Eq(children[1], children[2], self._between(children))

    def facts(self, children: list[s.Fact]) -> tuple[s.Fact, ...]:
        return tuple(children)

    # -- actions

    def form(self, children: list[Pending]) -> Pending:
        return children[0]

    def action(self, children: list[Any]) -> s.Action:
        action: s.Action = children[1](self._between(children))
        return action

    def let(self, children: list[Any]) -> Pending:
        name, value = children
        return lambda span: s.Let(name.text, value, span, name.span)

    def assign(self, children: list[Any]) -> Pending:
        return lambda span: s.Set(children[0], children[1], span)

    def union(self, children: list[Any]) -> Pending:
        return lambda span: s.Union(children[0], children[1], span)

    def delete(self, children: list[Any]) -> Pending:
        return lambda span: s.Delete(children[0], span)

    def subsume(self, children: list[Any]) -> Pending:
        return lambda span: s.Subsume(children[0], span)

    def panic(self, children: list[Token]) -> Pending:
        return lambda span: s.Panic(self._unquote(children[0]), span)

    def insert(self, children: list[Any]) -> Pending:
        head, *args = children
        return lambda span: s.Call(head.text, tuple(args), span, head.span)

    # -- declarations

    def sort(self, children: list[Any]) -> Pending:
        return lambda span: self._sort(children, span)

    def _sort(self, children: list[Any], span: s.Span) -> s.SortDecl:
        name, container, args = children if len(children) == 3 else (children[0], None, ())
        return s.SortDecl(name, container, args, span)

    def sort_args(self, children: list[Any]) -> tuple[Any, ...]:
        return tuple(children)

    def member_sort(self, children: list[Any]) -> s.SortDecl:
        return self._sort(children[1:-1], self._between(children))

    def member_datatype(self, children: list[Any]) -> s.DatatypeDecl:
        return s.DatatypeDecl(children[1], tuple(children[2:-1]), self._between(children))

    def datatype(self, children: list[Any]) -> Pending:
        return lambda span: s.DatatypeDecl(children[0], tuple(children[1:]), span)

    def datatypes(self, children: list[Any]) -> Pending:
        return lambda span: s.DatatypesDecl(tuple(children), span)

    def cost(self, children: list[Token]) -> tuple[str, Any, s.Span]:
        return "cost", int(children[0]), self._token_span(children[0])

    def unextractable(self, children: list[Token]) -> tuple[str, Any, s.Span | None]:
        return "unextractable", True, None

    def merge(self, children: list[s.Expr]) -> tuple[str, Any, s.Span]:
        return "merge", children[0], children[0].span

    def no_merge(self, children: list[Token]) -> tuple[str, Any, s.Span | None]:
        return "merge", None, None

    def _options(self, options: list[tuple[str, Any, s.Span | None]], whole: s.Span) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value, span in options:
            if key in found:
                raise self._fail(f"`:{key}` is given twice", span or whole)
            found[key] = value
        return found

    def variant(self, children: list[Any]) -> s.Variant:
        span = self._between(children)
        _, name, inputs, *options, _ = children
        found = self._options(options, span)
        cost, hidden = found.get("cost"), found.get("unextractable", False)
        return s.Variant(name.text, inputs, cost, hidden, span, name.span)

    def constructor(self, children: list[Any]) -> Pending:
        name, inputs, output, *options = children

        def build(span: s.Span) -> s.ConstructorDecl:
            found = self._options(options, span)
            cost, hidden = found.get("cost"), found.get("unextractable", False)
            return s.ConstructorDecl(name, inputs, output, cost, hidden, span)

        return build

    def function(self, children: list[Any]) -> Pending:
        name, inputs, output, *options = children

        def build(span: s.Span) -> s.FunctionDecl:
            found = self._options(options, span)
            if "merge" not in found:
                raise self._fail(
                    f"function `{name}` does not say what two values at one place mean",
                    name.span,
                    "write `:no-merge` where two values are an error, or `:merge EXPR` over `old` and `new`",
                )
            return s.FunctionDecl(
                name, inputs, output, found["merge"], found.get("unextractable", False), span
            )

        return build

    def relation(self, children: list[Any]) -> Pending:
        return lambda span: s.RelationDecl(children[0], children[1], span)

    def ruleset(self, children: list[Any]) -> Pending:
        return lambda span: s.RulesetDecl(children[0], None, span)

    def combined(self, children: list[Any]) -> Pending:
        return lambda span: s.RulesetDecl(children[0], children[1], span)

    # -- rules

    def when(self, children: list[Any]) -> tuple[str, Any, s.Span | None]:
        return "when", children[0], None

    def subsume_option(self, children: list[Any]) -> tuple[str, Any, s.Span | None]:
        return "subsume", True, None

    def in_ruleset(self, children: list[s.Name]) -> tuple[str, Any, s.Span]:
        return "ruleset", children[0], children[0].span

    def named(self, children: list[Token]) -> tuple[str, Any, s.Span]:
        span = self._token_span(children[0])
        return "name", s.Lit(self._unquote(children[0]), span), span

    def rewrite(self, children: list[Any], both: bool = False) -> Pending:
        left, right, *options = children
        admitted = {"name", "ruleset", "when"} | (set() if both else {"subsume"})
        return lambda span: s.RewriteForm(
            left, right, both, self._rule_options(options, admitted, span), span
        )

    def birewrite(self, children: list[Any]) -> Pending:
        return self.rewrite(children, both=True)

    def rule(self, children: list[Any]) -> Pending:
        premises, *rest = children
        # Options are tuples, actions are not: the grammar puts the actions first.
        actions = tuple(a for a in rest if not isinstance(a, tuple))
        options = [o for o in rest if isinstance(o, tuple)]
        return lambda span: s.RuleForm(
            premises, actions, self._rule_options(options, {"name", "ruleset"}, span), span
        )

    def _rule_options(self, options: list[Any], admitted: set[str], span: s.Span) -> s.Options:
        found = self._options(options, span)
        for key in found:
            if key not in admitted:
                raise self._fail(f"`:{key}` does not belong to this form", span)
        return s.Options(**found)
