"""Loading: rule files → one RuleBook of declarations and checked rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from msgspec import Struct
from msgspec.structs import replace

from egc.errors import Problems, UsageError
from egc.files import real
from egc.resources import loop_rules, shipped_rules
from egc.rules import syntax as s
from egc.rules.cache import keep, kept
from egc.rules.commands import unknown_command
from egc.rules.diagnostics import Diagnostic, RuleFileError, nearest, once
from egc.rules.emit import Emitter
from egc.rules.environment import Environment, Global
from egc.rules.notes import ACCURACIES, Notes, read_notes
from egc.rules.primitives import SIGNATURES
from egc.rules.reader import read_file
from egc.rules.rule import Rule, build_rules, tables_of
from egc.rules.sorts import Inference
from egc.rules.substitution import in_action, in_rule


class RuleBook(Struct, frozen=True):
    """Everything that one or more e-graphs are told.

    `declarations` holds the sorts, tables, rulesets and facts in file order; `rules` those rules that may
    fire, in file order; `left_out` why each of the others may not. `environment` is what the declarations
    say. Globals stand for their values everywhere.
    """

    declarations: tuple[s.Command, ...]
    rules: tuple[Rule, ...]
    left_out: dict[str, str]
    environment: Environment
    warnings: tuple[Diagnostic, ...] = ()

    @property
    def rulesets(self) -> tuple[str, ...]:
        """The rulesets, in the order of their declarations."""
        return tuple(self.environment.rulesets)

    def in_ruleset(self, ruleset: str) -> tuple[Rule, ...]:
        """The rules of a ruleset, in file order."""
        return tuple(r for r in self.rules if r.ruleset == ruleset)

    def rule(self, name: str) -> Rule:
        """The rule of that name. Raises KeyError."""
        for rule in self.rules:
            if rule.name == name:
                return rule
        raise KeyError(name)

    def commands(self, provenance: bool = True) -> list[Any]:
        """The egglog commands that tell an e-graph all this; with `provenance`, rules record their matches.

        The first call imports egglog.
        """
        return Emitter().program(self.declarations, self.rules, provenance)

    def only(self, rulesets: Iterable[str]) -> RuleBook:
        """The book for an e-graph that runs `rulesets`: all declarations, and the rules of these rulesets."""
        wanted = set(rulesets)
        return replace(self, rules=tuple(r for r in self.rules if r.ruleset in wanted))

    def live(self, tables: Iterable[str]) -> RuleBook:
        """The book without the rules that can never fire in an e-graph that starts with rows in `tables`.

        A rule is alive when every table that its premises search has rows at the start, or from a
        declaration, or may get them from a rule that is alive.
        """
        filled = set(tables)
        for declaration in self.declarations:
            if isinstance(declaration, get_args(s.Action)):
                filled |= tables_of(s.action_exprs(declaration))
        dead, alive = list(self.rules), set[str]()
        while firing := [rule for rule in dead if rule.needs <= filled]:
            alive |= {rule.name for rule in firing}
            filled = filled.union(*(rule.makes for rule in firing))
            dead = [rule for rule in dead if rule.name not in alive]
        return replace(self, rules=tuple(rule for rule in self.rules if rule.name in alive))


class Loaded(Struct):
    """Files as read: what could be used of them and everything found wrong, in file order."""

    declarations: list[s.Command]
    rules: list[Rule]
    environment: Environment
    diagnostics: list[Diagnostic]

    @property
    def errors(self) -> list[Diagnostic]:
        """The findings that stop the files from being used."""
        return [d for d in self.diagnostics if not d.warning]


def load_rules(
    paths: Sequence[Path] | None = None,
    disabled: Iterable[str] = (),
    accuracy: str = "default",
    extra: Sequence[Path] = (),
) -> RuleBook:
    """Read `paths` (the shipped rules where None) and then the user's `extra` files.

    Rules named in `disabled` are left out, and those of a class that `accuracy` does not admit. The name of a
    birewrite takes out both of its ways. Raises RuleFileError with all errors of all files, UsageError for
    names unknown to `disabled`, and BadInput for a file that is not there.
    """
    if accuracy not in ACCURACIES:
        raise UsageError(f"unknown accuracy `{accuracy}`", hint=f"one of: {', '.join(ACCURACIES)}")
    wanted = (*(shipped_rules() if paths is None else paths), *extra)
    loaded = _shipped(wanted) if set(wanted) <= set(shipped_rules()) else read_rules(wanted)
    if loaded.errors:
        raise RuleFileError(loaded.errors)
    disabled = set(disabled)
    _check_names(disabled, loaded.rules)
    admitted, left_out = [], {}
    for rule in loaded.rules:
        if rule.name in disabled or rule.file_name in disabled:
            left_out[rule.name] = "disabled"
        elif rule.rule_class not in ACCURACIES[accuracy]:
            left_out[rule.name] = f"{rule.rule_class.value}, which --accuracy {accuracy} does not admit"
        else:
            admitted.append(rule)
    warnings = tuple(d for d in loaded.diagnostics if d.warning)
    return RuleBook(tuple(loaded.declarations), tuple(admitted), left_out, loaded.environment, warnings)


def read_ahead(place: Path) -> None:
    """Read and check the shipped rules in every set that a compile loads, and keep that in a folder.

    Raises RuleFileError.
    """
    for paths in (shipped_rules(), loop_rules(), loop_rules(gpu=True)):
        loaded = read_rules(paths)
        if loaded.errors:
            raise RuleFileError(loaded.errors)
        keep(place, _CHECKED, _sources(paths), loaded)


@lru_cache(maxsize=4)
def _shipped(paths: tuple[Path, ...]) -> Loaded:
    """Shipped files as read, by this process or an earlier one: nobody changes what was loaded."""
    return kept(_CHECKED, _sources(paths), lambda: read_rules(paths), lambda loaded: not loaded.diagnostics)


_CHECKED = "rules"  # the kind of entry that holds several files, read and checked together


def _sources(paths: Sequence[Path]) -> list[s.Source]:
    return [s.Source(shown_name(path), path.read_text(encoding="utf-8")) for path in paths]


def read_rules(paths: Sequence[Path]) -> Loaded:
    """Read and check files without stopping at errors. Raises BadInput for a file that cannot be opened.

    All declarations of all files come before the rules, so that a rule may use what a later file declares.
    """
    loaded = Loaded([], [], Environment(), [])
    forms: list[s.Form] = []
    shipped = shipped_rules()
    order = loaded.environment.files
    for path in paths:
        file, errors = read_file(path, shown_name(path), remember=path in shipped)
        order[file.source.name] = len(order)
        loaded.diagnostics.extend(errors)
        forms.extend(file.forms)
    for form in forms:
        if not isinstance(form.command, s.RewriteForm | s.RuleForm):
            _declare(form.command, loaded)
    seen: dict[str, Rule] = {}
    doc: str | None = None
    for before, form in zip([None, *forms], forms, strict=False):
        if isinstance(form.command, s.RewriteForm | s.RuleForm):
            notes = read_notes(form.comments, loaded.diagnostics)
            if notes.doc is None and notes.math is None and _adjoin(before, form):
                notes = replace(notes, doc=doc)
            doc = notes.doc
            for rule in _rules(form, notes, loaded):
                _check_new(rule, seen, loaded.diagnostics)
                loaded.rules.append(in_rule(rule, loaded.environment.values))
    loaded.diagnostics.extend(loaded.environment.errors)
    loaded.diagnostics[:] = once(loaded.diagnostics)
    loaded.diagnostics.sort(key=lambda d: (order[d.span.source.name], d.span.start))
    return loaded


def shown_name(path: Path) -> str:
    """What messages call a file: `rules/NAME` if it is shipped, else the path that was given."""
    return f"rules/{path.name}" if real(path) in shipped_rules() else str(path)


def _declare(command: s.Command, loaded: Loaded) -> None:
    """A declaration, or an action on the empty e-graph: a global or a fact."""
    environment = loaded.environment
    environment.declare(command)
    if isinstance(command, s.Set | s.Union | s.Delete | s.Subsume | s.Call):
        loaded.declarations.append(in_action(command, environment.values))
    elif not isinstance(command, s.Let):  # egglog would refuse every rule with a variable of its name
        loaded.declarations.append(command)
    if isinstance(command, s.FunctionDecl) and command.merge is not None:
        merge = Inference(environment)
        merge.merge(command.merge, command.output.text)
        loaded.diagnostics.extend(merge.errors)
    if not isinstance(
        command, s.Let | s.Set | s.Union | s.Delete | s.Subsume | s.Panic | s.Call | s.Var | s.Lit
    ):
        return
    if isinstance(command, s.Call) and command.head not in {*environment.operators, *SIGNATURES}:
        loaded.diagnostics.append(unknown_command(command.head, command.head_span, environment.operators))
        return
    inference = Inference(environment)
    if isinstance(command, s.Let):
        if not command.name.startswith("$"):
            inference.errors.append(
                Diagnostic(
                    f"the global `{command.name}` must start with `$`",
                    command.name_span,
                    f"write `${command.name}`",
                )
            )
        elif command.name in environment.globals:
            inference.errors.append(Diagnostic(f"`{command.name}` is defined twice", command.name_span))
        sort = inference.expression(command.value)
        if sort and not inference.errors:
            value = s.substitute(command.value, environment.values)
            environment.globals[command.name] = Global(sort, value, command.name_span)
    else:
        inference.actions((command,))
        inference.finish()
    loaded.diagnostics.extend(inference.errors)


def _adjoin(before: s.Form | None, form: s.Form) -> bool:
    """Whether two forms stand in one block, with no blank line between them."""
    if before is None or before.span.source is not form.span.source:
        return False
    between = form.span.source.text[before.span.end : form.span.start]
    return all(line.strip() for line in between.split("\n")[1:-1])


def _rules(form: s.Form, notes: Notes, loaded: Loaded) -> list[Rule]:
    command = form.command
    assert isinstance(command, s.RewriteForm | s.RuleForm)
    if command.options.ruleset:
        loaded.environment.check_ruleset(command.options.ruleset)
    rules, errors = build_rules(form, notes, loaded.environment)
    loaded.diagnostics.extend(errors)
    return rules


def _check_new(rule: Rule, seen: dict[str, Rule], diagnostics: list[Diagnostic]) -> None:
    earlier = seen.setdefault(rule.name, rule)
    name = rule.form.options.name
    if earlier is not rule and name is not None:
        diagnostics.append(
            Diagnostic(
                f"two rules are called `{rule.name}`", name.span, f"the first is at {earlier.location}"
            )
        )


def _check_names(names: set[str], rules: list[Rule]) -> None:
    known = {r.name for r in rules} | {r.file_name for r in rules}
    problems = Problems()
    for name in sorted(names - known):
        problems.add(
            f"there is no rule `{name}`", hint=nearest(name, known) or "`egc rules list` names them all"
        )
    problems.raise_if_any(UsageError, "these rules do not exist")
