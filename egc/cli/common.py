"""What several subcommands share: options of compilation, shapes, inputs, progress."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, count, islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from egc.errors import BadInput, InputError, MemoryBudgetError, Problems, UsageError
from egc.files import opened, refusal, whole
from egc.options import Options
from egc.runtime.artifact import is_artifact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egc.compiler import Compiled
    from egc.runtime.manifest import Requirement
    from egc.runtime.session import Session

SEED = 0
_MOST_HEADER = 10_000  # bytes, as numpy has it
_DIGITS = 19  # of the largest extent that ONNX knows
_LONG = 10.0  # seconds after which work needs a word

# How the runtime's type strings (onnxruntime's) name dtypes.
_DTYPES = {"float": "float32", "double": "float64"}


def add_compile_options(parser: argparse.ArgumentParser) -> None:
    """The options that say how a model is compiled."""
    parser.add_argument("--target", choices=["cpu", "gpu"], default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--arch", default="native", help="native, x86-64-v3, x86-64-v4, aarch64, sm_80, sm_90"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="default: the cores of this process")
    parser.add_argument(
        "--rules", action="append", default=[], type=a_path, metavar="FILE", help="a further rule file"
    )
    parser.add_argument(
        "--disable-rule", action="append", default=[], metavar="NAME", help="leave a rule out"
    )
    parser.add_argument("--cost-model", metavar="FILE", help="a machine's TOML, or the name of a shipped one")
    parser.add_argument(
        "--accuracy",
        choices=["exact", "default", "fast"],
        default="default",
        help="which rules may fire: exact ones, those that change rounding (default), or approximations too",
    )
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=1x3x224x224",
        help="an input's shape; a dim may be a name",
    )
    parser.add_argument(
        "--time-budget",
        type=not_negative,
        default=60.0,
        metavar="S",
        help="seconds: 0.3 of them at most for saturation, 0.1 for extraction, which takes no more than 1 s; "
        "the search for a kernel's loops has 1 or 2 s of its own; default: %(default)s",
    )
    parser.add_argument(
        "--ilp", type=not_negative, default=0.0, metavar="S", help="extract by integer programming, S seconds"
    )


def refuse_compile_options(args: argparse.Namespace, *allowed: str) -> None:
    """UsageError where an artifact, which is compiled already, comes with options of compilation; those of
    the names ``allowed`` may stay."""
    parser = argparse.ArgumentParser(add_help=False)
    add_compile_options(parser)
    given = [
        f"--{name.replace('_', '-')}"
        for name, default in vars(parser.parse_args([])).items()
        if name not in allowed and getattr(args, name) != default
    ]
    if given:
        raise UsageError(
            f"{args.model} is compiled already: {', '.join(given)} would change nothing",
            hint="give these options with the .onnx, or leave them out",
        )


def positive(text: str) -> int:
    """An option's value: an integer from 1."""
    return _integer(text, 1, "is not a positive number")


def seed(text: str) -> int:
    """An option's value: an integer from 0."""
    return _integer(text, 0, "is not zero or a positive number")


def _integer(text: str, least: int, refusal: str) -> int:
    with suppress(ValueError):
        if (value := int(text)) >= least:
            return value
    raise argparse.ArgumentTypeError(f"{text} {refusal}")


def not_negative(text: str) -> float:
    """An option's value: a number from 0, infinity included."""
    with suppress(ValueError):
        if (value := float(text)) >= 0:  # which NaN is not
            return value
    raise argparse.ArgumentTypeError(f"{text} is not a number from 0")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what a model is run on."""
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE.npy",
        help="an input; the others are random",
    )
    parser.add_argument("--seed", type=seed, default=SEED, help="of the random inputs; default: %(default)s")
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option that says where a GPU artifact runs."""
    parser.add_argument("--device", choices=["cpu", "cuda", "emulator"], help="where a GPU artifact runs")


def options_of(args: argparse.Namespace) -> Options:
    """The compiler's options that the command line gave."""
    return Options(
        target=args.target,
        arch=args.arch,
        threads=args.threads,
        rules=tuple(args.rules),
        disable_rules=tuple(args.disable_rule),
        cost_model=args.cost_model,
        accuracy=args.accuracy,
        shapes=parse_shapes(args.shape),
        time_budget=args.time_budget,
        ilp_seconds=args.ilp,
    )


def parse_shapes(options: Sequence[str]) -> dict[str, tuple[int | str, ...]]:
    """``NAME=1x3x224x224`` → {name: shape}; extents are integers or dim names.
    UsageError where one is neither, or an input is named twice.
    """
    shapes: dict[str, tuple[int | str, ...]] = {}
    for option in options:
        name, equals, text = option.rpartition("=")
        parts = text.split("x") if text else []
        if any(part.isdecimal() and len(part) > _DIGITS for part in parts):
            raise UsageError(
                f"--shape {name}: an extent has more than {_DIGITS} digits", hint="give its true extent"
            )
        if not equals or not name or not all(part.isdecimal() or part.isidentifier() for part in parts):
            raise UsageError(f"--shape {option}: not of the form NAME=1x3x224x224", hint="--shape x=1x3")
        if name in shapes:
            raise UsageError(f"--shape {name} is given twice", hint="give one shape an input")
        shapes[name] = tuple(int(part) if part.isdecimal() else part for part in parts)
    return shapes


