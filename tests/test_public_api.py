"""What the package promises: these names, and a command line that answers before heavy libraries are loaded."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import pytest

import wardround

HEAVY = ("torch", "sklearn", "matplotlib", "numpy", "pandas", "scipy")


def test_the_public_names_are_these() -> None:
    assert wardround.__all__ == ["Job", "__version__", "compare", "load", "predict", "run"]
    for name in wardround.__all__:
        assert getattr(wardround, name) is not None
    assert dir(wardround) == sorted(wardround.__all__)
    with pytest.raises(AttributeError, match="'train'"):
        wardround.train  # noqa: B018


def test_the_version_is_the_installed_one() -> None:
    assert wardround.__version__ == importlib.metadata.version("wardround")


def loaded_after(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter has loaded after some code."""
    show = f"import sys; print('\\n' + ' '.join(n for n in {HEAVY!r} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import wardround; wardround.Job; wardround.load") == set()


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_the_command_line_answers_before_anything_heavy_is_loaded(arguments: list[str]) -> None:
    code = f"from wardround.cli.app import app\nfrom wardround.cli.exit import guarded\nassert guarded(app, {arguments}) == 0"
    assert loaded_after(code) == set()


def test_a_job_that_is_wrong_is_refused_before_anything_heavy_is_loaded() -> None:
    code = (
        "from wardround.cli.app import app\nfrom wardround.cli.exit import guarded\n"
        "assert guarded(app, ['run', 'no-such-job.yaml']) == 2"
    )
    assert loaded_after(code) == set()


def test_the_installed_command_and_the_module_are_the_same() -> None:
    script = os.path.join(os.path.dirname(sys.executable), "wardround")
    commands = [[sys.executable, "-m", "wardround"]] + ([[script]] if os.path.exists(script) else [])
    for command in commands:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, f"wardround {wardround.__version__}")
