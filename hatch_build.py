"""What installing egc, or building its wheel, does beside copying files."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

READ = "egc/_data/read"  # where egc/resources.py looks for it


class ReadRules(BuildHookInterface):
    """Reads and checks the shipped rules, so that the first run need not.

    What comes of it goes into the wheel, or into the source tree where egc is installed from it to be edited;
    there it is used for as long as nobody changes the rules.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds; `version` is `editable` or `standard`."""
        self.scratch = TemporaryDirectory()
        place = Path(self.root, READ) if version == "editable" else Path(self.scratch.name)
        with suppress(OSError):  # a tree that may not be written to is installed without
            place.mkdir(parents=True, exist_ok=True)
        read = "import sys, pathlib, egc.rules.book as b; b.read_ahead(pathlib.Path(sys.argv[1]))"
        environment = {**os.environ, "XDG_CACHE_HOME": os.devnull}  # the user's own cache is left alone
        subprocess.run([sys.executable, "-c", read, str(place)], cwd=self.root, env=environment, check=True)
        if version != "editable":
            build_data["force_include"][str(place)] = READ

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called by hatchling when it has built."""
        self.scratch.cleanup()
