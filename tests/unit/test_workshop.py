"""Worker processes: one that dies or fails takes nothing with it but its kernel, which is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from egc.cache import folder
from egc.codegen.jobs import build_runtime
from egc.codegen.target import parse_arch
from egc.codegen.workshop import Workshop
from egc.errors import CompileError


@dataclass(frozen=True)
class Stage:
    name: str


@dataclass(frozen=True)
class Task:
    """What stands for a kernel here: the workshop reads no more of one."""

    name: str
    stages: tuple[Stage, ...] = (Stage("only"),)


def work(task: Task) -> str:
    if task.name == "aborts":
        os.kill(os.getpid(), signal.SIGKILL)
    if task.name == "refused":
        raise CompileError("this cannot be done", why="it was asked for")
    return f"{task.name} done"


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with Workshop(1) as made:
        yield made


def test_results_come_by_name_in_order(workshop: Workshop) -> None:
    tasks = [Task("b"), Task("a"), Task("c")]
    assert list(workshop.each(work, tasks).items()) == [(t.name, f"{t.name} done") for t in tasks]


def test_a_worker_that_dies_names_its_kernel_and_is_replaced(workshop: Workshop) -> None:
    with pytest.raises(CompileError, match="the kernel aborts could not be compiled") as caught:
        workshop.each(work, [Task("a"), Task("aborts"), Task("b")])
    assert "ended the process" in str(caught.value)
    assert workshop.each(work, [Task("after")]) == {"after": "after done"}


def test_an_error_of_a_worker_arrives_whole(workshop: Workshop) -> None:
    with pytest.raises(CompileError, match="this cannot be done") as caught:
        workshop.each(work, [Task("refused")])
    assert caught.value.why == "it was asked for"
    assert workshop.each(work, [Task("after")]) == {"after": "after done"}


def test_workers_end_with_a_parent_that_is_killed() -> None:
    script = (
        "import os, signal\n"
        "from egc.codegen.workshop import Workshop\n"
        "workshop = Workshop(1).__enter__()\n"
        "print(workshop._entered().submit(os.getpid).result(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL
    worker = Path("/proc", done.stdout.strip())
    for _ in range(200):
        if not worker.exists() or "\nState:\tZ" in (worker / "status").read_text():
            return
        time.sleep(0.1)
    pytest.fail("the worker lives on")


def test_the_run_time_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    target = parse_arch("x86-64-v3")
    compiled = build_runtime(target)
    [entry] = folder("runtime").iterdir()
    assert build_runtime(target) == compiled
    data = bytearray(entry.read_bytes())
    data[-1] ^= 1
    entry.write_bytes(data)
    assert build_runtime(target) == compiled
    assert build_runtime(parse_arch("x86-64-v4")) != compiled
    assert len(list(folder("runtime").iterdir())) == 2


CHILD = """
import multiprocessing, sys
import egc
from egc.errors import CompileError

def attempt():
    try:
        egc.compile(sys.argv[1])
    except CompileError as error:
        print(error.why, flush=True)

if __name__ == "__main__":
    daemon = sys.argv[2] == "daemon"
    if not daemon:
        egc.compile(sys.argv[1])
    process = multiprocessing.get_context("fork").Process(target=attempt, daemon=daemon)
    process.start()
    process.join(60)
    sys.exit(process.exitcode)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("kind", "why"), [("daemon", "start no processes"), ("forked", "threads did not come along")]
)
def test_a_process_that_cannot_compile_says_so(tmp_path: Path, kind: str, why: str) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    model = Path(__file__).parents[1] / "models" / "mlp.dynamo.onnx"
    run = subprocess.run(
        [sys.executable, str(script), str(model), kind], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert why in run.stdout


def test_with_other_threads_about_workers_come_from_a_server() -> None:
    waiting = threading.Event()
    thread = threading.Thread(target=waiting.wait)
    thread.start()
    try:
        with Workshop(workers=1) as workshop:
            assert workshop.native().vector_bits in (128, 256, 512)
            assert workshop._pool is not None
            assert workshop._pool._mp_context.get_start_method() == "forkserver"
    finally:
        waiting.set()
        thread.join()


BACKEND = """
import numpy, onnx.helper as h
from egc.backend import run_node

print(run_node(h.make_node("Identity", ["x"], ["y"]), [numpy.ones(3, numpy.float32)])[0].sum())
"""


def test_a_program_that_used_the_backend_for_little_ends() -> None:
    run = subprocess.run([sys.executable, "-c", BACKEND], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout) == (0, "3.0\n"), run.stderr
