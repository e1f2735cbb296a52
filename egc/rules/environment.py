"""What a set of rule files declares: sorts, constructors, functions, relations, rulesets and globals."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct, field

from egc.rules import syntax as s
from egc.rules.diagnostics import Diagnostic, nearest
from egc.rules.primitives import (
    BUILTIN_SORTS,
    CONTAINERS,
    SIGNATURES,
    FunctionSort,
    Signature,
    VectorSort,
    signatures,
)


class Kind(Enum):
    """The three kinds of table."""

    CONSTRUCTOR = "constructor"
    FUNCTION = "function"
    RELATION = "relation"


class Operator(Struct, frozen=True):
    """A table: its argument sorts and its result's sort, which is Unit for a relation."""

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    output: str
    span: s.Span

    def __str__(self) -> str:
        shown = f"({' '.join((self.name, *self.inputs))})"
        return shown if self.kind is Kind.RELATION else f"{shown} → {self.output}"

    @property
    def declared(self) -> str:
        """`declared at file:line: (F A B) → C`, for hints."""
        return f"declared at {self.span.source.name}:{self.span.line}: {self}"


class SortInfo(Struct, frozen=True):
    """A declared sort: of e-classes where `made_of` is None, else a vector or function sort."""

    name: str
    made_of: VectorSort | FunctionSort | None
    span: s.Span


class Global(Struct, frozen=True):
    """A name for a value: `value` has no globals in it."""

    sort: str
    value: s.Expr
    span: s.Span


