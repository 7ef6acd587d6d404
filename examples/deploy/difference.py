"""The largest difference between the models of two run folders: `python difference.py RUN RUN`."""

import sys
from pathlib import Path

from safetensors.torch import load_file


def difference(first: Path, second: Path) -> float:
    """Over all entries of model.safetensors; the names must be the same."""
    one, two = (load_file(folder / "model.safetensors") for folder in (first, second))
    if one.keys() != two.keys():
        raise SystemExit(f"other names: {sorted(one.keys() ^ two.keys())}")
    return max(float((one[name].double() - two[name].double()).abs().max()) for name in one)


if __name__ == "__main__":
    sys.stdout.write(f"{difference(Path(sys.argv[1]), Path(sys.argv[2])):.3g}\n")
