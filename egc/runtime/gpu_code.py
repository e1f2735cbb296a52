"""The code section of a GPU artifact: PTX, how its functions are launched, and their loop nests as text.

It is JSON. A *dim* is an integer or the text of an expression (egc.ir.dims) over the program's symbols.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import asdict

from egc.errors import ArtifactError
from egc.runtime.manifest import DimText

ARCHITECTURE: Final = "nvptx64"  # what a GPU program's manifest names
VERSION: Final = 1


class Launch(Struct, frozen=True):
    """A function's launch: `blocks` (a dim) of `threads` threads; every block owns `scratch_bytes` (a dim) of
    the scratch memory, which is the last argument. `nest` is the text of its loop nest (egc.ir.text)."""

    blocks: DimText
    threads: int
    shared_bytes: int
    scratch_bytes: DimText
    nest: str


class GpuCode(Struct, frozen=True):
    """The functions of a program for GPUs of `arch`, such as `sm_80`, by name."""

    arch: str
    ptx: str
    launches: Mapping[str, Launch]

    def to_bytes(self) -> bytes:
        """Canonical bytes."""
        data = {
            "version": VERSION,
            "arch": self.arch,
            "ptx": self.ptx,
            "launches": {name: asdict(launch) for name, launch in self.launches.items()},
        }
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @staticmethod
    def from_bytes(data: bytes) -> GpuCode:
        """What `to_bytes` wrote; ArtifactError where it is something else."""
        try:
            table = json.loads(data)
            if table["version"] != VERSION:
                raise ValueError(f"it has version {table['version']}")
            launches = {name: Launch(**launch) for name, launch in table["launches"].items()}
            return GpuCode(table["arch"], table["ptx"], launches)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                "the artifact's GPU code cannot be read", why=str(error), hint="compile the model again"
            ) from None