def a_path(text: str) -> Path:
    """An option's value: a path, which no text is not."""
    if not text:
        raise argparse.ArgumentTypeError("an empty text is no path")
    return Path(text)


def listed(option: str, text: str) -> list[str]:
    """The names in an option's value, which commas part, each once; UsageError where there is none."""
    names = list(dict.fromkeys(name for name in text.split(",") if name))
    if text and not names:
        raise UsageError(f"{option} {text} names nothing", hint=f"leave {option} out, or give names")
    return names


def check_readable(path: Path) -> None:
    """BadInput where ``path`` is no plain file that can be read."""
    if why := refusal(path):
        raise BadInput(f"cannot read {path}", why=why, hint="check the path")


def check_output(path: Path, read: Sequence[Path]) -> None:
    """UsageError where a file cannot be written at ``path``, or would take the place of one that is ``read``.

    Before long work, which is lost otherwise.
    """
    if why := _unwritable(path, read):
        raise UsageError(f"cannot write {path}", why=why, hint="choose another name")


def _unwritable(path: Path, read: Sequence[Path]) -> str | None:
    """Why no file can be written at ``path``; None where nothing is known that stands in its way."""
    try:
        if not path.parent.is_dir():
            return f"there is no folder {path.parent}"
        if not path.exists():
            return None
        if path.is_dir():
            return "it is a folder"
        if not path.is_file():
            return "it is no plain file"
        same = any(other.exists() and path.samefile(other) for other in read)
        return "it is what this command reads" if same else None
    except OSError as error:  # a name that is too long, a circle of links
        return error.strerror


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Say that work is going on: on a terminal while it lasts, elsewhere in a line where it lasts long."""
    if not sys.stderr.isatty():
        timer = threading.Timer(_LONG, print, [text], {"file": sys.stderr, "flush": True})
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        return
    from rich.console import Console  # 20 ms that a script need not wait for
    from rich.text import Text

    with Console(stderr=True).status(Text(text)):
        yield


def compiled_model(path: Path, options: Options) -> Compiled:
    """Compile a model file, with progress on a terminal."""
    from egc.codegen.workshop import Workshop

    # The workers import what they need while this process imports the compiler.
    with Workshop() as workshop, progress(f"compiling {path.name} …"):
        from egc.compiler import compile_model

        compiled = compile_model(path, options, workshop)
    for warning in compiled.book.warnings:
        print(warning, file=sys.stderr)
    return compiled


def open_session(args: argparse.Namespace) -> Session:
    """A session over MODEL: an artifact is loaded, a model compiled."""
    from egc.runtime.session import Session

    device = getattr(args, "device", None)
    if is_artifact(args.model):
        refuse_compile_options(args, "threads", "shape")
        return Session(args.model, threads=args.threads, device=device)
    artifact = compiled_model(args.model, options_of(args)).artifact()
    return Session(artifact, threads=args.threads, device=device)


def read_inputs(options: Sequence[str]) -> dict[str, np.ndarray]:
    """``NAME=FILE.npy`` → {name: array}; all problems at once."""
    arrays: dict[str, np.ndarray] = {}
    problems = Problems()
    for option in options:
        name, equals, file = option.partition("=")
        if not equals or not name or not file:
            raise UsageError(f"--input {option}: not of the form NAME=FILE.npy")
        if name in arrays:
            raise UsageError(f"--input {name} is given twice")
        try:
            arrays[name] = _read_npy(file)
        except FileNotFoundError:
            problems.add(f"--input {name}: there is no file {file}", hint="check the path")
        except OSError as error:
            problems.add(f"--input {name}: cannot read {file}", why=error.strerror, hint="check the path")
        except Exception as error:  # numpy's reader of headers lets errors of many kinds through
            why = str(error) if isinstance(error, ValueError | MemoryError) else "its header makes no sense"
            what = f"--input {name}: {file} is not a .npy file"
            problems.add(what, why=why, hint="numpy.save writes one")
    problems.raise_if_any(BadInput, "these inputs cannot be read")
    return arrays


def _read_npy(file: str) -> np.ndarray:
    """The array in a .npy file; any exception where there is none."""
    with opened(file) as npy:
        # Newer versions of the format have four bytes for the header's length, and numpy reads all of it.
        start = npy.read(12)
        if start[6:7] > b"\x01" and int.from_bytes(start[8:], "little") > _MOST_HEADER:
            raise ValueError(f"its header is longer than {_MOST_HEADER} bytes")
        npy.seek(0)
        return np.lib.format.read_array(npy, allow_pickle=False)


def random_inputs(
    session: Session,
    given: Mapping[str, np.ndarray],
    shapes: Mapping[str, Sequence[int | str]],
    seed: int = SEED,
) -> dict[str, np.ndarray]:
    """``given``, and random arrays for the other inputs: floats are normal, integers small, symbolic dims 1,
    or a little more where the model needs it.

    A dim that a given input or a shape fixes keeps that extent wherever its name stands. UsageError where a
    shape is given for what is no input; whether shapes fit is the session's to say.
    """
    from egc.runtime.plan import value_of

    rng = np.random.default_rng(seed)
    bound: dict[str, int] = {}
    ports = session.get_inputs()
    if unknown := sorted(set(shapes) - {port.name for port in ports}):
        raise UsageError(
            f"--shape {', '.join(unknown)}: no input is called so",
            hint=f"the inputs are {', '.join(port.name for port in ports)}",
        )
    for port in ports:
        known = given[port.name].shape if port.name in given else shapes.get(port.name, ())
        for dim, extent in zip(port.shape, known, strict=False):
            if isinstance(dim, str) and isinstance(extent, int):
                bound[dim] = extent
    wanted = {port.name: shapes.get(port.name, port.shape) for port in ports if port.name not in given}
    env = small_extents(
        [dim for shape in wanted.values() for dim in shape], session.manifest.requirements, bound
    )
    feeds = dict(given)
    for port in ports:
        if port.name not in feeds:
            shape = [value_of(dim, env) for dim in wanted[port.name]]
            try:
                feeds[port.name] = _random(rng, port.type, shape)
            except (MemoryError, ValueError):  # numpy's word for more than any machine can have
                raise MemoryBudgetError(
                    f"there is not enough memory for the input {port.name!r}",
                    why=f"its shape is [{', '.join(map(str, shape))}]",
                    hint="--shape fixes other extents of symbolic dims",
                ) from None
    return feeds


# What a symbolic extent is tried at: a few tokens, a small image, a second of sound.
_EXTENTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 256, 512, 1024, 4096, 16000)
_TRIES = 3000


def small_extents(
    dims: Iterable[int | str], requirements: Sequence[Requirement], bound: Mapping[str, int]
) -> dict[str, int]:
    """Values for the symbols of ``dims`` that meet what a model requires of them, the smallest of a few; all
    are 1 where none of these do, so that the model says why. ``bound`` symbols keep their values.
    """
    from egc.ir.dims import DimError, parse_dim, symbols_of
    from egc.runtime.inputs import check_requirements

    free = sorted(set().union(*(symbols_of(parse_dim(str(dim))) for dim in dims)) - bound.keys())
    tried = sorted(islice(product(_EXTENTS[: _reach(len(free))], repeat=len(free)), _TRIES), key=sum)
    for values in tried:
        env = {**bound, **dict(zip(free, values, strict=True))}
        with suppress(InputError, DimError):
            check_requirements(requirements, env)
            return env
    return {**bound, **dict.fromkeys(free, 1)}


def _reach(symbols: int) -> int:
    """How many extents may be tried for each of so many symbols."""
    return max((n for n in range(1, len(_EXTENTS) + 1) if n**symbols <= _TRIES), default=1)


def _random(rng: np.random.Generator, kind: str, shape: list[int]) -> np.ndarray:
    name = kind.removeprefix("tensor(").removesuffix(")")
    name = _DTYPES.get(name, name)
    if name == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if name in ("string", "object"):
        raise UsageError(
            f"an input of {kind} cannot be drawn at random", hint="give it with --input NAME=FILE.npy"
        )
    from egc.ir.types import is_float, numpy_dtype

    if is_float(name):
        return rng.standard_normal(shape).astype(numpy_dtype(name))
    if name.startswith("complex"):
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(name)
    return rng.integers(0, 2, shape).astype(numpy_dtype(name))


def file_names(names: Iterable[str]) -> list[str]:
    """A .npy file for each name: the name itself where it can be a file's, and no two alike."""
    taken: list[str] = []
    for name in names:
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name).lstrip(".") or "output"
        # A file's name has at most 255 bytes, those of the number and of the temporary file's included.
        safe = safe.encode()[:200].decode(errors="ignore")
        copies = (f"{safe}-{i}.npy" for i in count(2))
        taken.append(next(file for file in chain([f"{safe}.npy"], copies) if file not in taken))
    return taken


def write_arrays(folder: Path, arrays: Mapping[str, Any]) -> list[Path]:
    """Write NAME.npy for each array, each to a temporary file that is then renamed."""
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in zip(file_names(arrays), arrays.values(), strict=True):
            path = folder / name
            with whole(path) as file:
                np.save(file, np.asarray(array), allow_pickle=False)
            written.append(path)
    except (OSError, ValueError) as error:
        raise BadInput(
            "cannot write the outputs", where=str(folder), why=str(error), hint="choose another --output-dir"
        ) from None
    return written
