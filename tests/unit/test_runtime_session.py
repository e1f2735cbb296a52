"""Sessions: results, threads, symbolic dims, memory, host steps, and what is said about wrong input."""

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from egc.errors import ArtifactError, EgcError, InputError, MemoryBudgetError, UsageError
from egc.ir.host import encode_host
from egc.runtime import native
from egc.runtime.artifact import artifact_in_memory
from egc.runtime.manifest import Buffer, HostStep, KernelStep, Port
from egc.runtime.session import Session
from tests.support.artifacts import add_step, chain, make

F32 = "float32"


def x_of(size: int) -> np.ndarray:
    return np.random.default_rng(size).standard_normal(size, np.float32)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_thousands_of_runs_at_several_sizes(threads: int) -> None:
    with Session(chain(5), threads) as session:
        for i in range(1500):
            x = x_of(i % 40)
            (y,) = session.run(None, {"x": x})
            np.testing.assert_array_equal(y, ((((x + 1) + 1) + 1) + 1) + 1)


@pytest.mark.parametrize("microseconds", [0, 2])
def test_threads_that_sleep_at_every_chance(microseconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BARRIER_SPIN_US", "BARRIER_YIELD_US", "IDLE_SPIN_US", "IDLE_YIELD_US"):
        monkeypatch.setattr(native, name, microseconds)
    with Session(chain(8), 3) as session:
        for _ in range(500):
            np.testing.assert_array_equal(session.run(None, {"x": np.zeros(9, np.float32)})[0], [8] * 9)


def test_calls_from_several_threads() -> None:
    wrong: list[int] = []
    with Session(chain(4), 2) as session:

        def work(seed: int) -> None:
            for i in range(200):
                x = x_of(seed * 10 + i % 5)
                if not np.array_equal(session.run(["y"], {"x": x})[0], x + 1 + 1 + 1 + 1):
                    wrong.append(i)

        callers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert wrong == []


def test_outputs_belong_to_the_caller() -> None:
    with Session(chain(1)) as session:
        (first,) = session.run(None, {"x": np.zeros(8, np.float32)})
        (second,) = session.run(None, {"x": np.full(8, 5, np.float32)})
    assert first.tolist() == [1.0] * 8 and second.tolist() == [6.0] * 8
    assert first.flags.owndata and first.flags.writeable


def test_strided_and_reversed_inputs_are_copied() -> None:
    x = x_of(40)
    with Session(chain(1)) as session:
        np.testing.assert_array_equal(session.run(None, {"x": x[::-2]})[0], x[::-2] + 1)
        shifted = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32)
        np.testing.assert_array_equal(session.run(None, {"x": shifted})[0], x + 1)


def test_scalars_and_empty_tensors() -> None:
    with Session(chain(3, ())) as session:
        (y,) = session.run(None, {"x": np.float32(2)})
        assert y.shape == () and y == 5
    with Session(chain(3, ("n", 0)), 2) as session:
        assert session.run(None, {"x": np.zeros((4, 0), np.float32)})[0].shape == (4, 0)


def test_outputs_that_are_inputs_constants_views_or_the_same() -> None:
    parts = make(
        [Port("x", F32, (2, 3), 0)],
        [Port("same", F32, (2, 3), 0), Port("c", F32, (6,), 1), Port("y", F32, (2, 3), 2),
         Port("flat", F32, (6,), 3), Port("again", F32, (2, 3), 2)],
        [Buffer(F32, (2, 3), "input"), Buffer(F32, (6,), "constant"), Buffer(F32, (2, 3), "output"),
         Buffer(F32, (6,), "view", of=2)],
        [add_step(0, 1, 2, 6)],
        [np.arange(6, dtype=np.float32)],
    )  # fmt: skip
    x = x_of(6).reshape(2, 3)
    with Session(artifact_in_memory(*parts)) as session:
        same, c, y, flat, again = session.run(None, {"x": x})
        assert session.run(["c", "same"], {"x": x})[1].tolist() == x.tolist()
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(c, np.arange(6, dtype=np.float32))
    np.testing.assert_array_equal(y.reshape(-1), x.reshape(-1) + np.arange(6, dtype=np.float32))
    np.testing.assert_array_equal(flat, y.reshape(-1))
    np.testing.assert_array_equal(again, y)
    arrays = [x, same, c, y, flat, again]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_scratch_of_steps_without_barrier_is_separate(threads: int) -> None:
    tag = [KernelStep("tag", (i,), (), 64, barrier=False) for i in range(3)]
    buffers = [Buffer("int64", (8,), "output") for _ in range(3)]
    outputs = [Port(f"y{i}", "int64", (8,), i) for i in range(3)]
    with Session(artifact_in_memory(*make([], outputs, buffers, tag)), threads) as session:
        for _ in range(200):
            for y in session.run(None, {}):
                assert y[:threads].tolist() == list(range(threads))


