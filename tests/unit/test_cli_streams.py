"""The command `egc` and the streams it is given: closed, full, and of an encoding that lacks characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EGC = f"{sys.executable} -m egc"


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert "Traceback" not in done.stderr and "its own fault" not in done.stderr
    return done


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_leads_nowhere(closed: str) -> None:
    assert shell(f"{EGC} rules list {closed}").returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_behind_standard_output() -> None:
    done = shell(f"{EGC} rules list > /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("error: ") == 1


def test_an_encoding_that_lacks_characters() -> None:
    listed = shell(f"{EGC} rules list", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert listed.returncode == 0 and "?" in listed.stdout
    exact = shell(f"{EGC} rules list --json", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert any("≤" in (rule["math"] or "") for rule in json.loads(exact.stdout))


def test_a_reader_that_goes_away() -> None:
    done = shell(f"{EGC} rules list | head -1")
    assert done.stdout.startswith("name") and not done.stderr
