"""The errors a user sees: what failed, where, why, and what to try."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct


class Problem(Struct, frozen=True):
    """One thing that is wrong: `what` failed, `where`, `why`, and a `hint` of what to try."""

    what: str
    where: str | None = None
    why: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        parts = [self.what]
        for label, text in (("where", self.where), ("why", self.why), ("try", self.hint)):
            if text:
                parts.append(f"  {label}: {text}")
        return "\n".join(parts)


class EgcError(Exception):
    """The base of every error that egc raises on purpose; the command line exits with `exit_code`.

    `problems` holds all that was found wrong, the first one spread over `what`, `where`, `why` and `hint`.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        why: str | None = None,
        hint: str | None = None,
        problems: tuple[Problem, ...] = (),
    ) -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.hint = what, where, why, hint
        self.problems = problems or (Problem(what, where, why, hint),)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        indented = (str(problem).replace("\n", "\n  ") for problem in self.problems)
        return "\n".join([self.what, *(f"- {text}" for text in indented)])


class CompileError(EgcError):
    """The model is fine, yet it could not be compiled."""


class UsageError(EgcError):
    """The command or the call was wrong."""

    exit_code = 2


class BadInput(EgcError):
    """A file or a value that was handed in cannot be used."""

    exit_code = 2


class ArtifactError(BadInput):
    """An `.egc` file is damaged, foreign, or not for this machine."""


class InputError(BadInput):
    """The arrays given to `Session.run` do not fit the model."""


class MemoryBudgetError(EgcError, MemoryError):
    """What was asked for needs more memory than there is."""


class Problems:
    """Collects problems, so that all of them are reported at once."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def add(
        self, what: str, *, where: str | None = None, why: str | None = None, hint: str | None = None
    ) -> None:
        """Note one problem and go on looking."""
        self._problems.append(Problem(what, where, why, hint))

    def __bool__(self) -> bool:
        return bool(self._problems)

    def __len__(self) -> int:
        return len(self._problems)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._problems)

    def raise_if_any(self, error: type[EgcError], headline: str) -> None:
        """Raise `error` holding everything collected; `headline` stands above several problems."""
        if not self._problems:
            return
        if len(self._problems) == 1:
            only = self._problems[0]
            raise error(only.what, where=only.where, why=only.why, hint=only.hint)
        raise error(headline, problems=tuple(self._problems))
