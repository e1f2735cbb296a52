"""The wheel, as pip would install it: all that a first run needs is in it, the rules as they were read."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]

FIRST_RUN = """
import sys
import egc.cli, egc.compiler, egc.machine
from egc.resources import loop_rules
from egc.rules import load_rules

assert egc.__file__ == sys.argv[1] + "/egc/__init__.py", egc.__file__
for paths in (None, loop_rules(), loop_rules(gpu=True)):
    assert load_rules(paths).rules
assert "lark" not in sys.modules
assert "golden-cove-avx512" in egc.machine.machine_names()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel was unpacked into."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    [wheel] = folder.glob("*.whl")
    ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_the_first_run_reads_no_rules(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", FIRST_RUN, str(installed)]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / "cache").exists()


def test_the_wheel_holds_rules_and_machines_and_no_tests(installed: Path) -> None:
    data = installed / "egc" / "_data"
    assert {path.name for path in (data / "rules").glob("*.egg")} == {
        p.name for p in (ROOT / "rules").glob("*.egg")
    }
    assert {path.name for path in (data / "cost_models").glob("*.toml")} == {
        path.name for path in (ROOT / "cost_models").glob("*.toml")
    }
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {"egc"}


BUILD = """
import sys
from pathlib import Path

for name in ("numpy", "egglog", "onnx", "llvmlite", "rich", "ml_dtypes"):
    sys.modules[name] = None  # importing it fails
from egc.rules.book import read_ahead

read_ahead(Path(sys.argv[1]))
"""


def test_reading_the_rules_needs_no_more_than_the_build_has(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": os.devnull}
    command = [sys.executable, "-c", BUILD, str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert len(list(tmp_path.iterdir())) == 3
