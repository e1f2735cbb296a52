"""The scheduler: nests of the right form, that compute the right thing, by the rules that it names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from egc.codegen.target import native, parse_arch
from egc.errors import CompileError
from egc.ir.dims import evaluate, symbol
from egc.ir.evaluate_kernel import evaluate_kernel
from egc.ir.kernel import Kernel
from egc.ir.nest import Loop, Nest, check_nest
from egc.machine import load_machine
from egc.resources import loop_rules
from egc.rules import load_rules
from egc.schedule import predict, schedule
from egc.schedule.access import model_stage
from egc.schedule.choose import Chooser
from egc.schedule.scheduler import _solve
from egc.schedule.tile import TileModel
from tests.support import scheduling as make
from tests.support.kernels import random_array
from tests.support.native_kernel import NativeKernel

GOLDEN = Path(__file__).parent / "golden" / "schedule"
N = symbol("batch")

# Shapes of BERT, ResNet-50, MobileNet and the kernels between: their nests are kept as text.
REAL = {
    "product-128x768x3072": make.product(128, 768, 3072),
    "product-49x2048x512": make.product(49, 2048, 512),
    "product-one-row": make.product(1, 2048, 1000),
    "product-rows-unknown": make.product(N, 768, 768),
    "product-of-activations": make.product(128, 64, 128, constant=False),
    "convolution-3x3-56": make.convolution(58, 64, 64, 3),
    "convolution-3x3-7": make.convolution(9, 512, 512, 3),
    "convolution-7x7-three-channels": make.convolution(230, 3, 64, 7, 2),
    "depthwise-3x3-14": make.windowed(14, 384, "add"),
    "pool-3x3-112": make.windowed(112, 64, "max", 2),
    "elementwise-128x3072": make.elementwise(128, 3072),
    "transpose-3136x64": make.transpose(3136, 64),
    "softmax-1536x128": make.softmax(1536, 128),
    "attention-12x128x64": make.attention(12, 128, 64),
    "concat-196": make.concat(196, 64, 128, 32),
}
# The same kinds in sizes that divide nothing, to be run.
SMALL = {
    "product": make.product(13, 20, 70),
    "product-one-row": make.product(1, 33, 100),
    "product-rows-unknown": make.product(N, 21, 40),
    "product-integers": make.product(9, 11, 37, dtype="int32"),
    "product-doubles": make.product(5, 7, 19, dtype="float64"),
    "product-of-activations": make.product(11, 5, 33, constant=False),
    "convolution": make.convolution(9, 5, 40, 3),
    "convolution-three-channels": make.convolution(23, 3, 64, 7, 2),
    "depthwise": make.windowed(15, 33, "add"),
    "pool": make.windowed(15, 40, "max", 2),
    "elementwise": make.elementwise(13, 70),
    "elementwise-unknown": make.elementwise(N, N, "tanh"),
    "transpose": make.transpose(33, 47),
    "reduction": make.reduction(13, 77),
    "reduction-to-one": make.reduction(1, 1000),
    "softmax": make.softmax(29, 37),
    "softmax-unknown": make.softmax(N, N),
    "attention": make.attention(3, 29, 20),
    "concat": make.concat(7, 33, 1, 16),
    "empty": make.elementwise(0, 16),
}


def loops_of(nest: Nest) -> str:
    """A nest's packs and loops, without its kernel."""
    text = str(nest)
    return text[text.index("\n}\n") + 3 :] + "\n"


