"""The parts of index polynomials: symbols, terms, coefficients."""

from __future__ import annotations

from egc.ir.dims import Call, Dim, Monomial, SymDim, symbols_of


def sym(name: str) -> SymDim:
    """A symbol without a check of its name."""
    return SymDim((((name,), 1),))


def terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    """The monomials of a dim with their coefficients; a constant is one empty monomial."""
    return (((), dim),) if isinstance(dim, int) else dim.terms


def from_terms(chosen: list[tuple[Monomial, int]]) -> Dim:
    """The sum of `chosen`."""
    total: Dim = 0
    for monomial, coefficient in chosen:
        total = total + (SymDim(((monomial, coefficient),)) if monomial else coefficient)
    return total


def affine(dim: Dim, names: frozenset[str]) -> dict[str, Dim] | None:
    """The coefficient of each of `names` in `dim`, with the rest under ""; None where it is not affine in
    them.
    """
    parts: dict[str, list[tuple[Monomial, int]]] = {"": []}
    for monomial, coefficient in terms(dim):
        own = ""
        others: list[str | Call] = []
        for atom in monomial:
            if isinstance(atom, str) and atom in names and not own:
                own = atom
            elif (atom in names) if isinstance(atom, str) else _mentions(atom, names):
                return None
            else:
                others.append(atom)
        parts.setdefault(own, []).append((tuple(others), coefficient))
    return {name: from_terms(chosen) for name, chosen in parts.items()}


def _mentions(atom: Call, names: frozenset[str]) -> bool:
    return any(symbols_of(arg) & names for arg in atom.args)
