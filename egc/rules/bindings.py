"""egglog's engine without egglog's Python package.

`egglog.bindings` is the engine, one extension module; importing it by name runs the package around it first,
a language embedded in Python that egc does not use. The package takes 0.17 s to import, the extension 0.01 s.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

from egc.errors import CompileError

NAME = "egglog.bindings"


def egglog_bindings() -> ModuleType:
    """The module `egglog.bindings`. Raises ImportError where egglog is not installed, and CompileError in a
    process that was forked from one that had loaded it: egglog's threads do not live on there, and calls
    would wait for them for ever.
    """
    module, process = _loaded()
    if process != os.getpid():
        raise CompileError(
            "this process cannot compile",
            why="it was forked from one that had compiled already, and egglog's threads did not come along",
            hint='compile before the fork, or make processes by multiprocessing.get_context("spawn")',
        )
    return module


@lru_cache(maxsize=1)
def _loaded() -> tuple[ModuleType, int]:
    """egglog's extension module, and the process that loaded it."""
    if NAME in sys.modules:
        return sys.modules[NAME], os.getpid()
    package = importlib.util.find_spec("egglog")
    spec = PathFinder.find_spec(NAME, package.submodule_search_locations) if package else None
    if spec is None or spec.loader is None:
        raise ImportError("egglog is not installed, or lacks its extension module", name=NAME)
    module = importlib.util.module_from_spec(spec)
    # Under its own name: the extension must not be loaded twice, should the package be imported later.
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module, os.getpid()


def run_commands(egraph: Any, commands: Sequence[Any], what: str, where: str, hint: str) -> list[Any]:
    """Run egglog commands; a panic or an error becomes a CompileError that says what egglog said."""
    try:
        outputs: list[Any] = egraph.run_program(*commands)
        return outputs
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # panics of egglog are no Exceptions
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise CompileError(what, where=where, why=why, hint=hint) from error
