"""The syntax tree of a rule file. Nodes are frozen and compare by meaning: two nodes that differ only in
where they stand are equal, so that printing and reading again gives an equal tree.

    file     ::= (comment* command)*
    command  ::= sort | datatype | datatype* | constructor | function | relation | ruleset | combined ruleset
               | rewrite | birewrite | rule | action
    fact     ::= (= expr expr) | expr
    action   ::= (let x expr) | (set (f expr*) expr) | (union expr expr) | (delete call) | (subsume call)
               | (panic "why") | expr
    expr     ::= literal | variable | (head expr*)
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from operator import attrgetter

from msgspec import Struct

# What may follow a backslash in a string literal.
ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", '"': '"'}

_PLACES = {"span", "head_span", "name_span", "source"}  # the fields that say where a node stands


class Source(Struct, frozen=True, dict=True):
    """A text and the name it goes by in messages: a path for a file, `<…>` for a text without one."""

    name: str
    text: str

    @cached_property
    def line_starts(self) -> tuple[int, ...]:
        """The offset of each line's first character."""
        return (0, *(end.end() for end in re.finditer("\n", self.text)))

    def position(self, offset: int) -> tuple[int, int]:
        """The line and column, both counted from 1, of the character at `offset`."""
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line counted from 1, without its end."""
        start = self.line_starts[number - 1]
        end = self.line_starts[number] - 1 if number < len(self.line_starts) else len(self.text)
        return self.text[start:end].rstrip("\r")

    def __repr__(self) -> str:
        return f"Source({self.name!r})"


class Span(Struct, frozen=True, eq=False):
    """The characters [start, end) of a source."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        """The line of the first character, from 1."""
        return self.source.position(self.start)[0]

    @property
    def column(self) -> int:
        """The column of the first character, from 1."""
        return self.source.position(self.start)[1]

    @property
    def text(self) -> str:
        """The characters themselves."""
        return self.source.text[self.start : self.end]

    def __str__(self) -> str:
        line, column = self.source.position(self.start)
        return f"{self.source.name}:{line}:{column}"

    __repr__ = __str__


class Node(Struct, frozen=True, eq=False):
    """A part of a rule file."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        meaning = _meaning(type(self))
        return bool(meaning(self) == meaning(other))

    def __ne__(self, other: object) -> bool:  # Struct has one of its own, which would ask for identity
        return not self == other

    def __hash__(self) -> int:
        return hash(_meaning(type(self))(self))


@cache
def _meaning(kind: type[Node]) -> Callable[[object], object]:
    """What makes two nodes of a kind equal: all their fields, read at once, but for those of places."""
    return attrgetter(*(name for name in kind.__struct_fields__ if name not in _PLACES))


class Lit(Node, frozen=True):
    """A literal: i64, f64, String, bool, or Unit where the value is None."""

    value: int | float | str | bool | None
    span: Span

    def __eq__(self, other: object) -> bool:
        # 1, 1.0 and True are equal in Python and three different literals in a rule; -0.0 is not 0.0 and NaN
        # is NaN.
        return isinstance(other, Lit) and (type(self.value), repr(self.value)) == (
            type(other.value),
            repr(other.value),
        )

    def __hash__(self) -> int:
        return hash((type(self.value), repr(self.value)))


class Var(Node, frozen=True):
    """A pattern variable, a variable bound by `let`, a global (`$name`) or the wildcard `_`."""

    name: str
    span: Span


class Call(Node, frozen=True):
    """A constructor, function, relation or primitive applied to arguments; `head_span` is its name's
    place.
    """

    head: str
    args: tuple[Expr, ...]
    span: Span
    head_span: Span


Expr = Lit | Var | Call


class Eq(Node, frozen=True):
    """The premise that two expressions are equal; as a premise it also binds variables."""

    left: Expr
    right: Expr
    span: Span


Fact = Eq | Expr


class Let(Node, frozen=True):
    """Names a value for the actions after it, or, at the top of a file, for all rules (then `$name`)."""

    name: str
    value: Expr
    span: Span
    name_span: Span


class Set(Node, frozen=True):
    """Gives a function its value at some arguments."""

    target: Call
    value: Expr
    span: Span


class Union(Node, frozen=True):
    """Makes two expressions equal."""

    left: Expr
    right: Expr
    span: Span


class Delete(Node, frozen=True):
    """Removes a row."""

    target: Call
    span: Span


class Subsume(Node, frozen=True):
    """Hides a row from later matches and from extraction."""

    target: Call
    span: Span


class Panic(Node, frozen=True):
    """Stops the run with a message."""

    message: str
    span: Span


