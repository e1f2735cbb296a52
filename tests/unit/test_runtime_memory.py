"""The arena: no two buffers alive together share a byte, and no plan is larger than it must be by much."""

from hypothesis import given
from hypothesis import strategies as st

from egc.runtime import abi
from egc.runtime.manifest import Buffer, KernelStep, Port
from egc.runtime.memory import live_ranges, plan_arena
from tests.support.artifacts import chain_parts, make

ranges = st.tuples(st.integers(0, 12), st.integers(0, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(st.tuples(st.integers(0, 1000), ranges), max_size=20))
def test_buffers_alive_together_are_disjoint(buffers: list[tuple[int, tuple[int, int]]]) -> None:
    sizes, alive = [size for size, _ in buffers], [r for _, r in buffers]
    offsets, total = plan_arena(sizes, alive)
    for i, (size, first) in enumerate(buffers):
        assert offsets[i] % abi.ALIGNMENT == 0 and 0 <= offsets[i] <= offsets[i] + size <= total
        for j in range(i):
            together = first[0] <= alive[j][1] and alive[j][0] <= first[1]
            apart = offsets[i] + size <= offsets[j] or offsets[j] + sizes[j] <= offsets[i]
            assert not together or apart or 0 in (size, sizes[j])
    assert total <= sum(size + abi.ALIGNMENT - 1 for size in sizes)


def test_a_chain_needs_two_buffers() -> None:
    _, total = plan_arena([640] * 50, [(i, i + 1) for i in range(50)])
    assert total == 2 * 640


def test_small_buffers_fill_the_best_gap() -> None:
    # 640 and 1280 bytes are free during interval 1, between buffers that stay: the smaller gap is taken.
    sizes = [6400, 1280, 6400, 640, 6400, 576]
    alive = [(0, 9), (0, 0), (0, 9), (0, 0), (0, 9), (1, 1)]
    offsets, total = plan_arena(sizes, alive)
    assert total <= sum(sizes[:5]) and offsets[5] in (offsets[1], offsets[3])


def test_live_ranges_follow_barriers_views_and_outputs() -> None:
    arena = [Buffer("float32", (4,), "arena") for _ in range(4)]
    buffers = [*arena, Buffer("float32", (2, 2), "view", of=0)]
    steps = [
        KernelStep("add", (0, 0, 1), (4,), barrier=False),
        KernelStep("add", (0, 0, 2), (4,), barrier=True),
        KernelStep("add", (1, 2, 3), (4,), barrier=True),
        KernelStep("add", (4, 4, 4), (4,), barrier=True),
    ]
    manifest, _, _ = make([], [Port("y", "float32", (4,), 3)], buffers, steps)
    assert live_ranges(manifest) == {0: (0, 2), 1: (0, 1), 2: (0, 1), 3: (1, 3)}


def test_only_arena_buffers_are_planned() -> None:
    manifest, _, _ = chain_parts(4)
    assert live_ranges(manifest) == {2: (0, 1), 3: (1, 2), 4: (2, 3)}
