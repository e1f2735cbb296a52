"""Terms of the e-graph as text: values under the names that the model gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from egc.egraph import ENode, Snapshot
from egc.egraph.provenance import Fact, Step, Term
from egc.extract.sources import anchors
from egc.ir.graph import print_attr


class TermPrinter:
    """Prints terms of one snapshot.

    An e-class is called ``%name`` where it holds a value of the model, ``%name'`` where it holds one in
    another layout, and by its number otherwise; scalar constants are printed as numbers.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        names: dict[int, list[str]] = {}
        for name, eclass in snapshot.roots.items():
            names.setdefault(eclass, []).append(name)
        self.names: Mapping[int, list[str]] = names
        self.anchor = anchors(snapshot, names)
        self._texts: dict[int, str] = {}

    def eclass(self, eclass: int) -> str:
        """An e-class's name."""
        if eclass not in self._texts:
            self._texts[eclass] = self._eclass(eclass)
        return self._texts[eclass]

    def is_nameless(self, eclass: int) -> bool:
        """Whether an e-class holds no value of the model, in any layout."""
        return self.eclass(eclass) == f"c{eclass}"

    def _eclass(self, eclass: int) -> str:
        for enode in self.snapshot.classes.get(eclass, ()):
            if enode.op == "splat":
                return f"{enode.attr('value'):g}"
        if eclass in self.names:
            return f"%{self.names[eclass][0]}"
        if eclass in self.anchor:
            return f"%{self.names[self.anchor[eclass]][0]}'"
        return f"c{eclass}"

    def enode(self, enode: ENode, args: tuple[Term | None, ...] | None = None) -> str:
        """An e-node; operands are names where ``args`` has no term for them."""
        terms = args or (None,) * len(enode.children)
        pairs = zip(enode.children, terms, strict=True)
        return self.written(enode, [self.eclass(c) if term is None else self.term(term) for c, term in pairs])

    def spelled(self, enode: ENode, choice: Mapping[int, ENode], depth: int = 2) -> str:
        """An e-node; operands without a name are spelled as they were chosen, ``depth`` terms deep."""

        def operand(eclass: int) -> str:
            if depth == 0 or eclass not in choice or not self.is_nameless(eclass):
                return self.eclass(eclass)
            return self.spelled(choice[eclass], choice, depth - 1)

        return self.written(enode, list(map(operand, enode.children)))

    def written(self, enode: ENode, operands: list[str]) -> str:
        """An e-node over operands that are text."""
        attrs = dict(enode.attrs)
        head = str(attrs.pop("fn")) if enode.op == "map" else enode.op
        if enode.op == "splat":
            return f"{attrs['value']:g}"
        parts = operands + [f"{key}={print_attr(value)}" for key, value in attrs.items()]
        return f"{head}({', '.join(parts)})"

    def term(self, term: Term) -> str:
        """A term as a rule spells it."""
        return self.enode(term.enode, term.args)

    def side(self, items: tuple[Term | Fact, ...]) -> list[str]:
        """The terms of one side of a step, each with the e-class that it is in; facts as they stand."""
        return [
            f"{self.eclass(item.eclass)} = {self.term(item)}" if isinstance(item, Term) else self.fact(item)
            for item in items
        ]

    def fact(self, fact: Fact) -> str:
        """A fact."""
        return f"{fact.name}({', '.join(self.value(sort, value) for sort, value in fact.args)})"

    def variables(self, step: Step) -> dict[str, str]:
        """What the variables that a rule's author wrote stood for."""
        return {
            name: self.value(sort, value)
            for name, (sort, value) in step.variables.items()
            if not name.startswith("egc-")
        }

    def described(self, sort: str, value: Any) -> str:
        """A variable's value; a tensor with a term that it is."""
        text = self.value(sort, value)
        enodes = self.snapshot.classes.get(value, ()) if sort == "T" else ()
        if enodes and enodes[0].op not in ("splat", "input", "const"):
            return f"{text} = {self.enode(enodes[0])}"
        return text

    def value(self, sort: str, value: Any) -> str:
        """A variable's value."""
        if isinstance(value, Term):
            return self.term(value)
        if sort in ("T", "Multi"):
            return self.eclass(value)
        if sort == "TVec":
            return f"[{', '.join(map(self.eclass, value))}]"
        return f"{value:g}" if isinstance(value, float) else print_attr(value)
