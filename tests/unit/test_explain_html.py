"""The page of `egc explain --html`, in a browser: it opens without errors, search and linking work, and it is
quick."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from egc.compiler import compile_model
from egc.explain.html import page, page_data
from egc.explain.layout import layered
from tests.support.browser import Browser, browser_path

MODEL = Path(__file__).parents[1] / "models" / "bert.torchscript.onnx"

needs_browser = pytest.mark.skipif(browser_path() is None, reason="no Chromium is installed")

LIT = "[...document.querySelectorAll('#{view} .lit')].map(n => Number(n.dataset.index)).sort((a, b) => a - b)"


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return compile_model(MODEL).record


@pytest.fixture
def browser(record: dict[str, Any], tmp_path: Path) -> Iterator[Browser]:
    file = tmp_path / "page.html"
    file.write_text(page(record), encoding="utf-8")
    with Browser() as browser:
        browser.open(file.as_uri())
        yield browser
        assert browser.errors == []


def lit(browser: Browser, view: str) -> list[int]:
    found: list[int] = browser.run(LIT.format(view=view))
    return found


def covered(record: dict[str, Any], call: int) -> list[int]:
    titles = record["calls"][call]["onnx"]
    return [i for i, node in enumerate(record["onnx"]) if node["title"] in titles]


@needs_browser
def test_both_graphs_are_drawn_whole(browser: Browser, record: dict[str, Any]) -> None:
    assert browser.run("document.querySelectorAll('#before .node').length") == len(record["onnx"])
    assert browser.run("document.querySelectorAll('#after .node').length") == len(record["calls"])
    assert record["model"] in browser.run("document.getElementById('model').textContent")


@needs_browser
def test_hovering_a_kernel_shows_its_onnx_nodes(browser: Browser, record: dict[str, Any]) -> None:
    browser.point("#after .node[data-index='5']")
    assert lit(browser, "before") == covered(record, 5) != []
    assert lit(browser, "after") == [5]


@needs_browser
def test_a_click_keeps_the_kernel_and_shows_its_derivation(browser: Browser, record: dict[str, Any]) -> None:
    browser.point("#after .node[data-index='5']", click=True)
    assert browser.run("location.hash") == "#call=5"
    text = browser.run("document.getElementById('detail').textContent")
    assert record["calls"][5]["derivation"]
    assert all(record["steps"][step]["rule"] in text for step in record["calls"][5]["derivation"])
    browser.press("2")
    nest = browser.run("document.querySelectorAll('#detail pre')[1].textContent")
    kernel = record["kernels"][record["calls"][5]["kernel"]]
    assert nest == kernel["nest"]
    browser.press("3")
    cells = browser.run("[...document.querySelectorAll('#detail .bars > span')].map(s => s.textContent)")
    assert cells[::2] == list(kernel["cost"]) and len(cells) == 2 * len(kernel["cost"])


@needs_browser
def test_other_nests_show_where_they_differ(browser: Browser, record: dict[str, Any]) -> None:
    calls = enumerate(record["calls"])
    index = next(i for i, call in calls if record["kernels"][call["kernel"]]["alternatives"])
    browser.run(f"location.hash = '#call={index}'")
    browser.press("4")
    kernel = record["kernels"][record["calls"][index]["kernel"]]
    shown = browser.run("[...document.querySelectorAll('#detail pre')].map(p => p.textContent.trimEnd())")
    assert shown == [other["nest"].rstrip() for other in kernel["alternatives"]]
    marked = browser.run("[...document.querySelectorAll('#detail pre mark')].map(m => m.textContent.trim())")
    chosen = {line.strip() for line in kernel["nest"].splitlines()}
    new = [
        s
        for o in kernel["alternatives"]
        for line in o["nest"].splitlines()
        if (s := line.strip()) not in chosen
    ]
    assert set(new) <= set(marked)


@needs_browser
def test_the_overview_says_what_became_of_the_model(browser: Browser, record: dict[str, Any]) -> None:
    text = browser.run("document.getElementById('detail').textContent")
    for fate, words in (("kernel", "in kernels"), ("removed", "removed")):
        count = sum(node["fate"] == fate for node in record["onnx"])
        assert count == 0 or f"{count} {words}" in text
    headings = browser.run("[...document.querySelectorAll('#detail h3')].map(h => h.textContent)")
    assert "Rules behind the kernels" in headings and "Rules behind their loops" in headings


@needs_browser
def test_search_finds_nodes_and_rules_from_the_keyboard(browser: Browser, record: dict[str, Any]) -> None:
    browser.press("/")
    browser.type("layer-norm")
    found = browser.run("[...document.querySelectorAll('#results li')].map(l => l.textContent)")
    assert "rulelayer-norm" in found
    for _ in range(found.index("rulelayer-norm")):
        browser.press("ArrowDown")
    browser.press("Enter")
    assert browser.run("location.hash") == "#rule=layer-norm"
    using = [
        i
        for i, call in enumerate(record["calls"])
        if "layer-norm" in {record["steps"][step]["rule"] for step in call["derivation"]}
    ]
    assert lit(browser, "after") == using != []


@needs_browser
def test_arrows_walk_through_the_calls_and_escape_lets_go(browser: Browser) -> None:
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    browser.press("ArrowLeft")
    assert browser.run("location.hash") == "#call=0"
    browser.press("Escape")
    assert browser.run("location.hash") == "" and lit(browser, "after") == []


@needs_browser
def test_light_and_dark(browser: Browser) -> None:
    paint = "getComputedStyle(document.body).backgroundColor"
    first = browser.run(paint)
    browser.press("t")
    assert browser.run(paint) != first
    browser.press("t")
    assert browser.run(paint) == first


def many_nodes(count: int) -> dict[str, Any]:
    """A record of a long chain with shortcuts, as large as DenseNet-121's."""
    onnx = [
        {
            "title": f"node 'n{i}' (Conv)",
            "name": f"n{i}",
            "op": "Conv",
            "inputs": [f"r{j}" for j in (i - 1, i - 7) if j >= 0],
            "outputs": [f"r{i}"],
            "terms": [f"%r{i} = conv(%x)"],
            "fate": "kernel",
            "by": [],
            "calls": [i // 2],
        }
        for i in range(count)
    ]
    nothing: dict[str, list[Any]] = {"derivation": [], "fused_by": [], "alternatives": [], "nodes": []}
    calls = [
        {
            "kind": "kernel",
            "kernel": "k",
            "onnx": [f"node 'n{j}' (Conv)" for j in (2 * i, 2 * i + 1)],
            "reads": [f"v{j}" for j in (i - 1, i - 5) if j >= 0],
            "writes": [f"v{i}"],
            "predicted": 1e-5,
            **nothing,
        }
        for i in range(count // 2)
    ]
    kernel = {
        "text": "",
        "nest": "",
        "cost": {"compute": 1e-5, "total": 1e-5},
        "rules": [],
        "alternatives": [],
        "cells": 1,
        "stopped": "saturated",
    }
    large = {"model": "large", "machine": {"name": "m"}, "onnx": onnx, "calls": calls}
    return {**large, "kernels": {"k": kernel}, "steps": [], "rules": {}, "growth": [], "extraction": {}}


@needs_browser
def test_a_program_of_nothing_is_a_page_too(tmp_path: Path) -> None:
    file = tmp_path / "empty.html"
    file.write_text(page(many_nodes(0)), encoding="utf-8")
    with Browser() as browser:
        browser.open(file.as_uri())
        browser.press("ArrowRight")
        browser.press("/")
        browser.type("conv")
        assert browser.run("document.getElementById('results').textContent") == "nothing"
        assert browser.errors == []


@needs_browser
def test_a_thousand_nodes_are_moved_without_being_laid_out_again(tmp_path: Path) -> None:
    file = tmp_path / "large.html"
    file.write_text(page(many_nodes(1000)), encoding="utf-8")
    with Browser() as browser:
        browser.open(file.as_uri())
        # Laying out the texts of a thousand nodes takes more than a frame of 16 ms: no move may ask for it.
        script = """(() => {
            const svg = document.getElementById('before'), node = document.querySelector('#before .node');
            const widths = new Set();
            for (let i = 0; i < 40; i++) {
                const place = {deltaY: i % 2 ? 80 : -80, clientX: 200, clientY: 200, cancelable: true};
                svg.dispatchEvent(new WheelEvent('wheel', place));
                widths.add(Math.round(node.getBoundingClientRect().width));
            }
            return widths.size;
        })()"""
        before = browser.layouts()
        assert browser.run(script) == 2  # it is zoomed in and out
        assert browser.layouts() == before
        assert browser.errors == []


def test_the_page_needs_no_network(record: dict[str, Any]) -> None:
    text = page(record)
    outside = re.findall(r"""(?:src|href)\s*=\s*["'](?!#)[^"'$`]|@import|url\(""", text)
    assert outside == []
    assert "http://www.w3.org/2000/svg" in text  # a name, not an address that is read


def test_text_of_a_model_cannot_end_the_data(record: dict[str, Any]) -> None:
    hostile = dict(record, model="</script><script>alert(1)</script>")
    text = page(hostile)
    assert "<script>alert" not in text
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)
    assert found is not None and json.loads(found[1])["record"]["model"] == hostile["model"]


def test_layout_puts_readers_below_and_boxes_apart() -> None:
    edges = [(0, 1), (0, 2), (1, 3), (2, 3), (0, 4), (3, 4)]
    at, paths = layered(5, edges, distance=100, height=50)
    assert all(at[a][1] < at[b][1] for a, b in edges)
    assert abs(at[1][0] - at[2][0]) >= 100 - 1e-6
    assert all(path[0] == at[a] and path[-1] == at[b] for (a, b), path in zip(edges, paths, strict=True))
    assert len(paths[4]) == 4  # bends in the two layers that the long edge passes


def test_edges_follow_the_values(record: dict[str, Any]) -> None:
    after = page_data(record)["after"]
    for writer, reader in after["edges"]:
        assert set(record["calls"][writer]["writes"]) & set(record["calls"][reader]["reads"])
    assert {reader for _, reader in after["edges"]} | {0} != {0}
