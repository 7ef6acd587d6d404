"""A virtual environment a framework, made from the package index where it is absent."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

FRAMEWORKS = {"flower": ("flwr", "1.41.0", "flwr[simulation]==1.41.0"), "pfl": ("pfl", "0.6.0", "pfl[pytorch]==0.6.0")}
"""Folder -> package, its version, and what is installed."""


def python_of(framework: str, folder: Path) -> str:
    """The interpreter of a framework's environment, complete with the same PyTorch as the product's.

    Raises:
        subprocess.CalledProcessError: the environment could not be made.
    """
    package, wanted, requirement = FRAMEWORKS[framework]
    home = folder / framework
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if _installed(python, package) != wanted:
        print(f"installing {requirement} into an environment of its own", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        torch = f"torch=={version('torch').partition('+')[0]}"
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # PyTorch first and by itself, so that a build chosen beforehand is kept
        subprocess.run([*pip, torch, "numpy"], check=True)
        subprocess.run([*pip, requirement, torch], check=True)
    return str(python.absolute())


def _installed(python: Path, package: str) -> str:
    if not python.exists():
        return ""
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=False)
    return done.stdout.strip()
