"""Write the benchmark models: `python -m bench.make_models [--out DIR] [NAME …]`.

Architectures are real, weights random and seeded: the same name gives the same file. Needs onnx, numpy and
onnxruntime, no network and no PyTorch.
"""

import argparse
import functools
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import onnx

from bench.convolutional import LIGHT, light, mobilenet_v2
from bench.transformers import bert_base, gpt_small

DEFAULT_FOLDER = Path("build") / "models"

MAKERS: dict[str, Callable[[int], onnx.ModelProto]] = {
    **{name: functools.partial(light, name) for name in LIGHT},
    "mobilenet_v2": mobilenet_v2,
    "bert_base": bert_base,
    "gpt_small": gpt_small,
}


def make(name: str, folder: Path) -> Path:
    """Write one model, unless it is there; gives back its path. Never leaves half a file."""
    path = folder / f"{name}.onnx"
    if not path.exists():
        model = MAKERS[name](zlib.crc32(name.encode()))
        onnx.checker.check_model(model, full_check=True)
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.part")
        try:
            onnx.save(model, partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the benchmark models (all of them: 2 GB).")
    parser.add_argument("names", nargs="*", choices=[[], *MAKERS], metavar="NAME", help=", ".join(MAKERS))
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="default: %(default)s"
    )
    arguments = parser.parse_args()
    for name in arguments.names or MAKERS:
        path = make(name, arguments.out)
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
