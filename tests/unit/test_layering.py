"""What running an artifact may load: importing the runtime must bring in nothing of the compiler.

The order of the layers is a contract in pyproject.toml, which `make lint` checks.
"""

import subprocess
import sys

import pytest

# Each costs tens of milliseconds and tens of megabytes, which a process that only runs a model need not pay.
COMPILER_ONLY = {"egglog", "egglog.bindings", "lark", "llvmlite", "onnx", "highspy", "rich"}
STAGES = {"frontend", "rules", "egraph", "extract", "kernels", "schedule", "codegen", "explain", "cli"}


@pytest.mark.parametrize("module", ["egc", "egc.runtime.session", "egc.bench.worker"])
def test_running_needs_nothing_of_the_compiler(module: str) -> None:
    script = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert module in loaded
    assert not COMPILER_ONLY & loaded
    assert not {f"egc.{stage}" for stage in STAGES} & loaded