def host_step(node: onnx.NodeProto, inputs: list[int], outputs: list[int]) -> HostStep:
    text = encode_host(node, node.input, node.output, {"": 20})
    return HostStep(text, tuple(inputs), tuple(outputs), node.op_type)


def test_host_steps_between_kernels_bind_new_dims() -> None:
    nonzero = onnx.helper.make_node("NonZero", ["a"], ["b"])
    cast = onnx.helper.make_node("Cast", ["b"], ["c"], to=onnx.TensorProto.FLOAT)
    parts = make(
        [Port("x", F32, ("n",), 0)],
        [Port("y", F32, (1, "m"), 5), Port("i", "int64", (1, "m"), 3)],
        [Buffer(F32, ("n",), "input"), Buffer(F32, (1000,), "constant"), Buffer(F32, ("n",), "arena"),
         Buffer("int64", (1, "m"), "host"), Buffer(F32, (1, "m"), "arena"), Buffer(F32, (1, "m"), "output")],
        [add_step(0, 1, 2, "n"), host_step(nonzero, [2], [3]), host_step(cast, [3], [4]),
         add_step(4, 1, 5, "m")],
        [np.ones(1000, np.float32)],
        ["n", "m"],
    )  # fmt: skip
    with Session(artifact_in_memory(*parts), 2) as session:
        for x in (np.array([-1, 3, -1, 0.5]), np.array([-1, -1.0]), np.arange(7.0), np.empty(0)):
            x = x.astype(np.float32)
            y, i = session.run(None, {"x": x})
            np.testing.assert_array_equal(i, np.nonzero(x + 1)[0][None])
            np.testing.assert_array_equal(y, i.astype(np.float32) + 1)
        assert session.coverage == {"compiled": 4, "host": ["NonZero", "Cast"]}
        labels = [label for label, _ in session.profile({"x": np.ones(3, np.float32)})]
        assert labels == ["add to 2", "NonZero", "Cast", "add to 5"]


def test_text_and_sequences_live_on_the_host() -> None:
    split = onnx.helper.make_node("SplitToSequence", ["x"], ["parts"], axis=0)
    longest = onnx.helper.make_node("SequenceAt", ["given", "i"], ["second"])
    join = onnx.helper.make_node("StringConcat", ["s", "end"], ["u"])
    upper = onnx.helper.make_node("StringNormalizer", ["u"], ["t"], case_change_action="UPPER")
    parts = make(
        [Port("x", F32, ("n",), 0), Port("given", "object", (), 1), Port("i", "int64", (), 2),
         Port("s", "string", (2,), 3)],
        [Port("parts", "object", (), 4), Port("second", F32, ("k",), 5), Port("t", "string", (2,), 6)],
        [Buffer(F32, ("n",), "input"), Buffer("object", (), "input"), Buffer("int64", (), "input"),
         Buffer("string", (2,), "input"), Buffer("object", (), "host"), Buffer(F32, ("k",), "host"),
         Buffer("string", (2,), "host"), Buffer("string", (2,), "constant", text=("x", "y")),
         Buffer("string", (2,), "host")],
        [host_step(split, [0], [4]), host_step(longest, [1, 2], [5]), host_step(join, [3, 7], [8]),
         host_step(upper, [8], [6])],
        symbols=["n", "k"],
    )  # fmt: skip
    with Session(artifact_in_memory(*parts)) as session:
        for _ in range(2):
            feeds = {"x": x_of(2), "given": [x_of(3), x_of(4)], "i": np.array(1), "s": np.array(["a", "bc"])}
            pieces, second, text = session.run(None, feeds)
            assert [piece.tolist() for piece in pieces] == [[v] for v in x_of(2)]
            np.testing.assert_array_equal(second, x_of(4))
            assert text.tolist() == ["AX", "BCY"]


