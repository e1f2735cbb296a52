"""The vocabulary in rules/README.md: written from the prelude, the operators and the cost model.

`pytest tests/rules/test_vocabulary.py --bless` rewrites them.
"""

import re
from collections.abc import Iterator

import pytest

from egc.egraph.vocabulary import CONSTRUCTORS
from egc.extract import cost
from egc.ir.scalar import FUNCTIONS
from egc.machine import load_machine
from egc.resources import data_folder

README = data_folder("rules") / "README.md"
PRELUDE = (data_folder("rules") / "prelude.egg").read_text(encoding="utf-8")
OPERATORS = load_machine("x86-64-v4").operators
DECLARED = re.compile(r"^\(constructor (\w+) \(([^)]*)\) (\w+)\)\s*; (.*)$", re.MULTILINE)
BEGIN, END = "<!-- {} -->\n", "<!-- end of {} -->\n"


def constructors() -> Iterator[str]:
    """One row a constructor: how it is written, what it means, what it costs."""
    yield "| constructor | meaning in numpy | cost |"
    yield "|---|---|---|"
    for name, inputs, output, meaning in DECLARED.findall(PRELUDE):
        op = CONSTRUCTORS[name].op if name in CONSTRUCTORS else name.lower()
        written = f"`({' '.join((name, *inputs.split()))})` → {output}"
        yield f"| {written} | {meaning.replace('|', '/')} | {cost_of(op)} |"


def cost_of(op: str) -> str:
    """What the cost model of extraction charges, in words."""
    if op in cost._LEAVES or op == "id":
        return "nothing"
    if op == "slice":
        return "nothing: index arithmetic in its readers; its bytes, twice, where it is joined or padded"
    if op in cost._FREE_VIEWS:
        return "nothing: index arithmetic in its readers"
    if op == "transpose":
        return "its bytes, twice: a layout conversion"
    if op == "map":
        return "the function's instructions for each element"
    if op == "cast":
        return "one instruction for each element"
    if (part := getattr(OPERATORS, op, None)) is not None and op != "softmax":
        return f"its arithmetic at {part:.0%} of peak, or its bytes"
    if op == "host":
        return "a call of numpy"
    return "its elements, or its bytes"


def functions() -> Iterator[str]:
    """One row a scalar function."""
    yield "| function | operands | instructions for an element |"
    yield "|---|---|---|"
    for fn in FUNCTIONS.values():
        yield f"| `({fn.constructor})` | {fn.arity} | {fn.flops} |"


TABLES = {"constructors": constructors, "functions": functions}


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_say_what_the_code_says(name: str, bless: bool) -> None:
    text = README.read_text(encoding="utf-8")
    begin, end = BEGIN.format(name), END.format(name)
    assert text.count(begin) == text.count(end) == 1
    before, rest = text.split(begin)
    table, after = rest.split(end)
    wanted = "\n".join(TABLES[name]()) + "\n"
    if bless:
        README.write_text(before + begin + wanted + end + after, encoding="utf-8")
        table = wanted
    assert table == wanted


def test_every_constructor_is_listed() -> None:
    assert {*CONSTRUCTORS} <= {name for name, *_ in DECLARED.findall(PRELUDE)}
