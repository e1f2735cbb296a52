"""A damaged model is a clear error or a model: never a traceback, a hang or an allocation of what it only
declares."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from egc.errors import BadInput
from egc.frontend.importer import import_model
from tests.fuzz.mutate import mutated

COUNT = 1100
MEMORY = 2 << 30
SECONDS = 120
MODELS = Path(__file__).parent.parent / "models"


def _originals() -> list[bytes]:
    files = sorted(MODELS.glob("*.onnx"), key=lambda path: path.stat().st_size)
    assert len(files) >= 4, "the tiny exports of tests/models are missing"
    return [path.read_bytes() for path in files[:8]]


def _import(seed: int, originals: list[bytes]) -> str:
    """What became of one mutated model: "imported", or "refused" with an error that says why."""
    _, data = mutated(seed, originals)
    try:
        imported = import_model(data)
    except BadInput as error:
        assert str(error).strip() and all(problem.what for problem in error.problems)
        return "refused"
    assert str(imported.graph)
    return "imported"


def _main() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    originals = _originals()
    for seed in range(COUNT):
        print(json.dumps([seed, "begun"]), flush=True)
        try:
            outcome = _import(seed, originals)
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"[:300]
        print(json.dumps([seed, outcome]), flush=True)


def test_mutated_models_are_refused_or_imported() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.test_mutations"]
    root = Path(__file__).parent.parent.parent
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=SECONDS, check=False)
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("[")]
    outcomes = dict(lines)
    assert len(outcomes) == COUNT, f"ended at seed {lines[-1][0]}: {run.stderr[-300:]}"
    wrong = {seed: outcome for seed, outcome in outcomes.items() if outcome not in ("refused", "imported")}
    assert not wrong
    counts = {kind: list(outcomes.values()).count(kind) for kind in ("refused", "imported")}
    assert min(counts.values()) > COUNT // 20, f"the mutations are all of one kind: {counts}"


if __name__ == "__main__":
    _main()