def test_a_host_operator_that_fails_is_named() -> None:
    node = onnx.helper.make_node("Reshape", ["x", "s"], ["y"], name="squash")
    parts = make(
        [Port("x", F32, ("n",), 0), Port("s", "int64", (1,), 1)],
        [Port("y", F32, ("n",), 2)],
        [Buffer(F32, ("n",), "input"), Buffer("int64", (1,), "input"), Buffer(F32, ("n",), "host")],
        [host_step(node, [0, 1], [2])],
        symbols=["n"],
    )
    with Session(artifact_in_memory(*parts)) as session:
        with pytest.raises(EgcError, match="Reshape failed on the host"):
            session.run(None, {"x": x_of(4), "s": np.array([3])})
        assert session.run(None, {"x": x_of(4), "s": np.array([4])})[0].shape == (4,)


def test_all_problems_of_the_inputs_are_reported_at_once() -> None:
    parts = make(
        [Port("a", F32, ("n", 4), 0), Port("b", F32, ("n",), 1), Port("c", "int64", (2,), 2),
         Port("d", F32, ("2*n",), 3)],
        [],
        [Buffer(F32, ("n", 4), "input"), Buffer(F32, ("n",), "input"), Buffer("int64", (2,), "input"),
         Buffer(F32, ("2*n",), "input")],
        [],
        symbols=["n"],
    )  # fmt: skip
    with Session(artifact_in_memory(*parts)) as session:
        feeds = {
            "a": np.zeros((3, 5), np.float32),
            "b": np.zeros(2, np.float32),
            "d": np.zeros((6, 1), np.float32),
            "e": np.zeros(1),
        }
        with pytest.raises(InputError) as caught:
            session.run(None, feeds)
        assert caught.value.exit_code == 2
        assert str(caught.value).splitlines() == [
            "the inputs do not fit the model",
            "- the model has no input 'e'",
            "    try: its inputs are a, b, c, d",
            "- the input 'c' is missing",
            "    try: it is int64[2]",
            "- the input 'd' has rank 2; the model takes rank 1",
            "    why: its shape is [6, 1], and should be [2*n]",
            "- axis 1 of the input 'a' has extent 5",
            "    why: the model takes 4",
            "- axis 0 of the input 'b' has extent 2",
            "    why: the model takes n, which is 3 by axis 0 of 'a'",
        ]
        good = {"a": np.zeros((3, 4), np.float32), "b": np.zeros(3, np.float32), "c": np.zeros(2, np.int64)}
        with pytest.raises(InputError, match=r"2\*n, which is 6"):
            session.run(None, {**good, "d": np.zeros(5, np.float32)})
        with pytest.raises(InputError, match=r"has dtype float64; the model takes float32"):
            session.run(None, {**good, "d": np.zeros(6)})
        with pytest.raises(InputError, match="must be a dict"):
            session.run(None, [1])  # type: ignore[arg-type]
        with pytest.raises(InputError, match="no output 'z'"):
            session.run(["z"], {**good, "d": np.zeros(6, np.float32)})


def test_more_memory_than_there_is_is_an_error() -> None:
    with Session(chain(2, ("n", "m"))) as session:
        huge = np.broadcast_to(np.float32(0), (1 << 20, 0))
        assert session.run(None, {"x": huge})[0].shape == (1 << 20, 0)
    big = Buffer(F32, ("n", 1 << 45), "arena")
    parts = make(
        [Port("x", F32, ("n",), 0)],
        [],
        [Buffer(F32, ("n",), "input"), big],
        [add_step(0, 0, 1, 0)],
        symbols=["n"],
    )
    with Session(artifact_in_memory(*parts)) as session:
        with pytest.raises(EgcError, match=r"has .* bytes"):
            session.run(None, {"x": x_of(5)})
        assert session.run(None, {"x": x_of(0)}) == []