def test_threads_divide_rows_rather_than_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both threads read all of x where columns are divided, half of which the other one has written."""
    machine = load_machine("golden-cove-avx512")

    def divided(budget_s: float) -> list[str]:
        nest = schedule(make.product(729, 32, 128), machine, threads=2, budget_s=budget_s).nest
        return [loop.axis for loop in nest.stages[0] if loop.kind == "par"]

    assert divided(1.0) == ["m"]
    monkeypatch.setattr(Chooser, "foreign", lambda *_: 0.0)
    assert divided(2.0) == ["n"]  # another budget, so that the answer is not remembered


@pytest.mark.parametrize("name", REAL)
def test_golden_nests(name: str, bless: bool) -> None:
    path = GOLDEN / f"{name}.txt"
    found = schedule(REAL[name], load_machine("zen5-avx512"), threads=2)
    text = loops_of(found.nest)
    if bless:
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("arch", ["x86-64-v3", "x86-64-v4", "aarch64", "zen5-avx512"])
@pytest.mark.parametrize("name", REAL)
def test_register_tiles_fit_every_machine(name: str, arch: str) -> None:
    machine = load_machine(arch)
    found = schedule(REAL[name], machine, threads=2)
    for nest, cost in ((found.nest, found.cost), *found.alternatives):
        check_nest(nest)
        assert cost.seconds > 0
    assert found.stopped == "saturated"
    # A transpose reads or writes against the grain: vectors pay only where gathering lanes is cheap.
    if not name.startswith("transpose"):
        assert any(loop.kind == "vec" for loops in found.nest.stages for loop in loops)
    for position, stage in enumerate(found.nest.kernel.stages):
        if stage.reduce:
            assert partial_results(found.nest, position, machine.lanes(4)) <= machine.core.registers


def partial_results(nest: Nest, position: int, lanes: int) -> float:
    """Vector registers that hold partial results: what the tile spans of the parallel axes."""
    stage = nest.kernel.stages[position]
    parallel = {axis.name: axis.extent for axis in stage.axes}
    step: dict[str, int] = {}
    count = 1.0
    for loop in nest.loops(position):
        span = step.get(loop.axis, parallel.get(loop.axis, 1))
        if loop.kind in ("unroll", "vec") and loop.axis in parallel:
            assert isinstance(span, int)
            count *= span / loop.step if loop.kind == "unroll" else max(1.0, span / lanes)
        step[loop.axis] = loop.step
    return count


@pytest.mark.parametrize("arch", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("name", SMALL)
def test_scheduled_kernels_compute_what_they_mean(name: str, arch: str) -> None:
    target, own = parse_arch(arch), native()
    if own.triple != target.triple or own.vector_bits < target.vector_bits:
        pytest.skip(f"this machine does not run {arch}")
    kernel = SMALL[name]
    found = schedule(kernel, load_machine(arch), threads=2)
    for nest in (found.nest, *(nest for nest, _ in found.alternatives[:1])):
        for dims in [{"batch": 1}, {"batch": 37}] if kernel.symbols else [{}]:
            assert_computes(nest, kernel, dims, target)


def assert_computes(nest: Nest, kernel: Kernel, dims: dict[str, int], target: object) -> None:
    rng = np.random.default_rng(0)
    inputs = {
        b.name: random_array(rng, b.type.dtype, tuple(evaluate(d, dims) for d in b.type.shape))
        for b in kernel.params
        if b.role == "in"
    }
    expected = evaluate_kernel(kernel, inputs, dims)
    for name, array in NativeKernel(nest, target).run(inputs, dims, threads=2).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REAL)
def test_a_nest_is_predicted_as_it_was_chosen(name: str) -> None:
    machine = load_machine("zen5-avx512")
    found = schedule(REAL[name], machine, threads=2)
    for nest, cost in ((found.nest, found.cost), *found.alternatives):
        again = predict(nest, machine, threads=2)
        assert again.seconds == pytest.approx(cost.seconds)
        assert again.terms == pytest.approx(cost.terms)


def test_the_alternatives_are_not_cheaper() -> None:
    found = schedule(REAL["product-128x768x3072"], load_machine("zen5-avx512"), alternatives=8)
    costs = [found.cost.seconds, *(cost.seconds for _, cost in found.alternatives)]
    assert len(costs) == 9
    assert costs == sorted(costs)


def test_the_same_kernel_gets_the_same_nest() -> None:
    machine = load_machine("zen5-avx512")
    texts = []
    for _ in range(2):
        _solve.cache_clear()
        texts.append([str(schedule(kernel, machine, threads=2).nest) for kernel in REAL.values()])
    assert texts[0] == texts[1]


def test_the_rules_of_a_matrix_product_are_named() -> None:
    found = schedule(REAL["product-128x768x3072"], load_machine("zen5-avx512"), threads=2)
    assert {
        "loop-tile",
        "loop-vectorise-columns",
        "loop-sink-vector",
        "loop-sink-tile-into-reduction",
        "loop-parallel",
        "loop-pack",
    } <= set(found.rules)
    assert "loop-vectorise-sum" not in found.rules


def test_where_integers_use_the_ports_of_multiply_adds_a_loop_does_more_each_time() -> None:
    machine = load_machine("golden-cove-avx512")
    free = replace(machine, core=replace(machine.core, loop_hidden=1.0))
    steps = []
    for one in (machine, free):
        nest = schedule(REAL["product-128x768x3072"], one, threads=1).nest
        steps.append(max(loop.step for loop in nest.stages[0] if loop.axis == "k"))
    assert steps == [3, 1]


def test_a_loop_does_no_more_each_time_than_the_queue_holds() -> None:
    """Four steps of a tile of 8 by 48 are 140 instructions and those of the loop itself."""
    machine = load_machine("golden-cove-avx512")
    boundless = replace(machine, core=replace(machine.core, refetch=0.0))
    steps = []
    for one in (machine, boundless):
        nest = schedule(make.product(128, 768, 2304), one, threads=1).nest
        steps.append(max(loop.step for loop in nest.stages[0] if loop.axis == "k"))
    assert steps == [3, 4]


def test_what_follows_a_sum_costs_the_same_however_many_steps_are_copied() -> None:
    machine = load_machine("golden-cove-avx512")
    kernel = make.product(128, 768, 2304)
    model = model_stage(kernel, kernel.stages[0], machine)
    costs = [
        TileModel(model, model.accesses, {"m": 6, "n": 64, "k": k}, "n", 16, True, machine).cost()
        for k in (1, 4)
    ]
    assert costs[0] and costs[1]
    assert costs[1].finish_compute == costs[0].finish_compute
    assert costs[1].compute > costs[0].compute


def test_what_no_cache_of_a_core_holds_is_written_in_long_runs() -> None:
    """A row of 256 columns is finished before the next rows begin, though each panel of the weights is then
    read many times; where short runs cost nothing more, a panel stays in the first cache and all rows wait.
    """
    machine = load_machine("golden-cove-avx512")
    kernel = make.product(3136, 64, 256)

    def order(stream_bytes: int) -> list[str]:
        nest = schedule(kernel, replace(machine, stream_bytes=stream_bytes), threads=1).nest
        return [loop.axis for loop in nest.stages[0] if loop.kind == "seq" and loop.axis in ("m", "n")]

    assert order(512) == ["m", "n"]
    assert order(0) == ["n", "m"]


def test_panels_are_as_wide_as_the_tile() -> None:
    nest = schedule(REAL["product-128x768x3072"], load_machine("zen5-avx512"), threads=2).nest
    (pack,) = nest.packs
    columns = next(loop for loop in nest.stages[0] if loop.axis == "n")
    assert (pack.buffer, pack.dim, pack.block) == ("b", 1, columns.step)


def test_panels_may_run_along_one_of_two_axes_of_a_dim() -> None:
    # The weights of a projection into heads: columns are 64 * head + position.
    i, h, e, r = map(symbol, ("i", "h", "e", "r"))
    value = make.call("mul", make.Load("a", (i, r), "float32"), make.Load("b", (r, 64 * h + e), "float32"))
    axes = (make.Axis("h", 12), make.Axis("i", 128), make.Axis("e", 64))
    stage = make.Stage(
        "heads", axes, "y", (h, i, e), value, make.Acc("float32"), (make.Axis("r", 768),), "add"
    )
    kernel = Kernel(
        "heads",
        (
            make.buffer("a", "in", 128, 768),
            make.buffer("b", "in", 768, 768, constant=True),
            make.buffer("y", "out", 12, 128, 64),
        ),
        (stage,),
    )
    (pack,) = schedule(kernel, load_machine("zen5-avx512"), threads=2).nest.packs
    assert 64 % pack.block == 0


def kinds(kernel: Kernel, **options: object) -> set[tuple[str, str]]:
    """The (axis, kind) pairs of the chosen nest on the AVX2 machine."""
    book = load_rules(loop_rules(), **options)  # type: ignore[arg-type]
    nest = schedule(kernel, load_machine("x86-64-v3"), threads=2, book=book).nest
    return {(loop.axis, loop.kind) for position in range(len(nest.stages)) for loop in nest.loops(position)}


def test_exact_sums_keep_their_order() -> None:
    assert ("i", "vec") in kinds(make.reduction(4, 4096))
    assert ("i", "vec") not in kinds(make.reduction(4, 4096), accuracy="exact")
    assert ("i", "vec") in kinds(make.reduction(4, 4096, "max"), accuracy="exact")


def test_disabled_rules_do_nothing() -> None:
    product = make.product(64, 64, 64)
    assert ("m", "unroll") in kinds(product)
    assert ("m", "unroll") not in kinds(product, disabled=["loop-tile", "loop-unroll"])
    assert "par" not in {kind for _, kind in kinds(product, disabled=["loop-parallel"])}


def test_no_nest_without_the_rules_for_one() -> None:
    with pytest.raises(CompileError, match="no loop nest was found for the kernel product"):
        kinds(make.product(64, 64, 64), disabled=["loop-sequential", "loop-tile", "loop-unroll"])


def test_a_nest_may_contain_what_it_equals(tmp_path: Path) -> None:
    """A tile longer than its axis is one iteration of a loop round the whole axis."""
    path = tmp_path / "long-tile.egg"
    rule = (
        "(rewrite (For a 1 n (Whole) r)"
        " (For a (* 4 t) n (Seq) (For a t (* 4 t) (Seq) (For a 1 t (Unroll) r)))"
        ' :when ((tile a t) (extent a n)) :ruleset loops :name "long-tile")'
    )
    path.write_text(f";; class: exact\n{rule}\n", encoding="utf-8")
    book = load_rules(loop_rules(), extra=[path])
    kernel = make.product(6, 8, 32)
    check_nest(schedule(kernel, load_machine("x86-64-v4"), threads=1, book=book).nest)


def test_long_expressions_have_a_nest() -> None:
    # More instructions for one point than a tile may have, and more operands than there are registers.
    i, r = symbol("i"), symbol("r")
    value = make.Load("x0", (i, r), "float32")
    for position in range(1, 60):
        value = make.call("pow", make.Load(f"x{position}", (i, r), "float32"), value)
    stage = make.Stage(
        "long", (make.Axis("i", 40),), "y", (i,), value, make.Acc("float32"), (make.Axis("r", 50),), "add"
    )
    inputs = tuple(make.buffer(f"x{position}", "in", 40, 50) for position in range(60))
    kernel = Kernel("long", (*inputs, make.buffer("y", "out", 40)), (stage,))
    nest = schedule(kernel, load_machine("x86-64-v3"), threads=2).nest
    assert nest.stages[0][-1].kind == "vec"
    assert all(loop.kind != "unroll" for loop in nest.stages[0])


def test_tiny_kernels_stay_on_one_thread() -> None:
    machine = load_machine("zen5-avx512")
    assert all(
        loop.kind != "par" for loop in schedule(make.elementwise(1, 64), machine, threads=2).nest.stages[0]
    )
    assert schedule(make.elementwise(512, 512), machine, threads=2).nest.stages[0][0].kind == "par"


def test_one_thread_gets_no_parallel_loops() -> None:
    nest = schedule(REAL["convolution-3x3-56"], load_machine("zen5-avx512"), threads=1).nest
    assert all(loop.kind != "par" for loop in nest.stages[0])


def test_parallel_loops_do_not_rest_on_a_symbolic_extent_alone() -> None:
    nest = schedule(make.product(N, 768, 768), load_machine("zen5-avx512"), threads=2).nest
    assert ("n", "par") in {(loop.axis, loop.kind) for loop in nest.stages[0]}


def test_no_axis_is_shared_among_threads_twice() -> None:
    """A batch of 1 in tiles of 8 would leave all but the first thread without work."""
    nest = schedule(make.attention(N, 128, 64), load_machine("golden-cove-avx512"), threads=2).nest
    assert [loop.axis for loop in nest.shared if loop.kind == "par"] == ["h", "q"]


def test_symbolic_axes_are_never_unrolled_whole() -> None:
    kernels = [make.product(N, 64, 64), make.elementwise(N, N), make.softmax(N, N), make.reduction(N, N)]
    # What counts as 2 when nests are priced is as long as a tile.
    kernels.append(make.product(8, N // 32, 40, constant=False))
    for kernel in kernels:
        nest = schedule(kernel, load_machine("zen5-avx512"), threads=2).nest
        for position, stage in enumerate(kernel.stages):
            unknown = {axis.name for axis in stage.all_axes if not isinstance(axis.extent, int)}
            first: dict[str, Loop] = {}
            for loop in nest.loops(position):
                first.setdefault(loop.axis, loop)
            assert all(loop.kind in ("par", "seq") for axis, loop in first.items() if axis in unknown)


def test_stages_share_their_rows() -> None:
    nest = schedule(REAL["softmax-1536x128"], load_machine("zen5-avx512"), threads=2).nest
    assert next((loop.axis, loop.kind) for loop in nest.shared) == ("r", "par")


def test_ordered_stages_run_in_order() -> None:
    kernel = make.elementwise(16, 64, "tanh")
    ordered = replace(kernel, stages=(replace(kernel.stages[0], ordered=True),))
    nest = schedule(ordered, load_machine("zen5-avx512"), threads=2).nest
    assert [str(loop) for loop in nest.stages[0]] == ["for i step 1 seq", "for j step 1 seq"]


def test_a_spent_budget_still_gives_a_nest() -> None:
    found = schedule(REAL["convolution-3x3-7"], load_machine("zen5-avx512"), threads=2, budget_s=0.0)
    assert found.stopped == "0 s"
    check_nest(found.nest)


def test_more_threads_are_predicted_faster() -> None:
    machine = load_machine("zen5-avx512")
    kernel = REAL["product-128x768x3072"]
    one, two = (schedule(kernel, machine, threads=n).cost.seconds for n in (1, 2))
    assert 0.45 < two / one < 0.6


def test_a_panel_that_is_read_row_by_row_is_one_run() -> None:
    """Wide panels of a matrix that no cache holds: their rows follow one another in memory."""
    machine = load_machine("golden-cove-avx512")
    nest = schedule(make.product(1, 16384, 4096), machine, threads=1).nest
    assert nest.packs and nest.packs[0].block > machine.lanes(4), "several sums run at once"
