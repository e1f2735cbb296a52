"""`--why-not` of rules for loops and for fusion: the e-graph in which they work is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from egc.cli import main
from egc.compiler import Compiled, compile_model
from egc.explain.again import again
from egc.explain.asked import asked
from egc.explain.text import nest_changes
from egc.explain.why_not import why_not
from egc.ir.text import parse_kernel
from egc.schedule import schedule
from egc.schedule.cells import RULESET, For
from egc.schedule.through import parts, through

MODELS = Path(__file__).parents[1] / "models"
FOR = """\
  for i0 step 1 par
    for i1 step 64 seq
      for i1 step 1 vec
        do s0"""


@pytest.fixture(scope="module")
def bert() -> Compiled:
    return compile_model(MODELS / "bert.torchscript.onnx")


def answer(compiled: Compiled, rule: str, calls: list[int] | None = None) -> dict[str, Any]:
    """What `--why-not` says of an artifact."""
    record = compiled.artifact().record()
    found = why_not(record, rule, calls)
    with again(record) as known:
        return found | asked(known, found, set(), calls)


def unchosen(compiled: Compiled, stage: str) -> list[str]:
    """The rules of a stage that are behind no kernel."""
    record = compiled.record
    names = [name for name, rule in record["rules"].items() if rule["stage"] == stage]
    return [name for name in names if why_not(record, name, None)["verdict"] == "unused"]


def test_a_rule_for_loops_lost_or_never_matched(bert: Compiled) -> None:
    names = ("loop-block", *unchosen(bert, "loops")[:4])
    found = {name: answer(bert, name, [1]) for name in names}
    verdicts = {name: entry["verdict"] for name, entry in found.items()}
    assert set(verdicts.values()) <= {"lost", "unreachable", "no match"}
    assert verdicts["loop-block"] == "no match"
    assert found["loop-block"]["failure"]["atom"] == "(block a f)"
    assert {"a", "n"} <= found["loop-block"]["failure"]["candidate"].keys()
    assert all(entry["matches"] > 0 for entry in found.values() if entry["verdict"] == "lost")


def test_what_lost_is_priced_beside_what_was_chosen(bert: Compiled) -> None:
    record = bert.record
    rule, calls = "loop-vectorise-whole", range(len(record["calls"]))
    behind = [i for i in calls if rule in record["kernels"][record["calls"][i]["kernel"]]["rules"]]
    found = answer(bert, rule, [i for i in calls if i not in behind])
    assert found["verdict"] in ("lost", "no match", "unreachable")
    for nest in found.get("nests", ()):
        kernel = record["kernels"][nest["kernel"]]
        assert nest["chosen"] == kernel["nest"] and nest["nest"] != nest["chosen"]
        assert nest["seconds"] >= 0
        assert set(nest["terms"]) == set(kernel["cost"]) - {"total"}


def test_the_cheapest_nest_through_a_rule_is_the_chosen_one_where_the_rule_is_behind_it(
    bert: Compiled,
) -> None:
    record = bert.artifact().record()
    with again(record) as known:
        book = known.book().only({RULESET})
        kernel = parse_kernel(record["kernels"][record["calls"][1]["kernel"]]["text"])
        chosen = schedule(kernel, known.machine, threads=known.options.threads or 1, book=book)  # type: ignore[arg-type]
        for name in chosen.rules:
            found = through(
                kernel,
                list(
                    parts(
                        kernel, known.machine, book.rule(name), threads=known.options.threads or 1, book=book
                    )
                ),
            )  # type: ignore[arg-type]
            assert found is not None and found.nest == found.chosen == chosen.nest
            assert found.cost == found.chosen_cost == chosen.cost


def test_marked_cells_are_those_that_the_rule_led_to(bert: Compiled) -> None:
    record = bert.artifact().record()
    with again(record) as known:
        book = known.book().only({RULESET})
        kernel = parse_kernel(record["kernels"][record["calls"][1]["kernel"]]["text"])
        [part] = parts(
            kernel, known.machine, book.rule("loop-parallel"), threads=known.options.threads or 1, book=book
        )  # type: ignore[arg-type]
    assert part.matches > 0
    outside = [cell for cell in part.marked if isinstance(cell, For) and cell.kind != "par"]
    assert part.marked and not outside  # nothing matches a parallel loop


def test_a_rule_for_fusion_says_what_it_allowed(bert: Compiled) -> None:
    for name in unchosen(bert, "fusion")[::4]:
        found = answer(bert, name)
        if found["verdict"] == "no match":
            assert found["failure"]["atom"]
            continue
        assert found["verdict"] == "unused" and found["matches"] > 0
        for pair in found["fusions"]:
            writes = {v for node in bert.record["graph"] for v in node["outputs"]}
            assert {pair["producer"], pair["consumer"]} <= writes


def test_differences_of_nests_are_said_loop_by_loop() -> None:
    assert nest_changes(FOR, FOR) == []
    assert nest_changes(FOR, FOR.replace("64", "32")) == ["i1 step 32 seq instead of i1 step 64 seq"]
    swapped = FOR.replace("i0 step 1 par", "i1 step 64 par").replace("i1 step 64 seq", "i0 step 1 seq")
    assert nest_changes(FOR, swapped) == [
        "i1 step 64 par · i0 step 1 seq instead of i0 step 1 par · i1 step 64 seq"
    ]
    lines = FOR.splitlines()
    moved = "\n".join([lines[1], lines[0], *lines[2:]])
    assert nest_changes(FOR, moved) in (["i1 step 64 seq further out"], ["i0 step 1 par further in"])


def test_the_command_line_prints_the_answers(
    bert: Compiled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bert.egc"
    bert.write(path)
    for rule in (unchosen(bert, "loops")[0], unchosen(bert, "fusion")[-1]):
        assert main(["explain", str(path), "1", "--why-not", rule]) == 0
        text = capsys.readouterr().out
        assert text.startswith(rule) and not any(line.endswith(" ") for line in text.splitlines())
