"""The product's data files: rules and machines. They stand at the top of a source tree and inside an
installed package.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import resources
from pathlib import Path

from egc.errors import EgcError


@lru_cache(maxsize=2)
def data_folder(name: str) -> Path:
    """The folder `rules` or `cost_models`. Raises EgcError where the installation lacks it."""
    packed = resources.files("egc") / "_data" / name
    if isinstance(packed, Path):
        for folder in (packed, packed.parents[2] / name):
            if folder.is_dir():
                return folder
    raise EgcError(
        f"egc's `{name}` folder is missing",
        where=str(packed),
        why="the package was not installed whole, or is run from inside an archive",
        hint="install it again with pip",
    )


@lru_cache(maxsize=1)
def shipped_rules() -> tuple[Path, ...]:
    """The rule files that come with egc: the vocabulary of prelude.egg first, then the others by name."""
    files = [path.resolve() for path in data_folder("rules").glob("*.egg")]
    return tuple(sorted(files, key=lambda p: (p.name != "prelude.egg", p.name)))


def loop_rules(gpu: bool = False) -> tuple[Path, ...]:
    """Those of the shipped rule files that say how loops may be run: on a CPU, or on a GPU."""
    names = ("loops.egg", "gpu.egg") if gpu else ("loops.egg",)
    return tuple((data_folder("rules") / name).resolve() for name in names)


def rules_read_ahead() -> Path:
    """Where installing egc puts what it made of the shipped rules (hatch_build.py)."""
    return Path(__file__).parent / "_data" / "read"


def cost_model(name: str) -> Path | None:
    """The file of a shipped cost model; None where there is none of that name."""
    folder = data_folder("cost_models")
    path = folder / f"{name}.toml"
    # Not `Path.is_file`, which raises for names that are too long.
    return path if path.parent == folder and os.path.isfile(path) else None