class Environment(Struct):
    """Filled by `declare`, command after command, in the order in which egglog will see them."""

    sorts: dict[str, SortInfo] = field(default_factory=dict)
    operators: dict[str, Operator] = field(default_factory=dict)
    rulesets: dict[str, s.Span] = field(default_factory=dict)
    globals: dict[str, Global] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)  # by the names of sources, in the order of reading
    errors: list[Diagnostic] = field(default_factory=list)

    def is_later(self, span: s.Span, other: s.Span) -> bool:
        """Whether the file of ``span`` is read after that of ``other``."""
        return self.files.get(span.source.name, 0) > self.files.get(other.source.name, 0)

    @property
    def values(self) -> dict[str, s.Expr]:
        """The globals and what they stand for."""
        return {name: known.value for name, known in self.globals.items()}

    def declare(self, command: s.Command) -> None:
        """Enter a declaration; other commands declare nothing. What is wrong goes to `errors`."""
        match command:
            case s.SortDecl():
                self._sort(command)
                self._compound(command)
            case s.DatatypeDecl():
                self._datatypes((command,))
            case s.DatatypesDecl(members=members):
                self._datatypes(members)
            case s.ConstructorDecl(name=name, inputs=inputs, output=output):
                self._operator(name, Kind.CONSTRUCTOR, inputs, output)
            case s.FunctionDecl(name=name, inputs=inputs, output=output):
                self._operator(name, Kind.FUNCTION, inputs, output)
            case s.RelationDecl(name=name, inputs=inputs):
                self._operator(name, Kind.RELATION, inputs, s.Name("Unit", name.span))
            case s.RulesetDecl(name=name, members=members):
                for member in members or ():
                    self.check_ruleset(member)
                if self._new(name):
                    self.rulesets[name.text] = name.span

    def compound_sorts(self) -> tuple[VectorSort | FunctionSort, ...]:
        """The vector and function sorts."""
        return tuple(i.made_of for i in self.sorts.values() if i.made_of is not None)

    def meanings(self, head: str) -> tuple[Signature, ...]:
        """What a primitive may mean with the sorts declared."""
        return signatures(head, self.compound_sorts(), self.all_sorts())

    def all_sorts(self) -> tuple[str, ...]:
        """Every sort, builtin ones first."""
        return (*BUILTIN_SORTS, *self.sorts)

    def is_eq_sort(self, sort: str) -> bool:
        """Whether values of the sort are e-classes, which can be made equal."""
        return sort in self.sorts and self.sorts[sort].made_of is None

    def check_ruleset(self, name: s.Name) -> None:
        """Note an error where no such ruleset is declared."""
        if name.text not in self.rulesets:
            known = ", ".join(self.rulesets) or "none is declared"
            hint = nearest(name.text, self.rulesets) or f"the rulesets: {known}"
            self.errors.append(Diagnostic(f"unknown ruleset `{name}`", name.span, hint))

    def _new(self, name: s.Name) -> bool:
        """Whether a name is free; notes an error where it is not."""
        if name.text in SIGNATURES or name.text in BUILTIN_SORTS:
            self.errors.append(Diagnostic(f"`{name}` is egglog's own", name.span, "choose another name"))
            return False
        if name.text.startswith(("egc-", "@")):
            self.errors.append(
                Diagnostic(
                    f"`{name}` is reserved", name.span, "names in `egc-` and `@` belong to the compiler"
                )
            )
            return False
        earlier = (
            self.rulesets.get(name.text)
            or (self.sorts[name.text].span if name.text in self.sorts else None)
            or (self.operators[name.text].span if name.text in self.operators else None)
        )
        if earlier:
            where = f"{earlier.source.name}:{earlier.line}"
            self.errors.append(
                Diagnostic(f"`{name}` is declared twice", name.span, f"first declared at {where}")
            )
        return earlier is None

    def _sort(self, command: s.SortDecl | s.DatatypeDecl) -> None:
        if self._new(command.name):
            self.sorts[command.name.text] = SortInfo(command.name.text, None, command.name.span)

    def _compound(self, command: s.SortDecl) -> None:
        """What a sort is made of, where it is made of others."""
        container, name = command.container, command.name.text
        made_of: VectorSort | FunctionSort
        match container, command.args:
            case None, _:
                return
            case s.Name(text="Vec"), (s.Name() as element,):
                known = self._known(element)
                made_of = VectorSort(name, element.text)
            case s.Name(text="UnstableFn"), (tuple() as inputs, s.Name() as output):
                known = self._all_known((*inputs, output))
                made_of = FunctionSort(name, tuple(i.text for i in inputs), output.text)
            case s.Name(text=text), _:
                usage = CONTAINERS.get(text)
                message = f"wrong arguments of `{text}`" if usage else f"unknown container `{text}`"
                hint = f"write `{usage or ' or '.join(CONTAINERS.values())}`"
                self.errors.append(Diagnostic(message, container.span, hint))
                return
        if known:
            self.sorts[name] = SortInfo(name, made_of, command.name.span)

    def _datatypes(self, members: tuple[s.DatatypeDecl | s.SortDecl, ...]) -> None:
        """All sorts first: the members of a `datatype*` may name each other."""
        for member in members:
            self._sort(member)
        for member in members:
            if isinstance(member, s.SortDecl):
                self._compound(member)
                continue
            for variant in member.variants:
                self._operator(
                    s.Name(variant.name, variant.name_span), Kind.CONSTRUCTOR, variant.inputs, member.name
                )

    def _known(self, sort: s.Name) -> bool:
        known = self.all_sorts()
        if sort.text in known:
            return True
        hint = nearest(sort.text, known) or "a sort is declared before it is used"
        self.errors.append(Diagnostic(f"unknown sort `{sort}`", sort.span, hint))
        return False

    def _all_known(self, sorts: tuple[s.Name, ...]) -> bool:
        """Whether all sorts are known; every one that is not is reported, not only the first."""
        return not [sort for sort in sorts if not self._known(sort)]

    def _operator(self, name: s.Name, kind: Kind, inputs: tuple[s.Name, ...], output: s.Name) -> None:
        known = self._all_known((*inputs, output))
        if kind is Kind.CONSTRUCTOR and known and not self.is_eq_sort(output.text):
            self.errors.append(
                Diagnostic(
                    f"a constructor cannot build values of sort {output}",
                    output.span,
                    "constructors build sorts made by `sort` or `datatype`; for a value write a `function`",
                )
            )
        if self._new(name):
            self.operators[name.text] = Operator(
                name.text, kind, tuple(i.text for i in inputs), output.text, name.span
            )