Action = Let | Set | Union | Delete | Subsume | Panic | Expr


class Variant(Node, frozen=True):
    """One constructor of a datatype: its name and the sorts of its arguments."""

    name: str
    inputs: tuple[Name, ...]
    cost: int | None
    unextractable: bool
    span: Span
    name_span: Span


class Name(Node, frozen=True):
    """A name standing alone, such as that of a sort or a ruleset."""

    text: str
    span: Span

    def __str__(self) -> str:
        return self.text


class SortDecl(Node, frozen=True):
    """A sort: of e-classes, or made of others, such as `(Vec i64)` or `(UnstableFn (i64) Dim)`."""

    name: Name
    container: Name | None
    args: tuple[Name | tuple[Name, ...], ...]
    span: Span


class DatatypeDecl(Node, frozen=True):
    """A sort of e-classes together with its constructors."""

    name: Name
    variants: tuple[Variant, ...]
    span: Span


class DatatypesDecl(Node, frozen=True):
    """Several datatypes and container sorts that name each other."""

    members: tuple[DatatypeDecl | SortDecl, ...]
    span: Span


class ConstructorDecl(Node, frozen=True):
    """A constructor declared away from its sort."""

    name: Name
    inputs: tuple[Name, ...]
    output: Name
    cost: int | None
    unextractable: bool
    span: Span


class FunctionDecl(Node, frozen=True):
    """A function: a table from arguments to one value; `merge` of None means that two values are an error."""

    name: Name
    inputs: tuple[Name, ...]
    output: Name
    merge: Expr | None
    unextractable: bool
    span: Span


class RelationDecl(Node, frozen=True):
    """A relation: a table of facts."""

    name: Name
    inputs: tuple[Name, ...]
    span: Span


class RulesetDecl(Node, frozen=True):
    """A ruleset; with `members`, the union of others."""

    name: Name
    members: tuple[Name, ...] | None
    span: Span


class Options(Node, frozen=True):
    """What may follow a rewrite or a rule."""

    name: Lit | None = None
    ruleset: Name | None = None
    when: tuple[Fact, ...] = ()
    subsume: bool = False


class RewriteForm(Node, frozen=True):
    """`(rewrite LHS RHS …)`, or `(birewrite …)` where `both` ways are meant."""

    left: Expr
    right: Expr
    both: bool
    options: Options
    span: Span


class RuleForm(Node, frozen=True):
    """`(rule (FACT…) (ACTION…) …)`."""

    premises: tuple[Fact, ...]
    actions: tuple[Action, ...]
    options: Options
    span: Span


Declaration = (
    SortDecl | DatatypeDecl | DatatypesDecl | ConstructorDecl | FunctionDecl | RelationDecl | RulesetDecl
)
Command = Declaration | RewriteForm | RuleForm | Action


class Comment(Node, frozen=True):
    """One comment line, from its first semicolon to its last visible character."""

    text: str
    span: Span


class Form(Node, frozen=True):
    """A command and the comment lines that stand directly above it."""

    command: Command
    comments: tuple[Comment, ...]
    span: Span


class RuleFile(Node, frozen=True):
    """A file's forms in order; `prose` holds the comment blocks that belong to no form, each with the index
    of the form it stands before.
    """

    source: Source
    forms: tuple[Form, ...]
    prose: tuple[tuple[int, tuple[Comment, ...]], ...]


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and everything within it, outermost first, left to right."""
    stack: list[Expr] = [expr]
    while stack:
        top = stack.pop()
        yield top
        if isinstance(top, Call):
            stack.extend(reversed(top.args))


def fact_exprs(fact: Fact) -> tuple[Expr, ...]:
    """The expressions at the top of a fact."""
    return (fact.left, fact.right) if isinstance(fact, Eq) else (fact,)


def action_exprs(action: Action) -> tuple[Expr, ...]:
    """The expressions at the top of an action; the target of a `set`, `delete` or `subsume` is one of
    them.
    """
    match action:
        case Let(value=value):
            return (value,)
        case Set(target=target, value=value):
            return (target, value)
        case Union(left=left, right=right):
            return (left, right)
        case Delete(target=target) | Subsume(target=target):
            return (target,)
        case Panic():
            return ()
        case _:
            return (action,)


def substitute(expr: Expr, env: Mapping[str, Expr]) -> Expr:
    """`expr` with the variables of `env` replaced."""
    if isinstance(expr, Var):
        return env.get(expr.name, expr)
    if isinstance(expr, Call) and expr.args:
        return Call(expr.head, tuple(substitute(a, env) for a in expr.args), expr.span, expr.head_span)
    return expr
