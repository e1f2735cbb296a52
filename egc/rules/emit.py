"""Rules → egglog commands, built as egglog's own syntax objects: parsing text would copy it into every
span.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from egc.rules import syntax as s
from egc.rules.bindings import egglog_bindings
from egc.rules.provenance import recording
from egc.rules.rule import Rule

if TYPE_CHECKING:
    from egglog import bindings as eg


class Emitter:
    """Translates syntax nodes. Making one imports egglog."""

    def __init__(self) -> None:
        self._eg: Any = egglog_bindings()
        self.span: Any = None
        self._locate("egc", "")

    def _locate(self, place: str, what: str) -> None:
        """The span of all nodes from now on: egglog's errors then say `what` and its `place` in the rule
        files.

        A span carries a copy of its text, so it gets a word and not the file.
        """
        self.span = self._eg.EgglogSpan(self._eg.SrcFile(place, what or place), 0, len(what or place))

    def program(
        self, declarations: Iterable[s.Command], rules: Iterable[Rule], provenance: bool = True
    ) -> list[eg._Command]:
        """Everything an e-graph must be told before its terms: declarations, then rules with their tables."""
        commands: list[eg._Command] = []
        for declaration in declarations:
            commands.extend(self.declaration(declaration))
        for rule in rules:
            commands.extend(self.rule(rule, provenance))
        return commands

    def rule(self, rule: Rule, provenance: bool = True) -> Iterator[eg._Command]:
        """A rule; with `provenance`, the declaration of its table before it."""
        self._locate(rule.location, rule.name)
        declaration, actions = recording(rule) if provenance else (None, rule.actions)
        if declaration is not None:
            yield from self.declaration(declaration)
        eg, span = self._eg, self.span
        head = [self.action(a) for a in actions]
        body = [self.fact(f) for f in rule.premises]
        yield eg.RuleCommand(eg.Rule(span, head, body, rule.name, rule.ruleset))

    def declaration(self, command: s.Command) -> Iterator[eg._Command]:
        """A declaration or an action at the top level."""
        eg, span = self._eg, self.span
        match command:
            case s.SortDecl(name=name):
                yield eg.Sort(span, name.text, self._container(command))
            case s.DatatypeDecl(name=name, variants=variants):
                yield eg.Datatype(span, name.text, [self._variant(v) for v in variants])
            case s.DatatypesDecl(members=members):
                yield eg.Datatypes(span, [self._member(m) for m in members])
            case s.ConstructorDecl(name=name):
                schema = eg.Schema([i.text for i in command.inputs], command.output.text)
                yield eg.Constructor(span, name.text, schema, command.cost, command.unextractable)
            case s.FunctionDecl(name=name):
                schema = eg.Schema([i.text for i in command.inputs], command.output.text)
                merge = self.expr(command.merge) if command.merge is not None else None
                yield eg.FunctionCommand(span, name.text, schema, merge)
            case s.RelationDecl(name=name, inputs=inputs):
                yield eg.Relation(span, name.text, [i.text for i in inputs])
            case s.RulesetDecl(name=name, members=None):
                yield eg.AddRuleset(span, name.text)
            case s.RulesetDecl(name=name, members=members):
                yield eg.UnstableCombinedRuleset(span, name.text, [m.text for m in members or ()])
            case s.RewriteForm() | s.RuleForm():
                raise AssertionError("rules are lowered before they are emitted")
            case _:
                yield eg.ActionCommand(self.action(command))

    def expr(self, expr: s.Expr) -> eg._Expr:
        """An expression."""
        eg, span = self._eg, self.span
        match expr:
            case s.Call(head=head, args=args):
                return eg.Call(span, head, [self.expr(a) for a in args])
            case s.Var(name=name):
                return eg.Var(span, name)
            case s.Lit(value=value):
                kinds = {bool: eg.Bool, int: eg.Int, float: eg.Float, str: eg.String}
                literal = eg.Unit() if value is None else kinds[type(value)](value)
                return eg.Lit(span, literal)

    def fact(self, fact: s.Fact) -> eg._Fact:
        """A premise."""
        if isinstance(fact, s.Eq):
            return self._eg.Eq(self.span, self.expr(fact.left), self.expr(fact.right))
        return self._eg.Fact(self.expr(fact))

    def action(self, action: s.Action) -> eg._Action:
        """An action."""
        eg, span = self._eg, self.span
        match action:
            case s.Let(name=name, value=value):
                return eg.Let(span, name, self.expr(value))
            case s.Set(target=target, value=value):
                return eg.Set(span, target.head, [self.expr(a) for a in target.args], self.expr(value))
            case s.Union(left=left, right=right):
                return eg.Union(span, self.expr(left), self.expr(right))
            case s.Delete(target=target):
                return eg.Change(span, eg.Delete(), target.head, [self.expr(a) for a in target.args])
            case s.Subsume(target=target):
                return eg.Change(span, eg.Subsume(), target.head, [self.expr(a) for a in target.args])
            case s.Panic(message=message):
                return eg.Panic(span, message)
            case _:
                return eg.Expr_(span, self.expr(action))

    def _container(self, sort: s.SortDecl) -> tuple[str, list[eg._Expr]] | None:
        if sort.container is None:
            return None
        return sort.container.text, [self._sort_arg(a) for a in sort.args]

    def _sort_arg(self, arg: s.Name | tuple[s.Name, ...]) -> eg._Expr:
        """A sort's name, or the list of a function's argument sorts, which egglog reads as a call."""
        eg, span = self._eg, self.span
        if isinstance(arg, s.Name):
            return eg.Var(span, arg.text)
        if not arg:
            return eg.Lit(span, eg.Unit())
        return eg.Call(span, arg[0].text, [eg.Var(span, a.text) for a in arg[1:]])

    def _variant(self, variant: s.Variant) -> eg.Variant:
        types = [i.text for i in variant.inputs]
        return self._eg.Variant(self.span, variant.name, types, variant.cost, variant.unextractable)

    def _member(self, member: s.DatatypeDecl | s.SortDecl) -> tuple[Any, str, Any]:
        eg = self._eg
        if isinstance(member, s.SortDecl):
            container, args = self._container(member) or ("", [])
            return self.span, member.name.text, eg.NewSort(container, args)
        return self.span, member.name.text, eg.SubVariants([self._variant(v) for v in member.variants])