def test_closed_sessions_and_impossible_threads() -> None:
    session = Session(chain(1), 2)
    session.close()
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run(None, {"x": x_of(1)})
    for threads in (0, -1, 10**6):
        with pytest.raises(UsageError, match="threads"):
            Session(chain(1), threads)


def test_a_forgotten_session_ends_its_threads() -> None:
    before = threading.active_count()
    session = Session(chain(2), 3)
    assert threading.active_count() == before + 2
    session.run(None, {"x": x_of(3)})
    del session
    gc.collect()
    assert threading.active_count() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_gets_threads_of_its_own() -> None:
    script = (
        "import os, numpy as np\n"
        "from egc.runtime.session import Session\n"
        "from tests.support.artifacts import chain\n"
        "session = Session(chain(3), 2)\n"
        "x = np.ones(10, np.float32)\n"
        "session.run(None, {'x': x})\n"
        "child = os.fork()\n"
        "assert session.run(None, {'x': x})[0].tolist() == [4.0] * 10\n"
        "session.close()\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)


def test_a_foreign_machine_or_missing_feature_is_refused() -> None:
    parts = make([], [], [], [], features=["avx2", "sparkle-v9"])
    with pytest.raises(ArtifactError, match=r"this CPU lacks .*sparkle-v9"):
        Session(artifact_in_memory(*parts))


def test_running_imports_no_compiler() -> None:
    script = (
        "import sys, egc.runtime.session\n"
        "bad = {'egglog', 'onnx', 'lark', 'llvmlite', 'ml_dtypes', 'rich', 'highspy'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_descriptions_follow_onnxruntime() -> None:
    with Session(chain(1, ("batch", 3))) as session:
        (x,) = session.get_inputs()
        (y,) = session.get_outputs()
    assert (x.name, x.type, x.shape) == ("x", "tensor(float)", ["batch", 3])
    assert (y.name, y.type, y.shape) == ("y", "tensor(float)", ["batch", 3])


def test_no_memory_for_an_output_or_a_copy_of_an_input() -> None:
    parts = make(
        [Port("x", F32, ("n",), 0)],
        [Port("y", F32, ("n", 1 << 45), 1)],
        [Buffer(F32, ("n",), "input"), Buffer(F32, ("n", 1 << 45), "output")],
        [],
        symbols=["n"],
    )
    with Session(artifact_in_memory(*parts)) as session:
        with pytest.raises(MemoryError) as error:
            session.run(None, {"x": x_of(5)})
        assert isinstance(error.value, MemoryBudgetError) and error.value.exit_code == 1
        assert "the output 'y'" in error.value.what
        assert error.value.why == f"float32[5, {1 << 45}] has {5 << 47:,} bytes"
    with Session(chain(1, (1 << 46,))) as session:
        wide = np.broadcast_to(np.float32(1), (1 << 46,))
        with pytest.raises(MemoryBudgetError, match="a copy of the input 'x'"):
            session.run(None, {"x": wide})


class Calling:
    """An input whose conversion to an array runs a session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def __array__(self, *arguments: object, **options: object) -> np.ndarray:
        return np.asarray(self.session.run(None, {"x": np.zeros(4, np.float32)})[0])


def within(seconds: float, work: Callable[[], object]) -> None:
    """Do it in a thread of its own, which must end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()


def test_an_input_may_run_the_session_that_it_is_for() -> None:
    session, results = Session(chain(3), 2), []
    within(30, lambda: results.append(session.run(None, {"x": Calling(session)})[0].tolist()))
    assert results == [[6.0] * 4]
    session.close()


def test_a_run_within_a_run_is_an_error_and_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    session, errors = Session(chain(1), 1), []

    def nested(*_: object) -> None:
        for call in (lambda: session.run(None, {"x": x_of(2)}), session.close):
            try:
                call()
            except UsageError as error:
                errors.append(error.what)
        raise InputError("enough")  # or kernels would run without outputs

    def run() -> None:
        with pytest.raises(InputError, match="enough"):
            session.run(None, {"x": x_of(2)})

    monkeypatch.setattr(session, "_new_outputs", nested)
    within(30, run)
    assert errors == ["the session is running already"] * 2
    monkeypatch.undo()
    assert session.run(None, {"x": np.zeros(1, np.float32)})[0].tolist() == [1.0]
    session.close()
