"""Syntax tree → text. Reading what is printed gives an equal tree; comments inside a form are not part of the
tree.
"""

from __future__ import annotations

from egc.rules import syntax as s

WIDTH = 100
_ESCAPED = str.maketrans({char: "\\" + letter for letter, char in s.ESCAPES.items()})


def show_literal(literal: s.Lit) -> str:
    """A literal as egglog writes it."""
    match literal.value:
        case None:
            return "()"
        case bool(value):
            return "true" if value else "false"
        case int(value):
            return str(value)
        case float(value):
            return {"nan": "NaN"}.get(repr(value), repr(value))
        case str(value):
            return f'"{value.translate(_ESCAPED)}"'


def show(node: s.Fact | s.Action) -> str:
    """An expression, fact or action on one line."""
    match node:
        case s.Lit():
            return show_literal(node)
        case s.Var(name=name):
            return name
        case s.Call(head=head, args=args):
            return f"({' '.join((head, *map(show, args)))})"
        case s.Eq(left=left, right=right):
            return f"(= {show(left)} {show(right)})"
        case s.Let(name=name, value=value):
            return f"(let {name} {show(value)})"
        case s.Set(target=target, value=value):
            return f"(set {show(target)} {show(value)})"
        case s.Union(left=left, right=right):
            return f"(union {show(left)} {show(right)})"
        case s.Delete(target=target):
            return f"(delete {show(target)})"
        case s.Subsume(target=target):
            return f"(subsume {show(target)})"
        case s.Panic(message=message):
            return f'(panic "{message.translate(_ESCAPED)}")'


def show_command(command: s.Command, width: int = WIDTH) -> str:
    """A command, broken over lines where it is wider than `width` columns."""
    match command:
        case s.RewriteForm(left=left, right=right, both=both, options=options):
            keyword = "birewrite" if both else "rewrite"
            return _broken(keyword, [show(left), show(right), *_options(options)], width)
        case s.RuleForm(premises=premises, actions=actions, options=options):
            parts = [_list(premises, width), _list(actions, width), *_options(options)]
            return _broken("rule", parts, width)
        case s.DatatypeDecl(name=name, variants=variants):
            return _broken(f"datatype {name}", [_variant(v) for v in variants], width)
        case s.DatatypesDecl(members=members):
            return _broken("datatype*", [_member(m, width) for m in members], width)
        case s.SortDecl() | s.ConstructorDecl() | s.FunctionDecl() | s.RelationDecl() | s.RulesetDecl():
            return _declaration(command)
        case _:
            return show(command)


def show_file(file: s.RuleFile) -> str:
    """A whole file: comment blocks, a blank line between forms, comments directly above their form."""
    blocks: list[str] = []
    prose = list(file.prose)
    for index, form in enumerate(file.forms):
        while prose and prose[0][0] == index:
            blocks.append("\n".join(c.text for c in prose.pop(0)[1]))
        blocks.append("\n".join((*(c.text for c in form.comments), show_command(form.command))))
    blocks.extend("\n".join(c.text for c in lines) for _, lines in prose)
    return "\n\n".join(blocks) + "\n"


def _broken(head: str, parts: list[str], width: int) -> str:
    flat = f"({' '.join((head, *parts))})"
    if len(flat) <= width and "\n" not in flat:
        return flat
    return "(" + "\n    ".join((head, *(_hang(part, 4) for part in parts))) + ")"


def _hang(text: str, columns: int) -> str:
    """`text` with the lines after its first moved right by `columns`."""
    return text.replace("\n", "\n" + " " * columns)


def _member(member: s.DatatypeDecl | s.SortDecl, width: int) -> str:
    if isinstance(member, s.SortDecl):
        return _declaration(member)
    return _broken(str(member.name), [_variant(v) for v in member.variants], width)


def _list(items: tuple[s.Fact, ...] | tuple[s.Action, ...], width: int) -> str:
    parts = [show(item) for item in items]
    flat = f"({' '.join(parts)})"
    return flat if len(flat) + 4 <= width else "(" + "\n ".join(parts) + ")"


def _options(options: s.Options) -> list[str]:
    parts = []
    if options.when:
        parts.append(f":when ({' '.join(map(show, options.when))})")
    if options.subsume:
        parts.append(":subsume")
    if options.ruleset:
        parts.append(f":ruleset {options.ruleset}")
    if options.name:
        parts.append(f":name {show_literal(options.name)}")
    return parts


def _cost(cost: int | None, unextractable: bool) -> str:
    return ("" if cost is None else f" :cost {cost}") + (" :unextractable" if unextractable else "")


def _variant(variant: s.Variant) -> str:
    names = " ".join((variant.name, *map(str, variant.inputs)))
    return f"({names}{_cost(variant.cost, variant.unextractable)})"


def _declaration(command: s.Declaration) -> str:
    match command:
        case s.SortDecl(name=name, container=container, args=args):
            shown = [f"({' '.join(map(str, a))})" if isinstance(a, tuple) else str(a) for a in args]
            return f"(sort {name} ({' '.join((str(container), *shown))}))" if container else f"(sort {name})"
        case s.ConstructorDecl(name=name, inputs=inputs, output=output):
            cost = _cost(command.cost, command.unextractable)
            return f"(constructor {name} ({' '.join(map(str, inputs))}) {output}{cost})"
        case s.FunctionDecl(name=name, inputs=inputs, output=output, merge=merge):
            meaning = ":no-merge" if merge is None else f":merge {show(merge)}"
            hidden = " :unextractable" if command.unextractable else ""
            return f"(function {name} ({' '.join(map(str, inputs))}) {output} {meaning}{hidden})"
        case s.RelationDecl(name=name, inputs=inputs):
            return f"(relation {name} ({' '.join(map(str, inputs))}))"
        case s.RulesetDecl(name=name, members=None):
            return f"(ruleset {name})"
        case s.RulesetDecl(name=name, members=members):
            return f"(unstable-combined-ruleset {' '.join(map(str, (name, *(members or ()))))})"
        case _:
            raise AssertionError(command)
